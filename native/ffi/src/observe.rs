//! Inspection, windows, observations.
//!
//! Handles are boxes that Python frees once; their content is shared (`Arc`) and locked, so the watcher may use the
//! same baseline and windows from its own thread.

use std::ffi::c_void;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use shieldd_core::baseline::{Baseline, BaselineStats, Refused};
use shieldd_core::content::names::{self, Key};
use shieldd_core::event::Event;
use shieldd_core::facts::Facts;
use shieldd_core::observation::{schema_json, WIDTH};
use shieldd_core::windows::{Windows, WindowsStats};
use shieldd_sys::files::staged::random;
use shieldd_sys::inspect::{Inspector, InspectorStats};

use crate::abi::{guarded, Failure, ShdError};

/// Most bytes of a stored baseline that are read: 8,000,000 records.
const BASELINE_BYTES: u64 = 1 << 30;

/// A shared baseline.
pub struct ShdBaseline {
    /// What the watcher shares.
    pub inner: Arc<Mutex<Baseline>>,
}

/// Shared windows.
pub struct ShdWindows {
    /// What the watcher shares.
    pub inner: Arc<Mutex<Windows>>,
}

/// An inspector with a baseline.
pub struct ShdInspector {
    inspector: Mutex<Inspector>,
    baseline: Arc<Mutex<Baseline>>,
}

/// Locks, also after a panic of another holder: the content is plain numbers and stays usable.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn null(what: &str) -> Failure {
    Failure::new("native.argument", format!("{what} is null"))
}

fn io(error: std::io::Error) -> Failure {
    Failure {
        code: "file.io",
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("baseline: {error}"),
    }
}

/// The schema as JSON, at most `capacity` bytes into `out`; `length` receives its whole length.
///
/// # Safety
/// `out` points to `capacity` writable bytes, `length` to one number.
#[no_mangle]
pub unsafe extern "C" fn shd_observation_schema(
    out: *mut u8,
    capacity: usize,
    length: *mut usize,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers; each is checked against null before use.
    unsafe {
        guarded(error, || {
            let json = schema_json();
            *length.as_mut().ok_or_else(|| null("length"))? = json.len();
            if !out.is_null() {
                let n = json.len().min(capacity);
                std::ptr::copy_nonoverlapping(json.as_ptr(), out, n);
            }
            Ok(())
        })
    }
}

/// A baseline of at most `capacity` files.
///
/// # Safety
/// `out` points to one writable pointer.
#[no_mangle]
pub unsafe extern "C" fn shd_baseline_new(
    capacity: usize,
    out: *mut *mut ShdBaseline,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let key = Key(random()?);
            let inner = Arc::new(Mutex::new(Baseline::new(capacity, key)));
            *out.as_mut().ok_or_else(|| null("out"))? =
                Box::into_raw(Box::new(ShdBaseline { inner }));
            Ok(())
        })
    }
}

/// Frees a baseline; null is fine.
///
/// # Safety
/// `handle` came from `shd_baseline_new` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn shd_baseline_free(handle: *mut ShdBaseline) {
    if !handle.is_null() {
        // SAFETY: the caller promises that it is ours and last used.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Counters of a baseline.
///
/// # Safety
/// `handle` is live, `out` points to one record.
#[no_mangle]
pub unsafe extern "C" fn shd_baseline_stats(
    handle: *const ShdBaseline,
    out: *mut BaselineStats,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("baseline"))?;
            *out.as_mut().ok_or_else(|| null("out"))? = lock(&handle.inner).stats();
            Ok(())
        })
    }
}

/// The hash that stands for a path of a tree in the facts of whoever uses this baseline.
///
/// # Safety
/// `handle` is live, `path` points to `len` bytes, `out` to one number.
#[no_mangle]
pub unsafe extern "C" fn shd_baseline_path_hash(
    handle: *const ShdBaseline,
    tree: u16,
    path: *const u8,
    len: usize,
    out: *mut u64,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("baseline"))?;
            let path = if path.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(path, len)
            };
            let key = lock(&handle.inner).key();
            *out.as_mut().ok_or_else(|| null("out"))? = names::path_hash(&key, tree, path);
            Ok(())
        })
    }
}

