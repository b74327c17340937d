//! Versions are asked for, opened, and given up.
//!
//! A version comes as a row of the blob's fields ([`crate::envelope::ShdBlob`]): numbers, path, digest (empty where there
//! is none), attributes (name and value in turn, each a field of its own inside).

use std::os::fd::IntoRawFd;

use shieldd_sys::preserve::{Found, Query, VersionId};

use super::{indexed, ShdVault};
use crate::abi::{guarded, ShdError};
use crate::envelope::{borrowed, give, out, shared, Fields, ShdBlob, ShdSlice};

/// What to look for; see [`Query`].
#[repr(C)]
pub struct ShdVersionQuery {
    /// Path, where `by_path`.
    pub path: ShdSlice,
    /// Key of the actor, where `by_actor`.
    pub actor: u64,
    /// From, ns.
    pub since_ns: u64,
    /// To, ns; 0: any time.
    pub until_ns: u64,
    /// At most so many, the latest.
    pub limit: u64,
    /// Number of the tree, where `by_tree` or `by_path`.
    pub tree: u16,
    /// `path` counts.
    pub by_path: bool,
    /// `tree` counts.
    pub by_tree: bool,
    /// `actor` counts.
    pub by_actor: bool,
    /// Links to files that still have a name, too.
    pub standing: bool,
}

fn version_fields(fields: &mut Fields, found: &Found) {
    let v = &found.version;
    let mut numbers = Vec::with_capacity(128);
    for word in [
        v.id.0,
        v.object.0,
        v.actor,
        v.at_ns,
        v.ino,
        v.size,
        v.stored,
        v.atime_ns as u64,
        v.mtime_ns as u64,
        v.ctime_ns as u64,
    ] {
        numbers.extend_from_slice(&word.to_le_bytes());
    }
    for half in [v.mode, v.uid, v.gid, v.nlink] {
        numbers.extend_from_slice(&half.to_le_bytes());
    }
    numbers.extend_from_slice(&v.tree.to_le_bytes());
    let flags = [
        v.kind as u8,
        u8::from(v.xattrs_partial),
        u8::from(found.pinned),
        u8::from(found.orphan),
        u8::from(found.changed),
    ];
    numbers.extend_from_slice(&flags);
    fields.put(&numbers).put(&v.path);
    fields.put(found.digest.as_ref().map_or(&[][..], |d| &d[..]));
    let mut xattrs = Fields::default();
    for (name, value) in &v.xattrs {
        xattrs.put(name).put(value);
    }
    fields.put(&xattrs.0);
}

/// Versions that fit, the oldest first; four fields each.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_find(
    vault: *const ShdVault,
    query: *const ShdVersionQuery,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let q = shared(query)?;
            let query = Query {
                name: q.by_path.then(|| (q.tree, q.path.get())),
                actor: q.by_actor.then_some(q.actor),
                tree: q.by_tree.then_some(q.tree),
                since_ns: q.since_ns,
                until_ns: q.until_ns,
                standing: q.standing,
                limit: q.limit as usize,
            };
            let mut fields = Fields::default();
            for found in indexed(shared(vault)?)?.find(&query)? {
                version_fields(&mut fields, &found);
            }
            give(fields.0, out(result)?);
            Ok(())
        })
    }
}

/// One version; four fields.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_version(
    vault: *const ShdVault,
    id: u64,
    result: *mut ShdBlob,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let mut fields = Fields::default();
            let found = indexed(shared(vault)?)?.version(VersionId(id))?;
            version_fields(&mut fields, &found);
            give(fields.0, out(result)?);
            Ok(())
        })
    }
}

/// Opens the content of a version for reading; with `current_fd` >= 0 it is put together from that file and the ranges
/// that were kept. The caller closes `result`.
///
/// # Safety
/// All pointers are valid, `current_fd` is open or negative.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_content(
    vault: *const ShdVault,
    id: u64,
    current_fd: i32,
    verify: bool,
    result: *mut i32,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let index = indexed(shared(vault)?)?;
            let fd = match current_fd {
                0.. => index.assemble(VersionId(id), borrowed(current_fd)?)?,
                _ => index.open_version(VersionId(id), verify)?,
            };
            *out(result)? = fd.into_raw_fd();
            Ok(())
        })
    }
}

/// Versions go for good; `bytes` is what that gives back. With `ino` > 0 all versions of that linked file go as well.
///
/// # Safety
/// `ids` has `count` elements; all pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_forget(
    vault: *const ShdVault,
    ids: *const u64,
    count: usize,
    ino: u64,
    bytes: *mut u64,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let index = indexed(shared(vault)?)?;
            let ids: Vec<VersionId> = (0..count).map(|i| VersionId(*ids.add(i))).collect();
            let mut given = index.forget(&ids)?;
            if ino > 0 {
                given += index.forget_inode(ino)?;
            }
            *out(bytes)? = given;
            Ok(())
        })
    }
}
