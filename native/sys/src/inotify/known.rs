//! The known state: each file's inode, size and times as they were last reported, by directory.
//!
//! It is what a rescan compares with, so that what the kernel lost is found and named, deleted files included.

use std::collections::HashMap;

use rustix::fs::Stat;

use crate::events::dirs::{Spread, Table};

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
}

/// How a file differs from what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Same,
    New,
    Replaced,
    Written,
    Attributes,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Stamp {
        Stamp {
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime_ns: stat
                .st_mtime
                .wrapping_mul(1_000_000_000)
                .wrapping_add(stat.st_mtime_nsec as i64),
            ctime_ns: stat
                .st_ctime
                .wrapping_mul(1_000_000_000)
                .wrapping_add(stat.st_ctime_nsec as i64),
        }
    }

    fn change_to(self, now: Stamp) -> Change {
        if self == now {
            Change::Same
        } else if self.ino != now.ino {
            Change::Replaced
        } else if self.size != now.size || self.mtime_ns != now.mtime_ns {
            Change::Written
        } else {
            Change::Attributes
        }
    }
}

struct File {
    stamp: Stamp,
    /// Rescan that last saw it.
    seen: u32,
}

type Files = HashMap<Box<[u8]>, File>;

/// All known files; beyond `capacity` files are counted, not kept: their changes are seen, their deletion in a gap is not.
pub(super) struct Known {
    dirs: Table<i32, Files>,
    count: usize,
    capacity: usize,
    pub(super) beyond: u64,
}

impl Known {
    pub(super) fn new(capacity: usize) -> Self {
        let hasher = std::hash::BuildHasherDefault::<Spread>::default();
        Known {
            dirs: HashMap::with_hasher(hasher),
            count: 0,
            capacity,
            beyond: 0,
        }
    }

    /// Remembers a file; says how it differs from what was known.
    pub(super) fn put(&mut self, dir: i32, name: &[u8], stamp: Stamp, seen: u32) -> Change {
        if let Some(file) = self
            .dirs
            .get_mut(&dir)
            .and_then(|files| files.get_mut(name))
        {
            let change = file.stamp.change_to(stamp);
            *file = File { stamp, seen };
            return change;
        }
        if self.count >= self.capacity {
            self.beyond += 1;
        } else {
            self.count += 1;
            self.dirs
                .entry(dir)
                .or_default()
                .insert(name.into(), File { stamp, seen });
        }
        Change::New
    }

    /// Size of a file as it was last reported.
    pub(super) fn size(&self, dir: i32, name: &[u8]) -> Option<u64> {
        Some(self.dirs.get(&dir)?.get(name)?.stamp.size)
    }

    pub(super) fn has(&self, dir: i32, name: &[u8]) -> bool {
        self.dirs
            .get(&dir)
            .is_some_and(|files| files.contains_key(name))
    }

    pub(super) fn remove(&mut self, dir: i32, name: &[u8]) {
        if let Some(files) = self.dirs.get_mut(&dir) {
            if files.remove(name).is_some() {
                self.count -= 1;
                if files.is_empty() {
                    self.dirs.remove(&dir);
                }
            }
        }
    }

    pub(super) fn remove_dir(&mut self, dir: i32) {
        if let Some(files) = self.dirs.remove(&dir) {
            self.count -= files.len();
        }
    }

    pub(super) fn rekey(&mut self, old: i32, new: i32) {
        if let Some(files) = self.dirs.remove(&old) {
            self.dirs.insert(new, files);
        }
    }

    /// Takes out the names of a directory that rescan `seen` did not meet.
    pub(super) fn missing(&mut self, dir: i32, seen: u32) -> Vec<Box<[u8]>> {
        let Some(files) = self.dirs.get(&dir) else {
            return Vec::new();
        };
        let gone: Vec<Box<[u8]>> = files
            .iter()
            .filter(|(_, f)| f.seen != seen)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &gone {
            self.remove(dir, name);
        }
        gone
    }

    /// Names of the known files of a directory.
    pub(super) fn names(&self, dir: i32) -> Vec<Box<[u8]>> {
        self.dirs
            .get(&dir)
            .map_or_else(Vec::new, |files| files.keys().cloned().collect())
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}