/// Writes a baseline to a descriptor at its current offset.
///
/// # Safety
/// `handle` is live, `fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_baseline_save(
    handle: *const ShdBaseline,
    fd: i32,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and the descriptor.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("baseline"))?;
            let bytes = lock(&handle.inner).to_bytes();
            let mut file = duplicate(fd)?;
            file.write_all(&bytes).map_err(io)
        })
    }
}

/// Reads a baseline from a descriptor's current offset to its end.
///
/// # Safety
/// `handle` is live, `fd` is open.
#[no_mangle]
pub unsafe extern "C" fn shd_baseline_load(
    handle: *const ShdBaseline,
    fd: i32,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and the descriptor.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("baseline"))?;
            let mut bytes = Vec::new();
            let file = duplicate(fd)?;
            file.take(BASELINE_BYTES)
                .read_to_end(&mut bytes)
                .map_err(io)?;
            lock(&handle.inner)
                .load(&bytes)
                .map_err(|refused| match refused {
                    Refused::Corrupt => {
                        Failure::new("baseline.corrupt", "baseline is damaged or not a baseline")
                    }
                    Refused::Version(version) => Failure::new(
                        "baseline.version",
                        format!("baseline is of version {version}"),
                    ),
                })
        })
    }
}

/// # Safety
/// `fd` is open.
unsafe fn duplicate(fd: i32) -> Result<std::fs::File, Failure> {
    if fd < 0 {
        return Err(Failure::new("native.argument", "negative descriptor"));
    }
    // SAFETY: the caller promises that it is open; it is only borrowed for the duplication.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let owned = borrowed.try_clone_to_owned().map_err(io)?;
    Ok(std::fs::File::from(owned))
}

/// Windows over at most `actors` actors.
///
/// # Safety
/// `out` points to one writable pointer.
#[no_mangle]
pub unsafe extern "C" fn shd_windows_new(
    actors: usize,
    out: *mut *mut ShdWindows,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let inner = Arc::new(Mutex::new(Windows::new(actors)));
            *out.as_mut().ok_or_else(|| null("out"))? =
                Box::into_raw(Box::new(ShdWindows { inner }));
            Ok(())
        })
    }
}

/// Frees windows; null is fine.
///
/// # Safety
/// `handle` came from `shd_windows_new` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn shd_windows_free(handle: *mut ShdWindows) {
    if !handle.is_null() {
        // SAFETY: the caller promises that it is ours and last used.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Forgets all actors.
///
/// # Safety
/// `handle` is live.
#[no_mangle]
pub unsafe extern "C" fn shd_windows_reset(handle: *const ShdWindows, error: *mut ShdError) -> i32 {
    // SAFETY: the caller promises the pointer.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("windows"))?;
            lock(&handle.inner).reset();
            Ok(())
        })
    }
}

/// Counters of windows.
///
/// # Safety
/// `handle` is live, `out` points to one record.
#[no_mangle]
pub unsafe extern "C" fn shd_windows_stats(
    handle: *const ShdWindows,
    out: *mut WindowsStats,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("windows"))?;
            *out.as_mut().ok_or_else(|| null("out"))? = lock(&handle.inner).stats();
            Ok(())
        })
    }
}

