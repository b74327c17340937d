//! Looking at directories and files below a root by descriptor.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};

/// Opens a directory below `root`: no link and no mount point is crossed on the way.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() {
        b"."
    } else {
        path.strip_suffix(b"/").unwrap_or(path)
    };
    rustix::fs::openat2(
        root,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )
}

/// `fstatat` without following a last link; None where there is nothing (any more).
pub(crate) fn stat_in(dir: BorrowedFd<'_>, name: &[u8]) -> Option<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}

/// Calls `each(name, type, inode)` for every entry but `.`, `..` and our own.
pub(crate) fn list(
    dir: BorrowedFd<'_>,
    mut each: impl FnMut(&[u8], FileType, u64),
) -> io::Result<()> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = CStr::to_bytes(entry.file_name());
        if name == b"." || name == b".." || crate::files::staged::is_own(name) {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                stat_in(dir, name).map_or(FileType::Unknown, |s| FileType::from_raw_mode(s.st_mode))
            }
            known => known,
        };
        each(name, kind, entry.ino());
    }
    Ok(())
}
