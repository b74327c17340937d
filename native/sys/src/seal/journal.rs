//! The crash journal: before a name changes, what is about to happen is on disk.
//!
//! One file per transaction (`txn-*` in the journal's directory), locked while its process lives. A transaction's
//! file is used again after it is closed, so that the usual transaction costs one write and one `fdatasync`.
//!
//! File: magic (8), length u32, CRC-32C u32 of the records, records. A file that does not read so was never
//! finished: nothing had happened yet.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{
    fdatasync, flock, fsync, openat, readlinkat, unlinkat, AtFlags, Dir as Listing, FlockOperation,
    Mode, OFlags, CWD,
};
use rustix::io::{dup, Errno};
use std::os::fd::AsRawFd;

use super::stream::{read_exact, write_all};
use crate::files::open::{open_beneath, Stamp};
use crate::files::staged::random;
use crate::files::trouble::{retry, Result, Trouble};

const MAGIC: [u8; 8] = *b"SHLDJRN\x01";
const HEAD: usize = 16;
const PREFIX: &[u8] = b"txn-";
/// Longest transaction: a batch of files with the longest paths.
const LONGEST: usize = 64 << 20;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The plain file goes, the sealed one comes.
    Seal,
    /// The sealed file goes, the plain one comes.
    Open,
}

/// One end of an act: a name, and the file that stands (or will stand) under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Path of the root directory when it happened.
    pub root: Vec<u8>,
    /// Directory beneath the root.
    pub dir: Vec<u8>,
    /// Name in it.
    pub name: Vec<u8>,
    /// The file.
    pub stamp: Stamp,
}

/// One file's act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub act: Act,
    /// What goes stays: nothing is removed.
    pub keep: bool,
    /// What goes.
    pub from: End,
    /// Its name while it goes.
    pub aside: Vec<u8>,
    /// What comes.
    pub to: End,
    /// The sealed file's id.
    pub file_id: [u8; 16],
}

/// Journals in one directory; shared by threads and processes.
pub struct Journal {
    dir: OwnedFd,
    idle: Mutex<Vec<(Vec<u8>, OwnedFd)>>,
}

/// An open transaction. Dropped without [`Journal::close`], it stays for recovery.
pub struct Transaction {
    name: Vec<u8>,
    fd: OwnedFd,
}

/// The path that a directory descriptor has now.
pub fn label(root: BorrowedFd<'_>) -> Result<Vec<u8>> {
    readlinkat(
        CWD,
        format!("/proc/self/fd/{}", root.as_raw_fd()),
        Vec::new(),
    )
    .map(|path| path.into_bytes())
    .map_err(|e| Trouble::data(e, "path of a tree cannot be told"))
}

