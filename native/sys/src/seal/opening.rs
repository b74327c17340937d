//! From a sealed file back to a plain one.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{fsync, ftruncate};
use shieldd_core::envelope::metadata::Metadata;

use super::journal::{label, Act, End, Journal, Record};
use super::keyring::Keyring;
use super::reading::{source, Unsealed};
use super::retire::{retire, withdraw, Kept};
use super::sealing::sync_file;
use super::stream::Workspace;
use crate::files::attributes::restore;
use crate::files::open::check_name;
use crate::files::staged::{hidden_name, Staged};
use crate::files::trouble::{retry, Result, Trouble};
use crate::files::{Dir, Source};

/// How to open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The sealed file stays.
    pub keep_sealed: bool,
    /// Set-user-id, set-group-id and sticky bits and file capabilities come back too.
    pub privileged_bits: bool,
    /// On disk before the sealed file goes.
    pub durable: bool,
    /// Threads.
    pub threads: usize,
}

/// Where the plain file is to stand.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// Beside the sealed file, under the name that was sealed.
    Own,
    /// Directly in this directory; without a name, under the one that was sealed.
    In(BorrowedFd<'a>, Option<&'a [u8]>),
    /// At this path beneath a root.
    At(BorrowedFd<'a>, &'a [u8]),
}

/// What came of it.
pub struct Opened {
    /// The sealed file's id.
    pub file_id: [u8; 16],
    /// Path of the plain file beneath its root.
    pub path: Vec<u8>,
    /// What was put back.
    pub metadata: Metadata,
    /// Attributes that could not be put back.
    pub skipped: Vec<Vec<u8>>,
}

/// Opens the sealed file `path` beneath `root`. Never overwrites, never follows a link.
pub fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    keyring: &Keyring,
    journal: &Journal,
    target: Target<'_>,
    options: Options,
) -> Result<Opened> {
    let (dir, name, source) = source(root, path)?;
    let unsealed = Unsealed::read(&source, keyring)?;
    let own_name = || {
        let whole = &unsealed.metadata.name;
        whole
            .rsplit(|&b| b == b'/')
            .next()
            .unwrap_or(whole)
            .to_vec()
    };
    let (to_root, to_dir, to_name) = match target {
        Target::Own => (root, Dir::open(root, &dir.path)?, own_name()),
        Target::In(to, name) => (
            to,
            Dir::open(to, b"")?,
            name.map_or_else(own_name, <[u8]>::to_vec),
        ),
        Target::At(to, path) => {
            let (dir, name) = Dir::holding(to, path)?;
            (to, dir, name)
        }
    };
    check_name(&to_name)?;
    if to_dir.look(&to_name)?.is_some() {
        return Err(Trouble::new(
            "file.exists",
            "something stands at the place of the original",
        ));
    }
    let mut staged = Staged::new(&to_dir)?;
    let skipped = fill(&staged, &source, &unsealed, options)?;
    let record = Record {
        act: Act::Open,
        keep: options.keep_sealed,
        from: End {
            root: label(root)?,
            dir: dir.path.clone(),
            name: name.clone(),
            stamp: source.stamp,
        },
        aside: hidden_name()?,
        to: End {
            root: label(to_root)?,
            dir: to_dir.path.clone(),
            name: to_name.clone(),
            stamp: staged.stamp()?,
        },
        file_id: unsealed.header.slot.fixed.file_id,
    };
    let transaction = journal.begin(std::slice::from_ref(&record), options.durable)?;
    if let Err(trouble) = staged.publish(&to_dir, &to_name) {
        journal.close(transaction);
        return Err(trouble);
    }
    match settle(&staged, &to_dir, (&dir, &name, &source), &record, options) {
        Ok(()) => journal.close(transaction),
        Err(kept) => {
            if kept.in_place {
                withdraw(&to_dir, &to_name, record.to.stamp.ino);
                journal.close(transaction);
            }
            return Err(kept.trouble);
        }
    }
    Ok(Opened {
        file_id: record.file_id,
        path: to_dir.join(&to_name),
        metadata: unsealed.metadata,
        skipped,
    })
}

fn fill(
    staged: &Staged,
    source: &Source,
    unsealed: &Unsealed,
    options: Options,
) -> Result<Vec<Vec<u8>>> {
    let (fd, metadata) = (staged.fd.as_fd(), &unsealed.metadata);
    let end = metadata.extents.last().map_or(0, |e| e.at + e.len);
    if end < metadata.size {
        retry(|| ftruncate(fd, metadata.size))
            .map_err(|e| Trouble::data(e, "size cannot be set"))?;
    }
    let key = unsealed.payload_key();
    unsealed.payload(&key).open(
        source.fd.as_fd(),
        fd,
        options.threads,
        &mut Workspace::default(),
    )?;
    restore(fd, metadata, options.privileged_bits)
}

fn settle(
    staged: &Staged,
    to_dir: &Dir,
    (dir, name, source): (&Dir, &[u8], &Source),
    record: &Record,
    options: Options,
) -> std::result::Result<(), Kept> {
    if options.durable {
        sync_file(&staged.fd)?;
        sync_file(&to_dir.fd)?;
    }
    if options.keep_sealed {
        return Ok(());
    }
    if !source.unchanged()? {
        return Err(Trouble::new("file.changed", "sealed file changed while it was opened").into());
    }
    retire(dir, name, source, &record.aside)?;
    if options.durable {
        // The sealed file is gone whether or not this reaches the disk; the plain one is there in any case.
        let _late = retry(|| fsync(&dir.fd));
    }
    Ok(())
}
