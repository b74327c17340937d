//! The table of processes and actors: bounded, remembers after exit, notices a number that is used again.
//!
//! How a later look knows that the number still is the same process: each process that lives has a pidfd in one epoll
//! set. [`Table::begin`] asks that set once after each read of the kernel's queue. A process that has not ended *then*
//! was this process when the events that were read were made, so looking it up costs one hash and no system call. One
//! that has ended is looked at again: the number may have a new owner. Only where no pidfd could be had (too many, or
//! threads before Linux 6.9) the start time is compared, at most once in [`Options::recheck`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::actor::Actor;
use super::bursts::Bursts;
use super::grouping::{Group, Grouping, Lineage};
use super::held::{Held, Hold};
use super::memory::Memory;
use super::process::{Handle, Process};
use super::programs::Programs;
use super::ActorOf;

/// Limits of a [`Table`], and what it is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Processes and threads remembered.
    pub processes: usize,
    /// Actors remembered.
    pub actors: usize,
    /// Living processes held by a pidfd at once.
    pub pidfds: usize,
    /// How long a process' executable (and a start time that no pidfd vouches for) is taken for granted.
    pub recheck: Duration,
    /// The programs that bound an actor.
    pub programs: Programs,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            processes: 8192,
            actors: 4096,
            pidfds: 1024,
            recheck: Duration::from_millis(50),
            programs: Programs::default(),
        }
    }
}

/// Counters of a [`Table`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ActorStats {
    /// Processes and threads in the table.
    pub processes: u64,
    /// Actors in the table.
    pub actors: u64,
    /// Processes held by a pidfd.
    pub pidfds: u64,
    /// Processes looked at for the first time.
    pub looks: u64,
    /// Processes that were gone at their first look.
    pub gone: u64,
    /// Numbers that were found with a new owner.
    pub reused: u64,
    /// Processes that were found with another executable than before.
    pub execs: u64,
}

/// What is known of one number.
pub(super) struct Entry {
    pub(super) process: Arc<Process>,
    pub(super) group: Option<Group>,
    /// Number of the process, where this is a thread of it.
    pub(super) leader: Option<i32>,
    hold: Option<Hold>,
    pub(super) ended: bool,
    pub(super) acting: bool,
    checked_ns: u64,
    pub(super) used: u64,
}

/// The table. One per reader of a kernel queue; two tables that look at the same processes give the same keys.
pub struct Table {
    pub(super) options: Options,
    grouping: Arc<Grouping>,
    recheck_ns: u64,
    pub(super) bursts: Bursts,
    pub(super) memory: Memory,
    pub(super) entries: HashMap<i32, Entry>,
    pub(super) actors: HashMap<u64, Actor>,
    held: Held,
    pub(super) buffer: Vec<u8>,
    now_ns: u64,
    pub(super) uses: u64,
    stats: ActorStats,
}

/// A table that a source of events and others share.
#[derive(Clone)]
pub struct SharedTable(pub Arc<Mutex<Table>>);

impl ActorOf for SharedTable {
    fn begin(&mut self) {
        self.table().begin();
    }
    fn actor(&mut self, pid: i32) -> (u64, bool) {
        self.table().actor(pid)
    }
}

impl SharedTable {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActorOf for Table {
    fn begin(&mut self) {
        self.begin();
    }
    fn actor(&mut self, pid: i32) -> (u64, bool) {
        match self.of(pid) {
            Some(group) => (group.key.get(), group.certain),
            None => (0, false),
        }
    }
}

impl Table {
    /// A table for this boot. Fails where /proc is not there or no epoll set can be had.
    pub fn new(options: Options) -> std::io::Result<Self> {
        let boot_id = std::fs::read("/proc/sys/kernel/random/boot_id")?;
        let mut table = Table {
            grouping: Arc::new(Grouping::new(options.programs.clone(), &boot_id)),
            recheck_ns: u64::try_from(options.recheck.as_nanos()).unwrap_or(u64::MAX),
            bursts: Bursts::default(),
            memory: Memory::new(),
            entries: HashMap::with_capacity(options.processes.min(1024)),
            actors: HashMap::new(),
            held: Held::new(options.pidfds)?,
            buffer: Vec::with_capacity(4096),
            now_ns: 0,
            uses: 0,
            stats: ActorStats::default(),
            options,
        };
        table.begin();
        Ok(table)
    }

