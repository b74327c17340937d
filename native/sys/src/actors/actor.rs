//! An actor as it is remembered: who it is, what it runs, who started it.

use std::sync::Arc;

use super::grouping::Group;
use super::process::{Details, Exe, Process};

/// Executables that are remembered of one actor.
pub const EXECUTABLES: usize = 8;
/// Ancestors that are remembered of one actor.
pub const ANCESTRY: usize = 16;

/// A file that acted in an actor's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// The file.
    pub exe: Exe,
    /// A process that runs it, or ran it.
    pub pid: i32,
    /// That process' start.
    pub start_ticks: u64,
    /// Bits of [`super::process::tampering`], of all processes that ran it.
    pub tampering: u8,
}

/// One of those that started an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestor {
    /// Process.
    pub pid: i32,
    /// What it runs, empty where that cannot be told.
    pub exe: Vec<u8>,
    /// Name that it gave itself.
    pub comm: Vec<u8>,
}

/// An actor.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Its name.
    pub group: Group,
    /// The process that is shown for it: the top of its tree; of a terminal or of jobs the first that acted.
    pub process: Arc<Process>,
    /// More of that process.
    pub details: Details,
    /// Who started it, nearest first, up to the session and who started that.
    pub ancestry: Vec<Ancestor>,
    /// What acted in its name, first come first.
    pub executables: Vec<Executable>,
    /// Whether more acted in its name than is remembered, or something that could not be told.
    pub more: bool,
    /// Processes that acted in its name.
    pub processes: u64,
    /// Processes whose memory is being looked at: until that is done nothing speaks for it.
    pub pending: u32,
    pub(super) used: u64,
}

impl Actor {
    pub(super) fn new(
        group: Group,
        process: &Arc<Process>,
        details: Details,
        ancestry: Vec<Ancestor>,
    ) -> Self {
        Actor {
            group,
            process: Arc::clone(process),
            details,
            ancestry,
            executables: Vec::new(),
            more: false,
            processes: 0,
            pending: 0,
            used: 0,
        }
    }

    /// A process acts in its name.
    pub(super) fn add(&mut self, process: &Process) {
        if process.kernel {
            return;
        }
        let known = self.executables.iter_mut().find(|known| {
            known.exe.same(&process.exe) && known.exe.ctime_ns == process.exe.ctime_ns
        });
        if let Some(known) = known {
            known.tampering |= process.tampering;
        } else if process.exe.ino == 0 || self.executables.len() == EXECUTABLES {
            self.more = true;
        } else {
            self.executables.push(Executable {
                exe: process.exe.clone(),
                pid: process.pid,
                start_ticks: process.start_ticks,
                tampering: process.tampering,
            });
        }
    }

    /// Wall clock when its process started, ns; exact to a clock tick (10 ms).
    pub fn start_ns(&self) -> u64 {
        let of = |id| {
            let now = rustix::time::clock_gettime(id);
            (now.tv_sec as u64).saturating_mul(1_000_000_000) + now.tv_nsec as u64
        };
        let boot =
            of(rustix::time::ClockId::Realtime).saturating_sub(of(rustix::time::ClockId::Boottime));
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        boot + self.process.start_ticks.saturating_mul(tick_ns)
    }
}
