//! One signal to a whole group: the members that were named at once, then pass after pass over `/proc` until one that
//! began with everybody at rest finds nobody new.
//!
//! Why that ends it: a member at rest forks no more, and a fork under way when the signal arrives leaves a child for the
//! next pass to find. What forks and ends faster than a pass can look is met by a signal to its process group as a whole,
//! which the kernel gives to the child of a fork under way too, where that group holds nobody else. One that leaves its
//! group with each step could slip through a pass: the last two must both find nobody.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use super::kin::Kin;
use super::rest::stopped_before;
use super::spared::{Never, Why};
use super::stat::{self, Seen};
use super::urgent::Urgent;

/// Members of one group; beyond it nobody is added and the report is not complete.
const MEMBERS: usize = 16_384;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub pid: i32,
    /// Its start, clock ticks since boot.
    pub start_ticks: u64,
}

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// SIGSTOP, to the named and to all who belong to them.
    Stop,
    /// SIGCONT, to the named alone.
    Continue,
    /// SIGKILL, to the named and to all who belong to them.
    Kill,
}

/// Bounds of one call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Passes over `/proc`.
    pub passes: u32,
    /// Time in all.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            passes: 256,
            time: Duration::from_secs(2),
        }
    }
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// Stopped, running again, or dead, as asked.
    Done = 1,
    /// The signal is there and has not taken effect yet: in an uninterruptible call, or held by a tracer.
    Pending = 2,
    /// It was gone, or another process has its number.
    Gone = 3,
    /// Left alone.
    Spared = 4,
    /// The kernel forbids it.
    Denied = 5,
    /// Somebody else had stopped it before.
    Already = 6,
}

/// It has more than one thread.
pub const THREADS: u32 = 1;
/// A tracer holds it.
pub const TRACED: u32 = 2;
/// It sits in a call that nothing interrupts.
pub const UNINTERRUPTIBLE: u32 = 4;
/// A pass found it; nobody had named it.
pub const FOUND: u32 = 8;
/// It was added because it traces a member and kept it running.
pub const TRACER: u32 = 16;
/// Its first thread has ended while others run.
pub const HEADLESS: u32 = 32;

/// What is told of one process.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Which.
    pub member: Member,
    /// Its parent when it was taken.
    pub ppid: i32,
    /// What became of it.
    pub fate: Fate,
    /// Why it was left alone, where it was.
    pub why: Option<Why>,
    /// Bits such as [`FOUND`].
    pub flags: u32,
    /// The kernel's reason, 0 where none.
    pub errno: i32,
    /// Its last seen state, a letter of proc(5).
    pub state: u8,
}

/// What one call did.
#[derive(Debug, Default)]
pub struct Report {
    /// Everybody concerned, in the order they were taken.
    pub told: Vec<Told>,
    /// Passes over `/proc`.
    pub passes: u32,
    /// Whether the last two passes found nobody new with everybody at rest.
    pub complete: bool,
    /// Until the signal had gone to all who were named.
    pub first: Duration,
    /// Until everybody was at rest.
    pub elapsed: Duration,
}

/// Sends a signal to a group.
pub fn send(named: &[Member], sign: Sign, never: &mut Never, limits: &Limits) -> Report {
    let begun = Instant::now();
    let _first = Urgent::begin();
    never.refresh();
    let mut group = Group::new(match sign {
        // Stopped first: the children of whoever dies lose the parent that they are known by.
        Sign::Kill => Sign::Stop,
        other => other,
    });
    let named: Vec<(Member, u32)> = named.iter().map(|x| (*x, 0)).collect();
    group.take(named, never);
    let mut report = Report {
        first: begun.elapsed(),
        ..Report::default()
    };
    if sign != Sign::Continue {
        report.complete = group.chase(never, limits, begun, &mut report.passes);
    }
    if sign == Sign::Kill {
        group.sign = Sign::Kill;
        group.again();
        let more = Instant::now();
        let mut passes = 0;
        report.complete &= group.chase(never, limits, more, &mut passes);
        report.passes += passes;
    }
    report.complete |= sign == Sign::Continue;
    report.elapsed = group
        .rested
        .map_or_else(|| begun.elapsed(), |x| x.duration_since(begun));
    group.last_words();
    report.told = group.told;
    report
}

pub(super) struct Held {
    pub(super) fd: OwnedFd,
    pub(super) at: usize,
    pub(super) taken: Instant,
    pub(super) sent: Instant,
}

pub(super) struct Group {
    pub(super) sign: Sign,
    pub(super) kin: Kin,
    pub(super) held: HashMap<i32, Held>,
    pub(super) told: Vec<Told>,
    rested: Option<Instant>,
    known: HashSet<(i32, u64)>,
}

