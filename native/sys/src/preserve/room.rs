//! How much more the vault may take: free space above the floor, and what the quota leaves.
//!
//! The daemon evicts and publishes what the quota leaves; other writers read that now and then. Asking the file system
//! is not for every image: a credit is asked for and spent.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{fstatvfs, openat, Mode, OFlags};
use rustix::io::{pread, pwrite};
use shieldd_core::envelope::slot::crc;

use crate::files::trouble::{retry, Result, Trouble};

const NAME: &[u8] = b"room";
const LEN: usize = 20;
/// A credit is good for so long.
const GOOD_FOR: Duration = Duration::from_millis(500);

/// What is left.
#[derive(Debug)]
pub struct Room {
    published: OwnedFd,
    min_free: u64,
    quota: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    credit: u64,
    asked: Option<Instant>,
    /// Number of the publication that `since` counts from.
    seen: u64,
    /// Bytes of our own since then.
    since: u64,
}

impl Room {
    /// Of the vault of this index.
    pub fn open(index: BorrowedFd<'_>, min_free: u64, quota: u64) -> Result<Room> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let published = openat(index, NAME, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| Trouble::of(e, "vault cannot be written"))?;
        Ok(Room {
            published,
            min_free,
            quota,
            state: Mutex::new(State {
                credit: 0,
                asked: None,
                seen: 0,
                since: 0,
            }),
        })
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// `preserve.space` below the floor of free space, `preserve.quota` beyond the quota.
    pub fn take(&self, bytes: u64) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.credit < bytes || state.asked.is_none_or(|at| at.elapsed() > GOOD_FOR) {
            self.ask(&mut state, bytes)?;
        }
        state.credit -= bytes;
        state.since += bytes;
        Ok(())
    }

    /// Free bytes of the file system.
    pub fn free(&self) -> Result<u64> {
        let vfs = retry(|| fstatvfs(&self.published))
            .map_err(|e| Trouble::data(e, "free space cannot be told"))?;
        Ok(vfs.f_bavail.saturating_mul(vfs.f_frsize))
    }

    /// Tells the other writers what the quota leaves.
    pub fn publish(&self, left: u64) -> Result<()> {
        let number = self.read().map_or(1, |(number, _)| number + 1);
        let mut all = [0; LEN];
        all[..8].copy_from_slice(&number.to_le_bytes());
        all[8..16].copy_from_slice(&left.to_le_bytes());
        let sum = crc(&all[..16]);
        all[16..].copy_from_slice(&sum.to_le_bytes());
        retry(|| pwrite(&self.published, &all, 0))
            .map_err(|e| Trouble::data(e, "vault cannot be written"))?;
        Ok(())
    }

    fn read(&self) -> Option<(u64, u64)> {
        let mut all = [0; LEN];
        let n = retry(|| pread(&self.published, &mut all, 0)).ok()?;
        if n != LEN || crc(&all[..16]).to_le_bytes() != all[16..] {
            return None;
        }
        let word = |at: usize| all[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        Some((word(0)?, word(8)?))
    }

    fn ask(&self, state: &mut State, bytes: u64) -> Result<()> {
        let free = self.free()?.saturating_sub(self.min_free);
        if free < bytes {
            return Err(Trouble::new(
                "preserve.space",
                "too little space is free; no copy was made",
            ));
        }
        let (number, left) = self.read().unwrap_or((0, self.quota));
        if number != state.seen {
            state.seen = number;
            state.since = 0;
        }
        let left = left.saturating_sub(state.since);
        if left < bytes {
            return Err(Trouble::new(
                "preserve.quota",
                "the vault's quota is used up; no copy was made",
            ));
        }
        state.credit = free.min(left);
        state.asked = Some(Instant::now());
        Ok(())
    }
}
