//! From records to the index in memory, and out of it again.

use super::index::{Entry, Inner, Object, Pin, END};
use super::record::Record;
use super::version::{name_hash, Kind, Version, VersionId};

impl Object {
    fn of(version: &Version) -> Object {
        Object {
            refs: 0,
            kind: version.kind,
            damaged: false,
            ino: version.object_ino,
            stored: version.stored,
            made_ns: version.at_ns,
            orphan_ns: 0,
        }
    }

    fn describe(&mut self, by: &Object) {
        (self.ino, self.stored, self.made_ns) = (by.ino, by.stored, by.made_ns);
    }

    /// Bytes that would be free without it.
    pub(super) fn taken(&self) -> u64 {
        if self.kind == Kind::Link && self.orphan_ns == 0 {
            return 0;
        }
        self.stored
    }
}

impl Inner {
    pub(super) fn entry(&self, id: VersionId) -> Option<Entry> {
        self.by_id.get(&id).map(|&at| self.entries[at as usize])
    }

    pub(super) fn chain(&self, name: u64) -> Vec<Entry> {
        let mut out = Vec::new();
        let mut at = self.by_name.get(&name).copied().unwrap_or(END);
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.live {
                out.push(*entry);
            }
            at = entry.next;
        }
        out
    }

    pub(super) fn damage(&mut self, object: VersionId) {
        if let Some(object) = self.objects.get_mut(&object) {
            object.damaged = true;
        }
    }

    pub(super) fn note_orphan(&mut self, object: VersionId, orphan: bool, ctime_ns: i64) {
        if let Some(object) = self.objects.get_mut(&object) {
            object.orphan_ns = if orphan { (ctime_ns.max(1)) as u64 } else { 0 };
        }
    }

    pub(super) fn pinned(&self, entry: &Entry, object: Option<&Object>) -> bool {
        let lost_ns = object.map_or(0, |o| o.orphan_ns);
        self.pins.values().any(|pin| {
            let theirs = pin.actor == 0 || entry.actor == 0 || entry.actor == pin.actor;
            (theirs && entry.at_ns >= pin.since_ns) || (lost_ns != 0 && lost_ns >= pin.since_ns)
        })
    }

    /// Takes a record in. `tree` is what a tree's number in its file stands for here.
    pub(super) fn apply(&mut self, record: Record, file: u32, offset: u64, tree: u16) {
        match record {
            Record::Version(version) => self.add(&version, file, offset, tree),
            Record::Extent {
                id,
                offset,
                len,
                crc,
            } => {
                self.extents.entry(id).or_default().push((offset, len, crc));
                if let Some(object) = self.objects.get_mut(&id) {
                    object.stored += len;
                }
            }
            Record::Gone(ids) => {
                self.merge_same();
                for id in ids {
                    if self.take_out(id).is_none() {
                        self.gone.insert(id);
                    }
                }
            }
            Record::Digest { object, digest } => {
                self.digests.insert(object, digest);
            }
            Record::Same { object, kept } => {
                self.same.insert(object, kept);
                self.merged = true;
            }
            Record::Pin {
                incident,
                actor,
                since_ns,
            } => {
                self.pins.insert(incident, Pin { actor, since_ns });
            }
            Record::Unpin { incident } => {
                self.pins.remove(&incident);
            }
            Record::Tree { .. } | Record::Replaces(_) | Record::Unknown => {}
        }
    }

    fn add(&mut self, version: &Version, file: u32, offset: u64, tree: u16) {
        let described = (version.id == version.object).then(|| self.described(version));
        if self.gone.contains(&version.id) {
            // Another version may still need the object, and this record is the one that tells of it.
            if let Some(described) = described {
                match self.objects.get_mut(&version.object) {
                    Some(here) => here.describe(&described),
                    None => {
                        self.ghosts.insert(version.object, described);
                    }
                }
            }
            return;
        }
        if let Some(&at) = self.by_id.get(&version.id) {
            // said again by a file that replaces its own
            let entry = &mut self.entries[at as usize];
            (entry.file, entry.offset) = (file, offset);
            return;
        }
        let object = self.kept_in(version.object);
        let name = name_hash(tree, &version.path);
        let entry = Entry {
            id: version.id,
            object,
            actor: version.actor,
            at_ns: version.at_ns,
            name,
            offset,
            file,
            next: self.by_name.get(&name).copied().unwrap_or(END),
            tree,
            live: true,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.by_id.insert(version.id, at);
        self.by_name.insert(name, at);
        let here = self
            .objects
            .entry(object)
            .or_insert_with(|| self.ghosts.remove(&object).unwrap_or(Object::of(version)));
        here.refs += 1;
        if let Some(described) = described.filter(|_| version.id == object) {
            here.describe(&described);
        }
    }

    fn described(&self, version: &Version) -> Object {
        let extents = self.extents.get(&version.id);
        let kept: u64 = extents.map_or(0, |all| all.iter().map(|(_, len, _)| len).sum());
        let mut object = Object::of(version);
        object.stored += kept;
        object
    }

    /// The object that has the content of `object` by now.
    fn kept_in(&self, mut object: VersionId) -> VersionId {
        for _ in 0..8 {
            match self.same.get(&object) {
                Some(kept) => object = *kept,
                None => break,
            }
        }
        object
    }

    /// Takes a version out; its object too where nothing else needs it: the object's name and kind then.
    pub(super) fn take_out(&mut self, id: VersionId) -> Option<Option<(VersionId, Object)>> {
        let at = self.by_id.remove(&id)?;
        let entry = self.entries[at as usize];
        self.unchain(at, &entry);
        self.entries[at as usize].live = false;
        self.free.push(at);
        let object = self.objects.get_mut(&entry.object)?;
        object.refs -= 1;
        if object.refs > 0 {
            return Some(None);
        }
        let object = self.objects.remove(&entry.object)?;
        self.digests.remove(&entry.object);
        self.extents.remove(&entry.object);
        Some(Some((entry.object, object)))
    }

    fn unchain(&mut self, at: u32, entry: &Entry) {
        let Some(&head) = self.by_name.get(&entry.name) else {
            return;
        };
        if head == at {
            match entry.next {
                END => self.by_name.remove(&entry.name),
                next => self.by_name.insert(entry.name, next),
            };
            return;
        }
        let mut before = head;
        while before != END {
            let next = self.entries[before as usize].next;
            if next == at {
                self.entries[before as usize].next = entry.next;
                return;
            }
            before = next;
        }
    }
}
