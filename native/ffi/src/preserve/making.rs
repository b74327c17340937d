//! Versions are made: of an open file, of names, of whole trees.

use shieldd_sys::events::Globs;
use shieldd_sys::preserve::{About, Progress, Walk};

use super::{duplicate, indexed, ShdVault};
use crate::abi::{guarded, put_error, ShdError};
use crate::envelope::{borrowed, out, shared, ShdSlice};

/// A walk over one tree.
pub struct ShdWalk(Walk);

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
