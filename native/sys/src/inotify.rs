//! The inotify watcher: guarded trees in, coalesced events out, nothing lost in silence.
//!
//! A thread of its own empties the kernel's queue into a bounded queue of one record per path; whoever takes batches
//! looks at the files and compares whole trees with the known state after a loss. Owns: watches, coalescing, rescans.
//! Does not own: what is in a file ([`Observer`]), and what an event means.

mod dirs;
mod drain;
mod expect;
mod globs;
mod kernel;
mod known;
mod pending;
mod reader;
mod scan;
mod state;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{eventfd, EventfdFlags};

pub use drain::{Batch, Observer, ROWS};
pub use globs::Globs;

use drain::Drain;
use known::Known;
use state::{State, Tree};

/// Files in the known state at most.
const KNOWN: usize = 1_000_000;
/// A consumer that took a batch less than this ago is busy: more is gathered before the next one.
const BUSY: Duration = Duration::from_millis(5);
/// How long is gathered then.
const GATHER: Duration = Duration::from_millis(3);
/// Records that are worth a batch at once.
const PLENTY: usize = 2048;

/// A tree to guard.
pub struct TreeSpec {
    /// Path of the root, to find it again after an unmount.
    pub path: Vec<u8>,
    /// The root, open.
    pub root: OwnedFd,
    /// What is left out.
    pub globs: Globs,
}

/// How to watch.
#[derive(Clone, Copy)]
pub struct Options {
    /// How long a file that is still open for writing waits for its writer before it is reported.
    pub hold: Duration,
    /// Records kept for the consumer at most.
    pub capacity: usize,
}

/// What a watcher has to say about itself.
#[derive(Debug, Default, Clone, Copy)]
pub struct Status {
    /// Watches in the kernel.
    pub watches: u64,
    /// Directories known, watched or not.
    pub directories: u64,
    /// Overflows of the kernel's queue.
    pub overflows: u64,
    /// Events lost: exactly where our own queue was full, one for each overflow of the kernel's.
    pub lost: u64,
    /// Times a directory could not be watched.
    pub watch_failures: u64,
    /// Rescans of whole trees that ended.
    pub rescans: u64,
    /// `CLOCK_REALTIME` since when something may have been missed, ns; 0 where nothing was.
    pub blind_since_ns: u64,
    /// Records that wait.
    pub queued: u64,
    /// Kernel events seen.
    pub events: u64,
    /// Kernel events merged into the record of another.
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

/// Why there is no batch.
#[derive(Debug)]
pub enum Ended {
    /// Nothing happened in time.
    TimedOut,
    /// The watcher was stopped.
    Stopped,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
    stopped: AtomicBool,
    wake: OwnedFd,
    queue: Arc<OwnedFd>,
}

/// Locks; a panic elsewhere does not make the counts unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A watcher of some trees.
pub struct Watcher {
    shared: Arc<Shared>,
    taking: Mutex<Taking>,
    reader: Mutex<Option<JoinHandle<()>>>,
    options: Options,
}

struct Taking {
    drain: Drain,
    last: Instant,
}

impl Watcher {
    /// Prepares a watcher; nothing is watched before [`Watcher::start`].
    pub fn new(specs: Vec<TreeSpec>, options: Options) -> io::Result<Self> {
        let queue = Arc::new(kernel::init()?);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mut seed = [0u8; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
        let mut roots = Vec::new();
        let mut trees = Vec::new();
        for spec in specs {
            roots.push(spec.root.try_clone()?);
            trees.push(Tree {
                root: spec.root,
                path: spec.path,
                globs: spec.globs,
                id: dirs::NONE,
                gone: false,
                rescan: false,
                blind_since_ns: 0,
            });
        }
        let state = State::new(
            queue.clone(),
            u64::from_ne_bytes(seed),
            trees,
            options.capacity,
        );
        let drain = Drain::new(roots, Known::new(KNOWN), options.capacity);
        Ok(Watcher {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                ready: Condvar::new(),
                stopped: AtomicBool::new(false),
                wake,
                queue,
            }),
            taking: Mutex::new(Taking {
                drain,
                last: Instant::now() - BUSY,
            }),
            reader: Mutex::new(None),
            options,
        })
    }

