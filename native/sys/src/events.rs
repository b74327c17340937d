//! What every source of events shares: one record per path while it waits, rows for the consumer, and the consumer's loop.
//!
//! Owns: merging of operations, announced operations, names left out, batches, and how a consumer waits. Does not own
//! where events come from ([`crate::inotify`], [`crate::fanotify`]), and what an event means.

pub(crate) mod dirs;
pub(crate) mod expect;
mod globs;
pub(crate) mod look;
pub(crate) mod pace;
pub(crate) mod pending;
mod record;
pub(crate) mod rows;
pub(crate) mod running;
pub(crate) mod taking;

pub use globs::Globs;
pub use rows::{Batch, Observer, ROWS};
pub use taking::{Ended, Options, Status, TreeSpec, Watch};

/// `CLOCK_REALTIME` and `CLOCK_MONOTONIC`, ns.
pub(crate) fn clocks() -> (u64, u64) {
    use rustix::time::{clock_gettime, ClockId};
    let ns = |t: rustix::time::Timespec| t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
    (
        ns(clock_gettime(ClockId::Realtime)),
        ns(clock_gettime(ClockId::Monotonic)),
    )
}

/// A seed for hashes of names, so that names cannot be chosen to collide.
pub(crate) fn seed() -> std::io::Result<u64> {
    let mut seed = [0u8; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(seed))
}

/// Places listed as not covered, per kind of reason.
pub(crate) const PLACES: usize = 1024;

/// Something that is no file event: told once per tree and batch, with a count.
pub(crate) struct Notice {
    pub(crate) kind: shieldd_core::event::Kind,
    pub(crate) tree: u16,
    pub(crate) path: Vec<u8>,
    pub(crate) count: u32,
}

/// Adds a notice, or counts it where one of its kind and tree waits.
pub(crate) fn notice(
    notices: &mut Vec<Notice>,
    kind: shieldd_core::event::Kind,
    tree: u16,
    path: &[u8],
) {
    match notices
        .iter_mut()
        .find(|n| n.kind == kind && n.tree == tree)
    {
        Some(notice) => notice.count = notice.count.saturating_add(1),
        None => notices.push(Notice {
            kind,
            tree,
            path: path.to_vec(),
            count: 1,
        }),
    }
}
