//! What is in the vault, in memory: a few dozen bytes for each version; the rest stays in its record.
//!
//! [`Index`] belongs to one process, the daemon. It follows the record files of all writers ([`Index::refresh`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{statat, AtFlags};

use super::loading::RecordFile;
use super::record::Record;
use super::vault::Vault;
use super::version::{name_hash, Kind, Version, VersionId};
use crate::files::trouble::{Result, Trouble};

/// Ends a chain of entries.
pub(super) const END: u32 = u32::MAX;

/// What to look for; all that is given must hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// Number of the tree, with the path.
    pub name: Option<(u16, &'a [u8])>,
    /// Key of the actor.
    pub actor: Option<u64>,
    /// Number of the tree.
    pub tree: Option<u16>,
    /// Made at or after, ns.
    pub since_ns: u64,
    /// Made before, ns; 0: any time.
    pub until_ns: u64,
    /// Links too that nobody's act made (they exist for every file).
    pub standing: bool,
    /// At most so many, the latest.
    pub limit: usize,
}

/// A version, and how it stands now.
#[derive(Clone, Debug)]
pub struct Found {
    /// As its record has it; `object` is where the content is now.
    pub version: Version,
    /// BLAKE3 of the content, once it was computed.
    pub digest: Option<[u8; 32]>,
    /// An open incident needs it.
    pub pinned: bool,
    /// Of a link: no name is left but ours.
    pub orphan: bool,
    /// Of a link: its content was written since.
    pub changed: bool,
}

/// What the index came to, and what was wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Standing {
    /// Versions.
    pub versions: u64,
    /// Objects of each kind: links, images, ranges.
    pub objects: [u64; 3],
    /// Links whose file has no other name.
    pub orphans: u64,
    /// Bytes that the vault keeps from being free.
    pub used: u64,
    /// Incidents that hold versions.
    pub pins: u64,
    /// Bytes of record files that are no records.
    pub damaged_bytes: u64,
    /// Objects that are not what their record says, and are not offered.
    pub damaged: u64,
    /// Objects that a record names and that are not there.
    pub missing: u64,
    /// Objects without a record that were swept.
    pub swept: u64,
    /// Names in the vault that are none of ours.
    pub foreign: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: VersionId,
    pub(super) object: VersionId,
    pub(super) actor: u64,
    pub(super) at_ns: u64,
    pub(super) name: u64,
    /// Where its record is.
    pub(super) offset: u64,
    pub(super) file: u32,
    /// The entry before it of the same name.
    pub(super) next: u32,
    pub(super) tree: u16,
    pub(super) live: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub(super) refs: u32,
    pub(super) kind: Kind,
    pub(super) damaged: bool,
    pub(super) ino: u64,
    pub(super) stored: u64,
    /// When it was made, ns.
    pub(super) made_ns: u64,
    /// Of a link: when its file lost its last other name, ns; 0 while it has one.
    pub(super) orphan_ns: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Pin {
    pub(super) actor: u64,
    pub(super) since_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) files: BTreeMap<u32, RecordFile>,
    pub(super) entries: Vec<Entry>,
    pub(super) free: Vec<u32>,
    pub(super) by_id: HashMap<VersionId, u32>,
    pub(super) by_name: HashMap<u64, u32>,
    pub(super) objects: HashMap<VersionId, Object>,
    pub(super) digests: HashMap<VersionId, [u8; 32]>,
    pub(super) extents: HashMap<VersionId, Vec<(u64, u64, u32)>>,
    pub(super) pins: HashMap<Vec<u8>, Pin>,
    /// Gone before they were read.
    pub(super) gone: HashSet<VersionId>,
    pub(super) same: HashMap<VersionId, VersionId>,
    pub(super) merged: bool,
    /// Objects whose own version is gone, while records are read for the first time.
    pub(super) ghosts: HashMap<VersionId, Object>,
    pub(super) standing: Standing,
    /// Where looking for links that lost their file goes on.
    pub(super) sweep_at: usize,
}

/// The versions of a vault.
#[derive(Debug)]
pub struct Index {
    pub(super) vault: Arc<Vault>,
    pub(super) inner: Mutex<Inner>,
}

