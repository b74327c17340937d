//! What was read and not yet handed out: one record per path, in the order of first events.
//!
//! A later event of a path merges into its record. A rename carries the record along, unless something later has
//! already touched the new name: then the record stays where it is and a new one follows, so that reading the
//! records in order always gives the true end state.

use shieldd_core::event::{flags, Kind};

pub(crate) use super::record::{hash, Rec, Span};

/// Key of a name inside a directory.
#[derive(Clone, Copy)]
pub(crate) struct Key<'a> {
    pub(crate) hash: u32,
    pub(crate) dir: i32,
    pub(crate) name: &'a [u8],
}

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// `(record << 1 | is_old_name) + 1`; 0 is empty.
    value: u32,
}

const SMALL: usize = 4096;
/// Room for names: mean bytes per record beyond which the queue counts as full.
const ARENA_PER_RECORD: usize = 320;

/// The queue between the reader and whoever takes batches.
pub(crate) struct Pending {
    pub(crate) recs: Vec<Rec>,
    pub(crate) arena: Vec<u8>,
    slots: Vec<Slot>,
    used: usize,
    pub(crate) epoch: u32,
    capacity: usize,
    /// Record that took the last event: the next is often of the same file.
    last: usize,
}

/// What stands under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    None,
    /// A record of a file of this name that may still take events.
    Live(usize),
    /// Something happened to the name; nothing may merge.
    Closed,
}

/// What became of a rename.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Renamed {
    /// The record of the old name took the new one.
    Carried(usize),
    /// A record of its own follows.
    Added(usize),
    /// There is no room.
    Full,
}

impl Pending {
    pub(crate) fn new(capacity: usize) -> Self {
        Pending {
            recs: Vec::new(),
            arena: Vec::new(),
            slots: vec![Slot::default(); SMALL],
            used: 0,
            epoch: 0,
            capacity,
            last: usize::MAX,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.recs.len() >= self.capacity || self.arena.len() >= self.capacity * ARENA_PER_RECORD
    }

    /// Whether `more` records have room, or half the queue where it is too small for that.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        let more = more.min(self.capacity / 2);
        self.recs.len() + more <= self.capacity && !self.is_full()
    }

    fn is(&self, slot: Slot, key: Key<'_>) -> bool {
        if slot.hash != key.hash {
            return false;
        }
        let at = (slot.value - 1) as usize;
        let rec = &self.recs[at >> 1];
        let (dir, span) = if at & 1 == 0 {
            (rec.dir, rec.path)
        } else {
            (rec.from_dir, rec.from)
        };
        dir == key.dir && span.name_of(&self.arena) == key.name
    }

