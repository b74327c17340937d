//! Sessions started in bursts: who gives each file a session of its own does not become as many actors.
//!
//! A session (or unit) bounds an actor. That would let a script put every file's program into a new one (`setsid gpg`).
//! So where one starter begins [`SESSIONS`] sessions of one executable and user within [`WITHIN_S`], the further ones
//! are the starter's; where the starter has left (`setsid -f`) or starts others' work, they are one actor among
//! themselves. The first few keep the names that they got. Two tables that see the same processes agree.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::grouping::{Group, Grouping, Kind, Lineage};
use super::process::Process;
use super::programs::Role;

/// So many sessions are a burst …
pub const SESSIONS: usize = 8;
/// … when they start within so many seconds.
pub const WITHIN_S: u64 = 5;
/// Starters that are remembered.
const STARTERS: usize = 256;

/// Who starts what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Starter {
    parent: i32,
    start_ticks: u64,
    unit: Vec<u8>,
    dev: u64,
    ino: u64,
    uid: u32,
}

/// The latest sessions of each starter.
pub struct Bursts {
    recent: HashMap<Starter, VecDeque<(i32, u64)>>,
    within_ticks: u64,
}

impl Default for Bursts {
    fn default() -> Self {
        Bursts {
            recent: HashMap::new(),
            within_ticks: WITHIN_S * rustix::param::clock_ticks_per_second(),
        }
    }
}

impl Bursts {
    /// Adds a session by its leader; whether it is one of a burst.
    pub fn add(&mut self, starter: &Starter, leader: &Process) -> bool {
        let now = leader.start_ticks;
        if self.recent.len() >= STARTERS {
            let within = self.within_ticks;
            let late =
                |seen: &VecDeque<(i32, u64)>| seen.back().is_some_and(|x| x.1 + within >= now);
            self.recent.retain(|_, seen| late(seen));
            if self.recent.len() >= STARTERS {
                self.recent.clear();
            }
        }
        let seen = self.recent.entry(starter.clone()).or_default();
        if !seen.contains(&(leader.pid, now)) {
            seen.push_back((leader.pid, now));
        }
        while seen.len() > SESSIONS {
            seen.pop_front();
        }
        self.on(starter, now)
    }

    /// Whether a session that starts then is one of a burst.
    pub fn on(&self, starter: &Starter, start_ticks: u64) -> bool {
        let seen = self.recent.get(starter).filter(|x| x.len() == SESSIONS);
        let first = seen.and_then(|seen| seen.front());
        first.is_some_and(|first| start_ticks.saturating_sub(first.1) <= self.within_ticks)
    }
}

impl Grouping {
    /// The actor of a process that acts for the first time, sessions in bursts counted. Where a tree's top was decided
    /// on with it, that is told too: its further children are to find it by [`Lineage::remembered`].
    pub fn acting(
        &self,
        process: &Arc<Process>,
        lineage: &mut impl Lineage,
        bursts: &mut Bursts,
    ) -> (Group, Option<Arc<Process>>) {
        let (group, top) = self.group_and_top(process, lineage);
        let Some(top) = top else {
            return (group, None);
        };
        let started = self.starter(&top, lineage);
        let wider = started.filter(|(starter, _)| bursts.add(starter, &top));
        (wider.map_or(group, |(_, wider)| wider), Some(top))
    }

    /// Who started the leader of a tree, and the actor that the tree belongs to if that was in a burst.
    pub fn starter(
        &self,
        leader: &Process,
        lineage: &mut impl Lineage,
    ) -> Option<(Starter, Group)> {
        if leader.ended || leader.exe.ino == 0 {
            return None;
        }
        let parent: Option<Arc<Process>> = lineage
            .process(leader.ppid)
            .filter(|parent| parent.start_ticks <= leader.start_ticks);
        let mut starter = Starter {
            parent: 1,
            start_ticks: 0,
            unit: leader.unit().to_vec(),
            dev: leader.exe.dev,
            ino: leader.exe.ino,
            uid: leader.uid,
        };
        if let Some(parent) = parent.filter(|parent| parent.pid != 1) {
            (starter.parent, starter.start_ticks) = (parent.pid, parent.start_ticks);
            match self.programs.role(&parent) {
                Role::Plain | Role::Shell => {
                    let group = self.group(&parent, lineage);
                    return Some((starter, group));
                }
                Role::Launcher => {}
                Role::Host | Role::Server => return None,
            }
        }
        let fields: [&[u8]; 6] = [
            &starter.parent.to_le_bytes(),
            &starter.start_ticks.to_le_bytes(),
            &starter.unit,
            &starter.dev.to_le_bytes(),
            &starter.ino.to_le_bytes(),
            &starter.uid.to_le_bytes(),
        ];
        let group = Group {
            key: self.key(b"sessions", &fields),
            kind: Kind::Jobs,
            top: leader.pid,
            certain: true,
        };
        Some((starter, group))
    }
}