impl Index {
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vault that it is of.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Reads what the writers have added.
    pub fn refresh(&self) -> Result<()> {
        let mut inner = self.inner();
        self.read_on(&mut inner)
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        let inner = self.inner();
        let mut out = inner.standing;
        out.versions = inner.by_id.len() as u64;
        out.pins = inner.pins.len() as u64;
        for object in inner.objects.values() {
            out.objects[object.kind as usize - 1] += 1;
            out.orphans += u64::from(object.orphan_ns != 0);
            out.damaged += u64::from(object.damaged);
            out.used += object.taken();
        }
        out
    }

    /// Versions that fit, the oldest first. Damaged ones are not among them.
    pub fn find(&self, query: &Query<'_>) -> Result<Vec<Found>> {
        let mut inner = self.inner();
        self.read_on(&mut inner)?;
        if let Some((tree, path)) = query.name {
            self.look_at_name(&mut inner, tree, path);
        }
        let mut fitting: Vec<Entry> = match query.name {
            Some((tree, path)) => inner.chain(name_hash(tree, path)),
            None => inner.entries.iter().filter(|e| e.live).copied().collect(),
        };
        fitting.retain(|e| {
            let object = inner.objects.get(&e.object);
            query.actor.is_none_or(|actor| e.actor == actor)
                && query.tree.is_none_or(|tree| e.tree == tree)
                && e.at_ns >= query.since_ns
                && (query.until_ns == 0 || e.at_ns < query.until_ns)
                && object.is_some_and(|o| {
                    !o.damaged && (query.standing || o.kind != Kind::Link || o.orphan_ns != 0)
                })
        });
        fitting.sort_unstable_by_key(|e| (e.at_ns, e.id));
        let skip = fitting.len().saturating_sub(query.limit);
        let mut found = Vec::with_capacity(fitting.len() - skip);
        for entry in &fitting[skip..] {
            let one = self.found(&mut inner, entry)?;
            let named = |f: &Found| query.name.is_none_or(|(_, path)| f.version.path == path);
            found.extend(one.filter(named));
        }
        Ok(found)
    }

    /// One version.
    ///
    /// # Errors
    /// `preserve.missing`.
    pub fn version(&self, id: VersionId) -> Result<Found> {
        let mut inner = self.inner();
        let missing = || Trouble::new("preserve.missing", "no such version");
        if !inner.by_id.contains_key(&id) {
            self.read_on(&mut inner)?;
        }
        let entry = inner.entry(id).ok_or_else(missing)?;
        self.found(&mut inner, &entry)?.ok_or_else(missing)
    }

    pub(super) fn found(&self, inner: &mut Inner, entry: &Entry) -> Result<Option<Found>> {
        let Some(mut version) = inner.details(entry)? else {
            inner.standing.damaged_bytes += 1;
            return Ok(None);
        };
        version.object = entry.object;
        version.tree = entry.tree;
        let object = inner.objects.get(&entry.object).copied();
        let (mut orphan, mut changed) = (false, false);
        if version.kind == Kind::Link {
            let name = entry.object.name();
            let links = &self.vault.place.links;
            let Ok(now) = statat(links, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) else {
                inner.damage(entry.object);
                return Ok(None);
            };
            if now.st_ino != version.ino {
                inner.damage(entry.object);
                return Ok(None);
            }
            orphan = now.st_nlink <= 1;
            let now = crate::files::Stamp::of(&now);
            changed = now.size != version.size || now.mtime_ns != version.mtime_ns;
            inner.note_orphan(entry.object, orphan, now.ctime_ns);
        }
        Ok(Some(Found {
            digest: inner.digests.get(&entry.object).copied(),
            pinned: inner.pinned(entry, object.as_ref()),
            version,
            orphan,
            changed,
        }))
    }

    /// The versions of an incident stay until [`Index::unpin`]: the actor's and nobody's from `since_ns` on, and links
    /// to files that were deleted since. Durable when this returns, and so is what was preserved until now.
    pub fn pin(&self, incident: &[u8], actor: u64, since_ns: u64) -> Result<()> {
        let record = Record::Pin {
            incident: incident.to_vec(),
            actor,
            since_ns,
        };
        self.vault.writer.append(&record)?;
        self.inner()
            .pins
            .insert(incident.to_vec(), Pin { actor, since_ns });
        self.vault.flush(true)
    }

    /// An incident is over; unknown ones are not worth a word.
    pub fn unpin(&self, incident: &[u8]) -> Result<()> {
        let record = Record::Unpin {
            incident: incident.to_vec(),
        };
        self.vault.writer.append(&record)?;
        self.inner().pins.remove(incident);
        Ok(())
    }
}
