//! Files by descriptor, for whoever reads one in Python.

use rustix::fs::OFlags;
use std::os::fd::{BorrowedFd, IntoRawFd};

use shieldd_sys::files::open::open_beneath;
use shieldd_sys::files::staged::{hidden_name, is_own};

use crate::abi::{guarded, Failure, ShdError};

/// Opens `path` beneath `root_fd`: no link, no mount, nothing outside on the way. The caller closes `out`.
///
/// # Safety
/// `path` points to `path_len` readable bytes, `out` to a writable integer, `error` is null or writable; `root_fd` is
/// an open descriptor for the whole call.
#[no_mangle]
pub unsafe extern "C" fn shd_open_beneath(
    root_fd: i32,
    path: *const u8,
    path_len: usize,
    flags: i32,
    out: *mut i32,
    error: *mut ShdError,
) -> i32 {
    let body = || {
        if path.is_null() || out.is_null() || root_fd < 0 {
            return Err(Failure::new(
                "native.argument",
                "null pointer or closed descriptor",
            ));
        }
        // SAFETY: the caller promises so many readable bytes.
        let path = unsafe { std::slice::from_raw_parts(path, path_len) };
        // SAFETY: the caller promises an open descriptor.
        let root = unsafe { BorrowedFd::borrow_raw(root_fd) };
        let allowed = OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = OFlags::from_bits_truncate(flags as u32) & allowed | OFlags::RDONLY;
        match open_beneath(root, path, flags) {
            Ok(fd) => {
                // SAFETY: the caller promises a writable integer.
                unsafe { *out = fd.into_raw_fd() };
                Ok(())
            }
            Err(errno) => Err(Failure {
                code: code_of(errno),
                errno: errno.raw_os_error(),
                message: String::new(),
            }),
        }
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// Makes a hidden name that counts as ours for a moment: 33 bytes into `out`.
///
/// # Safety
/// `out` points to 33 writable bytes, `error` is null or writable.
#[no_mangle]
pub unsafe extern "C" fn shd_hidden_name(out: *mut u8, error: *mut ShdError) -> i32 {
    let body = || {
        let name = hidden_name().map_err(|e| Failure::new(e.code, e.message))?;
        if out.is_null() || name.len() != 33 {
            return Err(Failure::new("native.argument", "null pointer"));
        }
        // SAFETY: the caller promises so many writable bytes.
        unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), out, name.len()) };
        Ok(())
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// Whether this process made that hidden name a moment ago.
///
/// # Safety
/// `name` points to `len` readable bytes.
#[no_mangle]
pub unsafe extern "C" fn shd_is_own_name(name: *const u8, len: usize) -> bool {
    if name.is_null() {
        return false;
    }
    // SAFETY: the caller promises so many readable bytes.
    is_own(unsafe { std::slice::from_raw_parts(name, len) })
}

fn code_of(errno: rustix::io::Errno) -> &'static str {
    use rustix::io::Errno;
    match errno {
        Errno::NOENT | Errno::NOTDIR => "file.missing",
        Errno::ACCESS | Errno::PERM => "file.denied",
        Errno::LOOP => "file.symlink",
        Errno::XDEV => "file.mount",
        Errno::NAMETOOLONG | Errno::INVAL => "file.name",
        Errno::ISDIR => "file.directory",
        Errno::NXIO | Errno::NODEV => "file.not-regular",
        Errno::AGAIN => "file.race",
        _ => "file.io",
    }
}