    /// Index of the key's slot, or of the empty one where it belongs.
    #[inline]
    fn slot(&self, key: Key<'_>) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = key.hash as usize & mask;
        while self.slots[at].value != 0 && !self.is(self.slots[at], key) {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline]
    pub(crate) fn touch(&self, key: Key<'_>) -> Touch {
        let slot = self.slots[self.slot(key)];
        if slot.value == 0 {
            return Touch::None;
        }
        let at = (slot.value - 1) as usize;
        let rec = &self.recs[at >> 1];
        if at & 1 == 0 && rec.is_file() && rec.epoch == self.epoch {
            Touch::Live(at >> 1)
        } else {
            Touch::Closed
        }
    }

    /// The record that took the last event, where it is of this name and may take another.
    #[inline]
    pub(crate) fn again(&self, dir: i32, name: &[u8]) -> Option<usize> {
        let rec = self.recs.get(self.last)?;
        let same = rec.dir == dir
            && rec.is_file()
            && rec.epoch == self.epoch
            && rec.path.name_of(&self.arena) == name;
        same.then_some(self.last)
    }

    fn set(&mut self, key: Key<'_>, rec: usize, old_name: bool) {
        self.last = if old_name { usize::MAX } else { rec };
        let at = self.slot(key);
        if self.slots[at].value == 0 {
            self.used += 1;
        }
        self.slots[at] = Slot {
            hash: key.hash,
            value: (((rec << 1) | usize::from(old_name)) + 1) as u32,
        };
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
    }

    fn grow(&mut self) {
        let mut wider = vec![Slot::default(); self.slots.len() * 2];
        let mask = wider.len() - 1;
        for slot in self.slots.iter().filter(|s| s.value != 0) {
            let mut at = slot.hash as usize & mask;
            while wider[at].value != 0 {
                at = (at + 1) & mask;
            }
            wider[at] = *slot;
        }
        self.slots = wider;
    }

    /// Puts `directory/name` into the arena; `directory` ends in a slash or is empty.
    pub(crate) fn path(&mut self, directory: &[u8], name: &[u8]) -> Span {
        let off = self.arena.len() as u32;
        self.arena.extend_from_slice(directory);
        self.arena.extend_from_slice(name);
        Span {
            off,
            len: (directory.len() + name.len()) as u32,
            name: name.len() as u16,
        }
    }

    /// Appends a record and lets later events of its name find it.
    pub(crate) fn push(&mut self, key: Key<'_>, mut rec: Rec) {
        rec.epoch = self.epoch;
        self.recs.push(rec);
        self.set(key, self.recs.len() - 1, false);
    }

    /// Appends a record that nothing merges into.
    pub(crate) fn push_alone(&mut self, mut rec: Rec) {
        rec.epoch = self.epoch;
        self.recs.push(rec);
    }

    /// Marks the old name of the record last pushed, so that nothing earlier moves past it.
    fn close_old(&mut self, old: Key<'_>) {
        if let Some(last) = self.recs.len().checked_sub(1) {
            self.set(old, last, true);
        }
    }

    /// One more operation on a file's record.
    #[inline]
    pub(crate) fn merge(&mut self, at: usize, kind: Kind, held: Option<bool>, count: u32) {
        self.last = at;
        let rec = &mut self.recs[at];
        rec.ops |= 1 << kind as u16;
        rec.merged += count;
        if let Some(held) = held {
            rec.held = held;
        }
        match kind {
            Kind::Create | Kind::Delete => {
                rec.kind = kind;
                if kind == Kind::Delete {
                    rec.flags &= !flags::OPEN;
                }
            }
            Kind::Write if rec.kind == Kind::Attrib => rec.kind = Kind::Write,
            _ => {}
        }
    }

    /// Carries the record of `old`, which has no older name, along to the new one. The caller has seen that `new` is
    /// untouched.
    fn carry(&mut self, at: usize, old: Key<'_>, new: Key<'_>, path: Span) {
        let rec = &mut self.recs[at];
        rec.from = rec.path;
        rec.from_dir = rec.dir;
        rec.path = path;
        rec.dir = new.dir;
        rec.ops |= 1 << Kind::Rename as u16;
        rec.kind = Kind::Rename;
        rec.merged += 2;
        self.set(old, at, true);
        self.set(new, at, false);
    }

    /// A file took another name: the record of the old one is carried along where nothing stands under the new name,
    /// else `rec` is filled in and added. `old_directory` is none where the old place is unknown.
    pub(crate) fn renamed(
        &mut self,
        mut rec: Rec,
        (old_directory, old): (Option<&[u8]>, Key<'_>),
        (directory, new): (&[u8], Key<'_>),
    ) -> Renamed {
        let new_touch = self.touch(new);
        if let (Touch::Live(at), Touch::None) = (self.touch(old), new_touch) {
            // one that was renamed before may have replaced a file there, whose end must be told
            let was = &self.recs[at];
            if was.kind != Kind::Delete && was.from.len == 0 && was.actor == rec.actor {
                let path = self.path(directory, new.name);
                self.carry(at, old, new, path);
                return Renamed::Carried(at);
            }
        }
        if self.is_full() {
            return Renamed::Full;
        }
        if matches!(new_touch, Touch::Live(at) if self.recs[at].kind != Kind::Delete) {
            rec.flags |= flags::OVER;
        }
        rec.path = self.path(directory, new.name);
        rec.from = old_directory.map_or(Span::default(), |above| self.path(above, old.name));
        rec.from_dir = old.dir;
        rec.merged = 2;
        self.push(new, rec);
        if rec.from.len > 0 {
            self.close_old(old);
        }
        Renamed::Added(self.recs.len() - 1)
    }

    /// Nothing that comes later merges with what is here.
    pub(crate) fn barrier(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.recs.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.last = usize::MAX;
        self.recs.clear();
        self.arena.clear();
        if self.slots.len() > SMALL && self.used * 16 < self.slots.len() {
            self.slots = vec![Slot::default(); SMALL];
        } else if self.used > 0 {
            self.slots.fill(Slot::default());
        }
        self.used = 0;
    }

    /// Whether a record may go out at `now_ns` (monotonic): held ones wait `hold_ns` for their writer.
    pub(crate) fn is_due(rec: &Rec, now_ns: u64, hold_ns: u64) -> bool {
        !rec.held || now_ns.saturating_sub(rec.mono_ns) >= hold_ns
    }

    /// How long until something is due, ns; None where something is already.
    pub(crate) fn due_in(&self, now_ns: u64, hold_ns: u64) -> Option<u64> {
        let mut least = u64::MAX;
        for rec in &self.recs {
            if Self::is_due(rec, now_ns, hold_ns) {
                return None;
            }
            least = least.min(hold_ns - now_ns.saturating_sub(rec.mono_ns));
        }
        Some(least)
    }

    /// Appends what is no file event.
    pub(crate) fn tell(&mut self, notices: &mut Vec<super::Notice>) {
        for notice in notices.drain(..) {
            let path = self.path(b"", &notice.path);
            let at = super::clocks();
            let mut rec = Rec::new(notice.kind, notice.tree, super::dirs::NONE, path, at);
            rec.merged = notice.count;
            self.recs.push(rec);
        }
    }

    /// Moves all that is due into `out` (which is emptied first) and keeps the rest. Constant time per kept record
    /// and one pass over the taken ones.
    pub(crate) fn take(
        &mut self,
        out: &mut Pending,
        now_ns: u64,
        hold_ns: u64,
        hash_of: impl Fn(i32, &[u8]) -> u32,
    ) {
        if out.used > 0 || !out.is_empty() {
            out.clear();
        }
        std::mem::swap(self, out);
        self.epoch = out.epoch;
        if !out
            .recs
            .iter()
            .any(|r| r.held && !Self::is_due(r, now_ns, hold_ns))
        {
            return;
        }
        let mut kept = 0;
        for at in 0..out.recs.len() {
            let rec = out.recs[at];
            if Self::is_due(&rec, now_ns, hold_ns) {
                out.recs[kept] = rec;
                kept += 1;
                continue;
            }
            let path = rec.path.of(&out.arena);
            let split = path.len() - rec.path.name as usize;
            let span = self.path(&path[..split], &path[split..]);
            let from = if rec.from.len > 0 {
                let old = rec.from.of(&out.arena);
                let cut = old.len() - rec.from.name as usize;
                self.path(&old[..cut], &old[cut..])
            } else {
                Span::default()
            };
            let name = rec.path.name_of(&out.arena);
            let key = Key {
                hash: hash_of(rec.dir, name),
                dir: rec.dir,
                name,
            };
            self.recs.push(Rec {
                path: span,
                from,
                ..rec
            });
            self.set(key, self.recs.len() - 1, false);
        }
        out.recs.truncate(kept);
    }
}

#[cfg(test)]
mod tests;
