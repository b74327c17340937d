//! Record files of dead writers become one.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{unlinkat, AtFlags};

use super::index::{Index, Inner};
use super::loading::{open_again, open_file, RecordFile};
use super::record::Record;
use super::writer::{file_name, Locked};
use crate::files::trouble::{Result, Trouble};

impl Index {
    /// Writes what is known into one file in place of those of dead writers, where that is much less.
    ///
    /// Returns the number of files that went.
    pub fn compact(&self) -> Result<usize> {
        let locked = Locked::take(self.vault.place.index.as_fd())?;
        let mut inner = self.inner();
        self.read_on(&mut inner)?;
        let dead: Vec<u32> = inner
            .files
            .iter()
            .filter(|(_, file)| file.ended)
            .map(|(writer, _)| *writer)
            .collect();
        let bytes: u64 = dead.iter().map(|w| inner.files[w].offset).sum();
        let live = inner
            .entries
            .iter()
            .filter(|e| e.live && dead.contains(&e.file))
            .count() as u64;
        if dead.len() < 4 && bytes < (1 << 20).max(live * 1024) {
            return Ok(0);
        }
        self.rewrite(&mut inner, &dead, &locked)?;
        Ok(dead.len())
    }

    fn rewrite(&self, inner: &mut Inner, dead: &[u32], locked: &Locked) -> Result<()> {
        let dir = self.vault.place.index.as_fd();
        let number = locked.number(dir)?;
        let mut all = Vec::new();
        Record::Replaces(dead.to_vec()).write(&mut all);
        for (number, root) in &self.vault.options.trees {
            let (number, root) = (*number, root.clone());
            Record::Tree { number, root }.write(&mut all);
        }
        let mut moved = Vec::new();
        for at in 0..inner.entries.len() {
            let entry = inner.entries[at];
            if !entry.live || !dead.contains(&entry.file) {
                continue;
            }
            let Some(mut version) = inner.details(&entry)? else {
                continue;
            };
            (version.object, version.tree) = (entry.object, entry.tree);
            if let Some(object) = inner.objects.get(&entry.object) {
                // the object's own version may be gone, and this one has to tell of it
                (version.object_ino, version.stored) = (object.ino, object.stored);
            }
            if let Some(extents) = inner.extents.get(&entry.object) {
                version.stored -= extents
                    .iter()
                    .map(|(_, len, _)| len)
                    .sum::<u64>()
                    .min(version.stored);
            }
            moved.push((at, all.len() as u64));
            Record::Version(Box::new(version)).write(&mut all);
        }
        for (object, digest) in &inner.digests {
            let (object, digest) = (*object, *digest);
            Record::Digest { object, digest }.write(&mut all);
        }
        for (id, extents) in &inner.extents {
            for &(offset, len, crc) in extents {
                let id = *id;
                Record::Extent {
                    id,
                    offset,
                    len,
                    crc,
                }
                .write(&mut all);
            }
        }
        for (incident, pin) in &inner.pins {
            Record::Pin {
                incident: incident.clone(),
                actor: pin.actor,
                since_ns: pin.since_ns,
            }
            .write(&mut all);
        }
        write_whole(dir, number, &all)?;
        for writer in dead {
            let _gone = unlinkat(dir, file_name(*writer).as_slice(), AtFlags::empty());
            inner.files.remove(writer);
        }
        for (at, offset) in moved {
            (inner.entries[at].file, inner.entries[at].offset) = (number, offset);
        }
        let fd = open_file(dir, number).map_err(|e| Trouble::data(e, "records cannot be read"))?;
        let trees = self.vault.options.trees.iter().map(|(n, _)| (*n, *n));
        let file = RecordFile {
            fd,
            offset: all.len() as u64,
            ended: true,
            trees: trees.collect(),
        };
        inner.files.insert(number, file);
        Ok(())
    }
}

/// A record file that is whole before it has its name.
fn write_whole(dir: BorrowedFd<'_>, number: u32, all: &[u8]) -> Result<()> {
    let beside = crate::files::Dir {
        fd: open_again(dir)?,
        path: Vec::new(),
    };
    let mut staged = crate::files::staged::Staged::new(&beside)?;
    crate::seal::stream::write_all(staged.fd.as_fd(), all, 0)?;
    crate::seal::sealing::sync_file(&staged.fd)?;
    staged.publish(&beside, &file_name(number))?;
    crate::seal::sealing::sync_file(&beside.fd)
}
