//! Keepers: threads that make versions for the answering thread, in a table of descriptors of their own.
//!
//! A keeper may sleep in a dead file system for ever. Nothing that it holds then keeps an opener waiting: not the group
//! (its table has none), no lock (a slot's lock is taken only by who owns the slot's state), no queue (the answering
//! thread takes back what has not begun). It fetches a file's descriptor with pidfd_getfd(2) and makes sure by device
//! and inode that it is the one that was meant.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use rustix::event::{eventfd, EventfdFlags};
use rustix::process::{getpid, pidfd_getfd, pidfd_open, PidfdFlags, PidfdGetfdFlags};

use super::ring::Kept;
use crate::files::trouble::{Result, Trouble};

/// Keepers. More than processors: one that waits for a disk keeps no other from copying out of the page cache.
pub const CREW: usize = 4;
/// Jobs that one keeper has before it.
pub const DEPTH: usize = 4;
/// Longest that opening the vaults may take.
const START: Duration = Duration::from_secs(5);
/// A large range is kept in steps of so many bytes, and given up between two of them once nobody waits any more.
const STEP: u64 = 4 << 20;
/// Of keepers.
const NICE: i32 = -10;
const STACK: usize = 512 << 10;

/// Whose version it is to be.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Index of the tree.
    pub tree: u16,
    /// Path relative to its root.
    pub path: &'a [u8],
    /// Actor; 0 where it cannot be told.
    pub actor: u64,
    /// Wall clock, ns.
    pub at_ns: u64,
}

/// Makes versions. One for each keeper, so nothing in it is shared between threads.
pub trait Preserver: Send {
    /// Keeps the whole of `file` as it is now; nothing is kept where it is not `wanted` any more once it is copied.
    fn image(
        &mut self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<u64>;
    /// Keeps `offset..offset + len` of it, in the same way.
    fn range(
        &mut self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        offset: u64,
        len: u64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<u64>;
}

/// Opens a vault; called by each keeper, in its own table of descriptors.
pub type Opener = dyn Fn(OwnedFd) -> Result<Box<dyn Preserver>> + Send + Sync;

/// What is to be kept.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Descriptor in the answering thread's table.
    pub fd: RawFd,
    /// Index of the vault.
    pub vault: usize,
    /// The file that is meant.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
    /// Index of the tree.
    pub tree: u16,
    /// Path relative to its root.
    pub path: Vec<u8>,
    /// Actor.
    pub actor: u64,
    /// Wall clock, ns.
    pub at_ns: u64,
    /// Offset and length; the whole file where there is none.
    pub range: Option<(u64, u64)>,
}

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Whether it is kept.
    pub kept: Kept,
    /// Version.
    pub version: u64,
    /// What the vault said, an `errno`.
    pub errno: u16,
}

/// States of a slot. The answering thread moves it from free to given, from given back to free, from done to free; the
/// keeper from given to taken and from there to done.
const FREE: u32 = 0;
const GIVEN: u32 = 1;
const TAKEN: u32 = 2;
const DONE: u32 = 3;

#[derive(Default)]
struct Slot {
    state: AtomicU32,
    job: Mutex<Job>,
    /// Nobody waits for it any more.
    given_up: AtomicBool,
    version: AtomicU64,
    outcome: AtomicU32,
}

#[derive(Default)]
struct Shared {
    slots: [Slot; DEPTH],
    ending: AtomicBool,
}

struct Keeper {
    shared: Arc<Shared>,
    thread: Thread,
}

/// The keepers, seen from the answering thread.
pub struct Keepers {
    crew: Vec<Keeper>,
    done: OwnedFd,
    _process: OwnedFd,
}

/// A slot of a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Keeper.
    pub keeper: usize,
    /// Slot.
    pub slot: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves the table of descriptors that the process shares, and closes in the new one all but `keep`.
fn own_table(keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: no pointers; only this thread's table changes.
    if unsafe { libc::unshare(libc::CLONE_FILES) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut keep: Vec<u32> = keep.iter().map(|&fd| fd as u32).chain([0, 1, 2]).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut from = 0u32;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: no pointers. The descriptors that are closed are copies in a table that only keepers use; what
            // owns the originals is unaffected.
            let done = unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        from = fd.saturating_add(1);
    }
    Ok(())
}

fn broken(error: impl Into<io::Error>, doing: &str) -> Trouble {
    let error = error.into();
    Trouble {
        code: "hold.failed",
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("{doing}: {error}"),
    }
}