impl Journal {
    /// In this directory, which only the daemon may write.
    pub fn new(dir: BorrowedFd<'_>) -> Result<Journal> {
        let dir = open_beneath(dir, b".", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|e| Trouble::of(e, "journal directory cannot be opened"))?;
        Ok(Journal {
            dir,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Writes down what is about to happen; durable before it returns where asked.
    pub fn begin(&self, records: &[Record], durable: bool) -> Result<Transaction> {
        let mut body = Vec::new();
        records.iter().for_each(|r| r.write(&mut body));
        let mut all = Vec::with_capacity(HEAD + body.len());
        all.extend_from_slice(&MAGIC);
        all.extend_from_slice(&(body.len() as u32).to_le_bytes());
        all.extend_from_slice(&crc(&body).to_le_bytes());
        all.extend_from_slice(&body);
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let (name, fd) = match idle {
            Some(idle) => idle,
            None => self.create(durable)?,
        };
        let failed = |e| Trouble::data(e, "journal cannot be written");
        write_all(fd.as_fd(), &all, 0).map_err(|mut t| {
            t.message = format!("journal: {}", t.message);
            t
        })?;
        if durable {
            retry(|| fdatasync(&fd)).map_err(failed)?;
        }
        Ok(Transaction { name, fd })
    }

    fn create(&self, durable: bool) -> Result<(Vec<u8>, OwnedFd)> {
        let failed = |e| Trouble::of(e, "journal cannot be made");
        let mut name = PREFIX.to_vec();
        for byte in random::<8>()? {
            name.extend_from_slice(format!("{byte:02x}").as_bytes());
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = retry(|| openat(&self.dir, name.as_slice(), flags, Mode::RUSR | Mode::WUSR))
            .map_err(failed)?;
        flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        if durable {
            retry(|| fsync(&self.dir)).map_err(failed)?;
        }
        Ok((name, fd))
    }

    /// Everything came to its end. If the mark is lost in a crash, recovery finds nothing left to do.
    pub fn close(&self, transaction: Transaction) {
        if write_all(transaction.fd.as_fd(), &[0; HEAD], 0).is_ok() {
            if let Ok(mut idle) = self.idle.lock() {
                idle.push((transaction.name, transaction.fd));
            }
        }
    }

    /// Transactions whose process is gone. Each is locked by the caller until it is dropped or removed.
    pub fn left_over(&self) -> Result<Vec<(Transaction, Vec<Record>)>> {
        let failed = |e| Trouble::data(e, "journal cannot be read");
        let mut out = Vec::new();
        for entry in Listing::read_from(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if !name.starts_with(PREFIX) {
                continue;
            }
            let fd = match open_beneath(self.dir.as_fd(), &name, OFlags::RDWR) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(failed(e)),
            };
            if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let records = read(fd.as_fd()).unwrap_or_default();
            out.push((Transaction { name, fd }, records));
        }
        Ok(out)
    }

    /// Takes a transaction's file away.
    pub fn remove(&self, transaction: Transaction) -> Result<()> {
        match unlinkat(&self.dir, transaction.name.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Trouble::of(e, "journal cannot be removed")),
        }
    }

    /// A descriptor of the directory of its own.
    pub fn directory(&self) -> Result<OwnedFd> {
        dup(&self.dir).map_err(|e| Trouble::data(e, "journal directory"))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        for (name, _locked) in self.idle.get_mut().map(std::mem::take).unwrap_or_default() {
            let _gone = unlinkat(&self.dir, name.as_slice(), AtFlags::empty());
        }
    }
}

fn crc(body: &[u8]) -> u32 {
    shieldd_core::envelope::slot::crc(body)
}

fn read(fd: BorrowedFd<'_>) -> Result<Vec<Record>> {
    let mut head = [0; HEAD];
    read_exact(fd, &mut head, 0, "file.io")?;
    let len = u32::from_le_bytes(head[8..12].try_into().expect("four bytes")) as usize;
    let torn = || Trouble::new("file.io", "journal entry was not finished");
    if head[..8] != MAGIC || len > LONGEST {
        return Err(torn());
    }
    let mut body = vec![0; len];
    read_exact(fd, &mut body, HEAD as u64, "file.io")?;
    if crc(&body).to_le_bytes() != head[12..] {
        return Err(torn());
    }
    let mut rest = &body[..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        out.push(Record::read(&mut rest).ok_or_else(torn)?);
    }
    Ok(out)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*head)
}

fn get(from: &mut &[u8]) -> Option<Vec<u8>> {
    let len = u32::from_le_bytes(take(from)?) as usize;
    let (head, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(head.to_vec())
}

impl End {
    fn write(&self, out: &mut Vec<u8>) {
        put(out, &self.root);
        put(out, &self.dir);
        put(out, &self.name);
        out.extend_from_slice(&self.stamp.dev.to_le_bytes());
        out.extend_from_slice(&self.stamp.ino.to_le_bytes());
        out.extend_from_slice(&self.stamp.size.to_le_bytes());
        out.extend_from_slice(&self.stamp.mtime_ns.to_le_bytes());
        out.extend_from_slice(&self.stamp.ctime_ns.to_le_bytes());
    }

    fn read(from: &mut &[u8]) -> Option<End> {
        Some(End {
            root: get(from)?,
            dir: get(from)?,
            name: get(from)?,
            stamp: Stamp {
                dev: u64::from_le_bytes(take(from)?),
                ino: u64::from_le_bytes(take(from)?),
                size: u64::from_le_bytes(take(from)?),
                mtime_ns: i64::from_le_bytes(take(from)?),
                ctime_ns: i64::from_le_bytes(take(from)?),
            },
        })
    }

    /// Its path beneath the root.
    pub fn path(&self) -> Vec<u8> {
        if self.dir.is_empty() {
            return self.name.clone();
        }
        [&self.dir, &b"/"[..], &self.name].concat()
    }
}

impl Record {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self.act {
            Act::Seal => 1,
            Act::Open => 2,
        });
        out.push(u8::from(self.keep));
        self.from.write(out);
        put(out, &self.aside);
        self.to.write(out);
        out.extend_from_slice(&self.file_id);
    }

    fn read(from: &mut &[u8]) -> Option<Record> {
        let [act, keep] = take(from)?;
        Some(Record {
            act: match act {
                1 => Act::Seal,
                2 => Act::Open,
                _ => return None,
            },
            keep: keep == 1,
            from: End::read(from)?,
            aside: get(from)?,
            to: End::read(from)?,
            file_id: take(from)?,
        })
    }
}
