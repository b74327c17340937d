//! The answerer's turns: poll, take events, collect versions, give verdicts, let go who waited too long.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::event::{epoll, Timespec};

use super::answerer::{Answerer, PACE};
use super::control::{State, Word};
use super::keeper::{Done, Job, Keepers, CREW};
use super::marks::Marked;
use super::pending::{Given, Held, Id, Stage};
use super::ring::{Kept, Kind, Record};
use super::verdicts::Verdict;
use super::{mono_ns, real_ns};
use crate::fanotify::kernel::{Answer, ONDIR};
use crate::files::trouble::{Result, Trouble};

/// The daemon is told of records at most so often, ns; of a question at once.
const TELL_NS: u64 = 10_000_000;
/// Bytes of one read of events: not more descriptors at once than are surely free.
const READ: usize = 4096;
/// An answer that takes longer wakes thousands, ns; so many of them one after the other are no accident.
const SLOW_NS: u64 = 200_000;
const SLOW: u32 = 3;
/// How long a herd is held together at most, ns: as many versions as can be kept in that time are.
const HERD_NS: u64 = 100_000_000;
/// How long where more than [`CROWD`] have not even been read.
const CROWD_NS: u64 = 20_000_000;
const CROWD: u64 = 3000;
/// So many held at once are a herd, however long an answer takes.
const HERD: usize = 1000;
/// Reads before the other work has its turn.
const READS: usize = 2;

/// What may wake the loop.
#[derive(Clone, Copy)]
enum Source {
    Group,
    Keepers,
    Lifeline,
    Wake,
    Moves,
}

/// Number of them.
const SOURCES: usize = Source::Moves as usize + 1;

/// One set of all that may wake the loop.
///
/// # Errors
/// `hold.failed`.
pub(super) fn sources(
    marked: &Marked,
    keepers: &Keepers,
    lifeline: BorrowedFd<'_>,
    wake: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let add_all = || -> rustix::io::Result<OwnedFd> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let add = |fd: BorrowedFd<'_>, source: Source| {
            let data = epoll::EventData::new_u64(source as u64);
            epoll::add(&set, fd, data, epoll::EventFlags::IN)
        };
        add(marked.group.as_fd(), Source::Group)?;
        add(keepers.as_fd(), Source::Keepers)?;
        add(lifeline, Source::Lifeline)?;
        add(wake, Source::Wake)?;
        if let Some(moves) = &marked.moves {
            add(moves.as_fd(), Source::Moves)?;
        }
        Ok(set)
    };
    add_all().map_err(|e| Trouble::data(e, "what wakes the answerer cannot be watched"))
}