    /// Watches every directory, then lets the reader run. What changes meanwhile waits in the kernel's queue.
    pub fn start(&self) -> io::Result<()> {
        let mut reader = lock(&self.reader);
        if reader.is_some() || self.shared.stopped.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the watcher was started before",
            ));
        }
        let mut taking = lock(&self.taking);
        let mut state = lock(&self.shared.state);
        (state.at_ns, state.mono_ns) = kernel::clocks();
        // all roots first: a tree inside another is then met as what it is
        for tree in 0..state.trees.len() as u16 {
            if !state.root_back(tree) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
        }
        for tree in 0..state.trees.len() as u16 {
            state.follow_root(tree, &mut taking.drain.known);
        }
        drop(state);
        let shared = self.shared.clone();
        *reader = Some(
            std::thread::Builder::new()
                .name("shieldd-inotify".into())
                .spawn(move || reader::run(&shared))?,
        );
        Ok(())
    }

    /// Waits for events and fills `batch`. Without an observer the facts stay empty.
    pub fn next_batch(
        &self,
        timeout: Duration,
        batch: &mut Batch,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(), Ended> {
        let deadline = Instant::now() + timeout;
        let mut taking = lock(&self.taking);
        let hold_ns = self.options.hold.as_nanos() as u64;
        loop {
            if self.shared.stopped.load(Ordering::Acquire) {
                return Err(Ended::Stopped);
            }
            if taking.drain.has_rows() {
                taking.drain.fill(&self.shared.state, batch, observer);
                taking.last = Instant::now();
                return Ok(());
            }
            taking.drain.check_roots(&self.shared.state);
            taking.drain.tidy();
            let busy_until = taking.last + BUSY;
            if Instant::now() < busy_until {
                let until = (taking.last + GATHER).min(deadline);
                self.gather(until);
            }
            let mut state = lock(&self.shared.state);
            let now_ns = kernel::clocks().1;
            if state.notices.is_empty() && state.pending.is_empty() && state.own.is_empty() {
                let work = taking.drain.next_work(&state);
                let now = Instant::now();
                if work.is_some_and(|at| at <= now) {
                    drop(state);
                    taking.drain.work(&self.shared.state);
                    if !taking.drain.has_rows() && Instant::now() >= deadline {
                        return Err(Ended::TimedOut);
                    }
                    continue;
                }
                if now >= deadline {
                    return Err(Ended::TimedOut);
                }
                let until = work
                    .map_or(deadline, |at| at.min(deadline))
                    .min(taking.drain.roots_at());
                let until = until.max(now);
                state.waiting = true;
                let (mut state, _) = self
                    .shared
                    .ready
                    .wait_timeout(state, until - now)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                state.waiting = false;
                continue;
            }
            if state.notices.is_empty() && !state.pending.is_empty() {
                if let Some(wait_ns) = state.pending.due_in(now_ns, hold_ns) {
                    let now = Instant::now();
                    if now >= deadline {
                        return Err(Ended::TimedOut);
                    }
                    let wait = Duration::from_nanos(wait_ns).min(deadline - now);
                    state.waiting = true;
                    let (mut state, _) = self
                        .shared
                        .ready
                        .wait_timeout(state, wait)
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    state.waiting = false;
                    continue;
                }
            }
            taking.drain.take(&mut state, now_ns, hold_ns);
        }
    }

    /// Lets a busy queue fill a little: fewer, larger batches cost less and merge more.
    fn gather(&self, until: Instant) {
        let now = Instant::now();
        if now < until && lock(&self.shared.state).pending.recs.len() < PLENTY {
            std::thread::sleep(until - now);
        }
    }

    /// Announces own operations: `count` of each kind in `kinds` (bits `1 << kind`) on a path are not reported.
    pub fn expect(&self, tree: u16, path: &[u8], kinds: u16, count: u16, ttl: Duration) {
        let now_ns = kernel::clocks().1;
        let until = now_ns.saturating_add(ttl.as_nanos() as u64);
        lock(&self.shared.state)
            .expected
            .add(tree, path, kinds, count, until, now_ns);
    }

    /// Asks for a rescan of a tree. False where there is no such tree.
    pub fn rescan(&self, tree: u16) -> bool {
        let mut state = lock(&self.shared.state);
        let Some(tree) = state.trees.get_mut(tree as usize) else {
            return false;
        };
        tree.rescan = true;
        drop(state);
        self.shared.ready.notify_all();
        true
    }

    /// Counts as of now. While a batch is being made the known state is told as of the last one.
    pub fn status(&self) -> Status {
        let (queued, known, known_beyond) = match self.taking.try_lock() {
            Ok(taking) => (
                taking.drain.depth(),
                taking.drain.known.len(),
                taking.drain.known.beyond,
            ),
            Err(_) => (0, 0, 0),
        };
        let state = lock(&self.shared.state);
        let unwatched = state.dirs.unwatched();
        Status {
            watches: (state.dirs.len() - unwatched) as u64,
            directories: state.dirs.len() as u64,
            overflows: state.counters.overflows,
            lost: state.counters.lost,
            watch_failures: state.counters.watch_failures,
            rescans: state.counters.rescans,
            blind_since_ns: state
                .trees
                .iter()
                .map(|t| t.blind_since_ns)
                .filter(|&t| t > 0)
                .min()
                .unwrap_or(0),
            queued: (queued + state.pending.recs.len()) as u64,
            events: state.counters.events,
            merged: state.counters.merged,
            own: state.expected.dropped,
            reads: state.counters.reads,
            known: known as u64,
            known_beyond,
        }
    }

    /// Places that are not watched: tree, path relative to its root, reason.
    pub fn not_covered(&self) -> Vec<(u16, Vec<u8>, String)> {
        let state = lock(&self.shared.state);
        let mut out: Vec<(u16, Vec<u8>, String)> = state
            .left_out
            .iter()
            .map(|(tree, path, why)| (*tree, path.clone(), (*why).to_owned()))
            .collect();
        for (tree, spec) in state.trees.iter().enumerate() {
            if spec.gone {
                out.push((
                    tree as u16,
                    Vec::new(),
                    "the root of the tree is gone".to_owned(),
                ));
            }
        }
        let mut path = Vec::new();
        for (&id, &errno) in state.unwatched.iter().take(state::PLACES) {
            let Some(dir) = state.dirs.get(id) else {
                continue;
            };
            if state.dirs.prefix(id, &mut path) {
                let why = match errno {
                    libc::ENOSPC => "watch limit reached; looked at from time to time".to_owned(),
                    libc::ENOMEM => "no memory for a watch; looked at from time to time".to_owned(),
                    libc::EACCES | libc::EPERM => {
                        "permission denied; tried again from time to time".to_owned()
                    }
                    other => format!(
                        "{}; tried again from time to time",
                        io::Error::from_raw_os_error(other)
                    ),
                };
                out.push((
                    dir.tree,
                    path.strip_suffix(b"/").unwrap_or(&path).to_vec(),
                    why,
                ));
            }
        }
        out
    }

    /// Stops: wakes who waits and ends the reader. May be called twice.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        if rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes()).is_err() {
            // the counter is full: the reader is being woken already
        }
        self.shared.ready.notify_all();
        if let Some(reader) = lock(&self.reader).take() {
            if reader.join().is_err() {
                // it panicked; its work is over all the same
            }
        }
        self.shared.ready.notify_all();
    }

    /// The kernel queue's descriptor, for tests and measurements that pause the reader.
    pub fn queue(&self) -> std::os::fd::BorrowedFd<'_> {
        self.shared.queue.as_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}
