//! The vault of preserved versions.
//!
//! A version comes as a row of the blob's fields ([`crate::envelope::ShdBlob`]): numbers, path, digest (empty where there
//! is none), attributes (name and value in turn, each a field of its own inside).

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;

use shieldd_sys::events::Globs;
use shieldd_sys::preserve::{
    place, About, Counts, Evicted, Found, Index, Options, Policy, Progress, Query, Settled,
    Standing, Vault, VersionId, Walk,
};

use crate::abi::{guarded, put_error, Failure, ShdError};
use crate::envelope::{borrowed, give, out, shared, Fields, ShdBlob, ShdSlice};

/// A vault: makes versions, and knows them where it was opened with an index.
pub struct ShdVault {
    vault: Arc<Vault>,
    index: Option<Index>,
}

/// A walk over one tree.
pub struct ShdWalk(Walk);

/// How a vault is used; sizes in bytes.
#[repr(C)]
pub struct ShdVaultOptions {
    /// Files up to this size are copied whole.
    pub whole_limit: u64,
    /// Most bytes in the vault.
    pub quota: u64,
    /// No copy may leave less free.
    pub min_free: u64,
    /// Hard links are made.
    pub hardlinks: bool,
    /// The caller asks, evicts, pins: one process alone does.
    pub index: bool,
}

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

/// How much may stay; see [`Policy`].
#[repr(C)]
pub struct ShdVaultPolicy {
    /// Wall clock, ns.
    pub now_ns: u64,
    /// Versions go after so long, ns.
    pub age_ns: u64,
    /// Most bytes.
    pub bytes_max: u64,
    /// Most versions.
    pub versions_max: u64,
    /// Free space that shall stay, bytes.
    pub min_free: u64,
}

/// How a vault stands.
#[repr(C)]
pub struct ShdVaultStatus {
    /// What is in it; zeros without an index.
    pub standing: Standing,
    /// What this process did.
    pub counts: Counts,
    /// The file system shares blocks, as far as is known.
    pub clones: bool,
    /// It has hard links, as far as is known.
    pub links: bool,
}

fn indexed(vault: &ShdVault) -> Result<&Index, Failure> {
    vault
        .index
        .as_ref()
        .ok_or_else(|| Failure::new("native.argument", "vault was opened without its index"))
}

/// Makes the vault `name` beneath `parent_fd` where there is none, checks it; the caller closes `result`.
///
/// # Safety
/// The pointers are valid, `parent_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_make(
    parent_fd: i32,
    name: ShdSlice,
    result: *mut i32,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let name = match name.get() {
                b"" => place::NAME,
                name => name,
            };
            *out(result)? = place::make(borrowed(parent_fd)?, name)?.into_raw_fd();
            Ok(())
        })
    }
}

/// Opens the vault that `dir_fd` is. `roots` are the absolute paths of the trees by number.
///
/// # Safety
/// `roots` has `count` elements; all pointers are valid, `dir_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_open(
    dir_fd: i32,
    options: *const ShdVaultOptions,
    numbers: *const u16,
    roots: *const ShdSlice,
    count: usize,
    result: *mut *mut ShdVault,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let o = shared(options)?;
            let trees = (0..count).map(|i| (*numbers.add(i), (*roots.add(i)).get().to_vec()));
            let options = Options {
                whole_limit: o.whole_limit,
                quota: o.quota,
                min_free: o.min_free,
                hardlinks: o.hardlinks,
                trees: trees.collect(),
            };
            let vault = Vault::open(duplicate(dir_fd)?, options)?;
            let index = if o.index {
                Some(Index::open(vault.clone())?)
            } else {
                None
            };
            *out(result)? = Box::into_raw(Box::new(ShdVault { vault, index }));
            Ok(())
        })
    }
}

/// # Safety
/// `fd` is open.
unsafe fn duplicate(fd: i32) -> Result<OwnedFd, Failure> {
    // SAFETY: the caller's promise.
    let fd = unsafe { borrowed(fd)? };
    fd.try_clone_to_owned().map_err(|e| Failure {
        code: "file.io",
        errno: e.raw_os_error().unwrap_or(0),
        message: "descriptor cannot be duplicated".into(),
    })
}

/// Closes a vault.
///
/// # Safety
/// `vault` is null or from [`shd_vault_open`], and in use nowhere.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_free(vault: *mut ShdVault) {
    if !vault.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(vault) });
    }
}

/// Keeps the content of an open file, or (with `len` > 0) the range of it.
///
/// # Safety
/// All pointers are valid, `file_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_image(
    vault: *const ShdVault,
    file_fd: i32,
    tree: u16,
    path: ShdSlice,
    actor: u64,
    at_ns: u64,
    offset: u64,
    len: u64,
    result: *mut u64,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let about = About {
                tree,
                path: path.get(),
                actor,
                at_ns,
            };
            let (vault, file) = (&shared(vault)?.vault, borrowed(file_fd)?);
            *out(result)? = match len {
                0 => vault.image(file, &about)?.0,
                len => vault.range(file, &about, offset, len)?.0,
            };
            Ok(())
        })
    }
}

