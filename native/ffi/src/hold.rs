//! Openers held before they write: the daemon's side of the control block, and the loops of answerer and supervisor.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use shieldd_sys::actors::Programs;
use shieldd_sys::events::Globs;
use shieldd_sys::files::Trouble;
use shieldd_sys::hold::answerer::{Answerer, Guarded, Setup};
use shieldd_sys::hold::control::{Control, Word, NAMED};
use shieldd_sys::hold::scope::Tree;
use shieldd_sys::hold::supervisor;
use shieldd_sys::hold::vaulted::opener;
use shieldd_sys::hold::verdicts::Verdict;
use shieldd_sys::preserve::Options;

use crate::abi::{guarded, Failure, ShdError};
use crate::observe::lock;

/// The daemon's side: verdicts in, records and counters out.
pub struct ShdHold {
    control: Control,
    taking: Mutex<()>,
}

/// A tree whose writers are held.
#[repr(C)]
pub struct ShdHoldTree {
    /// Path of the root, absolute, without links.
    pub path: *const u8,
    /// Its length.
    pub path_len: usize,
    /// The root, open; duplicated, not kept.
    pub root_fd: i32,
    /// Index of its vault; negative: none.
    pub vault: i32,
    /// Globs of what is left out, each ended by a zero byte.
    pub exclude: *const u8,
    /// Their length with the zeros.
    pub exclude_len: usize,
}

/// What an answerer is given. Descriptors are duplicated.
#[repr(C)]
pub struct ShdHoldSetup {
    /// The control block.
    pub control_fd: i32,
    /// Hangs up when the daemon is gone.
    pub lifeline_fd: i32,
    /// eventfd(2) by which the daemon wakes the answerer.
    pub wake_fd: i32,
    /// eventfd(2) by which the answerer tells of records.
    pub told_fd: i32,
    /// Directory of the daemon's state; negative: none.
    pub state_fd: i32,
    /// Whether ranges of large files and truncate(2) are asked for.
    pub ranges: i32,
    /// Trees.
    pub trees: *const ShdHoldTree,
    /// How many.
    pub tree_count: usize,
    /// Vaults, open directories.
    pub vault_fds: *const i32,
    /// How many.
    pub vault_count: usize,
    /// Processes of ours.
    pub own: *const i32,
    /// How many.
    pub own_count: usize,
    /// Executables that work for clients, by absolute path, each ended by a zero byte.
    pub servers: *const u8,
    /// Their length with the zeros.
    pub servers_len: usize,
    /// Longest wait for a verdict, ns.
    pub bound_ns: u64,
    /// Longest wait for a version, ns.
    pub hold_ns: u64,
    /// Files up to this size are kept whole, bytes.
    pub whole_limit: u64,
    /// Most bytes in a vault.
    pub quota: u64,
    /// No version is made that would leave less free, bytes.
    pub min_free: u64,
}

fn null(what: &str) -> Failure {
    Failure::new("native.argument", format!("{what} is null"))
}

fn failed(error: &std::io::Error) -> Failure {
    Failure {
        code: "hold.failed",
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("the control block cannot be used: {error}"),
    }
}

fn trouble(trouble: Trouble) -> Failure {
    Failure {
        code: trouble.code,
        errno: trouble.errno,
        message: trouble.message,
    }
}

/// # Safety
/// `data` points to `len` values, or `len` is 0.
unsafe fn values<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller promises it.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// # Safety
/// `fd` is negative or open for the time of the call.
unsafe fn copy(fd: i32) -> Result<OwnedFd, Failure> {
    if fd < 0 {
        return Err(Failure::new("native.argument", "negative descriptor"));
    }
    // SAFETY: the caller promises that it is open.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fd.try_clone_to_owned().map_err(|e| failed(&e))
}

