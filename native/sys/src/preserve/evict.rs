//! What goes when there is too much: what is too old, then the least valuable; never what an open incident needs.

use std::collections::HashSet;
use std::os::fd::AsFd;

use rustix::fs::{statat, unlinkat, AtFlags};

use super::index::{Entry, Index, Inner, Object};
use super::record::Record;
use super::version::{Kind, VersionId};
use crate::files::trouble::Result;

/// Younger than this nothing is evicted: another process may be about to share it. Longer than
/// [`super::vault::WINDOW`], ns.
const YOUNG_NS: u64 = 60_000_000_000;
/// A file that lived no longer than this was a temporary one, ns.
const SHORT_NS: u64 = 60_000_000_000;
/// Links looked at in one pass, so that it stays short.
const SLICE: usize = 4096;
/// So much of the quota is left after an eviction, that the next one is not due at once.
const SPARE: u64 = 10;

/// How much may stay.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Wall clock, ns.
    pub now_ns: u64,
    /// Versions go after so long, ns; a link's time begins when its file has no other name.
    pub age_ns: u64,
    /// Most bytes.
    pub bytes_max: u64,
    /// Most versions.
    pub versions_max: u64,
    /// Free space that the file system shall keep, bytes.
    pub min_free: u64,
}

/// What went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Evicted {
    /// Versions that were too old.
    pub expired: u64,
    /// Versions that went for room.
    pub evicted: u64,
    /// Bytes given back.
    pub bytes: u64,
    /// Bytes that the vault takes now.
    pub used: u64,
    /// Versions that it holds now.
    pub versions: u64,
    /// Bytes that had to stay because an incident needs them.
    pub pinned: u64,
    /// Bytes free on the file system.
    pub free: u64,
    /// 1: more than may stay is left, since all of it must.
    pub over: u64,
}

struct Candidate {
    id: VersionId,
    object: VersionId,
    /// Least valuable first: temporaries, then by time.
    rank: (u8, u64),
    bytes: u64,
}

impl Index {
    /// Evicts by `policy` and tells the writers what the quota leaves. Looks at a slice of the links each time.
    pub fn evict(&self, policy: &Policy) -> Result<Evicted> {
        let mut inner = self.inner();
        self.read_on(&mut inner)?;
        self.look_at_links(&mut inner);
        let mut out = Evicted::default();
        let expired: Vec<VersionId> = self.candidates(&inner, policy, policy.age_ns);
        out.expired = expired.len() as u64;
        out.bytes += self.forget_in(&mut inner, &expired)?;
        let free = self.vault.room.free()?;
        let mut used: u64 = inner.objects.values().map(Object::taken).sum();
        let mut excess = if used > policy.bytes_max {
            used - (policy.bytes_max - policy.bytes_max / SPARE)
        } else {
            0
        };
        excess = excess.max(policy.min_free.saturating_sub(free).min(used));
        let mut too_many = (inner.by_id.len() as u64).saturating_sub(policy.versions_max);
        if excess > 0 || too_many > 0 {
            let chosen = self.choose(&inner, policy, &mut excess, &mut too_many);
            out.evicted = chosen.len() as u64;
            let given = self.forget_in(&mut inner, &chosen)?;
            out.bytes += given;
            used -= given.min(used);
        }
        out.used = used;
        out.versions = inner.by_id.len() as u64;
        out.free = self.vault.room.free()?;
        out.pinned = pinned_bytes(&inner);
        out.over = u64::from(used > policy.bytes_max || out.versions > policy.versions_max);
        self.vault.crowded(out.versions >= policy.versions_max);
        self.vault
            .room
            .publish(policy.bytes_max.saturating_sub(used))?;
        Ok(out)
    }

    /// Versions of more than `age_ns` that may go.
    fn candidates(&self, inner: &Inner, policy: &Policy, age_ns: u64) -> Vec<VersionId> {
        let limit = policy.now_ns.saturating_sub(age_ns.max(YOUNG_NS));
        inner
            .entries
            .iter()
            .filter(|e| e.live)
            .filter(|e| {
                inner.objects.get(&e.object).is_some_and(|object| {
                    since(e, object).is_some_and(|at| at < limit) && !inner.pinned(e, Some(object))
                })
            })
            .map(|e| e.id)
            .collect()
    }

    fn choose(
        &self,
        inner: &Inner,
        policy: &Policy,
        excess: &mut u64,
        too_many: &mut u64,
    ) -> Vec<VersionId> {
        let young = policy.now_ns.saturating_sub(YOUNG_NS);
        let mut found: Vec<Candidate> = Vec::new();
        for entry in inner.entries.iter().filter(|e| e.live) {
            let Some(object) = inner.objects.get(&entry.object) else {
                continue;
            };
            let Some(at) = since(entry, object).filter(|at| *at < young) else {
                continue;
            };
            if inner.pinned(entry, Some(object)) {
                continue;
            }
            let temporary = object.kind == Kind::Link
                && object.orphan_ns.saturating_sub(object.made_ns) < SHORT_NS;
            found.push(Candidate {
                id: entry.id,
                object: entry.object,
                rank: (u8::from(!temporary), at),
                bytes: object.taken(),
            });
        }
        found.sort_unstable_by_key(|c| (c.rank, c.id));
        let mut left: std::collections::HashMap<VersionId, u32> = std::collections::HashMap::new();
        let mut chosen = Vec::new();
        for candidate in found {
            if *excess == 0 && *too_many == 0 {
                break;
            }
            chosen.push(candidate.id);
            *too_many = too_many.saturating_sub(1);
            let refs = inner.objects.get(&candidate.object).map_or(0, |o| o.refs);
            let left = left.entry(candidate.object).or_insert(refs);
            *left = left.saturating_sub(1);
            if *left == 0 {
                *excess = excess.saturating_sub(candidate.bytes);
            }
        }
        chosen
    }

