//! The control block: memory that daemon, answerer and supervisor share, words that are read and written atomically.
//!
//! A sealed memfd, so that its size cannot change under a mapping. Layout in 8-byte words: [`Word`]s first, then the
//! table of [`super::verdicts`], then the ring of [`super::ring`]. Who writes which word is said at the word; nobody
//! waits for anybody here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create, MemfdFlags, SealFlags,
};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use super::{ring, verdicts};

/// First word: layout and its version.
const MAGIC: u64 = 0x7368_6c64_686c_0001;
/// Words before the table of verdicts.
const HEAD: usize = 512;
const WORDS: usize = HEAD + verdicts::SLOTS + ring::WORDS;

/// The words with a meaning of their own, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Word {
    /// Layout and version; daemon.
    Magic,
    /// Last heart-beat of the answerer, monotonic ns.
    Beat,
    /// [`State`] of the answerer.
    State,
    /// Process id of the answerer.
    Pid,
    /// Last heart-beat of the supervisor, monotonic ns.
    SupervisorBeat,
    /// Answerers that the supervisor killed.
    Kills,
    /// When it last did, `CLOCK_REALTIME` ns.
    KilledAt,
    /// [`covers`] bits; answerer.
    Covers,
    /// Entries in the table that deny; daemon.
    Denied,
    /// Asks for the ignore marks and directories to be forgotten: counted up by the daemon.
    Refresh,
    /// Bytes ever written to the ring; answerer.
    Head,
    /// Bytes ever read from it; daemon.
    Tail,
    /// Why the answerer ended, an `errno`; answerer.
    Failure,
    /// Permission events read. From here on: counters of the answerer.
    Events,
    /// Answered at once: reads.
    Reads,
    /// Answered at once: our own processes.
    Own,
    /// Answered at once: outside the trees, or left out.
    Outside,
    /// Answered at once: nothing in it, or not a regular file.
    Empty,
    /// Taken for writes because they could not be decoded.
    Undecoded,
    /// From a mount that could not be told: taken as inside.
    Foreign,
    /// Writes that waited for a version.
    Held,
    /// Refused.
    Denials,
    /// Waited for a verdict.
    Asked,
    /// Waited in vain.
    Unasked,
    /// Versions kept.
    Preserved,
    /// Bytes of them.
    PreservedBytes,
    /// Let go without a version: the vault is full.
    LostFull,
    /// Let go without a version: it took too long, or the vault hangs.
    LostLate,
    /// Let go without a version: the vault failed.
    LostFailed,
    /// Accesses to ranges (`FAN_PRE_ACCESS`).
    Accesses,
    /// Ranges kept.
    Ranges,
    /// Records written to the ring.
    Records,
    /// Records that had no room.
    RecordsLost,
    /// Directories outside that are ignored by mark, put ever.
    Ignored,
    /// Longest that one opener was held, ns.
    LongestNs,
    /// Openers held now.
    Pending,
    /// Keepers that do not come back now.
    Stuck,
    /// Since when no keeper answers, `CLOCK_REALTIME` ns; 0 where they do.
    StuckSince,
    /// Times that so many waited that all were let go at once.
    Herds,
    /// Openers let go unseen then.
    LetGo,
}

/// Number of [`Word`]s.
pub const NAMED: usize = Word::LetGo as usize + 1;

/// State of the answerer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// It prepares; nothing is held.
    Starting,
    /// It answers.
    Running,
    /// It ended in order.
    Ended,
}

/// What an answerer covers.
pub mod covers {
    /// Opens are held.
    pub const OPENS: u64 = 1;
    /// truncate(path) and ranges of large files are seen (Linux 6.14).
    pub const RANGES: u64 = 2;
    /// Memory is locked.
    pub const LOCKED: u64 = 4;
    /// Runs at a fixed priority.
    pub const REALTIME: u64 = 8;
    /// Directories that move are noticed at once.
    pub const MOVES: u64 = 16;
}

/// The block, mapped.
#[derive(Debug)]
pub struct Control {
    fd: OwnedFd,
    at: NonNull<AtomicU64>,
}

// SAFETY: the memory is shared with other processes anyway; all access is through atomics.
unsafe impl Send for Control {}
// SAFETY: as above.
unsafe impl Sync for Control {}

impl Control {
    /// A new block.
    pub fn create() -> io::Result<Control> {
        let fd = memfd_create(
            "shieldd-hold",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        ftruncate(&fd, (WORDS * 8) as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let control = Control::map(fd)?;
        control.word(Word::Magic).store(MAGIC, Ordering::Release);
        Ok(control)
    }

    /// One that the daemon made.
    pub fn open(fd: OwnedFd) -> io::Result<Control> {
        let sealed = fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK);
        if !sealed || fstat(&fd)?.st_size != (WORDS * 8) as i64 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let control = Control::map(fd)?;
        if control.get(Word::Magic) != MAGIC {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(control)
    }

    fn map(fd: OwnedFd) -> io::Result<Control> {
        // SAFETY: a new mapping at a place that the kernel chooses; the file has this size and is sealed against
        // shrinking, so no access beyond its end can fault.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                WORDS * 8,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &fd,
                0,
            )?
        };
        let at =
            NonNull::new(at.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(Control { fd, at })
    }

    /// The memfd, to hand over.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `WORDS` aligned words, is zeroed by the kernel, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), WORDS) }
    }

    /// One word.
    pub fn word(&self, which: Word) -> &AtomicU64 {
        &self.words()[which as usize]
    }

    /// Its value.
    pub fn get(&self, which: Word) -> u64 {
        self.word(which).load(Ordering::Acquire)
    }

    /// Sets it.
    pub fn set(&self, which: Word, value: u64) {
        self.word(which).store(value, Ordering::Release);
    }

    /// Counts it up.
    pub fn count(&self, which: Word, by: u64) {
        self.word(which).fetch_add(by, Ordering::Relaxed);
    }

    /// Takes away what an answerer that is gone left.
    pub fn prepare(&self) {
        self.set(Word::State, State::Starting as u64);
        for word in [
            Word::Pid,
            Word::Covers,
            Word::Pending,
            Word::Stuck,
            Word::StuckSince,
        ] {
            self.set(word, 0);
        }
    }

    /// All named words.
    pub fn named(&self) -> [u64; NAMED] {
        let mut out = [0; NAMED];
        for (value, word) in out.iter_mut().zip(self.words()) {
            *value = word.load(Ordering::Acquire);
        }
        out
    }

    pub(super) fn table(&self) -> &[AtomicU64] {
        &self.words()[HEAD..HEAD + verdicts::SLOTS]
    }

    pub(super) fn ring(&self) -> &[AtomicU64] {
        &self.words()[HEAD + verdicts::SLOTS..]
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used after this.
        if unsafe { munmap(self.at.as_ptr().cast(), WORDS * 8) }.is_err() {
            // nothing of it is used any more
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_see_one_block() {
        let ours = Control::create().unwrap();
        let theirs = Control::open(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        theirs.set(Word::LetGo, 7);
        assert_eq!(ours.named()[NAMED - 1], 7);
        const { assert!(NAMED < HEAD) };
    }

    #[test]
    fn anything_else_is_refused() {
        let file = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, (WORDS * 8) as u64).unwrap();
        assert!(Control::open(file).is_err());
    }
}
