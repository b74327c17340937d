//! The inotify watcher: guarded trees in, coalesced events out, nothing lost in silence.
//!
//! A thread of its own empties the kernel's queue into a bounded queue of one record per path; whoever takes batches
//! looks at the files and compares whole trees with the known state after a loss. Owns: watches, coalescing, rescans.
//! Does not own: what is in a file ([`Observer`]), and what an event means.

mod drain;
mod kernel;
mod known;
mod later;
mod reader;
mod scan;
mod state;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::events::running::Running;
use crate::events::taking::{lock, Shared};
use crate::events::{clocks, dirs, seed, Batch, Ended, Observer, Options, Status, TreeSpec, Watch};

use drain::Drain;
use known::Known;
use state::{State, Tree};

/// Files in the known state at most.
const KNOWN: usize = 1_000_000;

/// A watcher of some trees.
pub struct Watcher {
    running: Running<State, Drain>,
    queue: Arc<OwnedFd>,
}

impl Watcher {
    /// Prepares a watcher; nothing is watched before [`Watcher::start`].
    pub fn new(specs: Vec<TreeSpec>, options: Options) -> io::Result<Self> {
        let queue = Arc::new(kernel::init()?);
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
        let state = State::new(queue.clone(), seed()?, trees, options.capacity);
        let drain = Drain::new(roots, Known::new(KNOWN), options.capacity);
        Ok(Watcher {
            running: Running::new(state, drain, options.hold)?,
            queue,
        })
    }

    /// The kernel queue's descriptor, for tests and measurements that pause the reader.
    pub fn queue(&self) -> std::os::fd::BorrowedFd<'_> {
        self.queue.as_fd()
    }

    fn watch_all(&self) -> io::Result<()> {
        let mut taking = lock(&self.running.taking);
        let mut state = lock(&self.running.shared.state);
        (state.at_ns, state.mono_ns) = clocks();
        // all roots first: a tree inside another is then met as what it is
        for tree in 0..state.trees.len() as u16 {
            if !state.root_back(tree) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
        }
        for tree in 0..state.trees.len() as u16 {
            state.follow_root(tree, &mut taking.drain.known);
        }
        Ok(())
    }
}

impl Watch for Watcher {
    /// Watches every directory, then lets the reader run. What changes meanwhile waits in the kernel's queue.
    fn start(&self) -> io::Result<()> {
        let queue = self.queue.clone();
        let read = move |shared: &Shared<State>| reader::run(shared, &queue);
        self.running
            .start("shieldd-inotify", || self.watch_all(), read)
    }

    /// Waits for events and fills `batch`. Without an observer the facts stay empty.
    fn next_batch(
        &self,
        timeout: Duration,
        batch: &mut Batch,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(), Ended> {
        self.running.next_batch(timeout, batch, observer)
    }

    /// Announces own operations: `count` of each kind in `kinds` (bits `1 << kind`) on a path are not reported.
    fn expect(&self, tree: u16, path: &[u8], kinds: u16, count: u16, ttl: Duration) {
        self.running.expect(tree, path, kinds, count, ttl);
    }

    /// Asks for a rescan of a tree. False where there is no such tree.
    fn rescan(&self, tree: u16) -> bool {
        self.running.rescan(tree)
    }

    /// Counts as of now. While a batch is being made the known state is told as of the last one.
    fn status(&self) -> Status {
        let (queued, known, known_beyond) = match self.running.taking.try_lock() {
            Ok(taking) => (
                taking.drain.depth(),
                taking.drain.known.len(),
                taking.drain.known.beyond,
            ),
            Err(_) => (0, 0, 0),
        };
        let state = lock(&self.running.shared.state);
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
    fn not_covered(&self) -> Vec<(u16, Vec<u8>, String)> {
        let state = lock(&self.running.shared.state);
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
        for (&id, &errno) in state.unwatched.iter().take(crate::events::PLACES) {
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
    fn stop(&self) {
        self.running.stop();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}
