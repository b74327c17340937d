//! Whose thread it is that waits: process, actor, and whether it is one of ours.
//!
//! The grouping is [`crate::actors`]'; this asks it less than a table does. It must not touch a process's memory
//! (command line, environment, mappings): whoever owns that memory can make the one who reads it wait, and the answering
//! thread waits for nobody. Status, parents and executables are told by the kernel alone. A process keeps its actor
//! while it lives, so a known thread costs one system call.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{pidfd_open, Pid, PidfdFlags};

use crate::actors::bursts::Bursts;
use crate::actors::grouping::{Grouping, Lineage};
use crate::actors::process::Handle;
use crate::actors::{Group, Process, Programs};

/// Threads remembered, each by a descriptor; and processes.
const KNOWN: usize = 512;

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

/// What was found out about processes.
struct Kin {
    groups: HashMap<(i32, u64), Group>,
}

impl Lineage for Kin {
    fn process(&mut self, pid: i32) -> Option<Arc<Process>> {
        Handle::open(pid)?
            .process(false, &mut Vec::new())
            .map(Arc::new)
    }

    fn remembered(&mut self, process: &Process) -> Option<Group> {
        self.groups
            .get(&(process.pid, process.start_ticks))
            .copied()
    }
}

struct Thread {
    who: Who,
    /// Refers to the thread while it lives, so that a number that is used again is noticed.
    fd: OwnedFd,
}

/// Tells threads apart.
pub struct Identities {
    own: Vec<(i32, u64)>,
    threads: HashMap<i32, Thread>,
    /// Processes, by their first thread: what the kernel tells of a whole process takes as long as it has threads.
    leaders: HashMap<i32, Thread>,
    kin: Kin,
    bursts: Bursts,
    grouping: Grouping,
    buffer: Vec<u8>,
}

impl Identities {
    /// `programs.own` are the processes of ours; each may be gone already.
    pub fn new(programs: Programs) -> io::Result<Identities> {
        let mut buffer = Vec::new();
        let mut start = |pid: &i32| Some((*pid, Handle::open(*pid)?.start_ticks(&mut buffer)?));
        let own = programs.own.iter().filter_map(&mut start).collect();
        let boot_id = std::fs::read("/proc/sys/kernel/random/boot_id")?;
        Ok(Identities {
            own,
            threads: HashMap::with_capacity(KNOWN),
            leaders: HashMap::with_capacity(KNOWN),
            kin: Kin {
                groups: HashMap::with_capacity(KNOWN),
            },
            bursts: Bursts::default(),
            grouping: Grouping::new(programs, &boot_id),
            buffer,
        })
    }

    /// Who the blocked thread `tid` is.
    pub fn who(&mut self, tid: i32) -> Who {
        if let Some(thread) = self.threads.get(&tid) {
            if alive(&thread.fd) {
                return thread.who;
            }
        }
        let Some(id) = Pid::from_raw(tid) else {
            return Who::default();
        };
        // PIDFD_THREAD (Linux 6.9) has the value of O_EXCL; without it only first threads are remembered
        let fd = pidfd_open(id, PidfdFlags::from_bits_retain(libc::O_EXCL as u32))
            .or_else(|_| pidfd_open(id, PidfdFlags::empty()));
        let Some(who) = self.look(tid) else {
            return Who::default();
        };
        if let Ok(fd) = fd {
            remember(&mut self.threads, tid, Thread { who, fd });
        }
        who
    }

    fn look(&mut self, tid: i32) -> Option<Who> {
        let thread = Handle::open(tid)?;
        let pid = thread.leader(&mut self.buffer)?;
        let known = self.leaders.get(&pid).filter(|leader| alive(&leader.fd));
        if let Some(leader) = known {
            return Some(leader.who);
        }
        let fd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty());
        let first = if pid == tid {
            thread
        } else {
            Handle::open(pid)?
        };
        let start_ticks = first.start_ticks(&mut self.buffer)?;
        let own = self.own.contains(&(pid, start_ticks));
        let mut who = Who {
            actor: 0,
            pid: pid as u32,
            start_ticks,
            own,
        };
        if own {
            return Some(who);
        }
        let known = self.kin.groups.get(&(pid, start_ticks)).copied();
        let group = match known {
            Some(group) => group,
            None => {
                let process = Arc::new(first.process(false, &mut self.buffer)?);
                let (kin, bursts) = (&mut self.kin, &mut self.bursts);
                let (group, top) = self.grouping.acting(&process, kin, bursts);
                if self.kin.groups.len() >= 8 * KNOWN {
                    // a process that still acts is looked at again, and has the same actor while its parents live
                    self.kin.groups.clear();
                }
                self.kin.groups.insert((pid, start_ticks), group);
                if let Some(top) = top {
                    self.kin.groups.insert((top.pid, top.start_ticks), group);
                }
                group
            }
        };
        who.actor = group.key.get();
        if let Ok(fd) = fd {
            remember(&mut self.leaders, pid, Thread { who, fd });
        }
        Some(who)
    }
}

fn remember(among: &mut HashMap<i32, Thread>, number: i32, thread: Thread) {
    if among.len() >= KNOWN {
        among.retain(|_, thread| alive(&thread.fd));
        if among.len() >= KNOWN {
            among.clear();
        }
    }
    among.insert(number, thread);
}

fn alive(thread: &OwnedFd) -> bool {
    // SAFETY: signal 0 asks for existence only; no pointers are read.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            thread.as_raw_fd(),
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

    fn over(own: &[u32]) -> Identities {
        let own = own.iter().map(|&pid| pid as i32).collect();
        Identities::new(Programs {
            own,
            ..Programs::default()
        })
        .unwrap()
    }

    #[test]
    fn threads_of_ours_are_ours_and_have_their_process() {
        let me = std::process::id();
        let (mut ours, mut theirs) = (over(&[me]), over(&[]));
        let (tx, rx) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            tx.send(tid).unwrap();
            assert!(wait.recv().is_err());
        });
        let tid = rx.recv().unwrap();
        let who = ours.who(tid);
        assert!(who.own && who.pid == me && who.start_ticks > 0);
        let other = theirs.who(tid);
        assert!(!other.own && other.actor >> 63 == 1 && other.pid == me);
        assert_eq!(theirs.who(me as i32), other);
        assert_eq!(theirs.who(tid), other);
        drop(end);
        thread.join().unwrap();
        assert_eq!(theirs.who(0), Who::default());
        assert_eq!(theirs.who(i32::MAX), Who::default());
    }

    #[test]
    fn a_table_gives_the_same_actor() {
        let me = std::process::id() as i32;
        let mut table = crate::actors::Table::new(crate::actors::Options::default()).unwrap();
        assert_eq!(over(&[]).who(me).actor, table.of(me).unwrap().key.get());
    }
}
