//! Watchers.
//!
//! A batch is one block of memory that the caller frees: events, facts, observations and names behind one another,
//! so that Python reads all of it in place.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shieldd_core::baseline::Baseline;
use shieldd_core::content::names;
use shieldd_core::event::Event;
use shieldd_core::facts::Facts;
use shieldd_core::observation::WIDTH;
use shieldd_core::windows::Windows;
use shieldd_sys::events::{Batch, Ended, Globs, Observer, Options, TreeSpec, Watch};
use shieldd_sys::inotify::Watcher;
use shieldd_sys::inspect::Inspector;

use crate::abi::{guarded, Failure, ShdError};
use crate::observe::{lock, ShdBaseline, ShdWindows};

/// Bytes before the rows of a block: its length, and room so that rows begin on a cache line.
const HEAD: usize = 64;

/// A tree to guard.
#[repr(C)]
pub struct ShdTree {
    /// Path of the root.
    pub path: *const u8,
    /// Its length.
    pub path_len: usize,
    /// The root, open; duplicated, not kept.
    pub root_fd: i32,
    /// Globs of what is left out, each ended by a zero byte.
    pub exclude: *const u8,
    /// Their length with the zeros.
    pub exclude_len: usize,
}

/// Where the parts of a batch lie.
#[repr(C)]
pub struct ShdBatch {
    /// Null where nothing happened in time; else to be freed with `shd_batch_free`. Events begin here.
    pub rows: *mut u8,
    /// Number of events.
    pub count: u32,
    /// Columns of an observation.
    pub width: u32,
    /// Offset of the facts, bytes.
    pub facts_at: u64,
    /// Offset of the observations.
    pub observations_at: u64,
    /// Offset of the names.
    pub names_at: u64,
    /// Bytes in all.
    pub size: u64,
}

/// What a watcher says of itself.
#[repr(C)]
#[derive(Default)]
pub struct ShdWatchStatus {
    /// Watches in the kernel.
    pub watches: u64,
    /// Directories known.
    pub directories: u64,
    /// Overflows of the kernel's queue.
    pub overflows: u64,
    /// Events lost: exact where our own queue was full, one for each overflow of the kernel's.
    pub lost: u64,
    /// Times a directory could not be watched.
    pub watch_failures: u64,
    /// Rescans of whole trees that ended.
    pub rescans: u64,
    /// Since when something may have been missed, `CLOCK_REALTIME` ns; 0 where nothing was.
    pub blind_since_ns: u64,
    /// Records that wait.
    pub queued: u64,
    /// Kernel events seen.
    pub events: u64,
    /// Kernel events merged into another's record.
    pub merged: u64,
    /// Own operations dropped.
    pub own: u64,
    /// Reads of the kernel's queue.
    pub reads: u64,
    /// Files in the known state.
    pub known: u64,
    /// Files that did not fit into it.
    pub known_beyond: u64,
}

/// A watcher with what looks at its files.
pub struct ShdWatcher {
    watcher: Box<dyn Watch>,
    looking: Mutex<Looking>,
    windows: Arc<Mutex<Windows>>,
}

struct Looking {
    batch: Batch,
    inspector: Option<Inspector>,
    baseline: Arc<Mutex<Baseline>>,
}

pub(crate) fn null(what: &str) -> Failure {
    Failure::new("native.argument", format!("{what} is null"))
}

pub(crate) fn failed(error: &std::io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(0);
    let (code, what) = match errno {
        libc::EMFILE | libc::ENFILE => (
            "watch.limit",
            "no inotify instance left (fs.inotify.max_user_instances) or fanotify group (fs.fanotify.max_user_groups)",
        ),
        _ if error.kind() == std::io::ErrorKind::Unsupported && errno == 0 => {
            return Failure::new("watch.unsupported", error.to_string());
        }
        libc::ENOSYS => ("watch.unsupported", "this kernel has no inotify"),
        _ if error.kind() == std::io::ErrorKind::NotFound => {
            ("watch.root", "the root of a tree cannot be followed")
        }
        _ => ("watch.failed", "the watcher cannot run"),
    };
    Failure {
        code,
        errno,
        message: format!("{what}: {error}"),
    }
}

