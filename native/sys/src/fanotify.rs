//! fanotify: whole file systems watched by one mark each, with the process behind every event.
//!
//! [`kernel`] holds the system calls and the records that the kernel writes; it is shared by the notification source
//! here and by the answerer of permission events. The source keeps the contract of [`crate::events`]: no set-up per
//! directory (a mark covers the file system), names by directory handle, events outside the trees dropped by one look
//! into a table, one record per path and actor while it waits. There is no known state: what a gap hid is found by the
//! times of files, and what was removed in a gap is not found.

mod directories;
mod doubts;
mod drain;
mod files;
pub mod kernel;
mod limbo;
mod losses;
mod mounts;
mod places;
mod reader;
mod scope;
mod state;
mod walk;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::actors::ActorOf;
use crate::events::dirs::NONE;
use crate::events::running::Running;
use crate::events::taking::{lock, Shared};
use crate::events::{
    clocks, seed, Batch, Ended, Observer, Options, Status, TreeSpec, Watch, PLACES,
};

use drain::Drain;
use kernel::Group;
use state::{State, Tree};

/// Who is behind a process, where nobody can say: each tree is its own actor then.
pub struct Nobody;

impl ActorOf for Nobody {
    fn begin(&mut self) {}

    fn actor(&mut self, _pid: i32) -> (u64, bool) {
        (0, false)
    }
}

/// What a source over fanotify is told beside [`Options`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Processes whose own operations are not reported.
    pub own_pids: Vec<i32>,
    /// How long our full queue may leave events in the kernel's before they count as lost.
    pub patience: Duration,
    /// The kernel's queue has its limit, to see it overflow.
    pub limited: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            own_pids: vec![std::process::id() as i32],
            patience: Duration::from_secs(1),
            limited: false,
        }
    }
}

/// A watcher of some trees.
pub struct Watcher {
    running: Running<State, Drain>,
    group: Arc<Group>,
    settings: Settings,
}

fn unsupported(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

impl Watcher {
    /// Prepares a watcher; nothing is watched before [`Watch::start`].
    ///
    /// Errors: `Unsupported` without CAP_SYS_ADMIN and before Linux 5.17.
    pub fn new(
        specs: Vec<TreeSpec>,
        options: Options,
        settings: Settings,
        actors: Box<dyn ActorOf + Send>,
    ) -> io::Result<Self> {
        let group = match settings.limited {
            true => Group::notify_limited(),
            false => Group::notify(),
        };
        let group = Arc::new(group.map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM) => unsupported("fanotify needs CAP_SYS_ADMIN"),
            Some(libc::EINVAL) => {
                unsupported("fanotify of this kernel cannot tell renames (Linux 5.17)")
            }
            Some(libc::ENOSYS) => unsupported("this kernel has no fanotify"),
            _ => e,
        })?);
        let mut roots = Vec::new();
        let mut trees = Vec::new();
        for spec in specs {
            roots.push(spec.root.try_clone()?);
            trees.push(Tree {
                root: spec.root,
                path: spec.path,
                globs: spec.globs,
                id: NONE,
                dev: 0,
                ino: 0,
                key: Vec::new(),
                fsid: 0,
                mount: 0,
                gone: false,
                why: String::new(),
                rescan: false,
                all: false,
                blind_since_ns: 0,
            });
        }
        let pids = settings.own_pids.clone();
        let state = State::new(
            group.clone(),
            seed()?,
            trees,
            options.capacity,
            pids,
            actors,
        );
        let drain = Drain::new(roots, options.capacity);
        Ok(Watcher {
            running: Running::new(state, drain, options.hold)?,
            group,
            settings,
        })
    }

    fn mark_all(&self) -> io::Result<()> {
        let mut state = lock(&self.running.shared.state);
        (state.at_ns, state.mono_ns) = clocks();
        for tree in &state.trees {
            mounts::mark(&self.group, tree.root.as_fd(), &tree.path)?;
        }
        for tree in 0..state.trees.len() as u16 {
            if !state.root_back(tree) {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
        }
        Ok(())
    }
}

impl Watch for Watcher {
    /// Marks each file system once, then lets the reader run. What changes meanwhile waits in the kernel's queue.
    fn start(&self) -> io::Result<()> {
        let (group, patience) = (self.group.clone(), self.settings.patience);
        let read = move |shared: &Shared<State>| reader::run(shared, &group, patience);
        self.running
            .start("shieldd-fanotify", || self.mark_all(), read)
    }

    fn next_batch(
        &self,
        timeout: Duration,
        batch: &mut Batch,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(), Ended> {
        self.running.next_batch(timeout, batch, observer)
    }

    fn expect(&self, tree: u16, path: &[u8], kinds: u16, count: u16, ttl: Duration) {
        self.running.expect(tree, path, kinds, count, ttl);
    }

    fn rescan(&self, tree: u16) -> bool {
        self.running.rescan(tree)
    }

    fn status(&self) -> Status {
        let queued = match self.running.taking.try_lock() {
            Ok(taking) => taking.drain.depth(),
            Err(_) => 0,
        };
        let state = lock(&self.running.shared.state);
        let mut marked: Vec<u64> = state
            .trees
            .iter()
            .filter(|t| !t.gone)
            .map(|t| t.dev)
            .collect();
        marked.sort_unstable();
        marked.dedup();
        let blind = state.trees.iter().map(|t| t.blind_since_ns);
        Status {
            watches: marked.iter().filter(|&&dev| dev != 0).count() as u64,
            directories: state.dirs.len() as u64,
            overflows: state.counters.overflows,
            lost: state.counters.lost,
            watch_failures: state.counters.failures,
            rescans: state.counters.rescans,
            blind_since_ns: blind.filter(|&t| t > 0).min().unwrap_or(0),
            queued: (queued + state.pending.recs.len()) as u64,
            events: state.counters.events,
            merged: state.counters.merged,
            own: state.expected.dropped + state.counters.own,
            reads: state.counters.reads,
            known: 0,
            known_beyond: 0,
        }
    }

    fn not_covered(&self) -> Vec<(u16, Vec<u8>, String)> {
        let state = lock(&self.running.shared.state);
        let paths: Vec<(bool, Vec<u8>, String)> = state
            .trees
            .iter()
            .map(|t| (t.gone, t.path.clone(), t.why.clone()))
            .collect();
        drop(state);
        let mut out = Vec::new();
        for (number, (gone, path, why)) in paths.iter().enumerate() {
            let tree = number as u16;
            if *gone {
                let mut why = why.clone();
                if why.is_empty() {
                    "the root of the tree is gone".clone_into(&mut why);
                }
                out.push((tree, Vec::new(), why));
                continue;
            }
            let mut top = path.strip_suffix(b"/").unwrap_or(path).to_vec();
            top.push(b'/');
            for (_, other, _) in &paths {
                if let Some(below) = other.strip_prefix(top.as_slice()).filter(|b| !b.is_empty()) {
                    let why = "another guarded tree begins here".to_owned();
                    out.push((tree, below.to_vec(), why));
                }
            }
            for below in mounts::below(path).into_iter().take(PLACES) {
                let said = out.iter().any(|(t, p, _)| *t == tree && *p == below);
                if !said {
                    let why = "another file system is mounted here".to_owned();
                    out.push((tree, below, why));
                }
            }
        }
        out
    }

    fn stop(&self) {
        self.running.stop();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}
