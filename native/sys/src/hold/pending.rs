//! Openers that are held, and since when.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::identity::Who;
use super::keeper::{At, Done, CREW, DEPTH};
use super::ring::Kind;

/// An opener that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fd: OwnedFd,
    pub(super) kind: Kind,
    pub(super) tid: i32,
    pub(super) who: Who,
    pub(super) tree: u16,
    /// Whole path, and where the part relative to the tree begins.
    pub(super) path: Vec<u8>,
    pub(super) relative: usize,
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) vault: usize,
    pub(super) range: Option<(u64, u64)>,
    pub(super) undecoded: bool,
    pub(super) since_ns: u64,
    pub(super) stage: Stage,
}

/// What it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A keeper.
    Queued,
    /// Its version.
    Given(At),
    /// A verdict; its version is this.
    Asking(Done),
}

/// Refers to one that is held; stale once it was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    index: usize,
    serial: u64,
}

/// All that are held.
#[derive(Debug, Default)]
pub(super) struct Pending {
    held: Vec<Option<(u64, Held)>>,
    free: Vec<usize>,
    serial: u64,
    queue: VecDeque<Id>,
    /// In order of arrival, so of deadlines too.
    order: VecDeque<Id>,
    /// What each slot of each keeper works on; what was given up keeps its descriptor until the keeper is done.
    given: [[Given; DEPTH]; CREW],
    count: usize,
}

/// What a slot works on.
#[derive(Debug, Default)]
pub(super) enum Given {
    #[default]
    Nothing,
    For(Id),
    LetGo(OwnedFd),
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn add(&mut self, held: Held) -> Id {
        let index = self.free.pop().unwrap_or_else(|| {
            self.held.push(None);
            self.held.len() - 1
        });
        self.serial += 1;
        let id = Id {
            index,
            serial: self.serial,
        };
        self.held[index] = Some((self.serial, held));
        self.count += 1;
        self.order.push_back(id);
        id
    }

    pub(super) fn get(&mut self, id: Id) -> Option<&mut Held> {
        match self.held.get_mut(id.index) {
            Some(Some((serial, held))) if *serial == id.serial => Some(held),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Held> {
        self.get(id)?;
        let (_, held) = self.held[id.index].take()?;
        self.free.push(id.index);
        self.count -= 1;
        Some(held)
    }

    pub(super) fn enqueue(&mut self, id: Id) {
        self.queue.push_back(id);
    }

    /// The next that waits for a keeper; it stays first.
    pub(super) fn next_queued(&mut self) -> Option<Id> {
        while let Some(&id) = self.queue.front() {
            if self.get(id).is_some_and(|held| held.stage == Stage::Queued) {
                return Some(id);
            }
            self.queue.pop_front();
        }
        None
    }

    /// The one that waits longest.
    pub(super) fn oldest(&mut self) -> Option<Id> {
        while let Some(&id) = self.order.front() {
            if self.get(id).is_some() {
                return Some(id);
            }
            self.order.pop_front();
        }
        None
    }

    /// Any that waits for a verdict, by index from `from` on.
    pub(super) fn asking(&self) -> Vec<Id> {
        let one = |(index, held): (usize, &Option<(u64, Held)>)| match held {
            Some((serial, held)) if matches!(held.stage, Stage::Asking(_)) => Some(Id {
                index,
                serial: *serial,
            }),
            _ => None,
        };
        self.held.iter().enumerate().filter_map(one).collect()
    }

    pub(super) fn slot(&mut self, at: At) -> &mut Given {
        &mut self.given[at.keeper][at.slot]
    }

    /// Slots that are at work.
    pub(super) fn working(&self) -> impl Iterator<Item = At> + '_ {
        self.given.iter().enumerate().flat_map(|(keeper, slots)| {
            let at_work = move |(slot, given): (usize, &Given)| match given {
                Given::Nothing => None,
                _ => Some(At { keeper, slot }),
            };
            slots.iter().enumerate().filter_map(at_work)
        })
    }

    /// Keepers that have something given up in hand.
    pub(super) fn stuck(&self) -> usize {
        let given_up = |slots: &&[Given; DEPTH]| slots.iter().any(|g| matches!(g, Given::LetGo(_)));
        self.given.iter().filter(given_up).count()
    }

    /// All that are held, to let them go.
    pub(super) fn drain(&mut self) -> Vec<Held> {
        self.count = 0;
        self.held
            .drain(..)
            .flatten()
            .map(|(_, held)| held)
            .collect()
    }
}
