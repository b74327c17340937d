//! From record files to the index: reading on, checking the objects against their records, sweeping, merging files.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{flock, openat, unlinkat, AtFlags, FlockOperation, Mode, OFlags, RawDir};
use rustix::io::{pread, Errno};

use super::index::{Entry, Index, Inner};
use super::linking::Link;
use super::record::{scan, Record, BODY_MAX};
use super::vault::Vault;
use super::version::{name_hash, Kind, Version, VersionId};
use super::writer::{file_name, writers, Locked};
use crate::files::trouble::{retry, Result, Trouble};

const PIECE: usize = 1 << 20;
/// Tree number of versions whose tree is not guarded any more.
pub const NO_TREE: u16 = u16::MAX;

/// A record file as far as it was read.
#[derive(Debug)]
pub(super) struct RecordFile {
    pub(super) fd: OwnedFd,
    pub(super) offset: u64,
    /// Nobody writes on, and all of it was read.
    pub(super) ended: bool,
    pub(super) trees: HashMap<u16, u16>,
}

impl RecordFile {
    fn new(fd: OwnedFd) -> RecordFile {
        RecordFile {
            fd,
            offset: 0,
            ended: false,
            trees: HashMap::new(),
        }
    }
}

impl Index {
    /// Reads all records, sweeps what a crash left, checks each object against its record.
    ///
    /// # Errors
    /// `file.io` where the directories cannot be read; damage is counted, not raised.
    pub fn open(vault: Arc<Vault>) -> Result<Index> {
        let index = Index {
            vault,
            inner: Mutex::default(),
        };
        {
            let _locked = Locked::take(index.vault.place.index.as_fd())?;
            let mut inner = index.inner();
            index.drop_replaced()?;
            index.read_on(&mut inner)?;
            index.check_objects(&mut inner, Kind::Link)?;
            index.check_objects(&mut inner, Kind::Image)?;
            index.fill_linked(&inner);
            inner.ghosts.clear();
        }
        Ok(index)
    }

    /// Files that another one stands for.
    fn drop_replaced(&self) -> Result<()> {
        let dir = self.vault.place.index.as_fd();
        let mut replaced = HashSet::new();
        for writer in writers(dir)? {
            let mut head = vec![0; 64 << 10];
            let n = retry(|| pread(&open_file(dir, writer)?, &mut head, 0))
                .map_err(|e| Trouble::data(e, "records cannot be read"))?;
            let mut first = true;
            scan(&head[..n], false, |_, _, record| {
                if let (true, Record::Replaces(writers)) = (first, record) {
                    replaced.extend(writers);
                }
                first = false;
            });
        }
        for writer in replaced {
            let _gone = unlinkat(dir, file_name(writer).as_slice(), AtFlags::empty());
        }
        Ok(())
    }

    pub(super) fn read_on(&self, inner: &mut Inner) -> Result<()> {
        let dir = self.vault.place.index.as_fd();
        let failed = |e| Trouble::data(e, "records cannot be read");
        for writer in writers(dir)? {
            let mut file = match inner.files.remove(&writer) {
                Some(file) => file,
                None => match open_file(dir, writer) {
                    Err(Errno::NOENT) => continue,
                    other => RecordFile::new(other.map_err(failed)?),
                },
            };
            let outcome = self.read_file(inner, writer, &mut file);
            inner.files.insert(writer, file);
            outcome.map_err(failed)?;
        }
        inner.merge_same();
        Ok(())
    }

    fn read_file(
        &self,
        inner: &mut Inner,
        writer: u32,
        file: &mut RecordFile,
    ) -> rustix::io::Result<()> {
        if file.ended {
            return Ok(());
        }
        let dead = match flock(&file.fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => flock(&file.fd, FlockOperation::Unlock).is_ok(),
            Err(_) => false,
        };
        let size = rustix::fs::fstat(&file.fd)?.st_size as u64;
        let mut piece = Vec::new();
        while file.offset < size {
            let want = (size - file.offset).min((PIECE + BODY_MAX) as u64) as usize;
            piece.resize(want, 0);
            let n = retry(|| pread(&file.fd, &mut piece[..], file.offset))?;
            let last = file.offset + n as u64 >= size;
            let (base, trees) = (file.offset, &mut file.trees);
            let read = scan(&piece[..n], dead && last, |at, _, record| {
                if let Record::Tree { number, root } = &record {
                    trees.insert(*number, self.tree(root));
                }
                let tree = match &record {
                    Record::Version(version) => trees.get(&version.tree).copied(),
                    _ => None,
                };
                inner.apply(record, writer, base + at as u64, tree.unwrap_or(NO_TREE));
            });
            file.offset += read.consumed as u64;
            inner.standing.damaged_bytes += read.damaged as u64;
            if read.consumed == 0 {
                break;
            }
        }
        file.ended = dead;
        Ok(())
    }

    fn tree(&self, root: &[u8]) -> u16 {
        let trees = &self.vault.options.trees;
        let known = trees.iter().find(|(_, known)| known == root);
        known.map_or(NO_TREE, |(number, _)| *number)
    }

