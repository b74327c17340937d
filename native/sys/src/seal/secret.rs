//! Memory for keys: locked, left out of core dumps, emptied in a forked child, wiped when done.

use std::ptr::NonNull;

use rustix::mm::{madvise, mlock, mmap_anonymous, munmap, Advice, MapFlags, ProtFlags};
use zeroize::Zeroize;

use crate::files::trouble::{Result, Trouble};

const PAGE: usize = 4096;
/// Keys that fit: the first place of the page holds the mark of a living page.
pub const PLACES: usize = PAGE / 32 - 1;
const ALIVE: u8 = 0xA5;

/// One page of keys, 32 bytes each.
pub struct Page {
    at: NonNull<[u8; PAGE]>,
    used: [bool; PLACES],
    locked: bool,
}

// SAFETY: the page is owned by this value alone and reached only through its methods.
unsafe impl Send for Page {}
// SAFETY: shared methods only read.
unsafe impl Sync for Page {}

impl Page {
    /// A fresh page.
    pub fn new() -> Result<Page> {
        let failed = |e| Trouble::data(e, "no memory for keys");
        // SAFETY: a new private anonymous mapping at a place of the kernel's choice.
        let at = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .map_err(failed)?;
        // SAFETY: the mapping is ours and PAGE bytes long. RLIMIT_MEMLOCK may be used up: keys stay usable then,
        // and `locked` says so.
        let locked = unsafe { mlock(at, PAGE) }.is_ok();
        for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
            // SAFETY: as above; both only mark the mapping.
            let _best_effort = unsafe { madvise(at, PAGE, advice) };
        }
        let mut at = NonNull::new(at.cast::<[u8; PAGE]>())
            .ok_or_else(|| failed(rustix::io::Errno::NOMEM))?;
        // SAFETY: mapped, writable, PAGE bytes, not shared yet.
        unsafe { at.as_mut()[0] = ALIVE };
        Ok(Page {
            at,
            used: [false; PLACES],
            locked,
        })
    }

    /// Whether the kernel keeps it out of swap.
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// Copies a key in; `None` where the page is full.
    pub fn put(&mut self, key: &[u8; 32]) -> Option<usize> {
        let place = self.used.iter().position(|used| !used)?;
        self.used[place] = true;
        let at = 32 * (place + 1);
        // SAFETY: mapped and writable; `&mut self` excludes every other access.
        let page = unsafe { self.at.as_mut() };
        page[at..at + 32].copy_from_slice(key);
        Some(place)
    }

    /// The key at `place`.
    ///
    /// # Errors
    /// `keys.locked` in a forked child, where the kernel emptied the page: an all-zero key must never be used.
    pub fn get(&self, place: usize) -> Result<&[u8; 32]> {
        // SAFETY: mapped, readable, and written only through `&mut self`.
        let page = unsafe { self.at.as_ref() };
        if page[0] != ALIVE {
            return Err(Trouble::new(
                "keys.locked",
                "keys do not follow into a forked process",
            ));
        }
        let at = 32 * (place + 1);
        page[at..at + 32]
            .try_into()
            .map_err(|_| Trouble::new("native.argument", "no such place"))
    }

    /// Wipes the key at `place`.
    pub fn wipe(&mut self, place: usize) {
        let at = 32 * (place + 1);
        // SAFETY: mapped and writable; `&mut self` excludes every other access.
        let page = unsafe { self.at.as_mut() };
        page[at..at + 32].zeroize();
        self.used[place] = false;
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped and writable until the unmap, which is the last use.
        unsafe {
            self.at.as_mut().zeroize();
            let _unmapped = munmap(self.at.as_ptr().cast(), PAGE);
        }
    }
}
