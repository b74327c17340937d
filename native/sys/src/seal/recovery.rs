//! After a crash: what each open journal record finds, and what is done about it.
//!
//! | act | plain file | sealed file | done |
//! | --- | --- | --- | --- |
//! | seal | under its name | none, or ours | the sealed copy is removed: *rolled back* |
//! | seal | aside | whole | the plain file is removed: *finished* |
//! | seal | aside | not whole, or no key | the plain file gets its name back: *rolled back* |
//! | seal | gone | ours | *finished* |
//! | open | none | aside | the sealed file gets its name back: *rolled back* |
//! | open | there, whole | there or aside | the sealed file is removed: *finished* |
//! | open | there, torn | there or aside | the plain file is removed, the sealed one gets its name back: *rolled back* |
//! | any | replaced or edited by others | any | nothing is removed: *kept* |

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{renameat_with, syncfs, unlinkat, AtFlags, OFlags, RenameFlags};
use shieldd_core::envelope::chunk::PayloadKey;
use shieldd_core::envelope::layout::Fixed;

use super::journal::{label, Act, End, Journal, Record};
use super::keyring::Keyring;
use super::reading::{header, Unsealed};
use super::stream::{Payload, Workspace};
use crate::files::trouble::{retry, Result, Trouble};
use crate::files::{Dir, Source, Stamp};

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The act was completed.
    Finished,
    /// The state from before it is back.
    RolledBack,
    /// Others have been at the files since: nothing was removed.
    Kept,
    /// Its tree is not among the given roots, or could not be read; the record stays in the journal.
    Waiting,
}

/// One record's end.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// What was being done.
    pub act: Act,
    /// How it ended.
    pub outcome: Outcome,
    /// Path of the plain file beneath its root.
    pub path: Vec<u8>,
    /// Path of the sealed file beneath its root.
    pub sealed_path: Vec<u8>,
    /// The sealed file's id.
    pub file_id: [u8; 16],
}

/// A root that may hold what a record speaks of.
pub struct Root<'a> {
    /// Its path.
    pub path: &'a [u8],
    /// Its descriptor.
    pub fd: BorrowedFd<'a>,
}

/// Ends every record whose process is gone.
pub fn recover(journal: &Journal, roots: &[Root<'_>], keyring: &Keyring) -> Result<Vec<Recovered>> {
    let mut out = Vec::new();
    for (transaction, records) in journal.left_over()? {
        let mut waiting = false;
        for record in &records {
            // What cannot be ended now (an I/O error, say) waits; it must not keep the others from their end.
            let outcome = one(record, roots, keyring).unwrap_or(Outcome::Waiting);
            waiting |= outcome == Outcome::Waiting;
            let (plain, sealed) = match record.act {
                Act::Seal => (&record.from, &record.to),
                Act::Open => (&record.to, &record.from),
            };
            out.push(Recovered {
                act: record.act,
                outcome,
                path: plain.path(),
                sealed_path: sealed.path(),
                file_id: record.file_id,
            });
        }
        if !waiting {
            for root in roots {
                retry(|| syncfs(root.fd))
                    .map_err(|e| Trouble::data(e, "recovery cannot be made durable"))?;
            }
            journal.remove(transaction)?;
        }
    }
    Ok(out)
}

fn one(record: &Record, roots: &[Root<'_>], keyring: &Keyring) -> Result<Outcome> {
    let (Some(from), Some(to)) = (find(roots, &record.from), find(roots, &record.to)) else {
        return Ok(Outcome::Waiting);
    };
    let dirs = (
        Dir::open(from, &record.from.dir),
        Dir::open(to, &record.to.dir),
    );
    let (Ok(from), Ok(to)) = dirs else {
        return Ok(Outcome::Kept);
    };
    let scene = Scene {
        record,
        keyring,
        from,
        to,
    };
    match record.act {
        Act::Seal => scene.seal(),
        Act::Open => scene.open(),
    }
}

fn find<'a>(roots: &[Root<'a>], end: &End) -> Option<BorrowedFd<'a>> {
    // By the path that was given, or by the one that the descriptor has: a configured path may lead over links.
    roots
        .iter()
        .find(|root| root.path == end.root || label(root.fd).is_ok_and(|path| path == end.root))
        .map(|root| root.fd)
}

struct Scene<'a> {
    record: &'a Record,
    keyring: &'a Keyring,
    from: Dir,
    to: Dir,
}