    /// Looks whether the next links still have a file with a name.
    fn look_at_links(&self, inner: &mut Inner) {
        let total = inner.entries.len();
        let mut at = inner.sweep_at;
        for _ in 0..total.min(SLICE) {
            at = if at + 1 >= total { 0 } else { at + 1 };
            let entry = inner.entries[at];
            if entry.live && entry.id == entry.object {
                self.look_at(inner, entry.object);
            }
        }
        inner.sweep_at = at;
    }

    fn look_at(&self, inner: &mut Inner, object: VersionId) {
        let living = inner
            .objects
            .get(&object)
            .is_some_and(|o| o.kind == Kind::Link && o.orphan_ns == 0);
        if !living {
            return;
        }
        let links = &self.vault.place.links;
        match statat(links, object.name().as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let stamp = crate::files::Stamp::of(&stat);
                inner.note_orphan(object, stat.st_nlink <= 1, stamp.ctime_ns);
                if let Some(object) = inner.objects.get_mut(&object) {
                    object.stored = (stat.st_blocks as u64).saturating_mul(512);
                    object.damaged |= object.ino != stamp.ino;
                }
            }
            Err(_) => inner.damage(object),
        }
    }

    /// A name went away or stands for another file now: its link may be all that is left.
    pub fn touched(&self, tree: u16, paths: &[&[u8]]) -> Result<()> {
        let mut inner = self.inner();
        self.read_on(&mut inner)?;
        for path in paths {
            self.look_at_name(&mut inner, tree, path);
        }
        Ok(())
    }

    pub(super) fn look_at_name(&self, inner: &mut Inner, tree: u16, path: &[u8]) {
        for entry in inner.named(tree, path) {
            self.look_at(inner, entry.object);
        }
    }

    /// Versions go, for good, pinned or not.
    ///
    /// Returns the bytes given back; unknown ids are not worth a word.
    pub fn forget(&self, ids: &[VersionId]) -> Result<u64> {
        let mut inner = self.inner();
        self.read_on(&mut inner)?;
        self.forget_in(&mut inner, ids)
    }

    /// All versions of an inode go: its content was sealed, and no copy in the clear shall stay.
    pub fn forget_inode(&self, ino: u64) -> Result<u64> {
        let Some(link) = self.vault.linked().get(ino) else {
            return Ok(0);
        };
        let mut inner = self.inner();
        self.read_on(&mut inner)?;
        let ids: Vec<VersionId> = inner
            .entries
            .iter()
            .filter(|e| e.live && e.object == link.object)
            .map(|e| e.id)
            .collect();
        self.forget_in(&mut inner, &ids)
    }

    /// First the records, durable, then the objects.
    fn forget_in(&self, inner: &mut Inner, ids: &[VersionId]) -> Result<u64> {
        let known: HashSet<VersionId> = ids
            .iter()
            .filter(|id| inner.by_id.contains_key(id))
            .copied()
            .collect();
        if known.is_empty() {
            return Ok(0);
        }
        let known: Vec<VersionId> = known.into_iter().collect();
        for some in known.chunks(4096) {
            self.vault.writer.gather(&Record::Gone(some.to_vec()))?;
        }
        self.vault.writer.sync()?;
        let mut bytes = 0;
        for id in known {
            let Some(Some((object, state))) = inner.take_out(id) else {
                continue;
            };
            bytes += state.taken();
            let dir = match state.kind {
                Kind::Link => self.vault.place.links.as_fd(),
                _ => self.vault.place.images.as_fd(),
            };
            let _gone = unlinkat(dir, object.name().as_slice(), AtFlags::empty());
            if state.kind == Kind::Link {
                self.vault.linked().gone(state.ino, object);
            }
        }
        Ok(bytes)
    }
}

/// From when on its age counts; `None`: a link whose file lives, which takes no space.
fn since(entry: &Entry, object: &Object) -> Option<u64> {
    match object.kind {
        Kind::Link if object.orphan_ns == 0 => None,
        Kind::Link => Some(object.orphan_ns),
        _ => Some(entry.at_ns),
    }
}

fn pinned_bytes(inner: &Inner) -> u64 {
    let mut seen = HashSet::new();
    inner
        .entries
        .iter()
        .filter(|e| e.live)
        .filter_map(|e| Some((e, inner.objects.get(&e.object)?)))
        .filter(|(e, object)| inner.pinned(e, Some(object)) && seen.insert(e.object))
        .map(|(_, object)| object.taken())
        .sum()
}