/// A new control block.
///
/// # Safety
/// `out` points to one writable pointer.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_new(out: *mut *mut ShdHold, error: *mut ShdError) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let out = out.as_mut().ok_or_else(|| null("out"))?;
            let control = Control::create().map_err(|e| failed(&e))?;
            *out = Box::into_raw(Box::new(ShdHold {
                control,
                taking: Mutex::new(()),
            }));
            Ok(())
        })
    }
}

/// Frees it; null is fine. Answerer and supervisor go on with theirs.
///
/// # Safety
/// `handle` came from `shd_hold_new`, is not used again, and no call on it is in progress.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_free(handle: *mut ShdHold) {
    if !handle.is_null() {
        // SAFETY: the caller promises that it is ours and last used.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// The block's descriptor, to hand over; it stays the handle's. Negative where `handle` is null.
///
/// # Safety
/// `handle` is null or live.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_fd(handle: *const ShdHold) -> i32 {
    // SAFETY: the caller promises it.
    unsafe { handle.as_ref() }.map_or(-1, |h| h.control.as_fd().as_raw_fd())
}

/// Takes away what an answerer that is gone left, before another one starts: its supervisor must not judge the heart of
/// the one before.
///
/// # Safety
/// `handle` is live.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_prepare(handle: *const ShdHold, error: *mut ShdError) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("hold"))?;
            handle.control.prepare();
            Ok(())
        })
    }
}

/// Sets the verdict on an actor: 0 none, 1 allow, 2 deny, 3 ask.
///
/// # Safety
/// `handle` is live.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_set_verdict(
    handle: *const ShdHold,
    actor: u64,
    verdict: u8,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("hold"))?;
            let verdict = Verdict::from_number(verdict)
                .filter(|_| actor != 0)
                .ok_or_else(|| Failure::new("native.argument", "no such verdict or actor"))?;
            let _taking = lock(&handle.taking);
            if handle.control.set_verdict(actor, verdict) {
                return Ok(());
            }
            Err(Failure::new("hold.verdicts", "too many actors are judged"))
        })
    }
}

/// The verdict on an actor.
///
/// # Safety
/// `handle` is live, `out` points to one byte.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_verdict(
    handle: *const ShdHold,
    actor: u64,
    out: *mut u8,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("hold"))?;
            *out.as_mut().ok_or_else(|| null("out"))? = handle.control.verdict(actor) as u8;
            Ok(())
        })
    }
}

/// Has the answerer forget which directories are outside; it does at its next turn.
///
/// # Safety
/// `handle` is live.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_refresh(handle: *const ShdHold, error: *mut ShdError) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("hold"))?;
            handle.control.count(Word::Refresh, 1);
            Ok(())
        })
    }
}

/// The words of the block, in the order of `Word` in `native/sys/src/hold/control.rs`; at most `capacity` of them.
/// `count` receives how many there are.
///
/// # Safety
/// `handle` is live, `out` points to `capacity` numbers, `count` to one.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_words(
    handle: *const ShdHold,
    out: *mut u64,
    capacity: usize,
    count: *mut usize,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("hold"))?;
            *count.as_mut().ok_or_else(|| null("count"))? = NAMED;
            if !out.is_null() {
                let words = handle.control.named();
                std::ptr::copy_nonoverlapping(words.as_ptr(), out, capacity.min(NAMED));
            }
            Ok(())
        })
    }
}

/// Takes whole records, about `capacity` bytes at most, which must be at least 8 KiB. `length` receives how many.
///
/// # Safety
/// `handle` is live, `out` points to `capacity` writable bytes, `length` to one number.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_take(
    handle: *const ShdHold,
    out: *mut u8,
    capacity: usize,
    length: *mut usize,
    error: *mut ShdError,
) -> i32 {
    /// Longest record.
    const LONGEST: usize = 4096 + 128;
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("hold"))?;
            let length = length.as_mut().ok_or_else(|| null("length"))?;
            if out.is_null() || capacity < 2 * LONGEST {
                return Err(Failure::new("native.argument", "room too small"));
            }
            let _taking = lock(&handle.taking);
            let records = handle.control.take(capacity - LONGEST);
            *length = records.len().min(capacity);
            std::ptr::copy_nonoverlapping(records.as_ptr(), out, *length);
            Ok(())
        })
    }
}

