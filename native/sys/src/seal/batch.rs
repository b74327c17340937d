//! Many files, group commit: while one batch is read and encrypted, the one before it gets its names, one `syncfs`,
//! and its originals go.
//!
//! Freeing a file's blocks can wait for the disk (a file system that discards at once takes milliseconds), so the
//! originals go on several threads, and the wait overlaps with the next batch's work.

use std::os::fd::BorrowedFd;
use std::sync::mpsc::{sync_channel, Receiver};

use rustix::fs::syncfs;
use rustix::process::{getrlimit, Resource};

use super::journal::{label, Record, Transaction};
use super::retire::{retire, withdraw};
use super::rewrapping::{each, each_of};
use super::sealing::{Ready, Sealed, Sealer, Target};
use super::stream::Workspace;
use crate::files::trouble::{retry, Result, Trouble};

/// Most files between two `syncfs`.
const BATCH_MAX: u64 = 512;
/// Descriptors that one file of a batch may hold, with two batches at work.
const DESCRIPTORS: u64 = 6;
/// Descriptors left to the rest of the process.
const SPARE: u64 = 256;
/// Threads that take originals away: they wait, they do not compute.
const RETIRING: usize = 8;

thread_local! {
    static WORKSPACE: std::cell::RefCell<Workspace> = std::cell::RefCell::default();
}

/// Files in a batch, by the number of descriptors that this process may have.
fn batch_size() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit.saturating_sub(SPARE) / DESCRIPTORS).clamp(16, BATCH_MAX) as usize
}

/// Seals `paths`, each beside its original; results in their order.
pub fn seal_many(
    sealer: &Sealer<'_>,
    root: BorrowedFd<'_>,
    paths: &[&[u8]],
) -> Result<Vec<Result<Sealed>>> {
    let committer = Committer {
        sealer,
        root,
        label: label(root)?,
    };
    std::thread::scope(|scope| {
        let (give, take) = sync_channel(0);
        let committing = scope.spawn(|| committer.run(take));
        for batch in paths.chunks(batch_size()) {
            let ready = each(batch, sealer.options.threads, |path| {
                WORKSPACE.with_borrow_mut(|w| sealer.prepare(root, path, Target::Beside, 1, w))
            });
            if give.send(ready).is_err() {
                break;
            }
        }
        drop(give);
        committing
            .join()
            .unwrap_or_else(|_| Err(Trouble::new("native.panic", "the committing thread died")))
    })
}

struct Committer<'a> {
    sealer: &'a Sealer<'a>,
    root: BorrowedFd<'a>,
    label: Vec<u8>,
}

/// A file on its way, and its record in the journal.
type Named = Result<(Ready, Record)>;

impl Committer<'_> {
    /// Commits batch after batch. A batch's record is closed only after the `syncfs` that follows its last unlink.
    fn run(&self, batches: Receiver<Vec<Result<Ready>>>) -> Result<Vec<Result<Sealed>>> {
        let mut out = Vec::new();
        let mut open: Option<Transaction> = None;
        for batch in batches {
            let named: Vec<Named> = batch.into_iter().map(|one| self.name(one?)).collect();
            let records: Vec<Record> = named
                .iter()
                .flatten()
                .map(|(_, record)| record.clone())
                .collect();
            let transaction = match self
                .sealer
                .journal
                .begin(&records, self.sealer.options.durable)
            {
                Ok(transaction) => transaction,
                Err(trouble) => {
                    out.extend(
                        named
                            .into_iter()
                            .map(|one| Err(one.err().unwrap_or_else(|| trouble.clone()))),
                    );
                    continue;
                }
            };
            let published = self.publish(named);
            open.into_iter()
                .for_each(|before| self.sealer.journal.close(before));
            let (sealed, stuck) = self.retire(published);
            out.extend(sealed);
            open = (!stuck).then_some(transaction);
        }
        if self.sealer.options.durable && open.is_some() {
            // The originals are gone whether or not this reaches the disk; the sealed files are there in any case.
            let _late = retry(|| syncfs(self.root));
        }
        open.into_iter()
            .for_each(|last| self.sealer.journal.close(last));
        Ok(out)
    }

    fn name(&self, ready: Ready) -> Named {
        let name = self.sealer.choose(&ready, Target::Beside, &mut 0)?;
        let record = self
            .sealer
            .record(&self.label, &self.label, &ready, &name)?;
        Ok((ready, record))
    }

    /// Names every sealed file and makes all of them durable.
    fn publish(&self, named: Vec<Named>) -> Vec<Named> {
        let mut published: Vec<Named> = named
            .into_iter()
            .map(|one| {
                let (mut ready, record) = one?;
                ready.staged.publish(&ready.dir, &record.to.name)?;
                ready.sealed.path = ready.dir.join(&record.to.name);
                Ok((ready, record))
            })
            .collect();
        if self.sealer.options.durable {
            if let Err(e) = retry(|| syncfs(self.root)) {
                let trouble = Trouble::data(e, "files cannot be made durable");
                for one in &mut published {
                    if let Ok((ready, record)) = one {
                        withdraw(&ready.dir, &record.to.name, record.to.stamp.ino);
                        *one = Err(trouble.clone());
                    }
                }
            }
        }
        published
    }

    /// Takes the originals away. `true`: one is stuck aside, and the record must stay open.
    fn retire(&self, published: Vec<Named>) -> (Vec<Result<Sealed>>, bool) {
        let stuck = std::sync::atomic::AtomicBool::new(false);
        let threads = if self.sealer.options.threads == 1 {
            1
        } else {
            RETIRING
        };
        let sealed = each_of(published, threads, |one| {
            let (ready, record) = one?;
            if !self.sealer.options.keep_original {
                if let Err(kept) = retire(&ready.dir, &ready.name, &ready.source, &record.aside) {
                    if kept.in_place {
                        withdraw(&ready.dir, &record.to.name, record.to.stamp.ino);
                    } else {
                        stuck.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                    return Err(kept.trouble);
                }
            }
            Ok(ready.sealed)
        });
        (sealed, stuck.into_inner())
    }
}
