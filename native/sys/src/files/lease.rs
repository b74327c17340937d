//! Leases: whether somebody has the file open for writing, and holding off who would open it now.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::trouble::{Result, Trouble};

/// `F_SETSIG` of `asm-generic/fcntl.h`, the same on every Linux that this runs on; libc does not name it.
const F_SETSIG: libc::c_int = 10;

/// A read lease; given back when dropped.
///
/// While it is held, opening the file for writing and truncating it wait (at most `fs.lease-break-time`, 45 s).
pub struct Lease<'a>(Option<BorrowedFd<'a>>);

impl Lease<'_> {
    /// Takes a read lease on `fd`, which must be open for reading only.
    ///
    /// # Errors
    /// `file.busy`: a program has it open for writing. Where leases are not to be had (another owner's file without
    /// `CAP_LEASE`, a network file system) the caller's comparison of stamps has to do, and an empty lease is returned.
    pub fn take(fd: BorrowedFd<'_>) -> Result<Lease<'_>> {
        let raw = fd.as_raw_fd();
        // The signal of a broken lease must be one that does nothing by default: SIGIO would end the process.
        // SAFETY: F_SETSIG on an open descriptor changes only which signal it would send.
        unsafe { libc::fcntl(raw, F_SETSIG, libc::SIGURG) };
        // SAFETY: F_SETLEASE on an open descriptor, integer argument.
        if unsafe { libc::fcntl(raw, libc::F_SETLEASE, libc::F_RDLCK) } == 0 {
            return Ok(Lease(Some(fd)));
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN) => Err(Trouble {
                code: "file.busy",
                errno: libc::EAGAIN,
                message: "a program has the file open for writing".into(),
            }),
            _ => Ok(Lease(None)),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(fd) = self.0 {
            // SAFETY: F_SETLEASE on a descriptor that the borrow keeps open.
            unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        }
    }
}
