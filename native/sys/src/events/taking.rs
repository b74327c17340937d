//! The consumer's loop, the same for every source: wait for records, take them, hand them out, walk when idle.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::expect::Expected;
use super::pending::Pending;
use super::rows::{Batch, Observer};
use super::Globs;

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
    /// Watches in the kernel: one per directory, or one mark per file system.
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

/// A watcher of some trees, whatever it asks of the kernel. All may be called from any thread.
pub trait Watch: Send + Sync {
    /// Watches; returns once everything that happens from now on will be reported.
    fn start(&self) -> std::io::Result<()>;
    /// Waits for events and fills `batch`. Without an observer the facts stay empty.
    fn next_batch(
        &self,
        timeout: Duration,
        batch: &mut Batch,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(), Ended>;
    /// Announces own operations: `count` of each kind in `kinds` (bits `1 << kind`) on a path are not reported.
    fn expect(&self, tree: u16, path: &[u8], kinds: u16, count: u16, ttl: Duration);
    /// Asks for a rescan of a tree. False where there is no such tree.
    fn rescan(&self, tree: u16) -> bool;
    /// Counts as of now. While a batch is being made the known state is told as of the last one.
    fn status(&self) -> Status;
    /// Places that are not watched: tree, path relative to its root, reason.
    fn not_covered(&self) -> Vec<(u16, Vec<u8>, String)>;
    /// Stops: wakes who waits and ends the reader. May be called twice.
    fn stop(&self);
}

/// What the reader keeps and the consumer's loop looks at.
pub(crate) trait Front {
    fn pending(&self) -> &Pending;
    /// Whether nothing waits beside the records.
    fn is_idle(&self) -> bool;
    /// Whether notices wait.
    fn wants_notices(&self) -> bool;
    /// Tells the reader whether somebody waits for records.
    fn wait(&mut self, waiting: bool);
    /// Own operations that were announced.
    fn expected(&mut self) -> &mut Expected;
    /// How far the reader has come once it has read all that the kernel has queued by now.
    fn queued_until(&self) -> u64;
    /// Marks a tree for a rescan. False where there is no such tree.
    fn rescan(&mut self, tree: u16) -> bool;
}

/// What the consumer keeps.
pub(crate) trait Side<F: Front> {
    /// Whether records are left of what was taken.
    fn has_rows(&self) -> bool;
    /// Takes what is due from the reader's side.
    fn take(&mut self, front: &mut F, now_ns: u64, hold_ns: u64);
    /// Fills a batch from what was taken.
    fn fill(&mut self, front: &Mutex<F>, batch: &mut Batch, observer: Option<&mut dyn Observer>);
    /// Makes room for the next set; called while nobody waits for the front.
    fn tidy(&mut self);
    /// Looks, from time to time, whether the roots are still there.
    fn check_roots(&mut self, front: &Mutex<F>);
    /// When the roots are looked at next.
    fn roots_at(&self) -> Instant;
    /// When a walk is worth waking for.
    fn next_work(&self, front: &F) -> Option<Instant>;
    /// Goes on with a walk, or begins one that is due. True where it gave rows.
    fn work(&mut self, front: &Mutex<F>) -> bool;
}

/// What reader and consumer share.
pub(crate) struct Shared<F> {
    pub(crate) state: Mutex<F>,
    /// Whoever wants the state while the reader goes round holds this meanwhile, and the reader waits for it.
    turn: Mutex<()>,
    /// A reader that reads without the state has, or may have, so many bytes in hand that the state does not know of.
    pub(crate) in_hand: AtomicU64,
    pub(crate) ready: Condvar,
    pub(crate) stopped: AtomicBool,
    pub(crate) wake: OwnedFd,
}

/// The consumer's part of a watcher.
pub(crate) struct Taking<D> {
    pub(crate) drain: D,
    last: Instant,
}

impl<D> Taking<D> {
    pub(crate) fn new(drain: D) -> Self {
        Taking {
            drain,
            last: Instant::now() - BUSY,
        }
    }
}

/// Locks; a panic elsewhere does not make the counts unusable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl<F: Front> Shared<F> {
    pub(crate) fn new(state: F) -> std::io::Result<Self> {
        use rustix::event::{eventfd, EventfdFlags};
        Ok(Shared {
            state: Mutex::new(state),
            turn: Mutex::new(()),
            in_hand: AtomicU64::new(0),
            ready: Condvar::new(),
            stopped: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// The state, for all but the reader. A mutex favours who had it last; a reader with a long queue to read would
    /// never let anybody in.
    pub(crate) fn enter(&self) -> MutexGuard<'_, F> {
        let _turn = lock(&self.turn);
        lock(&self.state)
    }

    /// The state for the reader, after whoever waits for it.
    pub(crate) fn enter_to_read(&self) -> MutexGuard<'_, F> {
        drop(lock(&self.turn));
        lock(&self.state)
    }

    /// Wakes the reader and whoever waits for a batch, for good.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if rustix::io::write(&self.wake, &1u64.to_ne_bytes()).is_err() {
            // the counter is full: the reader is being woken already
        }
        self.ready.notify_all();
    }

    fn wait<'a>(&self, mut state: MutexGuard<'a, F>, time: Duration) -> MutexGuard<'a, F> {
        state.wait(true);
        let (mut state, _) = self
            .ready
            .wait_timeout(state, time)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.wait(false);
        state
    }

    /// See [`Watch::next_batch`].
    pub(crate) fn next_batch<D: Side<F>>(
        &self,
        taking: &mut Taking<D>,
        hold: Duration,
        timeout: Duration,
        batch: &mut Batch,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(), Ended> {
        let deadline = Instant::now() + timeout;
        let hold_ns = hold.as_nanos() as u64;
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return Err(Ended::Stopped);
            }
            if taking.drain.has_rows() {
                taking.drain.fill(&self.state, batch, observer);
                taking.last = Instant::now();
                return Ok(());
            }
            taking.drain.check_roots(&self.state);
            taking.drain.tidy();
            let busy_until = taking.last + BUSY;
            if Instant::now() < busy_until {
                let until = (taking.last + GATHER).min(deadline);
                self.gather(until);
            }
            let mut state = self.enter();
            let now_ns = super::clocks().1;
            if state.is_idle() && state.pending().is_empty() {
                let work = taking.drain.next_work(&state);
                let now = Instant::now();
                if work.is_some_and(|at| at <= now) {
                    drop(state);
                    taking.drain.work(&self.state);
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
                drop(self.wait(state, until.max(now) - now));
                continue;
            }
            if !state.wants_notices() && !state.pending().is_empty() {
                if let Some(wait_ns) = state.pending().due_in(now_ns, hold_ns) {
                    let now = Instant::now();
                    if now >= deadline {
                        return Err(Ended::TimedOut);
                    }
                    let wait = Duration::from_nanos(wait_ns).min(deadline - now);
                    drop(self.wait(state, wait));
                    continue;
                }
            }
            taking.drain.take(&mut state, now_ns, hold_ns);
        }
    }

    /// Lets a busy queue fill a little: fewer, larger batches cost less and merge more.
    fn gather(&self, until: Instant) {
        let now = Instant::now();
        if now < until && self.enter().pending().recs.len() < PLENTY {
            std::thread::sleep(until - now);
        }
    }
}
