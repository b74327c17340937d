//! The kernel's side of inotify: descriptor, watches, and the records of one read.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What every directory is watched for. `IN_MODIFY` shows writers that never close, `IN_EXCL_UNLINK` leaves out
/// files that have no name any more.
pub(super) const MASK: u32 = libc::IN_CREATE
    | libc::IN_MODIFY
    | libc::IN_CLOSE_WRITE
    | libc::IN_ATTRIB
    | libc::IN_DELETE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_ONLYDIR
    | libc::IN_EXCL_UNLINK;

/// What a tree's root is watched for beside [`MASK`].
pub(super) const ROOT_MASK: u32 = libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;

/// Length of a record without its name, bytes (`struct inotify_event`).
const HEADER: usize = 16;

/// One record of the kernel's queue.
pub(super) struct Raw<'a> {
    pub(super) wd: i32,
    pub(super) mask: u32,
    pub(super) cookie: u32,
    /// Without the padding zeros; empty for events of the directory itself.
    pub(super) name: &'a [u8],
}

/// Walks the records of one read.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Records { rest: bytes }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(four)
}

/// Length of a zero-padded name: the kernel pads to a multiple of 16, so the end lies in the last 16 bytes.
fn trimmed(padded: &[u8]) -> usize {
    let mut end = padded.len();
    while let Some(at) = end.checked_sub(8) {
        let mut eight = [0; 8];
        eight.copy_from_slice(&padded[at..end]);
        let value = u64::from_le_bytes(eight);
        if value != 0 {
            return end - (value.leading_zeros() / 8) as usize;
        }
        end = at;
    }
    padded[..end].iter().position(|&b| b == 0).unwrap_or(end)
}

impl<'a> Iterator for Records<'a> {
    type Item = Raw<'a>;

    #[inline]
    fn next(&mut self) -> Option<Raw<'a>> {
        if self.rest.len() < HEADER {
            return None;
        }
        let head = &self.rest[..HEADER];
        let end = (HEADER + word(head, 12) as usize).min(self.rest.len());
        let padded = &self.rest[HEADER..end];
        let raw = Raw {
            wd: word(head, 0) as i32,
            mask: word(head, 4),
            cookie: word(head, 8),
            name: &padded[..trimmed(padded)],
        };
        self.rest = &self.rest[end..];
        Some(raw)
    }
}

/// A new queue, non-blocking, closed on exec.
pub(super) fn init() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Watches the very directory that `dir` is open on, whatever its name is by now.
pub(super) fn watch(queue: BorrowedFd<'_>, dir: BorrowedFd<'_>, mask: u32) -> io::Result<i32> {
    // Through /proc the name cannot be swapped under us, and no path length limit applies.
    let mut path = [0u8; 32];
    let mut cursor = io::Cursor::new(&mut path[..]);
    io::Write::write_fmt(
        &mut cursor,
        format_args!("/proc/self/fd/{}\0", dir.as_raw_fd()),
    )?;
    // SAFETY: `path` is zero-terminated and outlives the call.
    let wd = unsafe { libc::inotify_add_watch(queue.as_raw_fd(), path.as_ptr().cast(), mask) };
    if wd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(wd)
}

/// Takes a watch away; a watch that is gone already is no error.
pub(super) fn unwatch(queue: BorrowedFd<'_>, wd: i32) {
    // SAFETY: no pointers. EINVAL means that the kernel removed it first, which is what we want.
    unsafe { libc::inotify_rm_watch(queue.as_raw_fd(), wd) };
}

/// Bytes that wait in the queue now.
pub(super) fn waiting(queue: BorrowedFd<'_>) -> u64 {
    rustix::io::ioctl_fionread(queue).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_padding() {
        for len in 0..=255usize {
            let mut padded = vec![b'x'; len];
            if len > 0 {
                padded.resize((len + 1).div_ceil(16) * 16, 0);
            }
            assert_eq!(trimmed(&padded), len);
        }
    }

    #[test]
    fn torn_records_end_the_walk() {
        let bytes = [1u8; 20];
        assert_eq!(Records::new(&bytes).count(), 1);
        assert_eq!(Records::new(&bytes[..15]).count(), 0);
    }
}