/// # Safety
/// `data` points to `len` readable bytes, or `len` is 0.
unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller promises it.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// Looks at files with the inspector, one lock for a whole batch.
struct Deep<'a> {
    inspector: &'a mut Inspector,
    baseline: &'a Mutex<Baseline>,
}

fn old(from: &[u8]) -> Option<&[u8]> {
    (!from.is_empty()).then_some(from)
}

impl Observer for Deep<'_> {
    fn facts(
        &mut self,
        root: BorrowedFd<'_>,
        path: &[u8],
        from: &[u8],
        event: &Event,
        facts: &mut Facts,
    ) {
        // for each file, not for the batch: a look may take milliseconds and others use the baseline too
        let mut baseline = lock(self.baseline);
        self.inspector
            .inspect(root, path, old(from), event, &mut baseline, facts);
    }

    fn moved(&mut self, tree: u16, from: &[u8], to: &[u8]) {
        let mut baseline = lock(self.baseline);
        let key = baseline.key();
        baseline.rename(
            names::path_hash(&key, tree, from),
            names::path_hash(&key, tree, to),
        );
    }
}

/// Knows names only.
struct Shallow(names::Key);

impl Observer for Shallow {
    fn facts(
        &mut self,
        _root: BorrowedFd<'_>,
        path: &[u8],
        from: &[u8],
        event: &Event,
        facts: &mut Facts,
    ) {
        names::fill(&self.0, event.tree, path, old(from), facts);
    }
}

/// The trees that Python names.
///
/// # Safety
/// `trees` points to `count` trees whose pointers hold.
pub(crate) unsafe fn specs(
    trees: *const ShdTree,
    count: usize,
    capacity: usize,
) -> Result<Vec<TreeSpec>, Failure> {
    if trees.is_null()
        || count == 0
        || count > usize::from(u16::MAX)
        || capacity == 0
        || capacity > 1 << 24
    {
        return Err(Failure::new(
            "native.argument",
            "trees or capacity out of range",
        ));
    }
    let mut specs = Vec::with_capacity(count);
    // SAFETY: the caller promises the trees and what they point to.
    unsafe {
        for tree in std::slice::from_raw_parts(trees, count) {
            if tree.root_fd < 0 {
                return Err(Failure::new("native.argument", "negative descriptor"));
            }
            let root = BorrowedFd::borrow_raw(tree.root_fd)
                .try_clone_to_owned()
                .map_err(|e| failed(&e))?;
            let globs = bytes(tree.exclude, tree.exclude_len)
                .split(|&b| b == 0)
                .filter(|g| !g.is_empty());
            specs.push(TreeSpec {
                path: bytes(tree.path, tree.path_len).to_vec(),
                root,
                globs: Globs::new(globs),
            });
        }
    }
    Ok(specs)
}

impl ShdWatcher {
    /// A handle for Python over a watcher of any kind.
    pub(crate) fn wrap(
        watcher: Box<dyn Watch>,
        inspect: bool,
        baseline: Arc<Mutex<Baseline>>,
        windows: Arc<Mutex<Windows>>,
    ) -> *mut ShdWatcher {
        let looking = Mutex::new(Looking {
            batch: Batch::default(),
            inspector: inspect.then(Inspector::new),
            baseline,
        });
        Box::into_raw(Box::new(ShdWatcher {
            watcher,
            looking,
            windows,
        }))
    }
}

/// A watcher over `count` trees. `inspect` 0 leaves the content of files alone.
///
/// # Safety
/// `trees` points to `count` trees whose pointers hold; the handles are live; `out` points to one writable pointer.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_new(
    trees: *const ShdTree,
    count: usize,
    inspect: u8,
    hold_us: u64,
    capacity: usize,
    baseline: *const ShdBaseline,
    windows: *const ShdWindows,
    out: *mut *mut ShdWatcher,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let baseline = baseline
                .as_ref()
                .ok_or_else(|| null("baseline"))?
                .inner
                .clone();
            let windows = windows
                .as_ref()
                .ok_or_else(|| null("windows"))?
                .inner
                .clone();
            let out = out.as_mut().ok_or_else(|| null("out"))?;
            let specs = specs(trees, count, capacity)?;
            let options = Options {
                hold: Duration::from_micros(hold_us),
                capacity,
            };
            let watcher = Watcher::new(specs, options).map_err(|e| failed(&e))?;
            *out = ShdWatcher::wrap(Box::new(watcher), inspect != 0, baseline, windows);
            Ok(())
        })
    }
}

