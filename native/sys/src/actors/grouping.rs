//! Which processes are one actor: a pure function of processes and their parents.
//!
//! From the process up to its parents while they are in the same session and unit and start no work for others; the
//! top names the actor. So a script with its workers, `xargs -P` with its children, a daemon with its helpers are one.
//! * A shell at which somebody types, and what it runs in the foreground, is one actor, however many short-lived
//!   programs the typed loop consists of. What it runs in the background is one by executable and user.
//! * A server is no actor, each of its children (a client) is.
//! * An orphan belongs to the leader of its session, where that lives: forking twice makes no new actor.
//! * Threads of the kernel of one name are one (`nfsd`).

use std::sync::Arc;

use super::process::Process;
use super::programs::{Programs, Role};
use super::ActorKey;

/// Longest climb; deeper trees end there.
const DEPTH: usize = 64;

/// What the grouping asks for.
pub trait Lineage {
    /// A living process (or one that has ended and not been waited for).
    fn process(&mut self, pid: i32) -> Option<Arc<Process>>;
    /// Key that was given to that very process before; it keeps it whatever becomes of its parents.
    fn remembered(&mut self, process: &Process) -> Option<Group>;
}

/// Which kind of actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process and what it started.
    Tree,
    /// A terminal: its shell and what runs in the foreground.
    Terminal,
    /// A shell's background jobs of one executable and user.
    Jobs,
    /// A client of a server: the child that works for it.
    Client,
    /// Never to be contained: the first process, the kernel's threads, ourselves, root's launchers and servers.
    Host,
}

/// An actor, named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its key.
    pub key: ActorKey,
    /// Its kind.
    pub kind: Kind,
    /// Process that names it.
    pub top: i32,
    /// False where the process had ended and what it ran could not be told.
    pub certain: bool,
}

/// Makes keys and groups of this boot of this machine.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// The programs that bound an actor.
    pub programs: Programs,
    boot: [u8; 32],
}

impl Grouping {
    /// A grouping for the boot that `boot_id` names (`/proc/sys/kernel/random/boot_id`).
    pub fn new(programs: Programs, boot_id: &[u8]) -> Self {
        let boot = blake3::Hasher::new_derive_key("shieldd 2026 actor key");
        let boot = *boot
            .clone()
            .update(boot_id.trim_ascii())
            .finalize()
            .as_bytes();
        Grouping { programs, boot }
    }