impl Keepers {
    /// Starts them; returns when all have opened all vaults. The vaults' descriptors are copied.
    ///
    /// # Errors
    /// The vault's own, `hold.failed`.
    pub fn start(vaults: &[OwnedFd], open: Arc<Opener>) -> Result<Keepers> {
        let done = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| broken(e, "no event descriptor"))?;
        let process = pidfd_open(getpid(), PidfdFlags::empty())
            .map_err(|e| broken(e, "own process cannot be referred to"))?;
        let vaults: Vec<RawFd> = vaults.iter().map(AsRawFd::as_raw_fd).collect();
        let (done_raw, process_raw) = (done.as_raw_fd(), process.as_raw_fd());
        let (send, receive) = sync_channel::<Result<Keeper>>(CREW + 1);
        let founder = move || {
            let keep: Vec<RawFd> = vaults
                .iter()
                .copied()
                .chain([done_raw, process_raw])
                .collect();
            if let Err(e) = own_table(&keep) {
                drop(send.send(Err(broken(e, "no table of descriptors of its own"))));
                return;
            }
            // somebody waits for what a keeper does; where that may not be, it is as any other
            // SAFETY: no pointers; only this thread's priority changes, and that of those it starts.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
            for i in 0..CREW {
                let (open, vaults, send) = (open.clone(), vaults.clone(), send.clone());
                let run = move || work(done_raw, process_raw, &vaults, &*open, &send);
                let spawned = std::thread::Builder::new()
                    .name(format!("shieldd-keep-{i}"))
                    .stack_size(STACK)
                    .spawn(run);
                drop(spawned); // nobody joins a thread that may never wake
            }
        };
        std::thread::Builder::new()
            .name("shieldd-keepers".into())
            .stack_size(STACK)
            .spawn(founder)
            .map_err(|e| broken(e, "no thread"))?;
        let mut crew = Vec::with_capacity(CREW);
        while crew.len() < CREW {
            let keeper = receive
                .recv_timeout(START)
                .map_err(|_| Trouble::new("hold.failed", "the vault did not open in time"))??;
            crew.push(keeper);
        }
        Ok(Keepers {
            crew,
            done,
            _process: process,
        })
    }

    /// Becomes readable when a job is done.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// Takes the readiness away, before [`Keepers::collect`].
    pub fn settle(&self) {
        let mut eight = [0; 8];
        if rustix::io::read(&self.done, &mut eight).is_err() {
            // it was not ready: nothing to take away
        }
    }

    /// Gives a job to a keeper with room: to the one that had this inode before, if that is free, because it may know
    /// that the file has not changed. `None` where all are busy; the job is left as it was then.
    pub fn give(&self, job: &mut Job) -> Option<At> {
        let home = job.ino as usize % CREW;
        let busy = |i: usize| {
            let used = |s: &&Slot| s.state.load(Ordering::Relaxed) != FREE;
            self.crew[i].shared.slots.iter().filter(used).count()
        };
        let keeper = match busy(home) {
            0 => home,
            at_home => {
                let (least, i) = (0..CREW).map(|i| (busy(i), i)).min()?;
                if at_home == least {
                    home
                } else {
                    i
                }
            }
        };
        let shared = &self.crew[keeper].shared;
        let slot = shared
            .slots
            .iter()
            .position(|s| s.state.load(Ordering::Acquire) == FREE)?;
        let chosen = &shared.slots[slot];
        std::mem::swap(&mut *lock(&chosen.job), job);
        chosen.given_up.store(false, Ordering::Relaxed);
        chosen.state.store(GIVEN, Ordering::Release);
        self.crew[keeper].thread.unpark();
        Some(At { keeper, slot })
    }

    /// What came of a job, once; its slot is free then.
    pub fn collect(&self, at: At) -> Option<Done> {
        let slot = &self.crew[at.keeper].shared.slots[at.slot];
        if slot.state.load(Ordering::Acquire) != DONE {
            return None;
        }
        let outcome = slot.outcome.load(Ordering::Relaxed);
        let done = Done {
            kept: match outcome & 0xff {
                1 => Kept::Yes,
                2 => Kept::Full,
                _ => Kept::Failed,
            },
            version: slot.version.load(Ordering::Relaxed),
            errno: (outcome >> 8) as u16,
        };
        slot.state.store(FREE, Ordering::Release);
        Some(done)
    }

    /// Gives a job up. `true` where it had not begun: its slot is free. Else it is to be collected some day, and its
    /// descriptor must stay open until then.
    pub fn give_up(&self, at: At) -> bool {
        let slot = &self.crew[at.keeper].shared.slots[at.slot];
        slot.given_up.store(true, Ordering::Release);
        slot.state
            .compare_exchange(GIVEN, FREE, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        for keeper in &self.crew {
            keeper.shared.ending.store(true, Ordering::Release);
            keeper.thread.unpark();
        }
    }
}

