//! All living processes of an actor, by a pass over /proc.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;

use rustix::fs::{openat, Dir, Mode, OFlags, CWD};

use super::grouping::{Group, Grouping, Kind, Lineage};
use super::parse;
use super::process::{Handle, Process};
use super::programs::Role;
use super::table::Table;

/// Numbers of all processes that /proc shows.
pub fn processes() -> Vec<i32> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = openat(CWD, "/proc", flags, Mode::empty()).and_then(Dir::new);
    let numbers = |name: &CStr| parse::integer(name.to_bytes());
    listed
        .map(|dir| {
            dir.filter_map(|entry| numbers(entry.ok()?.file_name()))
                .collect()
        })
        .unwrap_or_default()
}

/// What the table knows, and what was read in this pass; the table does not grow by it.
struct Pass<'t> {
    table: &'t mut Table,
    read: HashMap<i32, Arc<Process>>,
    buffer: Vec<u8>,
}

impl Lineage for Pass<'_> {
    fn process(&mut self, pid: i32) -> Option<Arc<Process>> {
        if let Some(known) = self.read.get(&pid) {
            return Some(Arc::clone(known));
        }
        let process = match self.table.living(pid) {
            Some(known) => known,
            None => Arc::new(Handle::open(pid)?.process(false, &mut self.buffer)?),
        };
        self.read.insert(pid, Arc::clone(&process));
        Some(process)
    }

    fn remembered(&mut self, process: &Process) -> Option<Group> {
        self.table.remembered(process)
    }
}

impl Pass<'_> {
    /// As the table groups what acts, but nothing is counted.
    fn group(&mut self, grouping: &Grouping, process: &Arc<Process>) -> Group {
        let (group, top) = grouping.group_and_top(process, self);
        let Some(top) = top else {
            return group;
        };
        match grouping.starter(&top, self) {
            Some((starter, wider)) if self.table.bursts.on(&starter, top.start_ticks) => wider,
            _ => group,
        }
    }
}

impl Table {
    /// All processes of an actor that live now: number and start, which names each beyond doubt.
    ///
    /// Who stops them opens a pidfd of each, compares the start again, and repeats the pass until it finds nobody new.
    /// Never among them: the first process, ourselves, threads of the kernel, root's launchers and servers.
    pub fn members(&mut self, key: u64) -> Vec<(i32, u64)> {
        let grouping = self.grouping();
        let mut pass = Pass {
            table: self,
            read: HashMap::new(),
            buffer: Vec::new(),
        };
        let mut found = Vec::new();
        for pid in processes() {
            let Some(process) = pass.process(pid) else {
                continue;
            };
            if process.ended || grouping.programs.role(&process) == Role::Host {
                continue;
            }
            let group = pass.group(&grouping, &process);
            if group.key.get() == key && group.kind != Kind::Host {
                found.push((pid, process.start_ticks));
            }
        }
        found
    }

    /// What code the living processes of an actor run now: looks again at each that acted, and at the files mapped
    /// as code into each. For whoever is about to trust the actor. What is found comes in while [`super::Actor::pending`] is not 0.
    pub fn examine(&mut self, key: u64) {
        for pid in self.acting(key) {
            self.look_closely(pid, key);
        }
    }
}
