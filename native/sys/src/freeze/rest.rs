//! What has become of the members of a group: who is at rest, who is not and why, and what is done about those.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::process::{kill_process_group, pidfd_send_signal, Pid};

use super::group::{
    member, signal_of, Fate, Group, Member, Sign, FOUND, HEADLESS, THREADS, TRACED, TRACER,
    UNINTERRUPTIBLE,
};
use super::stat::{self, Seen};

/// A signal that showed no effect for so long is sent again, and whoever traces its receiver is asked about.
const AGAIN: Duration = Duration::from_millis(2);
/// Longest wait for members to come to rest before the next pass looks for new ones.
const SETTLE: Duration = Duration::from_millis(4);
/// Who sits in an uninterruptible call for so long since it was taken counts as at rest.
const STUCK: Duration = Duration::from_secs(1);
/// Between two looks while waiting; the thread is first in line for the processor, so it must sleep for others to run.
const NAP: Duration = Duration::from_micros(100);

impl Group {
    /// Waits a moment for everybody to come to rest; whether they have.
    pub(super) fn settle(&mut self) -> bool {
        let begun = Instant::now();
        let mut open: Vec<i32> = self.held.keys().copied().collect();
        loop {
            open.retain(|&pid| !self.look(pid, stat::seen(pid)));
            if open.is_empty() {
                return true;
            }
            if begun.elapsed() >= SETTLE {
                return false;
            }
            std::thread::sleep(NAP);
        }
    }

    /// Whether a pass that was just made shows everybody at rest.
    pub(super) fn all_at_rest(&mut self, all: &[Seen]) -> bool {
        let seen: HashMap<i32, Seen> = all.iter().map(|x| (x.pid, *x)).collect();
        let pids: Vec<i32> = self.held.keys().copied().collect();
        pids.iter()
            .filter(|&&pid| !self.look(pid, seen.get(&pid).copied()))
            .count()
            == 0
    }

    /// Takes note of one member's state; whether it can do nothing: stopped with all its threads, dead, or asleep in a
    /// call that nothing interrupts.
    fn look(&mut self, pid: i32, seen: Option<Seen>) -> bool {
        let Some((at, taken)) = self.held.get(&pid).map(|x| (x.at, x.taken)) else {
            return true;
        };
        let told = &mut self.told[at];
        let seen = seen.filter(|x| x.start_ticks == told.member.start_ticks);
        let Some(now) = seen.filter(|x| !x.dead()) else {
            told.state = b'Z';
            told.fate = match self.sign {
                Sign::Kill => Fate::Done,
                _ => Fate::Gone,
            };
            self.held.remove(&pid);
            return true;
        };
        told.state = now.state;
        told.flags &= !(TRACED | UNINTERRUPTIBLE | HEADLESS);
        told.flags |= u32::from(now.threads > 1) * THREADS;
        told.flags |= u32::from(now.state == b'Z') * HEADLESS;
        told.flags |= u32::from(now.state == b't') * TRACED;
        let (mut still, stuck) = at_rest(&now);
        if now.state == b't' {
            // Its tracer decides when it goes on: at rest only where that one is stopped itself, or is root's.
            let tracer = stat::status(pid, "TracerPid").unwrap_or(0) as i32;
            still &= self.held.contains_key(&tracer) || stat::status(tracer, "Uid") == Some(0);
        }
        let told = &mut self.told[at];
        told.flags |= u32::from(stuck) * UNINTERRUPTIBLE;
        // Most such sleeps are for a lock and end soon; what is in one may be about to finish a fork.
        let stuck = stuck && taken.elapsed() >= STUCK;
        if self.sign == Sign::Kill {
            return stuck;
        }
        match (told.fate, still) {
            (Fate::Pending, true) => told.fate = Fate::Done,
            (Fate::Done, false) => told.fate = Fate::Pending,
            _ => {}
        }
        still || stuck
    }

    /// Sends the signal again to whoever has not heeded it for a while: somebody may have woken it.
    pub(super) fn remind(&mut self) {
        for held in self.held.values_mut() {
            let told = &self.told[held.at];
            if told.fate == Fate::Pending && held.sent.elapsed() >= AGAIN {
                held.sent = Instant::now();
                // A process that is gone shows in the next look.
                let _ = pidfd_send_signal(&held.fd, signal_of(self.sign));
            }
        }
    }

    /// Those who hold a member by ptrace and have kept it from stopping: they are part of the group.
    pub(super) fn tracers(&self) -> Vec<(Member, u32)> {
        if self.sign != Sign::Stop {
            return Vec::new();
        }
        self.held
            .values()
            .filter(|x| self.told[x.at].fate == Fate::Pending && x.sent.elapsed() >= AGAIN)
            .filter_map(|x| stat::status(self.told[x.at].member.pid, "TracerPid"))
            .filter_map(|tracer| stat::seen(tracer as i32))
            .map(|x| (member(&x), FOUND | TRACER))
            .collect()
    }

    /// Signals whole process groups that hold members and nobody else.
    pub(super) fn signal_groups(&self, all: &[Seen]) {
        for group in self.kin.whole_groups(all) {
            if let Some(group) = Pid::from_raw(group) {
                // Whoever ended meanwhile is no failure; those that live show in the next look.
                let _ = kill_process_group(group, signal_of(self.sign));
            }
        }
    }

    /// What is said of those that are still held at the end.
    pub(super) fn last_words(&mut self) {
        for held in self.held.values() {
            let told = &mut self.told[held.at];
            let tracer = stat::status(told.member.pid, "TracerPid").unwrap_or(0);
            if tracer != 0 {
                told.flags |= TRACED;
            }
        }
    }
}

/// Whether all threads of a process are stopped, and whether the only ones that are not sit in a call that nothing
/// interrupts.
fn at_rest(now: &Seen) -> (bool, bool) {
    let stopped = |state: u8| matches!(state, b'T' | b't' | b'Z' | b'X');
    if now.threads <= 1 || !(stopped(now.state) || now.state == b'D') {
        let waits = now.state == b'D' && waits_for_its_child(now.pid);
        return (stopped(now.state) || waits, now.state == b'D' && !waits);
    }
    let states = stat::threads(now.pid);
    let still = states.iter().all(|&x| stopped(x));
    (
        still,
        !still && states.iter().all(|&x| stopped(x) || x == b'D'),
    )
}

/// Whether a process that no signal of ours has reached yet is stopped with all its threads. One that waits for the
/// child of a vfork(2) is not, nor is one that a tracer holds.
pub(super) fn stopped_before(now: &Seen) -> bool {
    match (now.state, now.threads) {
        (b'T', ..=1) => true,
        (b'T' | b'Z', 2..) => {
            let states = stat::threads(now.pid);
            states.contains(&b'T') && states.iter().all(|&x| matches!(x, b'T' | b'Z' | b'X'))
        }
        _ => false,
    }
}

/// Whether it is in vfork(2), asleep until its child, which is stopped too, runs a program or ends.
fn waits_for_its_child(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/wchan"))
        .is_ok_and(|at| at == b"kernel_clone" || at == b"wait_for_vfork_done")
}
