//! Decaying memory over an actor's behaviour; turns events and facts into observations.
//!
//! Live events, recorded traces and the simulator all go through [`Windows::observe`], so the policy never sees a
//! number in production that was computed otherwise in training. Time is the events' own (`mono_ns`): no clock here.
//!
//! * [`decay`]: exponentially decaying counts and distinct counts.
//! * [`outputs`]: new files of an actor that wait for a partner.
//! * [`judge`]: whether an event destroyed a known file, or replaced it by verified content.
//! * [`row`]: one observation.

pub mod decay;
pub mod judge;
pub mod outputs;
pub mod row;

use crate::baseline::HashedMap;
use crate::event::{Event, Kind};
use crate::facts::{flags, Facts};
use crate::observation::WIDTH;
use decay::{Counts, Distinct, Names};
use judge::Judgement;
use outputs::Outputs;

/// What is counted of an actor, each over 1, 10 and 60 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Count {
    Writes,
    Creates,
    Renames,
    Deletes,
    ExtChanges,
    EntropyRises,
    Directories,
    HeaderLosses,
    SameNotes,
    Destroyed,
    EncryptedOutputs,
    Replacements,
    Overwritten,
    BadPairs,
    DeclaredEncrypted,
    UnknownOutputs,
    Drops,
    Reads,
    Outputs,
    Touched,
}

/// Number of [`Count`]s.
pub const COUNTS: usize = Count::Touched as usize + 1;

/// Counters of [`Windows`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WindowsStats {
    /// Actors remembered now.
    pub actors: u64,
    /// Most that will be remembered.
    pub capacity: u64,
    /// Actors that left because there were too many.
    pub evicted: u64,
    /// Events seen.
    pub events: u64,
    /// Events whose time lay before their predecessor's; treated as simultaneous.
    pub clock_steps: u64,
}

/// Memory of one actor.
pub struct Actor {
    /// Id.
    pub id: u64,
    /// Decaying counts.
    pub counts: Counts<COUNTS>,
    /// When each directory was touched last.
    pub directories: Distinct,
    /// Where each new text name was seen last.
    pub names: Names,
    /// New files waiting for a partner.
    pub outputs: Outputs,
    /// Time of its first event, ns.
    pub first_ns: u64,
    /// Events so far.
    pub events: u64,
    newer: u32,
    older: u32,
}

impl Actor {
    fn new(id: u64, now_ns: u64) -> Self {
        Actor {
            id,
            counts: Counts::new(now_ns),
            directories: Distinct::default(),
            names: Names::default(),
            outputs: Outputs::default(),
            first_ns: now_ns,
            events: 0,
            newer: NONE,
            older: NONE,
        }
    }
}

const NONE: u32 = u32::MAX;
/// Of the actors that were silent longest, so many are looked at for one that destroyed nothing.
const EVICTION_LOOKS: usize = 8;

/// Memory over all actors and trees.
pub struct Windows {
    actors: Vec<Actor>,
    index: HashedMap<u32>,
    newest: u32,
    oldest: u32,
    capacity: usize,
    trees: HashedMap<Counts<1>>,
    host: Counts<1>,
    stats: WindowsStats,
    last_ns: u64,
}

impl Windows {
    /// Remembers at most `capacity` actors (at least 1); the oldest quiet ones leave.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, 1 << 20);
        Windows {
            actors: Vec::new(),
            index: HashedMap::default(),
            newest: NONE,
            oldest: NONE,
            capacity,
            trees: HashedMap::default(),
            host: Counts::new(0),
            stats: WindowsStats {
                capacity: capacity as u64,
                ..WindowsStats::default()
            },
            last_ns: 0,
        }
    }

    /// Counters.
    pub fn stats(&self) -> WindowsStats {
        WindowsStats {
            actors: self.actors.len() as u64,
            ..self.stats
        }
    }

    /// Forgets all actors and trees; the counters stay.
    pub fn reset(&mut self) {
        self.actors.clear();
        self.index.clear();
        self.trees.clear();
        self.host = Counts::new(0);
        self.newest = NONE;
        self.oldest = NONE;
        self.last_ns = 0;
    }

    /// One observation of [`WIDTH`] numbers per event, in order, into `out`; each finite and within its column's range.
    ///
    /// Looks at as many rows as the shortest of the three holds.
    pub fn observe(&mut self, events: &[Event], facts: &[Facts], out: &mut [f32]) {
        for ((event, facts), row) in events.iter().zip(facts).zip(out.chunks_exact_mut(WIDTH)) {
            self.observe_one(event, facts, row);
        }
    }

    fn observe_one(&mut self, event: &Event, facts: &Facts, row: &mut [f32]) {
        self.stats.events += 1;
        let now_ns = if event.mono_ns < self.last_ns {
            self.stats.clock_steps += 1;
            self.last_ns
        } else {
            event.mono_ns
        };
        self.last_ns = now_ns;
        let at = self.actor(event.actor, now_ns);
        let actor = &mut self.actors[at as usize];
        actor.counts.advance(now_ns);
        let judgement = count(actor, event, facts, now_ns);
        let tree = self
            .trees
            .entry(u64::from(event.tree))
            .or_insert_with(|| Counts::new(now_ns));
        tree.advance(now_ns);
        self.host.advance(now_ns);
        if judgement.destroys {
            tree.add(0, 1.0);
            self.host.add(0, 1.0);
        }
        row::fill(
            row,
            &row::View {
                event,
                facts,
                actor: &self.actors[at as usize],
                judgement: &judgement,
                tree_destroyed_60s: tree.get(0, 2),
                host_destroyed_60s: self.host.get(0, 2),
                now_ns,
            },
        );
    }

    fn actor(&mut self, id: u64, now_ns: u64) -> u32 {
        if let Some(at) = self.index.get(&id).copied() {
            if self.newest != at {
                self.unlink(at);
                self.push(at);
            }
            return at;
        }
        let at = if self.actors.len() < self.capacity {
            self.actors.push(Actor::new(id, now_ns));
            (self.actors.len() - 1) as u32
        } else {
            let at = self.quietest(now_ns);
            self.unlink(at);
            self.index.remove(&self.actors[at as usize].id);
            self.actors[at as usize] = Actor::new(id, now_ns);
            self.stats.evicted += 1;
            at
        };
        self.index.insert(id, at);
        self.push(at);
        at
    }

    /// The actor silent longest, but among the few silent longest rather one that destroyed nothing of late:
    /// a flood of new actors does not wash out the memory of an attack.
    fn quietest(&mut self, now_ns: u64) -> u32 {
        let mut at = self.oldest;
        for _ in 0..EVICTION_LOOKS {
            if at == NONE {
                break;
            }
            let actor = &mut self.actors[at as usize];
            actor.counts.advance(now_ns);
            if actor.counts.get(Count::Destroyed as usize, 2) < 0.5 {
                return at;
            }
            at = actor.newer;
        }
        self.oldest
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = {
            let a = &self.actors[at as usize];
            (a.newer, a.older)
        };
        match newer {
            NONE if self.newest == at => self.newest = older,
            NONE => {}
            n => self.actors[n as usize].older = older,
        }
        match older {
            NONE if self.oldest == at => self.oldest = newer,
            NONE => {}
            o => self.actors[o as usize].newer = newer,
        }
        let a = &mut self.actors[at as usize];
        a.newer = NONE;
        a.older = NONE;
    }

    fn push(&mut self, at: u32) {
        self.actors[at as usize].older = self.newest;
        match self.newest {
            NONE => self.oldest = at,
            n => self.actors[n as usize].newer = at,
        }
        self.newest = at;
    }
}