    /// Learns which processes have ended. Call it after each read of the kernel's queue; see the module's text.
    pub fn begin(&mut self) {
        self.now_ns = now_ns();
        let entries = &mut self.entries;
        self.held.ended(|pid| {
            if let Some(entry) = entries.get_mut(&pid) {
                entry.ended = true;
                entry.hold = None;
            }
        });
        self.learn();
    }

    /// The actor of a process or thread that did something; None where nothing is known of it any more.
    pub fn of(&mut self, pid: i32) -> Option<Group> {
        self.uses += 1;
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.used = self.uses;
            let fresh = self.now_ns.saturating_sub(entry.checked_ns) < self.recheck_ns;
            let same = !entry.ended || entry.checked_ns == self.now_ns;
            if fresh && same && entry.acting {
                return entry.group;
            }
        }
        if pid <= 0 {
            return None;
        }
        self.look_again(pid)
    }

    /// What is known of an actor; it is remembered after its processes ended.
    pub fn info(&self, key: u64) -> Option<&Actor> {
        self.actors.get(&key)
    }

    /// A process that is known and lives.
    pub(super) fn living(&self, pid: i32) -> Option<Arc<Process>> {
        let entry = self.entries.get(&pid)?;
        let lives = entry.leader.is_none() && entry.hold.as_ref().is_some_and(Hold::lives);
        lives.then(|| Arc::clone(&entry.process))
    }

    /// How processes are grouped.
    pub fn grouping(&self) -> Arc<Grouping> {
        Arc::clone(&self.grouping)
    }

    /// Counters.
    pub fn stats(&self) -> ActorStats {
        ActorStats {
            processes: self.entries.len() as u64,
            actors: self.actors.len() as u64,
            pidfds: self.held.count(),
            ..self.stats
        }
    }

    /// A look at a number that is new, ended, or not looked at for a while.
    fn look_again(&mut self, pid: i32) -> Option<Group> {
        let Some(handle) = Handle::open(pid) else {
            return self.gone(pid);
        };
        let Some(entry) = self.entries.get_mut(&pid) else {
            return self.look(pid, handle);
        };
        // a pidfd that has not ended vouches for the number; else its start does
        let vouched = entry.hold.is_some() && !entry.ended;
        if !vouched {
            match handle.start_ticks(&mut self.buffer) {
                Some(start) if start == entry.process.start_ticks => {}
                Some(_) => {
                    self.stats.reused += 1;
                    self.entries.remove(&pid);
                    // the events that were read may be of either owner: the name of the new one is a guess
                    return self.look(pid, handle).map(|group| Group {
                        certain: false,
                        ..group
                    });
                }
                None => return self.gone(pid),
            }
        }
        entry.checked_ns = self.now_ns;
        let group = entry.group;
        let leader = entry.leader.unwrap_or(pid);
        let known = (entry.acting, entry.process.exe.dev, entry.process.exe.ino);
        let changed = handle
            .exe_stat()
            .is_some_and(|exe| (exe.dev, exe.ino) != (known.1, known.2));
        if changed || !known.0 {
            self.stats.execs += u64::from(changed && known.0);
            return self.acts(leader, group).or(group);
        }
        group
    }