/// # Safety
/// The pointers of the setup hold.
unsafe fn setup_of(given: &ShdHoldSetup) -> Result<Setup, Failure> {
    // SAFETY: the caller promises the pointers and descriptors.
    unsafe {
        let mut trees = Vec::new();
        for tree in values(given.trees, given.tree_count) {
            let globs = values(tree.exclude, tree.exclude_len)
                .split(|&b| b == 0)
                .filter(|g| !g.is_empty());
            trees.push(Guarded {
                tree: Tree {
                    path: values(tree.path, tree.path_len).to_vec(),
                    root: copy(tree.root_fd)?,
                    exclude: Globs::new(globs),
                },
                vault: usize::try_from(tree.vault)
                    .ok()
                    .filter(|&v| v < given.vault_count),
            });
        }
        if trees.is_empty() || trees.len() >= usize::from(u16::MAX) {
            return Err(Failure::new(
                "native.argument",
                "number of trees out of range",
            ));
        }
        let name = |(i, guarded): (usize, &Guarded)| (i as u16, guarded.tree.path.clone());
        let options = Options {
            whole_limit: given.whole_limit,
            quota: given.quota,
            min_free: given.min_free,
            trees: trees.iter().enumerate().map(name).collect(),
            ..Options::default()
        };
        let mut vaults = Vec::new();
        for &fd in values(given.vault_fds, given.vault_count) {
            vaults.push(copy(fd)?);
        }
        Ok(Setup {
            control: Control::open(copy(given.control_fd)?).map_err(|e| failed(&e))?,
            lifeline: copy(given.lifeline_fd)?,
            wake: copy(given.wake_fd)?,
            told: copy(given.told_fd)?,
            trees,
            vaults,
            open: opener(options),
            programs: Programs {
                own: values(given.own, given.own_count).to_vec(),
                servers: values(given.servers, given.servers_len)
                    .split(|&b| b == 0)
                    .filter(|path| !path.is_empty())
                    .map(<[u8]>::to_vec)
                    .collect(),
            },
            state: (given.state_fd >= 0)
                .then(|| copy(given.state_fd))
                .transpose()?,
            bound_ns: given.bound_ns,
            hold_ns: given.hold_ns,
            whole_limit: given.whole_limit,
            ranges: given.ranges != 0,
        })
    }
}

/// Holds and answers until the daemon is gone. For a process of its own that does nothing else.
///
/// # Safety
/// `setup` points to one record whose pointers hold; its descriptors are open.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_answer(setup: *const ShdHoldSetup, error: *mut ShdError) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let given = setup.as_ref().ok_or_else(|| null("setup"))?;
            let answerer = Answerer::new(setup_of(given)?).map_err(trouble)?;
            answerer.run().map_err(trouble)
        })
    }
}

/// Watches over an answerer until it, or the daemon, is gone. For a process of its own. The last two are pidfds.
///
/// # Safety
/// The descriptors are open.
#[no_mangle]
pub unsafe extern "C" fn shd_hold_supervise(
    control_fd: i32,
    lifeline_fd: i32,
    answerer_fd: i32,
    daemon_fd: i32,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the descriptors.
    unsafe {
        guarded(error, || {
            let setup = supervisor::Setup {
                control: Control::open(copy(control_fd)?).map_err(|e| failed(&e))?,
                lifeline: copy(lifeline_fd)?,
                answerer: copy(answerer_fd)?,
                daemon: copy(daemon_fd)?,
            };
            supervisor::run(&setup).map(drop).map_err(|e| failed(&e))
        })
    }
}