impl Group {
    fn new(sign: Sign) -> Group {
        Group {
            sign,
            kin: Kin::default(),
            held: HashMap::new(),
            told: Vec::new(),
            rested: None,
            known: HashSet::new(),
        }
    }

    /// Takes hold of processes and signals each at once, the oldest first: parents before their children, so that
    /// whoever makes others stops first.
    fn take(&mut self, mut wanted: Vec<(Member, u32)>, never: &mut Never) {
        wanted.sort_by_key(|(x, _)| (x.start_ticks, x.pid));
        for (member, flags) in wanted {
            let new = self.known.insert((member.pid, member.start_ticks));
            if new && self.told.len() < MEMBERS {
                self.take_one(member, flags, never);
            }
        }
    }

    /// The pidfd comes first, then the look that proves whose it is, then the signal.
    fn take_one(&mut self, member: Member, flags: u32, never: &mut Never) {
        let opened = Pid::from_raw(member.pid)
            .ok_or(Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let seen = stat::seen(member.pid).filter(|x| x.start_ticks == member.start_ticks);
        let mut told = Told {
            member,
            ppid: seen.map_or(0, |x| x.ppid),
            fate: Fate::Gone,
            why: None,
            flags,
            errno: 0,
            state: seen.map_or(b'X', |x| x.state),
        };
        let denied = |told: &mut Told, errno: Errno| {
            if errno != Errno::SRCH {
                (told.fate, told.errno) = (Fate::Denied, errno.raw_os_error());
            }
        };
        if let Some(seen) = seen.filter(|x| !x.dead()) {
            told.why = never.why(&seen);
            match opened {
                _ if told.why.is_some() => told.fate = Fate::Spared,
                Ok(fd) => {
                    self.kin.add(&seen);
                    told.flags |= u32::from(seen.threads > 1) * THREADS;
                    // Asked before the signal goes: afterwards it may be our own stop that shows.
                    let before = self.sign == Sign::Stop && stopped_before(&seen);
                    match pidfd_send_signal(&fd, signal_of(self.sign)) {
                        Ok(()) => {
                            told.fate = match self.sign {
                                Sign::Continue => Fate::Done,
                                // Stopped by somebody else, who may let it go on, so the signal went to it too; a
                                // release leaves it as it was.
                                Sign::Stop if before => Fate::Already,
                                _ => Fate::Pending,
                            };
                            let (at, sent) = (self.told.len(), Instant::now());
                            let taken = sent;
                            self.held.insert(
                                member.pid,
                                Held {
                                    fd,
                                    at,
                                    taken,
                                    sent,
                                },
                            );
                        }
                        Err(errno) => denied(&mut told, errno),
                    }
                }
                Err(errno) => denied(&mut told, errno),
            }
        }
        self.told.push(told);
    }

    /// Sends the signal that is in force now to all that are held.
    fn again(&mut self) {
        for held in self.held.values_mut() {
            let told = &mut self.told[held.at];
            (told.fate, held.sent) = (Fate::Pending, Instant::now());
            if let Err(errno) = pidfd_send_signal(&held.fd, signal_of(self.sign)) {
                if errno != Errno::SRCH {
                    (told.fate, told.errno) = (Fate::Denied, errno.raw_os_error());
                }
            }
        }
    }

    /// Pass after pass; whether the last one left nothing open.
    fn chase(
        &mut self,
        never: &mut Never,
        limits: &Limits,
        begun: Instant,
        passes: &mut u32,
    ) -> bool {
        let mut quiet = self.settle();
        let mut clean = false;
        while *passes < limits.passes && begun.elapsed() < limits.time {
            *passes += 1;
            let all = stat::everybody();
            let found: Vec<(Member, u32)> = self
                .kin
                .among(&all)
                .iter()
                .filter(|x| !x.dead())
                .map(|x| (member(x), FOUND))
                .filter(|(x, _)| !self.known.contains(&(x.pid, x.start_ticks)))
                .collect();
            quiet &= self.all_at_rest(&all) && found.is_empty();
            if quiet && clean {
                return self.told.len() < MEMBERS;
            }
            clean = quiet;
            if clean {
                self.rested.get_or_insert_with(Instant::now);
            } else {
                self.rested = None;
            }
            self.signal_groups(&all);
            if !quiet {
                self.take(self.tracers(), never);
                self.remind();
            }
            self.take(found, never);
            quiet = self.settle();
        }
        false
    }
}

pub(super) fn member(seen: &Seen) -> Member {
    Member {
        pid: seen.pid,
        start_ticks: seen.start_ticks,
    }
}

pub(super) fn signal_of(sign: Sign) -> Signal {
    match sign {
        Sign::Stop => Signal::STOP,
        Sign::Continue => Signal::CONT,
        Sign::Kill => Signal::KILL,
    }
}
