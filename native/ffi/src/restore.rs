//! Bringing preserved files back, many in one call.

use std::os::fd::BorrowedFd;

use shieldd_sys::restore::batch::There;
use shieldd_sys::restore::{run, Act, Item, Over, Wanted};

use crate::abi::{guarded, put_error, Failure, ShdError};

/// One file to bring back; `shieldd/native/restore.py` says what each field means.
#[repr(C)]
pub struct ShdRestoreItem {
    /// Path relative to the root.
    pub path: *const u8,
    /// Its length.
    pub path_len: usize,
    /// Other path, of a move or a twin.
    pub other: *const u8,
    /// Its length.
    pub other_len: usize,
    /// Extended attributes: for each the length of its name (u16) and of its value (u32), name, value; little-endian.
    pub xattrs: *const u8,
    /// Length of that.
    pub xattrs_len: usize,
    /// Hidden name, 33 bytes.
    pub hidden: [u8; 33],
    /// 0 copy, 1 link, 2 move back, 3 twin, 4 dress, 5 tidy.
    pub act: u8,
    /// 0 nothing may be there, 1 what is there is dropped, 2 it is set aside.
    pub over: u8,
    /// Whether `digest` is known.
    pub digest_known: u8,
    /// Whether `xattrs` are all that it had.
    pub xattrs_whole: u8,
    /// The version, -1 where there is none.
    pub version_fd: i32,
    /// What it is to be: bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access, ns.
    pub atime_ns: i64,
    /// Last change of content, ns.
    pub mtime_ns: i64,
    /// BLAKE3 of the content.
    pub digest: [u8; 32],
    /// What was seen when the plan was made: device.
    pub there_dev: u64,
    /// Inode.
    pub there_ino: u64,
    /// Bytes.
    pub there_size: u64,
    /// Last change of content, ns.
    pub there_mtime_ns: i64,
}

/// How one file went.
#[repr(C)]
pub struct ShdRestored {
    /// 0 done, 1 failed.
    pub status: i32,
    /// Why it failed.
    pub error: ShdError,
    /// BLAKE3 of the content, zero where none was read.
    pub digest: [u8; 32],
    /// The inode that has the name now.
    pub ino: u64,
    /// How many attributes were not taken.
    pub skipped: u32,
    /// Length of `aside`.
    pub aside_len: u32,
    /// Name of what was set aside.
    pub aside: [u8; 256],
}