/// Frees a watcher (and stops it); null is fine.
///
/// # Safety
/// `handle` came from `shd_watch_new`, is not used again, and no call on it is in progress.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_free(handle: *mut ShdWatcher) {
    if !handle.is_null() {
        // SAFETY: the caller promises that it is ours and last used.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Watches every directory and starts the reader.
///
/// # Safety
/// `handle` is live.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_start(handle: *const ShdWatcher, error: *mut ShdError) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("watcher"))?;
            handle.watcher.start().map_err(|e| failed(&e))
        })
    }
}

/// Waits at most `timeout_ns` for events. `out.rows` is null where there are none.
///
/// # Safety
/// `handle` is live, `out` points to one record.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_next(
    handle: *const ShdWatcher,
    timeout_ns: u64,
    out: *mut ShdBatch,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("watcher"))?;
            let out = out.as_mut().ok_or_else(|| null("out"))?;
            out.rows = std::ptr::null_mut();
            out.count = 0;
            let mut looking = lock(&handle.looking);
            let Looking {
                batch,
                inspector,
                baseline,
            } = &mut *looking;
            let timeout = Duration::from_nanos(timeout_ns);
            let ended = match inspector {
                Some(inspector) => handle.watcher.next_batch(
                    timeout,
                    batch,
                    Some(&mut Deep {
                        inspector,
                        baseline,
                    }),
                ),
                None => {
                    let key = lock(baseline).key();
                    handle
                        .watcher
                        .next_batch(timeout, batch, Some(&mut Shallow(key)))
                }
            };
            match ended {
                Ok(()) => {
                    *out = lay_out(batch, &handle.windows)?;
                    Ok(())
                }
                Err(Ended::TimedOut) => Ok(()),
                Err(Ended::Stopped) => {
                    Err(Failure::new("watch.stopped", "the watcher was stopped"))
                }
            }
        })
    }
}

/// Copies a batch into one block and lets the windows write their rows there.
fn lay_out(batch: &Batch, windows: &Mutex<Windows>) -> Result<ShdBatch, Failure> {
    let count = batch.events.len();
    let events_len = count * size_of::<Event>();
    let facts_at = events_len;
    let observations_at = facts_at + count * size_of::<Facts>();
    let names_at = observations_at + count * WIDTH * size_of::<f32>();
    let size = names_at + batch.names.len();
    let layout = Layout::from_size_align(HEAD + size, HEAD)
        .map_err(|_| Failure::new("native.argument", "batch too large"))?;
    // SAFETY: the layout is not empty. All parts lie inside the block at offsets that fit their alignment (events and
    // facts are multiples of 8 bytes), the block is zeroed, and nobody else has it yet.
    unsafe {
        let block = alloc_zeroed(layout);
        if block.is_null() {
            return Err(Failure::new("file.full", "no memory for a batch"));
        }
        block.cast::<usize>().write(HEAD + size);
        let rows = block.add(HEAD);
        std::ptr::copy_nonoverlapping(batch.events.as_ptr().cast::<u8>(), rows, events_len);
        std::ptr::copy_nonoverlapping(
            batch.facts.as_ptr().cast::<u8>(),
            rows.add(facts_at),
            count * size_of::<Facts>(),
        );
        std::ptr::copy_nonoverlapping(batch.names.as_ptr(), rows.add(names_at), batch.names.len());
        let table =
            std::slice::from_raw_parts_mut(rows.add(observations_at).cast::<f32>(), count * WIDTH);
        lock(windows).observe(&batch.events, &batch.facts, table);
        Ok(ShdBatch {
            rows,
            count: count as u32,
            width: WIDTH as u32,
            facts_at: facts_at as u64,
            observations_at: observations_at as u64,
            names_at: names_at as u64,
            size: size as u64,
        })
    }
}

/// Frees the block of a batch; null is fine.
///
/// # Safety
/// `rows` came from `shd_watch_next` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn shd_batch_free(rows: *mut u8) {
    if rows.is_null() {
        return;
    }
    // SAFETY: the caller promises that the block is ours; its length stands before the rows.
    unsafe {
        let block = rows.sub(HEAD);
        let length = block.cast::<usize>().read();
        dealloc(block, Layout::from_size_align_unchecked(length, HEAD));
    }
}

