//! What the table writes down of a process that acts: its actor, who stands for that and started it, what acted.

use std::sync::Arc;

use super::actor::{Actor, Ancestor, ANCESTRY};
use super::grouping::{Group, Kind, Lineage};
use super::memory::Asked;
use super::process::{Handle, Process};
use super::table::{oldest_of, Entry, Table};

impl Table {
    /// Groups a process that acts for the first time.
    pub(super) fn group(&mut self, process: &Arc<Process>) -> Group {
        let mut bursts = std::mem::take(&mut self.bursts);
        let (group, top) = self.grouping().acting(process, self, &mut bursts);
        self.bursts = bursts;
        if let Some(entry) = top.and_then(|top| self.entries.get_mut(&top.pid)) {
            entry.group = Some(group);
        }
        group
    }

    /// Writes down that a process acted for an actor.
    pub(super) fn note(&mut self, group: Group, process: &Arc<Process>, handle: Handle) {
        let key = group.key.get();
        if let Some(actor) = self.actors.get_mut(&key) {
            actor.used = self.uses;
            actor.add(process);
            actor.processes += 1;
            self.ask(key, handle, false, false);
            return;
        }
        let by_top = matches!(group.kind, Kind::Tree | Kind::Client | Kind::Host);
        let grouping = self.grouping();
        let top = by_top.then(|| self.process(group.top)).flatten();
        let top = top.filter(|top| grouping.names(top, group));
        let shown = top.unwrap_or_else(|| Arc::clone(process));
        let of_shown = (shown.pid != process.pid)
            .then(|| Handle::open(shown.pid))
            .flatten()
            .filter(|other| other.start_ticks(&mut self.buffer) == Some(shown.start_ticks));
        let told_by = of_shown.as_ref().unwrap_or(&handle);
        let details = told_by.details(&mut self.buffer);
        let ancestry = self.ancestry(&shown);
        let mut actor = Actor::new(group, &shown, details, ancestry);
        actor.used = self.uses;
        actor.add(process);
        actor.processes = 1;
        if self.actors.len() >= self.options.actors {
            self.forget_actors();
        }
        self.actors.insert(key, actor);
        let alone = of_shown.is_none();
        if let Some(other) = of_shown {
            self.ask(key, other, true, false);
        }
        self.ask(key, handle, alone, false);
    }

    /// Has a process' memory looked at by another thread.
    fn ask(&mut self, key: u64, handle: Handle, cmdline: bool, mappings: bool) {
        let asked = Asked {
            key,
            handle,
            cmdline,
            mappings,
        };
        let taken = self.memory.ask(asked);
        if let Some(actor) = self.actors.get_mut(&key) {
            actor.pending += u32::from(taken);
            actor.more |= !taken;
        }
    }

    /// Takes what the other thread found.
    pub(super) fn learn(&mut self) {
        while let Some(found) = self.memory.found() {
            let Some(actor) = self.actors.get_mut(&found.key) else {
                continue;
            };
            actor.pending = actor.pending.saturating_sub(1);
            let Some(process) = found.process else {
                actor.more = true; // it ended before its memory was looked at
                continue;
            };
            let start = (process.pid, process.start_ticks);
            if !found.cmdline.is_empty() && start == (actor.process.pid, actor.process.start_ticks)
            {
                actor.details.cmdline = found.cmdline;
            }
            let acted =
                |entry: &Entry| entry.acting && entry.process.start_ticks == process.start_ticks;
            if self.entries.get(&process.pid).is_none_or(acted) {
                actor.add(&process);
            }
        }
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
        let start = handle.start_ticks(&mut self.buffer);
        if self
            .entries
            .get(&pid)
            .map(|entry| entry.process.start_ticks)
            == start
        {
            self.ask(key, handle, false, true);
        }
    }
}
