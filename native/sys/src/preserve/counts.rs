//! What was done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was done since the vault was opened, by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counts {
    /// Hard links made.
    pub links: u64,
    /// Copies made.
    pub images: u64,
    /// Ranges kept.
    pub ranges: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Versions whose content was there already.
    pub shared: u64,
    /// Not made: too little free space, or the quota used up.
    pub no_room: u64,
    /// Not made: larger than is copied whole.
    pub too_large: u64,
    /// Not made for any other reason.
    pub failed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; 8]);

#[derive(Clone, Copy)]
pub(super) enum Count {
    Links,
    Images,
    Ranges,
    Bytes,
    Shared,
    NoRoom,
    TooLarge,
    Failed,
}

impl Counters {
    pub(super) fn add(&self, what: Count, n: u64) {
        self.0[what as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self, what: Count) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}
