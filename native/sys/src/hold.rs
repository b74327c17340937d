//! Holding an opener before it writes: the answerer's loop, its supervisor's, and the memory they share with the daemon.
//!
//! # Who waits for whom
//!
//! A permission event blocks its opener until the group's owner answers, and no time-out of the kernel's ends that. So
//! this must never form a ring:
//!
//! * The *answering thread* owns the group's descriptor. It reads events, answers, reads /proc and asks the kernel for
//!   facts of descriptors that it has. It opens nothing on a marked file system but `O_PATH` (which makes no event),
//!   writes to memory alone, logs nothing, forks never, and waits for nobody longer than a deadline of its own.
//! * The *keeper threads* copy pre-images. They may hang (a frozen or dead file system puts them to sleep beyond the
//!   reach of SIGKILL), so they have a **table of descriptors of their own**, without the group: were they to share
//!   it, a killed answerer would not close the group while one of them sleeps, and every opener would wait for it. What
//!   they open in the vault is ignored by a mark; were the mark lost, their opens would be events that the answering
//!   thread answers at once, because it does not wait for them: a lost mark costs time and no life.
//! * The *daemon* opens files wherever it likes, its own state on a marked file system included: events of its
//!   threads are answered without asking anybody. It answers questions about actors if it can; the opener waits for
//!   the bound and no longer.
//! * The *supervisor* opens nothing. It kills an answerer whose heart has not beaten for [`supervisor::STALE`]; the
//!   answering thread never sleeps where SIGKILL does not reach it, so its group goes, and all openers with it.
//! * Only the answering thread holds the group. When it ends, for whatever reason, the kernel lets everybody go.

pub mod access;
pub mod answerer;
pub mod control;
pub mod identity;
pub mod keeper;
pub mod marks;
pub mod ring;
pub mod scope;
pub mod supervisor;
pub mod vaulted;
pub mod verdicts;

mod pending;
mod triage;
mod turns;

/// `CLOCK_MONOTONIC`, ns.
pub(crate) fn mono_ns() -> u64 {
    clock(rustix::time::ClockId::Monotonic)
}

/// `CLOCK_REALTIME`, ns.
pub(crate) fn real_ns() -> u64 {
    clock(rustix::time::ClockId::Realtime)
}

fn clock(id: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(id);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