/// One observation per event: `count` events and facts in, `count` rows of the schema's width out.
///
/// # Safety
/// `events` and `facts` hold `count` records (of any alignment), `out` has room for `count` rows.
#[no_mangle]
pub unsafe extern "C" fn shd_windows_observe(
    handle: *const ShdWindows,
    events: *const Event,
    facts: *const Facts,
    count: usize,
    out: *mut f32,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and lengths; alignment is checked.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("windows"))?;
            if count == 0 {
                return Ok(());
            }
            if events.is_null() || facts.is_null() || out.is_null() {
                return Err(null("array"));
            }
            if !events.is_aligned() || !facts.is_aligned() || !out.is_aligned() {
                return Err(Failure::new("native.argument", "array is not aligned"));
            }
            let events = std::slice::from_raw_parts(events, count);
            let facts = std::slice::from_raw_parts(facts, count);
            let out = std::slice::from_raw_parts_mut(out, count * WIDTH);
            lock(&handle.inner).observe(events, facts, out);
            Ok(())
        })
    }
}

/// An inspector that shares a baseline.
///
/// # Safety
/// `baseline` is live, `out` points to one writable pointer.
#[no_mangle]
pub unsafe extern "C" fn shd_inspector_new(
    baseline: *const ShdBaseline,
    out: *mut *mut ShdInspector,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let baseline = baseline.as_ref().ok_or_else(|| null("baseline"))?;
            *out.as_mut().ok_or_else(|| null("out"))? = Box::into_raw(Box::new(ShdInspector {
                inspector: Mutex::new(Inspector::new()),
                baseline: Arc::clone(&baseline.inner),
            }));
            Ok(())
        })
    }
}

/// Frees an inspector; null is fine.
///
/// # Safety
/// `handle` came from `shd_inspector_new` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn shd_inspector_free(handle: *mut ShdInspector) {
    if !handle.is_null() {
        // SAFETY: the caller promises that it is ours and last used.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Counters of an inspector.
///
/// # Safety
/// `handle` is live, `out` points to one record.
#[no_mangle]
pub unsafe extern "C" fn shd_inspector_stats(
    handle: *const ShdInspector,
    out: *mut InspectorStats,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("inspector"))?;
            *out.as_mut().ok_or_else(|| null("out"))? = lock(&handle.inspector).stats();
            Ok(())
        })
    }
}

/// Inspects `count` files beneath `root`: paths and old paths lie in `names` as the events say.
///
/// # Safety
/// `events` and `out` hold `count` records, `names` `names_length` bytes, `root` is an open directory.
#[no_mangle]
pub unsafe extern "C" fn shd_inspector_inspect(
    handle: *const ShdInspector,
    root: i32,
    events: *const Event,
    count: usize,
    names: *const c_void,
    names_length: usize,
    out: *mut Facts,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers and lengths; alignment and offsets are checked.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("inspector"))?;
            if count == 0 {
                return Ok(());
            }
            if events.is_null() || names.is_null() || out.is_null() {
                return Err(null("array"));
            }
            if !events.is_aligned() || !out.is_aligned() {
                return Err(Failure::new("native.argument", "array is not aligned"));
            }
            if root < 0 {
                return Err(Failure::new("native.argument", "negative descriptor"));
            }
            let root = BorrowedFd::borrow_raw(root);
            let events = std::slice::from_raw_parts(events, count);
            let names = std::slice::from_raw_parts(names.cast::<u8>(), names_length);
            let out = std::slice::from_raw_parts_mut(out, count);
            let mut inspector = lock(&handle.inspector);
            for (event, facts) in events.iter().zip(out) {
                let path = name(names, event.path_off, event.path_len)?;
                let from = match event.from_len {
                    0 => None,
                    n => Some(name(names, event.from_off, n)?),
                };
                let mut baseline = lock(&handle.baseline);
                inspector.inspect(root, path, from, event, &mut baseline, facts);
            }
            Ok(())
        })
    }
}

fn name(arena: &[u8], offset: u32, length: u32) -> Result<&[u8], Failure> {
    (offset as usize)
        .checked_add(length as usize)
        .and_then(|end| arena.get(offset as usize..end))
        .ok_or_else(|| Failure::new("native.argument", "name lies outside the arena"))
}