/// Announces own operations on a path: `count` of each kind in `kinds` (bits `1 << kind`) are not reported.
///
/// # Safety
/// `handle` is live, `path` points to `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_expect(
    handle: *const ShdWatcher,
    tree: u16,
    path: *const u8,
    len: usize,
    kinds: u16,
    count: u16,
    ttl_ns: u64,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("watcher"))?;
            handle.watcher.expect(
                tree,
                bytes(path, len),
                kinds,
                count,
                Duration::from_nanos(ttl_ns),
            );
            Ok(())
        })
    }
}

/// Asks for a rescan of a tree against the known state.
///
/// # Safety
/// `handle` is live.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_rescan(
    handle: *const ShdWatcher,
    tree: u16,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("watcher"))?;
            if handle.watcher.rescan(tree) {
                return Ok(());
            }
            Err(Failure::new("native.argument", "no such tree"))
        })
    }
}

/// Counts as of now.
///
/// # Safety
/// `handle` is live, `out` points to one record.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_status(
    handle: *const ShdWatcher,
    out: *mut ShdWatchStatus,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let now = handle
                .as_ref()
                .ok_or_else(|| null("watcher"))?
                .watcher
                .status();
            *out.as_mut().ok_or_else(|| null("out"))? = ShdWatchStatus {
                watches: now.watches,
                directories: now.directories,
                overflows: now.overflows,
                lost: now.lost,
                watch_failures: now.watch_failures,
                rescans: now.rescans,
                blind_since_ns: now.blind_since_ns,
                queued: now.queued,
                events: now.events,
                merged: now.merged,
                own: now.own,
                reads: now.reads,
                known: now.known,
                known_beyond: now.known_beyond,
            };
            Ok(())
        })
    }
}

/// Places that are not watched, one after another: tree (2 bytes, little-endian), length of the path (4), path, length of
/// the reason (4), reason. At most `capacity` bytes go into `out`; `length` receives the whole length.
///
/// # Safety
/// `handle` is live, `out` points to `capacity` writable bytes, `length` to one number.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_not_covered(
    handle: *const ShdWatcher,
    out: *mut u8,
    capacity: usize,
    length: *mut usize,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let handle = handle.as_ref().ok_or_else(|| null("watcher"))?;
            let mut all = Vec::new();
            for (tree, path, why) in handle.watcher.not_covered() {
                all.extend_from_slice(&tree.to_le_bytes());
                all.extend_from_slice(&(path.len() as u32).to_le_bytes());
                all.extend_from_slice(&path);
                all.extend_from_slice(&(why.len() as u32).to_le_bytes());
                all.extend_from_slice(why.as_bytes());
            }
            *length.as_mut().ok_or_else(|| null("length"))? = all.len();
            if !out.is_null() && all.len() <= capacity {
                std::ptr::copy_nonoverlapping(all.as_ptr(), out, all.len());
            }
            Ok(())
        })
    }
}

/// Stops: ends the reader and wakes who waits. May be called twice, and from another thread.
///
/// # Safety
/// `handle` is live.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_stop(handle: *const ShdWatcher, error: *mut ShdError) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            handle
                .as_ref()
                .ok_or_else(|| null("watcher"))?
                .watcher
                .stop();
            Ok(())
        })
    }
}

/// Whether a path relative to a tree's root is left out by globs (each ended by a zero byte).
///
/// # Safety
/// The pointers hold for their lengths; `out` points to one byte.
#[no_mangle]
pub unsafe extern "C" fn shd_watch_excluded(
    globs: *const u8,
    globs_len: usize,
    path: *const u8,
    len: usize,
    directory: u8,
    out: *mut u8,
    error: *mut ShdError,
) -> i32 {
    // SAFETY: the caller promises the pointers.
    unsafe {
        guarded(error, || {
            let globs = Globs::new(
                bytes(globs, globs_len)
                    .split(|&b| b == 0)
                    .filter(|g| !g.is_empty()),
            );
            *out.as_mut().ok_or_else(|| null("out"))? =
                u8::from(globs.matches(bytes(path, len), directory != 0));
            Ok(())
        })
    }
}