    /// Objects without a record go, unless their writer may just be about to write it; records without an object go.
    fn check_objects(&self, inner: &mut Inner, kind: Kind) -> Result<()> {
        let dir = match kind {
            Kind::Link => &self.vault.place.links,
            _ => &self.vault.place.images,
        };
        let mut here: HashMap<VersionId, u64> = HashMap::new();
        let mut buffer = [MaybeUninit::<u8>::uninit(); 64 << 10];
        let listing = open_again(dir.as_fd())?;
        let mut entries = RawDir::new(&listing, &mut buffer);
        let mut stray = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|e| Trouble::data(e, "vault cannot be listed"))?;
            let name = CStr::to_bytes(entry.file_name());
            if name == b"." || name == b".." {
                continue;
            }
            let Some(id) = VersionId::of_name(name) else {
                inner.standing.foreign += 1;
                continue;
            };
            let known = inner.objects.get(&id);
            if known.is_some_and(|object| (object.kind == Kind::Link) == (kind == Kind::Link)) {
                here.insert(id, entry.ino());
            } else {
                stray.push(id);
            }
        }
        for id in stray {
            // no record file at all: its writer is as dead as one can be
            if inner.files.get(&id.writer()).is_none_or(|file| file.ended) {
                let _gone = unlinkat(dir, id.name().as_slice(), AtFlags::empty());
                inner.standing.swept += 1;
            }
        }
        let mut missing = HashSet::new();
        for (id, object) in &mut inner.objects {
            if (object.kind == Kind::Link) != (kind == Kind::Link) {
                continue;
            }
            match here.get(id) {
                None => {
                    missing.insert(*id);
                }
                Some(ino) => object.damaged |= *ino != object.ino,
            }
        }
        inner.standing.missing += missing.len() as u64;
        let lost: Vec<VersionId> = inner
            .entries
            .iter()
            .filter(|e| e.live && missing.contains(&e.object))
            .map(|e| e.id)
            .collect();
        for id in &lost {
            inner.take_out(*id);
        }
        if !lost.is_empty() {
            self.vault.writer.append(&Record::Gone(lost))?;
        }
        Ok(())
    }

    fn fill_linked(&self, inner: &Inner) {
        let mut linked = self.vault.linked();
        let mut latest: Vec<&Entry> = inner.entries.iter().filter(|e| e.live).collect();
        latest.sort_unstable_by_key(|e| (e.at_ns, e.id));
        for entry in latest {
            let Some(object) = inner.objects.get(&entry.object) else {
                continue;
            };
            if object.kind == Kind::Link && !object.damaged {
                let link = Link {
                    object: entry.object,
                    last: entry.id,
                    name: entry.name,
                };
                linked.put(object.ino, link);
            }
        }
    }
}

impl Inner {
    /// The whole record of a version; `None` where it cannot be read any more.
    pub(super) fn details(&self, entry: &Entry) -> Result<Option<Version>> {
        let Some(file) = self.files.get(&entry.file) else {
            return Ok(None);
        };
        let mut bytes = vec![0; 1024];
        loop {
            let n = retry(|| pread(&file.fd, &mut bytes[..], entry.offset))
                .map_err(|e| Trouble::data(e, "records cannot be read"))?;
            let mut found = None;
            scan(&bytes[..n], false, |at, _, record| {
                if let (0, Record::Version(version)) = (at, record) {
                    found = Some(*version);
                }
            });
            if found.is_some() || n < bytes.len() || n > BODY_MAX {
                return Ok(found.filter(|version| version.id == entry.id));
            }
            bytes.resize(bytes.len() * 16, 0);
        }
    }

    /// Versions whose object is in another one by now.
    pub(super) fn merge_same(&mut self) {
        if !std::mem::take(&mut self.merged) {
            return;
        }
        let same = std::mem::take(&mut self.same);
        for at in 0..self.entries.len() {
            let entry = self.entries[at];
            let Some(&kept) = same.get(&entry.object).filter(|_| entry.live) else {
                continue;
            };
            if !self.objects.contains_key(&kept) {
                continue;
            }
            self.entries[at].object = kept;
            if let Some(object) = self.objects.get_mut(&entry.object) {
                object.refs -= 1;
                if object.refs == 0 {
                    self.objects.remove(&entry.object);
                    self.digests.remove(&entry.object);
                }
            }
            if let Some(object) = self.objects.get_mut(&kept) {
                object.refs += 1;
            }
        }
        self.same = same;
    }

    /// Entries of a name, with the tree's number.
    pub(super) fn named(&self, tree: u16, path: &[u8]) -> Vec<Entry> {
        self.chain(name_hash(tree, path))
    }
}

pub(super) fn open_file(dir: BorrowedFd<'_>, writer: u32) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOATIME;
    openat(dir, file_name(writer).as_slice(), flags, Mode::empty())
}

pub(super) fn open_again(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, c".", flags, Mode::empty()).map_err(|e| Trouble::of(e, "vault cannot be listed"))
}