    /// The first look at a number.
    fn look(&mut self, pid: i32, handle: Handle) -> Option<Group> {
        self.stats.looks += 1;
        let (hold, thread) = self.held.hold(pid);
        if thread {
            let leader = handle
                .leader(&mut self.buffer)
                .filter(|leader| *leader != pid);
            if let Some(leader) = leader {
                let process = handle.process(false, &mut self.buffer)?;
                let group = self.of(leader);
                let entry = self.entry(process, hold, true);
                self.insert(
                    pid,
                    Entry {
                        leader: Some(leader),
                        group,
                        ..entry
                    },
                );
                return group;
            }
        }
        let Some(process) = handle.process(false, &mut self.buffer) else {
            self.stats.gone += 1;
            return None;
        };
        let entry = self.entry(process, hold, true);
        let process = Arc::clone(&entry.process);
        self.insert(pid, entry);
        let group = self.group(&process);
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.group = Some(group);
        }
        self.note(group, &process, handle);
        Some(group)
    }

    /// A process that is known as somebody's parent, or that runs something else now, acts.
    fn acts(&mut self, pid: i32, group: Option<Group>) -> Option<Group> {
        let handle = Handle::open(pid)?;
        let process = Arc::new(handle.process(false, &mut self.buffer)?);
        let entry = self.entries.get_mut(&pid)?;
        if entry.process.start_ticks != process.start_ticks {
            return None;
        }
        entry.process = Arc::clone(&process);
        entry.acting = true;
        let group = match group.or(entry.group) {
            Some(group) => group,
            None => self.group(&process),
        };
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.group = Some(group);
        }
        self.note(group, &process, handle);
        Some(group)
    }

    /// A number without an owner: what it was.
    fn gone(&mut self, pid: i32) -> Option<Group> {
        match self.entries.get_mut(&pid) {
            Some(entry) => {
                entry.checked_ns = self.now_ns;
                entry.ended = true;
                entry.group
            }
            None => {
                self.stats.gone += 1;
                None
            }
        }
    }

    fn entry(&self, process: Process, hold: Option<Hold>, acting: bool) -> Entry {
        Entry {
            ended: process.ended,
            process: Arc::new(process),
            group: None,
            leader: None,
            hold,
            acting,
            checked_ns: self.now_ns,
            used: self.uses,
        }
    }

    fn insert(&mut self, pid: i32, entry: Entry) {
        if self.entries.len() >= self.options.processes {
            let used = self.entries.values().map(|entry| entry.used);
            let oldest = oldest_of(used, self.entries.len() / 8);
            self.entries.retain(|_, entry| entry.used > oldest);
        }
        self.entries.insert(pid, entry);
    }
}

impl Lineage for Table {
    fn process(&mut self, pid: i32) -> Option<Arc<Process>> {
        if pid <= 0 {
            return None;
        }
        if let Some(known) = self.living(pid) {
            if let Some(entry) = self.entries.get_mut(&pid) {
                entry.used = self.uses;
            }
            return Some(known);
        }
        let handle = Handle::open(pid)?;
        let (hold, _) = self.held.hold(pid);
        let process = handle.process(false, &mut self.buffer)?;
        if let Some(entry) = self.entries.get_mut(&pid) {
            if entry.process.start_ticks == process.start_ticks && entry.leader.is_none() {
                entry.hold = entry.hold.take().or(hold);
                return Some(Arc::clone(&entry.process));
            }
            self.stats.reused += u64::from(entry.leader.is_none());
        }
        let entry = self.entry(process, hold, false);
        let process = Arc::clone(&entry.process);
        self.insert(pid, entry);
        Some(process)
    }

    fn remembered(&mut self, process: &Process) -> Option<Group> {
        let entry = self.entries.get(&process.pid)?;
        let same = entry.process.start_ticks == process.start_ticks;
        entry.group.filter(|_| same)
    }
}

/// The use below or at which the `count` least lately used lie.
pub(super) fn oldest_of(used: impl Iterator<Item = u64>, count: usize) -> u64 {
    let mut all: Vec<u64> = used.collect();
    let at = count.min(all.len().saturating_sub(1));
    *all.select_nth_unstable(at).1
}

/// `CLOCK_MONOTONIC`, ns.
pub(super) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).saturating_mul(1_000_000_000) + now.tv_nsec as u64
}