/// Brings `count` files back beneath `root_fd`; one answer each.
///
/// # Safety
/// `items` points to `count` readable records whose pointers are readable for their lengths and whose descriptors are
/// open, `out` to as many writable ones, `error` is null or writable; `root_fd` is open for the whole call.
#[no_mangle]
pub unsafe extern "C" fn shd_restore_run(
    root_fd: i32,
    items: *const ShdRestoreItem,
    count: usize,
    out: *mut ShdRestored,
    error: *mut ShdError,
) -> i32 {
    let body = || {
        if items.is_null() || out.is_null() || root_fd < 0 {
            return Err(Failure::new(
                "native.argument",
                "null pointer or closed descriptor",
            ));
        }
        // SAFETY: the caller promises so many readable records.
        let given = unsafe { std::slice::from_raw_parts(items, count) };
        // SAFETY: the caller promises so many writable records.
        let answers = unsafe { std::slice::from_raw_parts_mut(out, count) };
        // SAFETY: the caller promises an open descriptor.
        let root = unsafe { BorrowedFd::borrow_raw(root_fd) };
        // SAFETY: the caller promises readable names and open descriptors.
        let items: Result<Vec<_>, Failure> = given.iter().map(|one| unsafe { item(one) }).collect();
        for (answer, done) in answers.iter_mut().zip(run(root, &items?)) {
            match done {
                Ok(done) => {
                    answer.status = 0;
                    answer.digest = done.digest;
                    answer.ino = done.ino;
                    answer.skipped = done.skipped.min(u32::MAX as usize) as u32;
                    let length = done.aside.len().min(answer.aside.len());
                    answer.aside[..length].copy_from_slice(&done.aside[..length]);
                    answer.aside_len = length as u32;
                }
                Err(trouble) => {
                    answer.status = 1;
                    put_error(
                        &mut answer.error,
                        &Failure {
                            code: trouble.code,
                            errno: trouble.errno,
                            message: trouble.message,
                        },
                    );
                }
            }
        }
        Ok(())
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}

/// # Safety
/// The record's pointers are readable for their lengths, its descriptor is -1 or open, all for `'a`.
unsafe fn item<'a>(one: &'a ShdRestoreItem) -> Result<Item<'a>, Failure> {
    let wrong = |text| Err(Failure::new("native.argument", text));
    // SAFETY: the caller promises so many readable bytes.
    let path = unsafe { bytes(one.path, one.path_len) };
    // SAFETY: the caller promises so many readable bytes.
    let other = unsafe { bytes(one.other, one.other_len) };
    // SAFETY: the caller promises so many readable bytes.
    let Some(xattrs) = attributes(unsafe { bytes(one.xattrs, one.xattrs_len) }) else {
        return wrong("attributes are cut short");
    };
    let there = There {
        dev: one.there_dev,
        ino: one.there_ino,
        size: one.there_size,
        mtime_ns: one.there_mtime_ns,
    };
    let act = match one.act {
        0 => Act::Copy,
        1 => Act::Link,
        2 => Act::MoveBack,
        3 => Act::Twin,
        4 => Act::Dress,
        5 => Act::Tidy,
        _ => return wrong("no such act"),
    };
    let over = match one.over {
        0 => Over::Nothing,
        1 => Over::Drop(there),
        2 => Over::Aside(there),
        _ => return wrong("no such way with what is there"),
    };
    let version = if one.version_fd < 0 {
        None
    } else {
        // SAFETY: the caller promises an open descriptor.
        Some(unsafe { BorrowedFd::borrow_raw(one.version_fd) })
    };
    Ok(Item {
        path,
        other,
        hidden: &one.hidden,
        act,
        over,
        there,
        version,
        wanted: Wanted {
            size: one.size,
            mode: one.mode,
            uid: one.uid,
            gid: one.gid,
            atime_ns: one.atime_ns,
            mtime_ns: one.mtime_ns,
            digest: (one.digest_known != 0).then_some(one.digest),
            xattrs,
            xattrs_whole: one.xattrs_whole != 0,
        },
    })
}

fn attributes(mut left: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut out = Vec::new();
    while !left.is_empty() {
        let (head, rest) = left.split_at_checked(6)?;
        let name_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let value_len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        out.push((name.to_vec(), value.to_vec()));
        left = rest;
    }
    Some(out)
}

/// # Safety
/// `data` is null or readable for `len` bytes, for `'a`.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return b"";
    }
    // SAFETY: the caller promises so many readable bytes.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// Takes the BLAKE3 of all of a file: 32 bytes into `out`.
///
/// # Safety
/// `out` points to 32 writable bytes, `error` is null or writable; `fd` is open for reading.
#[no_mangle]
pub unsafe extern "C" fn shd_digest_of(fd: i32, out: *mut u8, error: *mut ShdError) -> i32 {
    let body = || {
        if out.is_null() || fd < 0 {
            return Err(Failure::new(
                "native.argument",
                "null pointer or closed descriptor",
            ));
        }
        // SAFETY: the caller promises an open descriptor.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let digest = shieldd_sys::restore::stage::digest_of(fd).map_err(|e| Failure {
            code: e.code,
            errno: e.errno,
            message: e.message,
        })?;
        // SAFETY: the caller promises so many writable bytes.
        unsafe { std::ptr::copy_nonoverlapping(digest.as_ptr(), out, 32) };
        Ok(())
    };
    // SAFETY: the caller promises null or a writable record.
    unsafe { guarded(error, body) }
}
