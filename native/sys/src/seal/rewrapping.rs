//! New keys for old files: only a slot is written, whatever the file's size.
//!
//! The slot that is not in force is written with the next generation and made durable; then, where the old wrap
//! must die, the other one. At every instant one slot is whole. A cut-off run is simply run again.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use rustix::fs::{fdatasync, flock, syncfs, FlockOperation, OFlags};
use rustix::io::Errno;
use shieldd_core::envelope::keys::FileKeys;
use shieldd_core::envelope::slot::{Place, Slot, KIND_LOCAL};
use shieldd_core::envelope::Refusal;

use super::keyring::{Keyring, SealingKey};
use super::reading::{header, write_slot};
use crate::files::trouble::{retry, Result, Trouble};
use crate::files::{Dir, Source};

/// Files between two `syncfs`: as many as are held open at a time.
const BATCH: usize = 256;
/// Files up to which each gets its own `fdatasync`: `syncfs` would write other programs' data too.
const FEW: usize = 4;

/// What came of one file.
#[derive(Clone, Copy, Debug)]
pub struct Rewrapped {
    /// The sealed file's id.
    pub file_id: [u8; 16],
    /// Generation in force now.
    pub generation: u64,
    /// A slot was written; otherwise the file was wrapped for this key alone already.
    pub changed: bool,
}

struct Open {
    source: Source,
    keys: FileKeys,
    next: Slot,
    place: Place,
    result: Rewrapped,
}

/// Wraps the data keys of `paths` for the key that seals for `purpose`.
pub fn rewrap_many(
    root: BorrowedFd<'_>,
    paths: &[&[u8]],
    keyring: &Keyring,
    purpose: u8,
    revoke: bool,
    threads: usize,
) -> Result<Vec<Result<Rewrapped>>> {
    let key = keyring.sealing(purpose)?;
    let mut out = Vec::with_capacity(paths.len());
    for batch in paths.chunks(BATCH) {
        let mut opened = each(batch, threads, |path| {
            first(root, path, keyring, &key, revoke)
        });
        make_durable(root, &mut opened);
        if revoke {
            each_mut(&mut opened, second);
            make_durable(root, &mut opened);
        }
        out.extend(opened.into_iter().map(|o| o.map(|o| o.result)));
    }
    Ok(out)
}

fn first(
    root: BorrowedFd<'_>,
    path: &[u8],
    keyring: &Keyring,
    key: &SealingKey,
    revoke: bool,
) -> Result<Open> {
    let (dir, name) = Dir::holding(root, path)?;
    let source = Source::open(&dir, &name, OFlags::RDWR)?;
    flock(&source.fd, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        Errno::WOULDBLOCK => Trouble::new("file.busy", "another run re-wraps the file"),
        e => Trouble::data(e, "file cannot be locked"),
    })?;
    let header = header(source.fd.as_fd(), source.stamp.size)?;
    let data_key = keyring.data_key(&header.slot)?;
    let keys = FileKeys::check(&data_key, &header.slot)?;
    header.slot.fixed.check_length(source.stamp.size)?;
    let ours = |slot: &Slot| {
        let mut local = slot
            .recipients
            .iter()
            .filter(|r| r.kind == KIND_LOCAL)
            .peekable();
        local.peek().is_some() && local.all(|r| (r.key_id, r.version) == (key.key_id, key.version))
    };
    let settled = ours(&header.slot) && (!revoke || header.other.as_ref().is_some_and(ours));
    let mut next = header.slot.clone();
    let mut generation = header.slot.generation;
    if !settled {
        next.recipients.retain(|r| r.kind != KIND_LOCAL);
        next.recipients
            .insert(0, key.wrap(&next.fixed.binding(), &data_key)?);
        generation = generation.checked_add(1).ok_or(Refusal::Slot)?;
        next.generation = generation;
        write_slot(
            &source.fd,
            &keys.encode(&next)?,
            header.place.other().offset(),
        )?;
    }
    let result = Rewrapped {
        file_id: next.fixed.file_id,
        generation,
        changed: !settled,
    };
    Ok(Open {
        source,
        keys,
        next,
        place: header.place,
        result,
    })
}

/// Overwrites the old wrap, once the new one is durable.
fn second(open: &mut Open) -> Result<()> {
    if !open.result.changed {
        return Ok(());
    }
    open.next.generation = open.next.generation.checked_add(1).ok_or(Refusal::Slot)?;
    write_slot(
        &open.source.fd,
        &open.keys.encode(&open.next)?,
        open.place.offset(),
    )?;
    open.result.generation = open.next.generation;
    Ok(())
}

fn make_durable(root: BorrowedFd<'_>, opened: &mut [Result<Open>]) {
    let failed = |e| Trouble::data(e, "file cannot be made durable");
    let written = opened
        .iter()
        .filter(|o| o.as_ref().is_ok_and(|o| o.result.changed))
        .count();
    if written > FEW {
        let outcome = retry(|| syncfs(root)).map_err(failed);
        if let Err(trouble) = outcome {
            each_mut(opened, |open| {
                if open.result.changed {
                    Err(trouble.clone())
                } else {
                    Ok(())
                }
            });
        }
        return;
    }
    each_mut(opened, |open| {
        if open.result.changed {
            retry(|| fdatasync(&open.source.fd)).map_err(failed)?;
        }
        Ok(())
    });
}

fn each_mut(opened: &mut [Result<Open>], mut act: impl FnMut(&mut Open) -> Result<()>) {
    for slot in opened {
        if let Ok(open) = slot {
            if let Err(trouble) = act(open) {
                *slot = Err(trouble);
            }
        }
    }
}

/// Runs `act` on every path, on `threads` threads; results in the order of the paths.
pub fn each<T: Send>(
    paths: &[&[u8]],
    threads: usize,
    act: impl Fn(&[u8]) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    each_of(paths.to_vec(), threads, act)
}

/// Runs `act` on every item, on `threads` threads; results in the order of the items.
pub fn each_of<I: Send, T: Send>(
    items: Vec<I>,
    threads: usize,
    act: impl Fn(I) -> Result<T> + Sync,
) -> Vec<Result<T>> {
    let threads = threads.min(items.len());
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let next = Mutex::new(items.into_iter().enumerate());
    let work = || loop {
        let Some((index, item)) = next.lock().ok().and_then(|mut next| next.next()) else {
            return;
        };
        let result = act(item);
        if let Ok(mut done) = done.lock() {
            done.push((index, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
