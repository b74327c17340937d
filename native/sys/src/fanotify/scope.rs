//! Which directory a handle stands for, and whether that lies in a guarded tree.
//!
//! A handle seen for the first time is opened and followed up to a directory that is known, by handles and not by
//! paths: mounts, namespaces and renames on the way do not matter. Directories outside every tree are remembered as
//! such, so that their events cost one look into a table.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fstat, openat, readlink, statat, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::kernel::{handle_of, key_of, open_handle, Handle};

/// Outside every tree.
pub(super) const OUTSIDE: i32 = -1;
/// Directories outside that are remembered.
const OUTSIDE_MOST: usize = 65_536;
/// Directories inside that are remembered; about 30 MB.
pub(super) const INSIDE_MOST: usize = 131_072;
/// Levels of directories at most: what `PATH_MAX` allows.
const DEEPEST: usize = 2048;
/// Looks at a directory that moves meanwhile.
const TRIES: usize = 3;

/// Hashes handles: inode numbers and generations, which nobody can choose freely.
#[derive(Default, Clone, Copy)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(eight));
        }
    }
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0 ^ n) * 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64) ^ n;
    }
}

type Keys = HashMap<Box<[u8]>, i32, BuildHasherDefault<Mix>>;

/// One directory on the way up: what it is called in the next.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) key: Vec<u8>,
    pub(super) name: Vec<u8>,
}

/// Where the way up ended.
#[derive(Debug)]
pub(super) enum Top {
    /// At a directory that is known: its id.
    Known(i32),
    /// At the top of the file system or of the mount.
    Outside,
    /// The directory does not exist any more.
    Gone,
    /// It cannot be told (no memory, no descriptors left).
    Failed,
}

/// Handles and what they stand for: the id of a directory, [`OUTSIDE`], or a lower number for one in limbo.
#[derive(Default)]
pub(super) struct Scope {
    keys: Keys,
    outside: HashSet<Box<[u8]>, BuildHasherDefault<Mix>>,
    /// What was asked for last: the next event is often of the same directory.
    last: (Vec<u8>, i32),
    last_id: i32,
}

impl Scope {
    /// An id that was never given out.
    pub(super) fn new_id(&mut self) -> i32 {
        self.last_id += 1;
        self.last_id
    }

    #[inline]
    pub(super) fn get(&mut self, key: &[u8]) -> Option<i32> {
        if self.last.0 == key {
            return Some(self.last.1);
        }
        let found = if self.outside.contains(key) {
            OUTSIDE
        } else {
            *self.keys.get(key)?
        };
        self.last.0.clear();
        self.last.0.extend_from_slice(key);
        self.last.1 = found;
        Some(found)
    }

    pub(super) fn put(&mut self, key: &[u8], id: i32) {
        self.last.0.clear();
        if id == OUTSIDE {
            self.keys.remove(key);
            if self.outside.len() >= OUTSIDE_MOST {
                self.outside.clear();
            }
            self.outside.insert(key.into());
        } else {
            self.outside.remove(key);
            self.keys.insert(key.into(), id);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.last.0.clear();
        self.keys.remove(key);
        self.outside.remove(key);
    }

    /// Directories outside are looked at anew: one of them may have come into a tree with all below it.
    pub(super) fn doubt_outside(&mut self) {
        self.last.0.clear();
        self.outside.clear();
    }

    /// Only what `keep` says of an id is kept, and nothing that is outside.
    pub(super) fn retain(&mut self, keep: impl Fn(i32) -> bool) {
        self.doubt_outside();
        self.keys.retain(|_, &mut id| keep(id));
    }

    /// The way from a handle up to something known. `root` is the root of a tree on its file system, opened through the
    /// mount numbered `mount`.
    pub(super) fn climb(
        &mut self,
        root: BorrowedFd<'_>,
        mount: i32,
        handle: Handle<'_>,
        known: impl Fn(i32) -> bool,
    ) -> (Top, Vec<Step>) {
        let mut steps = Vec::new();
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let mut dir = match open_handle(root, handle.raw(), flags) {
            Ok(dir) => dir,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)) => {
                return (Top::Gone, steps);
            }
            Err(_) => return (Top::Failed, steps),
        };
        let mut key = handle.key.to_vec();
        while steps.len() < DEEPEST {
            let above = match above(dir.as_fd(), mount) {
                Ok(above) => above,
                Err(top) => return (top, steps),
            };
            if above.raw == key[8..] {
                return (Top::Outside, steps);
            }
            steps.push(Step {
                key: std::mem::replace(&mut key, key_of(handle.fsid(), &above.raw)),
                name: above.name,
            });
            match self.get(&key) {
                Some(OUTSIDE) => return (Top::Outside, steps),
                Some(id) if id > 0 && known(id) => return (Top::Known(id), steps),
                _ => dir = above.dir,
            }
        }
        (Top::Failed, steps)
    }
}

/// The directory above one, and what that is called in it.
struct Above {
    dir: OwnedFd,
    raw: Vec<u8>,
    name: Vec<u8>,
}

fn above(dir: BorrowedFd<'_>, mount: i32) -> Result<Above, Top> {
    let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let here = fstat(dir).map_err(|_| Top::Failed)?;
    for _ in 0..TRIES {
        let above = match openat(dir, "..", how, Mode::empty()) {
            Ok(above) => above,
            // not below what is mounted here
            Err(Errno::NOENT) => return Err(Top::Outside),
            Err(_) => return Err(Top::Failed),
        };
        let (raw, through) = handle_of(above.as_fd()).map_err(|_| Top::Failed)?;
        if through != mount {
            return Err(Top::Outside);
        }
        let name = name_of(dir).map_err(|_| Top::Failed)?;
        let same = match statat(&above, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there.st_ino == here.st_ino || there.st_dev != here.st_dev,
            Err(_) => false,
        };
        if same || name.is_empty() {
            return Ok(Above {
                dir: above,
                raw,
                name,
            });
        }
    }
    Err(Top::Gone)
}

/// Last name of what is open, as the kernel has it; empty for the top.
fn name_of(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    use std::os::fd::AsRawFd;
    let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    let path = link.to_bytes();
    Ok(path
        .rsplit(|&b| b == b'/')
        .next()
        .unwrap_or_default()
        .to_vec())
}
