//! One process's file of records: numbered, locked while the process lives, only ever appended to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    fdatasync, flock, ftruncate, openat, Dir as Listing, FlockOperation, Mode, OFlags,
};
use rustix::io::{pread, pwrite, write, Errno};

use super::record::Record;
use super::version::VersionId;
use crate::files::trouble::{retry, Result, Trouble};

/// Held while record files are made, merged or swept.
pub const LOCK: &[u8] = b"lock";
const SUFFIX: &[u8] = b".log";
/// Records gathered before they are written, bytes.
const GATHER: usize = 64 << 10;

/// The name of a writer's file.
pub fn file_name(writer: u32) -> Vec<u8> {
    format!("{writer:08x}.log").into_bytes()
}

/// The writer whose file bears `name`.
pub fn writer_of(name: &[u8]) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 8)
        .then(|| std::str::from_utf8(digits).ok())
        .flatten()
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
}

/// The numbers of all record files, ascending.
pub fn writers(index: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let failed = |e| Trouble::data(e, "records of the vault cannot be listed");
    let mut found = Vec::new();
    for entry in Listing::read_from(index).map_err(failed)? {
        found.extend(writer_of(entry.map_err(failed)?.file_name().to_bytes()));
    }
    found.sort_unstable();
    Ok(found)
}

/// The lock of the index; given back when dropped.
pub struct Locked(OwnedFd);

impl Locked {
    /// Waits for it. It is held for moments only.
    pub fn take(index: BorrowedFd<'_>) -> Result<Locked> {
        let failed = |e| Trouble::of(e, "vault cannot be locked");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = openat(index, LOCK, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        retry(|| flock(&fd, FlockOperation::LockExclusive)).map_err(failed)?;
        Ok(Locked(fd))
    }

    /// The next number for a writer; no number is given out twice, even if all record files went.
    pub fn number(&self, index: BorrowedFd<'_>) -> Result<u32> {
        let mut noted = [0; 4];
        let last = match retry(|| pread(&self.0, &mut noted, 0)) {
            Ok(4) => u32::from_le_bytes(noted),
            _ => 0,
        };
        let number = writers(index)?.last().copied().unwrap_or(0).max(last) + 1;
        if number > i32::MAX as u32 {
            return Err(Trouble::new(
                "preserve.full",
                "vault has had too many writers",
            ));
        }
        retry(|| pwrite(&self.0, &number.to_le_bytes(), 0))
            .map_err(|e| Trouble::data(e, "vault cannot be written"))?;
        Ok(number)
    }
}

/// The writer of this process.
#[derive(Debug)]
pub struct Writer {
    /// Its number.
    pub number: u32,
    fd: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u32,
    /// Length up to the last whole record.
    good: u64,
    gathered: Vec<u8>,
}

impl Writer {
    /// A new record file, which begins with what the numbers of trees stand for.
    pub fn open(index: BorrowedFd<'_>, trees: &[(u16, Vec<u8>)]) -> Result<Writer> {
        let locked = Locked::take(index)?;
        let number = locked.number(index)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
        let name = file_name(number);
        let fd = openat(index, name.as_slice(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Trouble::of(e, "record file cannot be made"))?;
        retry(|| flock(&fd, FlockOperation::NonBlockingLockExclusive))
            .map_err(|e| Trouble::of(e, "record file cannot be locked"))?;
        let writer = Writer {
            number,
            fd,
            state: Mutex::new(State {
                next: 1,
                good: 0,
                gathered: Vec::with_capacity(4096),
            }),
        };
        for (number, root) in trees {
            let (number, root) = (*number, root.clone());
            writer.gather(&Record::Tree { number, root })?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// A new id.
    pub fn id(&self) -> Result<VersionId> {
        let mut state = self.state();
        if state.next == u32::MAX {
            return Err(Trouble::new(
                "preserve.full",
                "writer has made too many versions",
            ));
        }
        state.next += 1;
        Ok(VersionId::new(self.number, state.next - 1))
    }

    /// Writes a record, and what was gathered before it.
    pub fn append(&self, record: &Record) -> Result<()> {
        let mut state = self.state();
        record.write(&mut state.gathered);
        self.put(&mut state)
    }

    /// Writes a record with others later, at the next [`Writer::flush`] at the latest.
    pub fn gather(&self, record: &Record) -> Result<()> {
        let mut state = self.state();
        record.write(&mut state.gathered);
        if state.gathered.len() < GATHER {
            return Ok(());
        }
        self.put(&mut state)
    }

    /// Writes what was gathered.
    pub fn flush(&self) -> Result<()> {
        self.put(&mut self.state())
    }

    /// Makes all records durable.
    pub fn sync(&self) -> Result<()> {
        self.flush()?;
        retry(|| fdatasync(&self.fd))
            .map_err(|e| Trouble::data(e, "records cannot be made durable"))
    }

    /// The file.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All or nothing: what was written of records that did not fit is cut off again, and they are lost.
    fn put(&self, state: &mut State) -> Result<()> {
        let mut at = 0;
        while at < state.gathered.len() {
            match write(&self.fd, &state.gathered[at..]) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(n) => at += n,
                Err(e) => {
                    // Should the cut fail too, readers find a torn record and say so.
                    let _torn = retry(|| ftruncate(&self.fd, state.good));
                    state.gathered.clear();
                    return Err(Trouble::data(e, "record cannot be written"));
                }
            }
        }
        state.good += at as u64;
        state.gathered.clear();
        Ok(())
    }
}
