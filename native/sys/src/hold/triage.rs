//! What is done with one event: answered at once, refused, or held until a version is kept.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{fstat, FileType, Stat};

use super::access::{of_open, of_range, Access};
use super::answerer::Answerer;
use super::control::Word;
use super::keeper::Done;
use super::mono_ns;
use super::pending::{Held, Stage};
use super::ring::{Kept, Kind};
use super::scope::Place;
use super::verdicts::Verdict;
use crate::fanotify::kernel::{Answer, Permission, PRE_ACCESS};

/// Of so many reads one is looked at after it was answered: whether its directory is outside and may be ignored.
const SAMPLE: u32 = 4;
/// A range up to this may be a truncation; larger ones never are.
const PAGE: u64 = 4096;

/// What must be kept before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Whole,
    Part(u64, u64),
}

/// What an event asks for, as far as it was looked at.
struct Asked {
    kind: Kind,
    need: Need,
    undecoded: bool,
}

impl Answerer {
    /// One event. Every path answers it or holds it.
    pub(super) fn event(&mut self, event: Permission) {
        let Some(fd) = event.fd else { return };
        self.control.count(Word::Events, 1);
        let since_ns = mono_ns();
        let denying = self.control.get(Word::Denied) > 0;
        let Ok(stat) = fstat(&fd) else {
            return self.at_once(fd, Word::Empty);
        };
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || (stat.st_size == 0 && !denying) {
            return self.at_once(fd, Word::Empty);
        }
        let ranged = event.mask & PRE_ACCESS != 0;
        let asked = if ranged {
            match self.range_asked(event.tid, event.range, &stat, denying) {
                Some(asked) => asked,
                None => return self.at_once(fd, Word::Accesses),
            }
        } else {
            let access = of_open(self.calls.text(event.tid));
            if access == Access::Read && !denying {
                return self.read(fd, since_ns);
            }
            self.open_asked(access, &stat)
        };
        self.write(fd, &stat, event.tid, asked, since_ns);
    }

    /// What an open asks for.
    fn open_asked(&self, access: Access, stat: &Stat) -> Asked {
        let size = stat.st_size as u64;
        let need = match access {
            _ if size == 0 => Need::Nothing,
            Access::Read => Need::Nothing,
            _ if size <= self.whole_limit => Need::Whole,
            // writes into it will be seen one by one
            Access::Write if self.marked.ranges.contains(&stat.st_dev) => Need::Nothing,
            _ => Need::Part(0, size),
        };
        Asked {
            kind: if access == Access::Truncate {
                Kind::Truncate
            } else {
                Kind::Open
            },
            need,
            undecoded: access == Access::Unknown,
        }
    }

    /// What an access to a range asks for; `None` where it is answered at once.
    fn range_asked(
        &mut self,
        tid: i32,
        range: Option<(u64, u64)>,
        stat: &Stat,
        denying: bool,
    ) -> Option<Asked> {
        let size = stat.st_size as u64;
        let (at, len) = range.unwrap_or((0, size));
        let large = size > self.whole_limit;
        // a small file was kept whole when it was opened for writing; only truncate(2) comes without an open
        if !large && len > PAGE && !denying {
            return None;
        }
        let access = of_range(self.calls.text(tid));
        let undecoded = access == Access::Unknown;
        let cuts = access == Access::Truncate || (undecoded && len <= PAGE);
        let at = at.min(size);
        let need = match (large, cuts) {
            _ if size == 0 => Need::Nothing,
            (false, false) => Need::Nothing,
            (false, true) => Need::Whole,
            (true, false) => Need::Part(at, len.min(size - at)),
            (true, true) => Need::Part(at, size - at),
        };
        let one_to_judge = access != Access::Read && (need != Need::Nothing || denying);
        one_to_judge.then_some(Asked {
            kind: if cuts { Kind::Truncate } else { Kind::Range },
            need,
            undecoded,
        })
    }

    fn at_once(&mut self, fd: OwnedFd, count: Word) {
        self.answer(fd.as_fd(), Answer::Allow);
        self.control.count(count, 1);
        self.close(fd);
    }

