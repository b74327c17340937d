//! The vault of preserved versions: opened, kept in bounds, closed.

mod making;
mod versions;

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;

use shieldd_sys::preserve::{
    place, Counts, Evicted, Index, Options, Policy, Settled, Standing, Vault,
};

use crate::abi::{guarded, Failure, ShdError};
use crate::envelope::{borrowed, out, shared, ShdSlice};

/// A vault: makes versions, and knows them where it was opened with an index.
pub struct ShdVault {
    vault: Arc<Vault>,
    index: Option<Index>,
}

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
