//! The answerer: one loop that reads events, answers them, and never waits longer than it says.
//!
//! Who may wait for whom is said in [`super`]; what is done with one event in `triage`. The heart beats at
//! every turn, and a turn comes at least every [`PACE`].

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::access::Calls;
use super::control::{covers, Control, State, Word};
use super::identity::Identities;
use super::keeper::{Keepers, Opener};
use super::marks::{self, Marked};
use super::pending::Pending;
use super::scope::{Scope, Tree};
use super::{mono_ns, turns};
use crate::actors::Programs;
use crate::files::trouble::{Result, Trouble};

/// A turn comes at least so often.
pub const PACE: Duration = Duration::from_millis(25);
/// Longest wait for the supervisor.
const SUPERVISOR: Duration = Duration::from_secs(5);
/// Descriptors kept for all but held files.
const SPARE: u64 = 2048;
/// Priority where it may be set.
const PRIORITY: i32 = 10;

/// A tree and what its versions go to.
pub struct Guarded {
    /// The tree.
    pub tree: Tree,
    /// Index of its vault.
    pub vault: Option<usize>,
}

/// What an answerer is given.
pub struct Setup {
    /// The control block.
    pub control: Control,
    /// Hangs up when the daemon is gone.
    pub lifeline: OwnedFd,
    /// The daemon wakes us through it (eventfd(2), non-blocking).
    pub wake: OwnedFd,
    /// We tell the daemon through it that there are records (eventfd(2), non-blocking).
    pub told: OwnedFd,
    /// Trees.
    pub trees: Vec<Guarded>,
    /// Vaults.
    pub vaults: Vec<OwnedFd>,
    /// Opens them.
    pub open: Arc<Opener>,
    /// The programs that bound an actor; our own processes among them.
    pub programs: Programs,
    /// Directory of the daemon's state.
    pub state: Option<OwnedFd>,
    /// Longest wait for a verdict, ns.
    pub bound_ns: u64,
    /// Longest wait for a version, ns.
    pub hold_ns: u64,
    /// Files up to this size are kept whole, larger ones by range where that can be seen. Bytes.
    pub whole_limit: u64,
    /// Whether ranges are asked for.
    pub ranges: bool,
}

/// Priority and memory, where they may be had; the bits of [`covers`] for what was.
fn settle_in() -> u64 {
    let mut covered = 0;
    let priority = libc::sched_param {
        sched_priority: PRIORITY,
    };
    // SAFETY: the record is valid for the call; 0 is this thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &priority) } == 0 {
        covered |= covers::REALTIME;
    }
    // SAFETY: no pointers. What is there now is enough: the loop works in what it has.
    if unsafe { libc::mlockall(libc::MCL_CURRENT) } == 0 {
        covered |= covers::LOCKED;
    }
    covered
}

/// Waits until somebody watches over us.
fn supervised(control: &Control) -> Result<()> {
    let began = mono_ns();
    while control.get(Word::SupervisorBeat) < began {
        if mono_ns() - began > SUPERVISOR.as_nanos() as u64 {
            return Err(Trouble::new("hold.failed", "no supervisor came"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// How many files may be held: each is a descriptor.
fn room() -> usize {
    use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
    let limit = getrlimit(Resource::Nofile);
    let more = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let now = match setrlimit(Resource::Nofile, more) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // twice: a held file's and its opener's process's
    now.unwrap_or(1 << 20)
        .saturating_sub(SPARE)
        .clamp(64, 1 << 20) as usize
        / 2
}

/// The loop's state.
pub struct Answerer {
    pub(super) control: Control,
    pub(super) marked: Marked,
    pub(super) scope: Scope,
    pub(super) calls: Calls,
    pub(super) identities: Identities,
    pub(super) pending: Pending,
    pub(super) vault_of: Vec<(Option<usize>, u64)>,
    pub(super) whole_limit: u64,
    pub(super) room: usize,
    pub(super) reads: u32,
    pub(super) path: Box<[u8; 4096]>,
    pub(super) keepers: Keepers,
    pub(super) sources: OwnedFd,
    pub(super) lifeline: OwnedFd,
    pub(super) wake: OwnedFd,
    pub(super) told: OwnedFd,
    pub(super) bound_ns: u64,
    pub(super) hold_ns: u64,
    pub(super) refreshed: u64,
    pub(super) tell_ns: Option<u64>,
    pub(super) asking: usize,
    /// When the herd that waits is let go.
    pub(super) herd_ns: Option<u64>,
    /// Answers in a row that took long.
    pub(super) slow: u32,
    /// Files of a herd.
    pub(super) deferred: Vec<OwnedFd>,
}

impl Answerer {
    /// Prepares: keepers first, then the group, then marks. Nothing is held before the last step.
    ///
    /// # Errors
    /// `hold.unsupported`, `hold.filesystem`, `hold.deadlock`, `hold.failed`, the vault's own.
    pub fn new(setup: Setup) -> Result<Answerer> {
        let failed = |e: std::io::Error| Trouble {
            code: "hold.failed",
            errno: e.raw_os_error().unwrap_or(0),
            message: format!("the answerer cannot prepare: {e}"),
        };
        let control = setup.control;
        control.set(Word::Pid, u64::from(std::process::id()));
        // before the group is there: the keepers' table must never hold it
        let keepers = Keepers::start(&setup.vaults, setup.open)?;
        let mut programs = setup.programs;
        programs.own.push(std::process::id() as i32);
        let identities = Identities::new(programs).map_err(failed)?;
        let calls = Calls::new().map_err(failed)?;
        let mut vault_of = Vec::new();
        let mut trees = Vec::new();
        for guarded in setup.trees {
            let dev = rustix::fs::fstat(&guarded.tree.root)
                .map_err(|e| failed(e.into()))?
                .st_dev;
            vault_of.push((guarded.vault, dev));
            trees.push(guarded.tree);
        }
        let systems = marks::systems(&trees)?;
        let group = marks::group(setup.ranges)?;
        let room = room();
        let mut covered = settle_in();
        supervised(&control)?;
        control.set(Word::Beat, mono_ns());
        // from here on the supervisor judges: a mark must not be put by somebody whom nobody watches
        control.set(Word::State, State::Running as u64);
        let marked = Marked::new(group, &trees, &systems, &setup.vaults, setup.state.as_ref())?;
        covered |= covers::OPENS;
        if marked.ranges.len() == systems.len() {
            covered |= covers::RANGES;
        }
        if marked.moves.is_some() {
            covered |= covers::MOVES;
        }
        control.set(Word::Covers, covered);
        let refreshed = control.get(Word::Refresh);
        let (lifeline, wake) = (setup.lifeline.as_fd(), setup.wake.as_fd());
        let sources = turns::sources(&marked, &keepers, lifeline, wake)?;
        Ok(Answerer {
            scope: Scope::new(trees, systems).map_err(failed)?,
            control,
            marked,
            calls,
            identities,
            pending: Pending::default(),
            vault_of,
            whole_limit: setup.whole_limit,
            room,
            reads: 0,
            path: Box::new([0; 4096]),
            keepers,
            sources,
            lifeline: setup.lifeline,
            wake: setup.wake,
            told: setup.told,
            bound_ns: setup.bound_ns,
            hold_ns: setup.hold_ns,
            refreshed,
            tell_ns: None,
            asking: 0,
            herd_ns: None,
            slow: 0,
            deferred: Vec::new(),
        })
    }
}