/// The operations of an event: the bits of `ops`, and its own kind.
pub fn operations(event: &Event) -> u16 {
    event.ops | 1u16.checked_shl(u32::from(event.kind)).unwrap_or(0)
}

/// Whether an event's operations hold a kind.
pub fn did(ops: u16, kind: Kind) -> bool {
    ops & (1 << kind as u16) != 0
}

/// Whether an event speaks of a file (and not of a directory or of the watch itself).
pub fn of_file(event: &Event) -> bool {
    (Kind::Create as u8..=Kind::Attrib as u8).contains(&event.kind)
        || event.kind == Kind::Read as u8
}

/// Counts an event into its actor's memory.
fn count(actor: &mut Actor, event: &Event, facts: &Facts, now_ns: u64) -> Judgement {
    use Count as C;
    actor.events += 1;
    let ops = operations(event);
    let directory = (Kind::MakeDir as u8..=Kind::RenameDir as u8).contains(&event.kind);
    if facts.dir_hash != 0 && (directory || of_file(event)) {
        let ages = actor.directories.touch(facts.dir_hash, now_ns);
        actor.counts.add_distinct(C::Directories as usize, ages);
    }
    if did(ops, Kind::RenameDir) {
        actor.counts.add(C::Renames as usize, 1.0);
        actor.outputs.forget_contents();
    }
    if !of_file(event) {
        return Judgement::default();
    }
    let mut tally = |what: C, yes: bool| {
        if yes {
            actor.counts.add(what as usize, 1.0);
        }
    };
    let made = did(ops, Kind::Create);
    let wrote = did(ops, Kind::Write);
    let renamed = did(ops, Kind::Rename);
    let deleted = event.kind == Kind::Delete as u8;
    let looked = facts.has(flags::LOOKED);
    tally(C::Writes, wrote);
    tally(C::Creates, made);
    tally(C::Renames, renamed);
    tally(C::Deletes, deleted);
    tally(C::Reads, did(ops, Kind::Read));
    tally(C::ExtChanges, renamed && facts.has(flags::EXT_CHANGED));
    tally(C::EntropyRises, judge::entropy_rose(facts));
    tally(C::HeaderLosses, judge::type_lost(facts));
    let output = looked && facts.size > 0 && (made || wrote || renamed) && !deleted;
    tally(C::Outputs, output);
    tally(C::Touched, wrote || renamed || deleted);
    let quality = judge::quality(facts);
    tally(C::EncryptedOutputs, output && judge::looks_encrypted(facts));
    tally(
        C::DeclaredEncrypted,
        output && facts.has(flags::DECLARES_ENCRYPTION),
    );
    tally(C::UnknownOutputs, output && judge::of_no_kind(facts));
    let fresh = !facts.has(flags::KNOWN_BEFORE);
    tally(
        C::Drops,
        output && fresh && facts.any(flags::EXECUTABLE | flags::SCRIPT),
    );
    if fresh && (made || wrote) && facts.any(flags::TEXT | flags::NOTE_LIKE) {
        let again = actor
            .names
            .elsewhere(facts.name_hash, facts.dir_hash, now_ns);
        if again {
            actor.counts.add(C::SameNotes as usize, 1.0);
        }
    }
    let judgement = judge::judge(&mut actor.outputs, event, facts, quality, now_ns);
    let mut tally = |what: C, yes: bool| {
        if yes {
            actor.counts.add(what as usize, 1.0);
        }
    };
    tally(C::Destroyed, judgement.destroys);
    tally(C::Overwritten, judgement.destroys && judgement.in_place);
    tally(C::BadPairs, judgement.bad_pair);
    tally(C::Replacements, judgement.replaces);
    judgement
}
