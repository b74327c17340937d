//! Whose thread it is that waits: process, actor, and whether it is one of ours.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{accessat, openat, Access, AtFlags, Mode, OFlags};
use rustix::process::{pidfd_open, Pid, PidfdFlags};

/// How long what was found out about a thread is believed, ns: an exec changes who a process is.
const TTL_NS: u64 = 20_000_000;
/// Threads remembered.
const KNOWN: usize = 1024;

/// Who waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Actor; 0 where it cannot be told.
    pub actor: u64,
    /// Process, 0 where it cannot be told.
    pub pid: u32,
    /// Its start, clock ticks since boot.
    pub start_ticks: u64,
    /// One of our own processes.
    pub own: bool,
}

/// Finds the actor of a process. Called by the answering thread: must read /proc alone and wait for nobody.
pub trait ActorOf: Send {
    /// Key of the actor that process `pid` belongs to, 0 where it cannot be told.
    fn actor_of(&mut self, pid: u32, start_ticks: u64) -> u64;
}

/// Each process by itself.
#[derive(Debug, Default)]
pub struct EachProcess;

impl ActorOf for EachProcess {
    fn actor_of(&mut self, pid: u32, start_ticks: u64) -> u64 {
        let mixed = (u64::from(pid) << 40 ^ start_ticks).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        1 << 63 | mixed >> 8
    }
}

struct Seen {
    who: Who,
    until_ns: u64,
    /// Refers to the thread while it lives, so that a number that is used again is noticed.
    thread: OwnedFd,
}

/// Tells threads apart; remembers them for a moment.
pub struct Identities {
    proc: OwnedFd,
    own: Vec<OwnedFd>,
    seen: HashMap<i32, Seen>,
    actors: Box<dyn ActorOf>,
}

fn directory(proc: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(proc, name, flags, Mode::empty())?)
}

/// `Tgid` of a thread and the start of that process.
fn process_of(proc: &OwnedFd, tid: i32) -> Option<(u32, u64)> {
    let mut buffer = [0u8; 2048];
    let mut read = |name: String| -> Option<Vec<u8>> {
        let file = openat(proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let length = rustix::io::read(&file, &mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    };
    let status = read(format!("{tid}/status"))?;
    let line = status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"Tgid:"))?;
    let pid: u32 = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    let stat = read(format!("{pid}/stat"))?;
    // the name may hold anything, a `)` too: fields count from the last one
    let end = stat.iter().rposition(|&b| b == b')')?;
    let start = std::str::from_utf8(&stat[end + 1..])
        .ok()?
        .split_ascii_whitespace()
        .nth(19)?;
    Some((pid, start.parse().ok()?))
}

impl Identities {
    /// `own` are the processes of ours; each may be gone already.
    pub fn new(own: &[u32], actors: Box<dyn ActorOf>) -> io::Result<Identities> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
        // the directory of a process, held open, never stands for a later one with the same number
        let own = own
            .iter()
            .filter_map(|pid| directory(&proc, &format!("{pid}/task")).ok())
            .collect();
        Ok(Identities {
            proc,
            own,
            seen: HashMap::with_capacity(KNOWN),
            actors,
        })
    }

    /// Who the blocked thread `tid` is.
    pub fn who(&mut self, tid: i32, now_ns: u64) -> Who {
        let Some(id) = Pid::from_raw(tid) else {
            return Who::default();
        };
        if let Some(seen) = self.seen.get(&tid) {
            if now_ns < seen.until_ns && alive(&seen.thread) {
                return seen.who;
            }
        }
        // PIDFD_THREAD (Linux 6.9) has the value of O_EXCL; without it only the first thread of a process is kept
        let thread = pidfd_open(id, PidfdFlags::from_bits_retain(libc::O_EXCL as u32))
            .or_else(|_| pidfd_open(id, PidfdFlags::empty()));
        let own = self.is_own(tid);
        let (pid, start_ticks) = process_of(&self.proc, tid).unwrap_or_default();
        let actor = match pid {
            0 => 0,
            _ if own => 0,
            _ => self.actors.actor_of(pid, start_ticks),
        };
        let who = Who {
            actor,
            pid,
            start_ticks,
            own,
        };
        if let (Ok(thread), true) = (thread, pid != 0) {
            if self.seen.len() >= KNOWN {
                self.seen.retain(|_, seen| now_ns < seen.until_ns);
                if self.seen.len() >= KNOWN {
                    self.seen.clear();
                }
            }
            let until_ns = now_ns + TTL_NS;
            self.seen.insert(
                tid,
                Seen {
                    who,
                    until_ns,
                    thread,
                },
            );
        }
        who
    }

    fn is_own(&self, tid: i32) -> bool {
        let name = tid.to_string();
        self.own
            .iter()
            .any(|task| accessat(task, name.as_str(), Access::EXISTS, AtFlags::empty()).is_ok())
    }
}

fn alive(thread: &OwnedFd) -> bool {
    // SAFETY: signal 0 asks for existence only; no pointers are read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            std::os::fd::AsRawFd::as_raw_fd(&thread.as_fd()),
            0,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    done == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_ours_are_ours_and_have_their_process() {
        let me = std::process::id();
        let mut ours = Identities::new(&[me], Box::<EachProcess>::default()).unwrap();
        let mut theirs = Identities::new(&[], Box::<EachProcess>::default()).unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tx.send(rustix::thread::gettid().as_raw_nonzero().get())
                .unwrap();
            assert!(wait.recv().is_err());
        });
        let tid = rx.recv().unwrap();
        let who = ours.who(tid, 0);
        assert!(who.own && who.pid == me && who.start_ticks > 0);
        let other = theirs.who(tid, 0);
        assert!(!other.own && other.actor >> 63 == 1);
        assert_eq!(theirs.who(tid, 1), other);
        drop(end);
        thread.join().unwrap();
        assert_eq!(theirs.who(0, 0), Who::default());
        assert_eq!(theirs.who(i32::MAX, 0), Who::default());
    }
}
