//! The simplest preserver: whole copies under numbers, for tests of the answerer alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{copy_file_range, openat, Mode, OFlags};

use super::keeper::{About, Preserver};
use crate::files::trouble::{Result, Trouble};

/// Last number given.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Copies into one directory.
#[derive(Debug)]
pub struct Plain(pub OwnedFd);

impl Plain {
    fn copy(&self, file: BorrowedFd<'_>, mut at: u64, end: u64) -> Result<u64> {
        let version = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{version:016x}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let out = openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Trouble::of(e, "copy cannot be made"))?;
        let mut to = at;
        while at < end {
            let step = (end - at).min(1 << 20) as usize;
            let done = copy_file_range(file, Some(&mut at), out.as_fd(), Some(&mut to), step)
                .map_err(|e| Trouble::of(e, "copy failed"))?;
            if done == 0 {
                break;
            }
        }
        Ok(version)
    }
}

impl Preserver for Plain {
    fn image(&mut self, file: BorrowedFd<'_>, _: &About<'_>) -> Result<u64> {
        self.copy(file, 0, u64::MAX)
    }

    fn range(&mut self, file: BorrowedFd<'_>, _: &About<'_>, offset: u64, len: u64) -> Result<u64> {
        self.copy(file, offset, offset + len)
    }
}
