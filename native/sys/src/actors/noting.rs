//! What the table writes down of a process that acts: its actor, who stands for that and started it, what acted.

use std::sync::Arc;

use super::actor::{Actor, Ancestor, ANCESTRY};
use super::grouping::{Group, Kind, Lineage};
use super::process::{Handle, Process};
use super::table::{oldest_of, Entry, Table};

impl Table {
    /// Groups a process that acts for the first time.
    pub(super) fn group(&mut self, process: &Arc<Process>) -> Group {
        let grouping = self.grouping();
        let group = grouping.group(process, self);
        if group.kind != Kind::Tree {
            return group;
        }
        let top = self.process(group.top);
        let Some(top) = top.filter(|top| grouping.names(top, group)) else {
            return group;
        };
        if self.remembered(&top).is_some() {
            return group;
        }
        let started = grouping.starter(&top, self);
        let wider = started.filter(|(starter, _)| self.bursts.add(starter, &top));
        let group = wider.map_or(group, |(_, wider)| wider);
        if let Some(entry) = self.entries.get_mut(&top.pid) {
            entry.group = Some(group);
        }
        group
    }

    /// Writes down that a process acted for an actor.
    pub(super) fn note(&mut self, group: Group, process: &Arc<Process>) {
        let key = group.key.get();
        if let Some(actor) = self.actors.get_mut(&key) {
            actor.used = self.uses;
            actor.add(process);
            return;
        }
        let by_top = matches!(group.kind, Kind::Tree | Kind::Client | Kind::Host);
        let grouping = self.grouping();
        let top = by_top.then(|| self.process(group.top)).flatten();
        let top = top.filter(|top| grouping.names(top, group));
        let shown = top.unwrap_or_else(|| Arc::clone(process));
        let details = Handle::open(shown.pid)
            .filter(|handle| handle.start_ticks(&mut self.buffer) == Some(shown.start_ticks))
            .map(|handle| handle.details(&mut self.buffer));
        let ancestry = self.ancestry(&shown);
        let mut actor = Actor::new(group, &shown, details.unwrap_or_default(), ancestry);
        actor.used = self.uses;
        actor.add(process);
        if self.actors.len() >= self.options.actors {
            self.forget_actors();
        }
        self.actors.insert(key, actor);
    }

    /// Forgets the actors that did nothing for longest.
    fn forget_actors(&mut self) {
        for entry in self.entries.values() {
            let actor = entry
                .group
                .and_then(|group| self.actors.get_mut(&group.key.get()));
            if let Some(actor) = actor {
                actor.used = actor.used.max(entry.used);
            }
        }
        let oldest = oldest_of(
            self.actors.values().map(|actor| actor.used),
            self.actors.len() / 8,
        );
        self.actors.retain(|_, actor| actor.used > oldest);
    }

    /// Who started it, nearest first: up to the leader of its session and who started that one.
    fn ancestry(&mut self, process: &Process) -> Vec<Ancestor> {
        let mut found = Vec::new();
        let (mut pid, mut last) = (process.ppid, process.leads_session());
        while found.len() < ANCESTRY {
            let Some(parent) = self.process(pid) else {
                break;
            };
            found.push(Ancestor {
                pid,
                exe: parent.exe.path.clone(),
                comm: parent.comm.clone(),
            });
            if last || pid == 1 {
                break;
            }
            last = parent.leads_session();
            pid = parent.ppid;
        }
        found
    }

    /// Processes that acted for an actor and were not seen to end.
    pub(super) fn acting(&self, key: u64) -> Vec<i32> {
        let acted = |entry: &Entry| entry.acting && !entry.ended && entry.leader.is_none();
        let of_key = |entry: &Entry| entry.group.is_some_and(|group| group.key.get() == key);
        let found = self
            .entries
            .iter()
            .filter(|(_, entry)| acted(entry) && of_key(entry));
        found.map(|(pid, _)| *pid).collect()
    }

    /// Looks again at one that acted: what it runs now, who traces it, whose code is mapped.
    pub(super) fn look_closely(&mut self, pid: i32, key: u64) {
        let Some(handle) = Handle::open(pid) else {
            return;
        };
        let Some(mut process) = handle.process(true, &mut self.buffer) else {
            return;
        };
        let same = |entry: &Entry| entry.process.start_ticks == process.start_ticks;
        if process.ended || !self.entries.get(&pid).is_some_and(same) {
            return;
        }
        process.tampering |= handle.foreign_code(&process.exe, &mut self.buffer);
        let process = Arc::new(process);
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.process = Arc::clone(&process);
        }
        if let Some(actor) = self.actors.get_mut(&key) {
            actor.add(&process);
            actor.processes -= 1;
        }
    }
}