fn work(
    done: RawFd,
    process: RawFd,
    vaults: &[RawFd],
    open: &Opener,
    started: &SyncSender<Result<Keeper>>,
) {
    let shared = Arc::new(Shared::default());
    let opened: Result<Vec<Box<dyn Preserver>>> = vaults
        .iter()
        .map(|&fd| {
            // SAFETY: copied into this table by the founder, which closed everything else; open while keepers live.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let fd = fd
                .try_clone_to_owned()
                .map_err(|e| broken(e, "no descriptor"))?;
            open(fd)
        })
        .collect();
    let mut vaults = match opened {
        Ok(vaults) => vaults,
        Err(trouble) => return drop(started.send(Err(trouble))),
    };
    let keeper = Keeper {
        shared: shared.clone(),
        thread: std::thread::current(),
    };
    if started.send(Ok(keeper)).is_err() {
        return;
    }
    // SAFETY: as above, for both.
    let (done, process) = unsafe {
        (
            BorrowedFd::borrow_raw(done),
            BorrowedFd::borrow_raw(process),
        )
    };
    while !shared.ending.load(Ordering::Acquire) {
        let mut found = false;
        for slot in &shared.slots {
            let taken = slot
                .state
                .compare_exchange(GIVEN, TAKEN, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
            if !taken {
                continue;
            }
            found = true;
            let outcome = keep(slot, process, &mut vaults);
            let (kept, version, errno) = match outcome {
                Ok(version) => (Kept::Yes, version, 0),
                Err(t) if is_full(&t) => (Kept::Full, 0, t.errno),
                Err(t) => (Kept::Failed, 0, t.errno),
            };
            slot.version.store(version, Ordering::Relaxed);
            let errno = (errno as u32 & 0xffff) << 8;
            slot.outcome.store(errno | kept as u32, Ordering::Relaxed);
            slot.state.store(DONE, Ordering::Release);
            if rustix::io::write(done, &1u64.to_ne_bytes()).is_err() {
                // the counter is full: the answering thread is being woken already
            }
        }
        if !found {
            std::thread::park();
        }
    }
}

fn is_full(trouble: &Trouble) -> bool {
    matches!(
        trouble.code,
        "file.full" | "preserve.space" | "preserve.quota"
    )
}

fn keep(slot: &Slot, process: BorrowedFd<'_>, vaults: &mut [Box<dyn Preserver>]) -> Result<u64> {
    let job = lock(&slot.job);
    let vault = vaults
        .get_mut(job.vault)
        .ok_or_else(|| Trouble::new("hold.failed", "no such vault"))?;
    let file = pidfd_getfd(process, job.fd, PidfdGetfdFlags::empty())
        .map_err(|e| broken(e, "file cannot be fetched"))?;
    let stat = rustix::fs::fstat(&file).map_err(|e| broken(e, "file cannot be looked at"))?;
    if (stat.st_dev, stat.st_ino) != (job.dev, job.ino) {
        return Err(Trouble::new("hold.failed", "not the file that was meant"));
    }
    let about = About {
        tree: job.tree,
        path: &job.path,
        actor: job.actor,
        at_ns: job.at_ns,
    };
    let wanted = || !slot.given_up.load(Ordering::Acquire);
    let Some((mut at, len)) = job.range else {
        return vault.image(file.as_fd(), &about, &wanted);
    };
    let end = at.saturating_add(len).min(stat.st_size.max(0) as u64);
    let first = STEP.min(end.saturating_sub(at));
    let mut version = vault.range(file.as_fd(), &about, at, first, &wanted)?;
    at += STEP;
    while at < end {
        if !wanted() {
            return Err(Trouble::new("hold.failed", "given up"));
        }
        version = vault.range(file.as_fd(), &about, at, STEP.min(end - at), &wanted)?;
        at += STEP;
    }
    Ok(version)
}

#[cfg(test)]
mod tests;