    pub(super) fn key(&self, domain: &[u8], fields: &[&[u8]]) -> ActorKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.boot);
        hasher.update(domain);
        for field in fields {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        ActorKey::new(u64::from_le_bytes(first))
    }

    fn of_process(&self, kind: Kind, top: &Process) -> Group {
        let fields: [&[u8]; 2] = [&top.pid.to_le_bytes(), &top.start_ticks.to_le_bytes()];
        Group {
            key: self.key(b"process", &fields), // whatever its kind: a lost terminal makes no new actor
            kind,
            top: top.pid,
            certain: true,
        }
    }

    /// Whether this is the process whose number and start make up the key.
    pub fn names(&self, top: &Process, group: Group) -> bool {
        self.of_process(group.kind, top).key == group.key
    }

    /// The actor that a process belongs to.
    pub fn group(&self, process: &Arc<Process>, lineage: &mut impl Lineage) -> Group {
        self.group_and_top(process, lineage).0
    }

    /// The same, with the top of a tree that was not remembered.
    pub(super) fn group_and_top(
        &self,
        process: &Arc<Process>,
        lineage: &mut impl Lineage,
    ) -> (Group, Option<Arc<Process>>) {
        if let Some(known) = lineage.remembered(process) {
            return (known, None);
        }
        if process.kernel {
            let group = Group {
                key: self.key(b"kernel", &[stem(&process.comm)]),
                kind: Kind::Host,
                top: process.pid,
                certain: true,
            };
            return (group, None);
        }
        let kind = match self.programs.role(process) {
            Role::Host => Kind::Host,
            // what a user started may act for that user: only root's own are beyond suspicion
            Role::Launcher if process.uid == 0 => Kind::Host,
            Role::Launcher => Kind::Tree,
            Role::Server if works_for_client(process, lineage) => Kind::Client,
            Role::Server => Kind::Host,
            Role::Plain | Role::Shell => return self.climb(process, lineage),
        };
        (self.of_process(kind, process), None)
    }

    fn climb(
        &self,
        process: &Arc<Process>,
        lineage: &mut impl Lineage,
    ) -> (Group, Option<Arc<Process>>) {
        let mut top = Arc::clone(process);
        for _ in 0..DEPTH {
            if let Some(known) = lineage.remembered(&top) {
                return (known, None);
            }
            if top.leads_session() {
                if self.programs.role(&top) == Role::Shell {
                    return (self.of_process(Kind::Terminal, &top), None);
                }
                break;
            }
            let Some(above) = self.above(&top, lineage) else {
                break;
            };
            match self.programs.role(&above) {
                // What an account without privileges does is not laid at the door of the root process that started
                // it: all that is stopped for it is its own.
                Role::Plain | Role::Shell if above.uid == 0 && top.uid != 0 => {
                    return (self.jobs(&above, &top), None)
                }
                Role::Plain => top = above,
                Role::Shell => return (self.job(&above, &top), None),
                Role::Server if works_for_client(&above, lineage) => {
                    return (self.of_process(Kind::Client, &above), None)
                }
                Role::Server => return (self.of_process(Kind::Client, &top), None),
                Role::Launcher | Role::Host => break,
            }
        }
        (self.of_process(Kind::Tree, &top), Some(top))
    }

    /// The next process up that may belong to the same actor: the parent, or an orphan's session leader.
    fn above(&self, top: &Process, lineage: &mut impl Lineage) -> Option<Arc<Process>> {
        let mut fits = |pid: i32| {
            let found = lineage.process(pid).filter(|_| pid != top.pid)?;
            let near = found.sid == top.sid && found.unit() == top.unit();
            (near && found.start_ticks <= top.start_ticks).then_some(found)
        };
        fits(top.ppid).or_else(|| fits(top.sid))
    }

    /// What a shell runs: in the foreground the terminal's actor, in the background one of its own.
    fn job(&self, shell: &Process, top: &Process) -> Group {
        if top.pgid == top.tpgid || top.ended || top.exe.ino == 0 {
            let certain = top.pgid == top.tpgid;
            return Group {
                certain,
                ..self.of_process(Kind::Terminal, shell)
            };
        }
        self.jobs(shell, top)
    }

    /// Children of one process that run the same program for the same account.
    fn jobs(&self, above: &Process, top: &Process) -> Group {
        let fields: [&[u8]; 5] = [
            &above.pid.to_le_bytes(),
            &above.start_ticks.to_le_bytes(),
            &top.exe.dev.to_le_bytes(),
            &top.exe.ino.to_le_bytes(),
            &top.uid.to_le_bytes(),
        ];
        Group {
            key: self.key(b"jobs", &fields),
            kind: Kind::Jobs,
            top: top.pid,
            certain: true,
        }
    }
}

/// Whether a server's process is one of its children, also where the server itself is gone.
fn works_for_client(process: &Process, lineage: &mut impl Lineage) -> bool {
    match lineage.process(process.ppid) {
        Some(parent) if parent.pid != 1 => parent.exe.same(&process.exe),
        _ => !process.leads_session(),
    }
}

/// A kernel thread's name without its number: `kworker/0:1` is `kworker`.
fn stem(comm: &[u8]) -> &[u8] {
    let end = comm.iter().position(|b| b"/:-0123456789".contains(b));
    &comm[..end.unwrap_or(comm.len())]
}