impl Answerer {
    /// Answers until the daemon is gone.
    ///
    /// # Errors
    /// `hold.failed` where it cannot go on; everybody is let go first.
    pub fn run(mut self) -> Result<()> {
        let mut buffer = vec![0u8; READ];
        let mut idle = vec![0u8; 64 * 1024];
        let ended = loop {
            match self.turn(&mut buffer, &mut idle) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(trouble) => break Err(trouble),
            }
        };
        for held in self.pending.drain() {
            self.answer(held.fd.as_fd(), Answer::Allow);
        }
        self.control.set(Word::State, State::Ended as u64);
        ended
    }

    /// One turn; false when the daemon is gone.
    fn turn(&mut self, buffer: &mut [u8], idle: &mut [u8]) -> Result<bool> {
        let mut now_ns = mono_ns();
        self.control.set(Word::Beat, now_ns);
        let wait_ns = self.next_ns(now_ns).saturating_sub(now_ns);
        let ready = self.wait(wait_ns.min(PACE.as_nanos() as u64))?;
        now_ns = mono_ns();
        self.control.set(Word::Beat, now_ns);
        if ready[Source::Lifeline as usize] {
            return Ok(false);
        }
        if ready[Source::Wake as usize] {
            let mut eight = [0; 8];
            if rustix::io::read(&self.wake, &mut eight).is_err() {
                // woken by another turn
            }
        }
        self.moved(ready[Source::Moves as usize], idle)?;
        if ready[Source::Group as usize] {
            self.take_events(buffer)?;
        }
        if ready[Source::Keepers as usize] {
            self.keepers.settle();
        }
        if ready[Source::Keepers as usize] || self.pending.stuck() > 0 {
            self.collect();
        }
        self.dispatch();
        self.expire();
        self.end_herd()?;
        if self.asking > 0 {
            self.hear();
        }
        self.tell();
        Ok(true)
    }

    /// Waits for something to happen; what did.
    fn wait(&self, wait_ns: u64) -> Result<[bool; SOURCES]> {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: wait_ns as _,
        };
        let none = epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        };
        let mut events = [none; SOURCES];
        let mut ready = [false; SOURCES];
        match epoll::wait(&self.sources, &mut events[..], Some(&wait)) {
            Ok(count) => {
                for event in &events[..count] {
                    ready[event.data.u64() as usize % SOURCES] = true;
                }
                Ok(ready)
            }
            Err(rustix::io::Errno::INTR) => Ok(ready),
            Err(e) => Err(Trouble::data(e, "waiting failed")),
        }
    }

    /// When the next thing falls due, monotonic ns.
    fn next_ns(&mut self, now_ns: u64) -> u64 {
        let mut next = now_ns + PACE.as_nanos() as u64;
        if let Some(id) = self.pending.oldest() {
            if let Some(held) = self.pending.get(id) {
                next = next.min(held.since_ns + self.hold_ns);
            }
        }
        if self.asking > 0 {
            next = next.min(now_ns + 500_000);
        }
        next.min(self.tell_ns.unwrap_or(u64::MAX))
            .min(self.herd_ns.unwrap_or(u64::MAX))
    }

    /// Forgets where directories are when one moved, or the daemon says so.
    fn moved(&mut self, ready: bool, buffer: &mut [u8]) -> Result<()> {
        let asked = self.control.get(Word::Refresh);
        let mut forget = asked != self.refreshed;
        self.refreshed = asked;
        if let (true, Some(moves)) = (ready, &self.marked.moves) {
            if let Ok(records) = moves.read(buffer) {
                forget |= records.filter(|record| record.mask & ONDIR != 0).count() > 0;
            }
        }
        if forget {
            self.scope.forget();
            self.marked.forget()?;
        }
        Ok(())
    }

    fn take_events(&mut self, buffer: &mut [u8]) -> Result<()> {
        for _ in 0..READS {
            let events: Vec<_> = match self.marked.group.read_permissions(buffer) {
                Ok(events) => events.collect(),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                // one event could not be handed over (its opener was told); the next one may
                Err(e) if e.raw_os_error() != Some(libc::EBADF) => return Ok(()),
                Err(e) => return Err(Trouble::new("hold.failed", format!("group is lost: {e}"))),
            };
            let few = events.len() < 8;
            for event in events {
                self.event(event);
                self.control.set(Word::Beat, mono_ns());
            }
            self.dispatch();
            let now_ns = mono_ns();
            self.control.set(Word::Beat, now_ns);
            if few || self.herd_ns.is_some_and(|due_ns| due_ns <= now_ns) {
                break;
            }
        }
        Ok(())
    }

    /// Lets one go or not. The opener may be gone meanwhile; nobody else is to be told.
    ///
    /// Each answer wakes all who wait: with thousands of them it takes longer than anybody may wait. Then nobody is let
    /// go by name any more, and all at once by [`Answerer::end_herd`].
    pub(super) fn answer(&mut self, fd: BorrowedFd<'_>, answer: Answer) {
        if self.herd_ns.is_some() && answer == Answer::Allow {
            return;
        }
        let began_ns = mono_ns();
        drop(self.marked.group.answer(fd, answer));
        let ended_ns = mono_ns();
        self.slow = match ended_ns - began_ns > SLOW_NS {
            true => self.slow + 1,
            false => 0,
        };
        if self.slow >= SLOW {
            self.slow = 0;
            self.herd_ns = Some(ended_ns + HERD_NS);
        }
    }

    /// Done with a descriptor; its number must not be used again while somebody waits under it.
    pub(super) fn close(&mut self, fd: OwnedFd) {
        if self.herd_ns.is_some() {
            self.deferred.push(fd);
        }
    }

    /// Lets a herd go: another group takes over, and the end of the one before releases all who wait for it in one go.
    fn end_herd(&mut self) -> Result<()> {
        let Some(due_ns) = self.herd_ns else {
            return Ok(());
        };
        let unread = self.marked.unread();
        let due_ns = match unread > CROWD {
            true => due_ns - HERD_NS + CROWD_NS,
            false => due_ns,
        };
        if mono_ns() < due_ns && (unread > 0 || self.pending.len() > 0) {
            return Ok(());
        }
        let mut fresh = self.marked.again(self.scope.trees())?;
        fresh.moves = self.marked.moves.take();
        let lifeline = self.lifeline.as_fd();
        self.sources = sources(&fresh, &self.keepers, lifeline, self.wake.as_fd())?;
        let before = std::mem::replace(&mut self.marked, fresh);
        // the kernel lets all go first and then cleans up for long: not in this thread, for which others wait by now
        let closing = std::thread::Builder::new().stack_size(64 << 10);
        drop(closing.spawn(move || drop(before)));
        self.herd_ns = None;
        self.deferred.clear();
        self.control.count(Word::Herds, 1);
        self.control.count(Word::LetGo, unread);
        while let Some(id) = self.pending.oldest() {
            let late = Done {
                kept: Kept::Late,
                version: 0,
                errno: libc::EBUSY as u16,
            };
            self.release(id, late, Verdict::None);
        }
        self.asking = 0;
        Ok(())
    }

    /// Holds one until its version is kept.
    pub(super) fn hold(&mut self, held: Held) {
        let id = self.pending.add(held);
        self.pending.enqueue(id);
        self.control.count(Word::Held, 1);
        if self.pending.len() >= HERD && self.herd_ns.is_none() {
            self.herd_ns = Some(mono_ns() + HERD_NS);
        }
        self.control.set(Word::Pending, self.pending.len() as u64);
    }

    /// Gives what waits to keepers with room.
    fn dispatch(&mut self) {
        while let Some(id) = self.pending.next_queued() {
            let Some(held) = self.pending.get(id) else {
                return;
            };
            let mut job = Job {
                fd: held.fd.as_raw_fd(),
                vault: held.vault,
                dev: held.dev,
                ino: held.ino,
                tree: held.tree,
                path: held.path[held.relative..].to_vec(),
                actor: held.who.actor,
                at_ns: real_ns(),
                range: held.range,
            };
            let Some(at) = self.keepers.give(&mut job) else {
                return;
            };
            held.stage = Stage::Given(at);
            *self.pending.slot(at) = Given::For(id);
        }
    }

    fn collect(&mut self) {
        let working: Vec<_> = self.pending.working().collect();
        for at in working {
            let Some(done) = self.keepers.collect(at) else {
                continue;
            };
            match std::mem::take(self.pending.slot(at)) {
                Given::For(id) => self.kept(id, done),
                Given::LetGo(fd) => {
                    drop(fd);
                    self.note_stuck();
                }
                Given::Nothing => {}
            }
        }
    }

    /// A version is there, or will not be: the verdict now.
    fn kept(&mut self, id: Id, done: Done) {
        let Some(held) = self.pending.get(id) else {
            return;
        };
        let verdict = self.control.verdict(held.who.actor);
        if verdict == Verdict::Ask && mono_ns() < held.since_ns + self.bound_ns {
            held.stage = Stage::Asking(done);
            self.asking += 1;
            return;
        }
        self.release(id, done, verdict);
    }

    /// Whether the daemon's word has come for those who wait for it, or the time is up.
    fn hear(&mut self) {
        let now_ns = mono_ns();
        for id in self.pending.asking() {
            let Some(held) = self.pending.get(id) else {
                continue;
            };
            let Stage::Asking(done) = held.stage else {
                continue;
            };
            let verdict = self.control.verdict(held.who.actor);
            let up = now_ns >= held.since_ns + self.bound_ns;
            if verdict != Verdict::Ask || up {
                self.asking -= 1;
                if verdict == Verdict::Ask {
                    self.control.count(Word::Unasked, 1);
                }
                self.release(id, done, verdict);
            }
        }
    }

    /// Lets go whoever waited for a version too long.
    fn expire(&mut self) {
        let now_ns = mono_ns();
        while let Some(id) = self.pending.oldest() {
            let Some(held) = self.pending.get(id) else {
                return;
            };
            if now_ns < held.since_ns + self.hold_ns {
                return;
            }
            let actor = held.who.actor;
            let late = Done {
                kept: Kept::Late,
                version: 0,
                errno: libc::ETIMEDOUT as u16,
            };
            let done = match held.stage {
                Stage::Asking(done) => {
                    self.asking -= 1;
                    done
                }
                _ => late,
            };
            let verdict = self.control.verdict(actor);
            self.release(id, done, verdict);
        }
    }

    /// The answer first, then the books.
    fn release(&mut self, id: Id, done: Done, verdict: Verdict) {
        let Some(held) = self.pending.remove(id) else {
            return;
        };
        let denied = verdict == Verdict::Deny;
        // before the answer: from then on the file may change under the copy
        let unfinished = match held.stage {
            Stage::Given(at) if matches!(self.pending.slot(at), Given::For(other) if *other == id) => {
                Some((at, self.keepers.give_up(at)))
            }
            _ => None,
        };
        self.answer(
            held.fd.as_fd(),
            if denied { Answer::Deny } else { Answer::Allow },
        );
        self.record(&held, done, verdict);
        if let Some((at, taken_back)) = unfinished {
            *self.pending.slot(at) = if taken_back {
                Given::Nothing
            } else {
                Given::LetGo(held.fd)
            };
            self.note_stuck();
            self.control.set(Word::Pending, self.pending.len() as u64);
            return;
        }
        self.close(held.fd);
        self.control.set(Word::Pending, self.pending.len() as u64);
    }

    fn note_stuck(&mut self) {
        let stuck = self.pending.stuck();
        self.control.set(Word::Stuck, stuck as u64);
        if stuck < CREW {
            self.control.set(Word::StuckSince, 0);
        } else if self.control.get(Word::StuckSince) == 0 {
            self.control.set(Word::StuckSince, real_ns());
        }
    }

    /// Whether any keeper may still answer. Where all hang, nobody waits for them.
    pub(super) fn keepers_answer(&self) -> bool {
        self.control.get(Word::StuckSince) == 0
    }

    /// Counts, and tells the daemon.
    pub(super) fn record(&mut self, held: &Held, done: Done, verdict: Verdict) {
        let held_ns = mono_ns().saturating_sub(held.since_ns);
        let count = match done.kept {
            Kept::None => Word::Denials,
            Kept::Yes => Word::Preserved,
            Kept::Full => Word::LostFull,
            Kept::Late => Word::LostLate,
            Kept::Failed | Kept::Absent => Word::LostFailed,
        };
        self.control.count(count, 1);
        if done.kept == Kept::Yes {
            let bytes = held.range.map_or(held.size, |(_, len)| len.min(held.size));
            self.control.count(Word::PreservedBytes, bytes);
            self.control
                .count(Word::Ranges, u64::from(held.range.is_some()));
        }
        if verdict == Verdict::Deny && done.kept != Kept::None {
            self.control.count(Word::Denials, 1);
        }
        self.control
            .word(Word::LongestNs)
            .fetch_max(held_ns, Ordering::Relaxed);
        self.push(held.kind, held, done, verdict, held_ns);
        let soon = mono_ns() + TELL_NS;
        self.tell_ns = Some(self.tell_ns.unwrap_or(soon));
    }

    fn push(&self, kind: Kind, held: &Held, done: Done, verdict: Verdict, held_ns: u64) {
        self.control.push(&Record {
            kind,
            kept: done.kept,
            tree: held.tree,
            at_ns: real_ns(),
            actor: held.who.actor,
            version: [done.version, 0],
            start_ticks: held.who.start_ticks,
            pid: held.who.pid,
            tid: held.tid as u32,
            held_us: (held_ns / 1000).min(u64::from(u32::MAX)) as u32,
            size: held.size,
            verdict: verdict as u8,
            undecoded: held.undecoded,
            errno: done.errno,
            path: held.path.get(held.relative..).unwrap_or_default(),
        });
    }

    /// Asks the daemon, at once: the opener waits.
    pub(super) fn ask(&mut self, held: &Held) {
        let nothing = Done {
            kept: Kept::None,
            version: 0,
            errno: 0,
        };
        self.control.count(Word::Asked, 1);
        self.push(Kind::Ask, held, nothing, Verdict::Ask, 0);
        self.tell_ns = Some(0);
    }

    fn tell(&mut self) {
        if self.tell_ns.is_some_and(|at| at <= mono_ns()) {
            self.tell_ns = None;
            if rustix::io::write(&self.told, &1u64.to_ne_bytes()).is_err() {
                // the counter is full: the daemon is being told already
            }
        }
    }
}