/// Links many files beneath `root_fd`. `ids` gets 0 where one could not be linked; the error of the same index says why.
///
/// # Safety
/// `paths`, `actors`, `ids` and `errors` have `count` elements; all pointers are valid, `root_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_link_many(
    vault: *const ShdVault,
    root_fd: i32,
    tree: u16,
    paths: *const ShdSlice,
    actors: *const u64,
    count: usize,
    at_ns: u64,
    ids: *mut u64,
    errors: *mut ShdError,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let (vault, root) = (&shared(vault)?.vault, borrowed(root_fd)?);
            for i in 0..count {
                let path = (*paths.add(i)).get();
                let about = About {
                    tree,
                    path,
                    actor: *actors.add(i),
                    at_ns,
                };
                *out(ids.add(i))? = match vault.link(root, path, &about) {
                    Ok(id) => id.0,
                    Err(trouble) => {
                        put_error(out(errors.add(i))?, &trouble.into());
                        0
                    }
                };
            }
            Ok(())
        })
    }
}

/// Names went away or stand for other files now: whether their links are all that is left is looked at.
///
/// # Safety
/// `paths` has `count` elements; all pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_touched(
    vault: *const ShdVault,
    tree: u16,
    paths: *const ShdSlice,
    count: usize,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let index = indexed(shared(vault)?)?;
            let paths: Vec<&[u8]> = (0..count).map(|i| (*paths.add(i)).get()).collect();
            index.touched(tree, &paths)?;
            Ok(())
        })
    }
}

/// Begins to link a tree, or with `beneath` only what is in that renamed directory of it, under its new names;
/// `exclude` are globs, each ended by a zero byte.
///
/// # Safety
/// All pointers are valid, `root_fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_walk_new(
    vault: *const ShdVault,
    root_fd: i32,
    tree: u16,
    exclude: ShdSlice,
    beneath: ShdSlice,
    result: *mut *mut ShdWalk,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let globs = Globs::new(exclude.get().split(|&b| b == 0));
            let vault = shared(vault)?.vault.clone();
            let mut walk = Walk::new(vault, duplicate(root_fd)?, tree, globs);
            if !beneath.get().is_empty() {
                walk = walk.beneath(beneath.get());
            }
            *out(result)? = Box::into_raw(Box::new(ShdWalk(walk)));
            Ok(())
        })
    }
}

/// Links up to `budget` more files.
///
/// # Safety
/// All pointers are valid; no other thread uses the walk.
#[no_mangle]
pub unsafe extern "C" fn shd_walk_step(
    walk: *mut ShdWalk,
    budget: usize,
    now_ns: u64,
    result: *mut Progress,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            *out(result)? = out(walk)?.0.step(budget, now_ns)?;
            Ok(())
        })
    }
}

/// Ends a walk.
///
/// # Safety
/// `walk` is null or from [`shd_walk_new`], and in use nowhere.
#[no_mangle]
pub unsafe extern "C" fn shd_walk_free(walk: *mut ShdWalk) {
    if !walk.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(walk) });
    }
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

/// Evicts.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_evict(
    vault: *const ShdVault,
    policy: *const ShdVaultPolicy,
    result: *mut Evicted,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let p = shared(policy)?;
            let policy = Policy {
                now_ns: p.now_ns,
                age_ns: p.age_ns,
                bytes_max: p.bytes_max,
                versions_max: p.versions_max,
                min_free: p.min_free,
            };
            *out(result)? = indexed(shared(vault)?)?.evict(&policy)?;
            Ok(())
        })
    }
}

/// Digests copies for about `budget` bytes, lets equal ones share an object.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_settle(
    vault: *const ShdVault,
    now_ns: u64,
    budget: u64,
    result: *mut Settled,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            *out(result)? = indexed(shared(vault)?)?.settle(now_ns, budget)?;
            Ok(())
        })
    }
}

/// Merges the record files of dead writers; `files` is how many went.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_compact(
    vault: *const ShdVault,
    files: *mut u64,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            *out(files)? = indexed(shared(vault)?)?.compact()? as u64;
            Ok(())
        })
    }
}

/// Holds the versions of an incident, durable, or (with `since_ns` == 2^64 - 1) lets them go.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_pin(
    vault: *const ShdVault,
    incident: ShdSlice,
    actor: u64,
    since_ns: u64,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let index = indexed(shared(vault)?)?;
            match since_ns {
                u64::MAX => index.unpin(incident.get())?,
                since_ns => index.pin(incident.get(), actor, since_ns)?,
            }
            Ok(())
        })
    }
}

/// Writes out what waits; with `durable` all of it is on the disk when this returns.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_flush(
    vault: *const ShdVault,
    durable: bool,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guarded(error, || Ok(shared(vault)?.vault.flush(durable)?)) }
}

/// How a vault stands.
///
/// # Safety
/// All pointers are valid.
#[no_mangle]
pub unsafe extern "C" fn shd_vault_status(
    vault: *const ShdVault,
    result: *mut ShdVaultStatus,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        guarded(error, || {
            let vault = shared(vault)?;
            let [clones, links] = vault.vault.abilities();
            *out(result)? = ShdVaultStatus {
                standing: vault
                    .index
                    .as_ref()
                    .map(Index::standing)
                    .unwrap_or_default(),
                counts: vault.vault.counts(),
                clones,
                links,
            };
            Ok(())
        })
    }
}
