//! Where the kernel does not say who: the best guess from open descriptors.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::fs::{openat, readlinkat, Dir, Mode, OFlags, CWD};
use rustix::io::read;

use super::grouping::Kind;
use super::members::processes;
use super::parse;
use super::table::Table;
use super::ActorKey;

/// A process that has something open beneath a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Guess {
    /// Its actor.
    pub key: u64,
    /// Which of the roots.
    pub root: u32,
    /// Process.
    pub pid: i32,
    /// Descriptors open for writing beneath the root.
    pub writing: u32,
    /// Other descriptors beneath it, and its working directory.
    pub open: u32,
}

impl Table {
    /// Who has files open beneath roots (absolute paths): most writers first. Nobody of the host's own is among them.
    ///
    /// A guess: it sees neither who has closed a file again nor a mapping. Newest numbers are looked at first; ends
    /// when `budget` is over. Without privilege only processes of the same user can be seen.
    pub fn guess(&mut self, roots: &[Vec<u8>], budget: Duration) -> Vec<Guess> {
        let end = Instant::now() + budget;
        let mut pids = processes();
        pids.sort_unstable_by(|a, b| b.cmp(a));
        self.begin();
        let mut found = Vec::new();
        for pid in pids {
            if Instant::now() >= end {
                break;
            }
            let counts = descriptors(pid, roots, end);
            for (root, (writing, open)) in counts.into_iter().enumerate() {
                if writing + open == 0 {
                    continue;
                }
                let Some(group) = self.of(pid).filter(|group| group.kind != Kind::Host) else {
                    continue;
                };
                let ActorKey(key) = group.key;
                found.push(Guess {
                    key,
                    root: root as u32,
                    pid,
                    writing,
                    open,
                });
            }
        }
        found.sort_by_key(|x| (x.root, std::cmp::Reverse((x.writing, x.open, x.pid))));
        found
    }
}

/// For each root: descriptors open for writing beneath it, and others.
fn descriptors(pid: i32, roots: &[Vec<u8>], end: Instant) -> Vec<(u32, u32)> {
    let mut counts = vec![(0, 0); roots.len()];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(process) = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()) else {
        return counts;
    };
    if let Some(root) = root_of(&process, "cwd", roots) {
        counts[root].1 += 1;
    }
    let Ok(list) = openat(&process, "fd", flags, Mode::empty()) else {
        return counts;
    };
    let Ok(entries) = Dir::read_from(&list) else {
        return counts;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if parse::integer::<i32>(name.to_bytes()).is_none() {
            continue;
        }
        if let Some(root) = root_of(&list, name, roots) {
            let counted = &mut counts[root];
            match writable(process.as_fd(), name.to_bytes()) {
                Some(true) => counted.0 += 1,
                _ => counted.1 += 1,
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    counts
}

/// The root that a link of /proc leads beneath.
fn root_of(dir: impl AsFd, link: impl rustix::path::Arg, roots: &[Vec<u8>]) -> Option<usize> {
    let target = readlinkat(dir, link, Vec::new()).ok()?;
    let target = target.to_bytes();
    roots.iter().position(|root| {
        let rest = target.strip_prefix(root.as_slice());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || root.ends_with(b"/"))
    })
}

fn writable(process: BorrowedFd<'_>, number: &[u8]) -> Option<bool> {
    let name = [b"fdinfo/", number].concat();
    let fd = openat(
        process,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let mut buffer = [0; 512];
    let got = read(&fd, &mut buffer).ok()?;
    parse::open_for_writing(&buffer[..got])
}
