//! File handles: names that outlive every rename (open_by_handle_at(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::records::word;

/// Longest handle, bytes (`MAX_HANDLE_SZ`).
pub const HANDLE: usize = 128;

/// A handle that is kept, aligned for the kernel.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Kept {
    bytes: [u8; 8 + HANDLE],
}

/// Opens what a handle stands for; `mount` is any descriptor on its file system. ESTALE: it is gone. Needs
/// CAP_DAC_READ_SEARCH.
pub fn open_handle(mount: BorrowedFd<'_>, raw: &[u8], flags: i32) -> io::Result<OwnedFd> {
    let mut kept = Kept {
        bytes: [0; 8 + HANDLE],
    };
    let room = kept
        .bytes
        .get_mut(..raw.len())
        .filter(|room| room.len() >= 8)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    room.copy_from_slice(raw);
    if word(raw, 0) as usize != raw.len() - 8 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `kept` is aligned, and holds as many bytes after the head of the handle as the head says.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_raw_fd(),
            kept.bytes.as_mut_ptr().cast(),
            flags | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The handle of what `fd` is open on (`O_PATH` is fine), and the number of the mount that it was opened through.
pub fn handle_of(fd: BorrowedFd<'_>) -> io::Result<(Vec<u8>, i32)> {
    let mut kept = Kept {
        bytes: [0; 8 + HANDLE],
    };
    kept.bytes[..4].copy_from_slice(&(HANDLE as u32).to_ne_bytes());
    let mut mount = 0;
    // SAFETY: `kept` is aligned and has room for as many bytes as its head says; the path is a constant, empty string.
    let done = unsafe {
        libc::name_to_handle_at(
            fd.as_raw_fd(),
            c"".as_ptr(),
            kept.bytes.as_mut_ptr().cast(),
            &mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let length = 8 + (word(&kept.bytes, 0) as usize).min(HANDLE);
    Ok((kept.bytes[..length].to_vec(), mount))
}

/// What [`super::Handle::key`] is of events about it.
pub fn key_of(fsid: u64, raw: &[u8]) -> Vec<u8> {
    let mut key = fsid.to_ne_bytes().to_vec();
    key.extend_from_slice(raw);
    key
}

/// The id that events of the file system of `fd` carry (`f_fsid`).
pub fn fsid_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the kernel fills the record where it returns 0, and only then is it read.
    let done = unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded.
    let id = unsafe { stat.assume_init() }.f_fsid;
    // SAFETY: `fsid_t` is two 32-bit integers and nothing else; its fields have no public names.
    let words: [u32; 2] = unsafe { std::mem::transmute(id) };
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&words[0].to_ne_bytes());
    bytes[4..].copy_from_slice(&words[1].to_ne_bytes());
    Ok(u64::from_ne_bytes(bytes))
}