    /// A read: answered, then now and then looked at.
    fn read(&mut self, fd: OwnedFd, now_ns: u64) {
        self.answer(fd.as_fd(), Answer::Allow);
        self.control.count(Word::Reads, 1);
        self.reads = self.reads.wrapping_add(1);
        if self.reads % SAMPLE != 0 || self.herd_ns.is_some() {
            return self.close(fd);
        }
        let mut room = std::mem::replace(&mut self.path, Box::new([0; 4096]));
        if let Some(path) = self.scope.path(fd.as_fd(), &mut room) {
            if self.scope.place(fd.as_fd(), path, now_ns) == Place::Outside {
                self.leave_out(&fd, path);
            }
        }
        self.path = room;
    }

    /// Has the kernel ignore the directory of a file that is outside.
    fn leave_out(&mut self, fd: &OwnedFd, path: &[u8]) {
        let Some(directory) = self.scope.directory_outside(path, fd.as_fd()) else {
            return;
        };
        if !self.marked.ignore(directory.as_fd()) {
            return;
        }
        self.control.count(Word::Ignored, 1);
        // it may have moved into a tree between the look and the mark
        if !self.scope.is_outside(directory.as_fd())
            && self.marked.regard(directory.as_fd()).is_err()
        {
            drop(self.marked.forget());
        }
    }

    /// A write, or any access while somebody is denied.
    fn write(&mut self, fd: OwnedFd, stat: &Stat, tid: i32, asked: Asked, since_ns: u64) {
        let mut room = std::mem::replace(&mut self.path, Box::new([0; 4096]));
        let path = self.scope.path(fd.as_fd(), &mut room).map(<[u8]>::to_vec);
        self.path = room;
        let path = path.unwrap_or_default();
        let (tree, relative) = match self.scope.place(fd.as_fd(), &path, since_ns) {
            Place::Inside(tree, at) => (tree, at.min(path.len())),
            Place::Foreign => {
                self.control.count(Word::Foreign, 1);
                (u16::MAX, 0)
            }
            Place::Outside => {
                self.answer(fd.as_fd(), Answer::Allow);
                self.control.count(Word::Outside, 1);
                if self.herd_ns.is_none() {
                    self.leave_out(&fd, &path);
                }
                return self.close(fd);
            }
        };
        let who = self.identities.who(tid);
        if who.own {
            return self.at_once(fd, Word::Own);
        }
        let verdict = self.control.verdict(who.actor);
        if asked.need == Need::Nothing && verdict != Verdict::Deny {
            return self.at_once(fd, Word::Reads);
        }
        self.control
            .count(Word::Undecoded, u64::from(asked.undecoded));
        let vault = self.vault_for(tree, stat.st_dev);
        let held = Held {
            fd,
            kind: asked.kind,
            tid,
            who,
            tree,
            path,
            relative,
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            vault: vault.unwrap_or(0),
            range: match asked.need {
                Need::Part(at, len) => Some((at, len)),
                _ => None,
            },
            undecoded: asked.undecoded,
            since_ns,
            stage: Stage::Queued,
        };
        let lost = |kept, errno| Done {
            kept,
            version: 0,
            errno,
        };
        let done = match vault {
            _ if verdict == Verdict::Deny => lost(Kept::None, 0),
            None => lost(Kept::Absent, 0),
            Some(_) if !self.keepers_answer() => lost(Kept::Late, libc::EIO as u16),
            Some(_) if self.pending.len() >= self.room => lost(Kept::Late, libc::EMFILE as u16),
            Some(_) => {
                if verdict == Verdict::Ask {
                    self.ask(&held);
                }
                return self.hold(held);
            }
        };
        let deny = verdict == Verdict::Deny;
        self.answer(
            held.fd.as_fd(),
            if deny { Answer::Deny } else { Answer::Allow },
        );
        self.record(&held, done, verdict);
        self.close(held.fd);
    }

    /// Vault of a tree; for a file that could not be told, that of any tree on its file system.
    fn vault_for(&self, tree: u16, dev: u64) -> Option<usize> {
        match self.vault_of.get(usize::from(tree)) {
            Some((vault, _)) => *vault,
            None => self.vault_of.iter().find(|(_, other)| *other == dev)?.0,
        }
    }
}
