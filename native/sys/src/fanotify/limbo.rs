//! Events of directories that were gone before anybody could say where they were.
//!
//! `rm -r` of a directory that nothing had happened in before: its files' removals name a handle that cannot be opened
//! any more. The removal of the directory itself, which follows, names the same handle and the place; until then the
//! events wait here.

use std::collections::HashMap;

use super::kernel::{Handle, Named};

/// Bytes of events that wait at most.
const MOST: usize = 64 << 20;
/// What one event takes beside its names.
const EACH: usize = 160;
/// How long the removal of the directory may take to arrive, ns.
const PATIENCE_NS: u64 = 1_000_000_000;

/// A directory handle and a name in it, kept.
type Place = Option<(Box<[u8]>, Box<[u8]>)>;

/// An event, kept.
pub(super) struct Held {
    mask: u64,
    pid: i32,
    place: Place,
    to: Place,
    object: Option<Box<[u8]>>,
}

impl Held {
    fn of(raw: &Named<'_>) -> Held {
        let keep = |place: Option<(Handle<'_>, &[u8])>| {
            place.map(|(handle, name)| (Box::from(handle.key), Box::from(name)))
        };
        Held {
            mask: raw.mask,
            pid: raw.pid,
            place: keep(raw.place),
            to: keep(raw.to),
            object: raw.object.map(|o| Box::from(o.key)),
        }
    }

    fn size(&self) -> usize {
        let place = |p: &Place| p.as_ref().map_or(0, |(key, name)| key.len() + name.len());
        EACH + place(&self.place) + place(&self.to)
    }

    /// As the kernel told it.
    pub(super) fn named(&self) -> Named<'_> {
        fn lend(place: &Place) -> Option<(Handle<'_>, &[u8])> {
            place.as_ref().map(|(key, name)| (Handle { key }, &**name))
        }
        Named {
            mask: self.mask,
            pid: self.pid,
            place: lend(&self.place),
            to: lend(&self.to),
            object: self.object.as_ref().map(|key| Handle { key }),
        }
    }
}

/// A directory whose place is not known (yet).
struct Lost {
    key: Box<[u8]>,
    since_ns: u64,
    events: Vec<Held>,
}

/// Directories that are gone, by ids below [`super::scope::OUTSIDE`].
#[derive(Default)]
pub(super) struct Limbo {
    dirs: HashMap<i32, Lost>,
    last_id: i32,
    bytes: usize,
}

impl Limbo {
    pub(super) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// A new id for a directory that is gone.
    pub(super) fn enter(&mut self, key: &[u8], now_ns: u64) -> i32 {
        self.last_id -= 1;
        let id = super::scope::OUTSIDE + self.last_id;
        let lost = Lost {
            key: key.into(),
            since_ns: now_ns,
            events: Vec::new(),
        };
        self.dirs.insert(id, lost);
        id
    }

    /// Keeps an event; false where there is no room, or no such directory.
    pub(super) fn keep(&mut self, id: i32, raw: &Named<'_>) -> bool {
        let Some(lost) = self.dirs.get_mut(&id) else {
            return false;
        };
        let held = Held::of(raw);
        if self.bytes + held.size() > MOST {
            return false;
        }
        self.bytes += held.size();
        lost.events.push(held);
        true
    }

    /// Takes the events of a directory out.
    pub(super) fn leave(&mut self, id: i32) -> Vec<Held> {
        let events = self.dirs.remove(&id).map(|lost| lost.events);
        let events = events.unwrap_or_default();
        self.bytes -= events.iter().map(Held::size).sum::<usize>();
        events
    }

    /// Directories whose removal did not arrive in time: id and handle.
    pub(super) fn expired(&self, now_ns: u64) -> Vec<(i32, Box<[u8]>)> {
        self.dirs
            .iter()
            .filter(|(_, lost)| now_ns.saturating_sub(lost.since_ns) > PATIENCE_NS)
            .map(|(&id, lost)| (id, lost.key.clone()))
            .collect()
    }
}