impl Scene<'_> {
    /// What stands under `name` in `dir`, if it is the very file of `stamp`.
    fn is(dir: &Dir, name: &[u8], stamp: &Stamp) -> Result<bool> {
        Ok(dir
            .look(name)?
            .is_some_and(|stat| stat.st_ino == stamp.ino && stat.st_size as u64 == stamp.size))
    }

    fn seal(&self) -> Result<Outcome> {
        let r = self.record;
        let ours = self.sealed_is_ours()?;
        if Self::is(&self.from, &r.aside, &r.from.stamp)? {
            if ours && self.sealed_is_whole() {
                unlink(&self.from, &r.aside)?;
                return Ok(Outcome::Finished);
            }
            return self.put_back(ours);
        }
        let untouched = Self::is(&self.from, &r.from.name, &r.from.stamp)?;
        match (untouched, ours, r.keep) {
            (true, true, true) if self.sealed_is_whole() => Ok(Outcome::Finished),
            (true, true, _) => {
                unlink(&self.to, &r.to.name)?;
                Ok(Outcome::RolledBack)
            }
            (true, false, _) => Ok(Outcome::RolledBack),
            (false, true, _) if self.from.look(&r.from.name)?.is_none() => Ok(Outcome::Finished),
            (false, ..) => Ok(Outcome::Kept),
        }
    }

    fn open(&self) -> Result<Outcome> {
        let r = self.record;
        let aside = Self::is(&self.from, &r.aside, &r.from.stamp)?;
        let sealed_name = if aside { &r.aside } else { &r.from.name };
        let there = Self::is(&self.to, &r.to.name, &r.to.stamp)?;
        if !aside && !Self::is(&self.from, &r.from.name, &r.from.stamp)? {
            return Ok(if there {
                Outcome::Finished
            } else {
                Outcome::Kept
            });
        }
        if !there {
            let other = self.to.look(&r.to.name)?.is_some();
            return if aside {
                self.put_back(false)
            } else {
                Ok(if other {
                    Outcome::Kept
                } else {
                    Outcome::RolledBack
                })
            };
        }
        if self.plain_is_whole(sealed_name) {
            if !r.keep {
                unlink(&self.from, sealed_name)?;
            }
            return Ok(Outcome::Finished);
        }
        // Without a key nothing can be compared; an edited file has another time. Both files stay then.
        let untouched = self
            .to
            .look(&r.to.name)?
            .is_some_and(|stat| Stamp::of(&stat).mtime_ns == r.to.stamp.mtime_ns);
        if untouched && self.sealed_opens(sealed_name) {
            return self.put_back(true);
        }
        if aside {
            self.put_back(false)?;
        }
        Ok(Outcome::Kept)
    }

    /// What was moved aside gets its name back; with `withdraw`, what had come goes.
    fn put_back(&self, withdraw: bool) -> Result<Outcome> {
        let r = self.record;
        if Self::is(&self.from, &r.aside, &r.from.stamp)? {
            let moved = renameat_with(
                &self.from.fd,
                r.aside.as_slice(),
                &self.from.fd,
                r.from.name.as_slice(),
                RenameFlags::NOREPLACE,
            );
            if moved.is_err() {
                return Ok(Outcome::Kept);
            }
        }
        if withdraw {
            unlink(&self.to, &r.to.name)?;
        }
        Ok(Outcome::RolledBack)
    }

    /// Whether the file under the sealed name is the one of the record: by inode, or by its header.
    fn sealed_is_ours(&self) -> Result<bool> {
        let r = self.record;
        if Self::is(&self.to, &r.to.name, &r.to.stamp)? {
            return Ok(true);
        }
        let Ok(source) = Source::open(&self.to, &r.to.name, OFlags::RDONLY) else {
            return Ok(false);
        };
        Ok(header(source.fd.as_fd(), source.stamp.size)
            .is_ok_and(|h| h.slot.fixed.file_id == r.file_id))
    }

    fn sealed_is_whole(&self) -> bool {
        let check = || -> Result<()> {
            let source = Source::open(&self.to, &self.record.to.name, OFlags::RDONLY)?;
            Unsealed::read(&source, self.keyring)?.verify(&source, 1)
        };
        check().is_ok()
    }

    fn sealed_opens(&self, name: &[u8]) -> bool {
        let check = || -> Result<()> {
            let source = Source::open(&self.from, name, OFlags::RDONLY)?;
            Unsealed::read(&source, self.keyring)?.verify(&source, 1)
        };
        check().is_ok()
    }

    fn plain_is_whole(&self, sealed_name: &[u8]) -> bool {
        let check = || -> Result<bool> {
            let sealed = Source::open(&self.from, sealed_name, OFlags::RDONLY)?;
            let unsealed = Unsealed::read(&sealed, self.keyring)?;
            let plain = Source::open(&self.to, &self.record.to.name, OFlags::RDONLY)?;
            let fixed: &Fixed = &unsealed.header.slot.fixed;
            let key = PayloadKey::new(&unsealed.keys.payload, fixed);
            let payload = Payload {
                fixed,
                extents: &unsealed.metadata.extents,
                key: &key,
            };
            let digest = payload.digest_plain(plain.fd.as_fd(), 1, &mut Workspace::default())?;
            Ok(plain.stamp.size == unsealed.metadata.size && digest == unsealed.metadata.digest)
        };
        check().unwrap_or(false)
    }
}

fn unlink(dir: &Dir, name: &[u8]) -> Result<()> {
    match unlinkat(&dir.fd, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(e) => Err(Trouble::of(e, "file cannot be removed")),
    }
}
