//! Walks: what changed in a tree while we were blind, and what is in a directory that came from outside.
//!
//! There is no known state to compare with. What a gap hid is found by its times: a change of any kind sets the time
//! of status, which nobody can set back. Files that were removed in a gap leave no trace here.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{statx, AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;
use shieldd_core::event::{flags, Kind};

use crate::events::dirs::NONE;
use crate::events::look::{list, open_dir};
use crate::events::pending::{Pending, Rec};
use crate::events::rows::Rows;
use crate::events::Globs;

/// A directory that came from outside.
#[derive(Clone, Copy, Default)]
pub(super) struct Arrived {
    pub(super) id: i32,
    pub(super) tries: u32,
}

/// A walk in progress.
pub(super) struct Walk {
    pub(super) tree: u16,
    /// Directories to look into, with a slash at the end; whether all in them is to be told.
    stack: Vec<(Vec<u8>, bool)>,
    /// `CLOCK_REALTIME`, ns: what changed since then is told.
    since_ns: u64,
    /// It ends a blindness; else it is of one directory that came from outside.
    pub(super) whole: bool,
    pub(super) of: Arrived,
    /// A directory was not where it should be.
    pub(super) missed: bool,
    pub(super) found: u32,
    pub(super) busy: Duration,
}

fn ns(time: &rustix::fs::StatxTimestamp) -> u64 {
    (time.tv_sec.max(0) as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(time.tv_nsec))
}

impl Walk {
    /// Everything in a tree that changed since a time; nothing where that is 0; all of it with `all`.
    pub(super) fn of_tree(tree: u16, since_ns: u64, all: bool) -> Walk {
        let looks = since_ns > 0 || all;
        Walk {
            tree,
            stack: if looks {
                vec![(Vec::new(), all)]
            } else {
                Vec::new()
            },
            since_ns,
            whole: true,
            of: Arrived::default(),
            missed: false,
            found: 0,
            busy: Duration::ZERO,
        }
    }

    /// All that is in a directory.
    pub(super) fn of_directory(tree: u16, path: Vec<u8>, of: Arrived) -> Walk {
        Walk {
            tree,
            stack: vec![(path, true)],
            since_ns: 0,
            whole: false,
            of,
            missed: false,
            found: 0,
            busy: Duration::ZERO,
        }
    }

    /// Looks into directories until `enough` says so; true where it is done.
    pub(super) fn go_on(
        &mut self,
        rows: &Rows,
        globs: &Globs,
        others: &[(u64, u64)],
        out: &mut Pending,
        enough: impl Fn(&Pending) -> bool,
    ) -> bool {
        let began = Instant::now();
        while let Some((prefix, all)) = self.stack.pop() {
            self.look(rows, globs, others, (&prefix, all), out);
            if enough(out) {
                break;
            }
        }
        self.busy += began.elapsed();
        self.stack.is_empty()
    }

    fn look(
        &mut self,
        rows: &Rows,
        globs: &Globs,
        others: &[(u64, u64)],
        (prefix, all): (&[u8], bool),
        out: &mut Pending,
    ) {
        let dir = match open_dir(rows.root(self.tree), prefix) {
            Ok(dir) => dir,
            Err(Errno::XDEV) => return, // another file system is mounted there
            Err(_) => {
                self.missed = true;
                return;
            }
        };
        let mut path = prefix.to_vec();
        let mut entries: Vec<(Box<[u8]>, FileType)> = Vec::new();
        // an unreadable end of a listing cannot be told from an end
        drop(list(dir.as_fd(), |name, kind, _| {
            entries.push((name.into(), kind))
        }));
        for (name, kind) in entries {
            path.truncate(prefix.len());
            path.extend_from_slice(&name);
            let directory = kind == FileType::Directory;
            if globs.matches(&path, directory) {
                continue;
            }
            let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
            let Ok(stat) = statx(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW, wanted) else {
                continue;
            };
            let made = if stat.stx_mask & StatxFlags::BTIME.bits() != 0 {
                ns(&stat.stx_btime)
            } else {
                0
            };
            let changed = ns(&stat.stx_ctime) >= self.since_ns;
            if directory {
                let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
                if others.contains(&(dev, stat.stx_ino)) {
                    continue; // another tree begins here
                }
                let new = all || made >= self.since_ns;
                // its name or place changed, and nothing in it: it may have come from elsewhere
                let moved = changed && ns(&stat.stx_mtime) < self.since_ns;
                if new {
                    self.tell(Kind::MakeDir, prefix, &name, out);
                }
                path.push(b'/');
                self.stack.push((path.clone(), new && all || moved));
            } else if all || changed {
                let kind = self.kind_of(&stat, made, all);
                self.tell(kind, prefix, &name, out);
            }
        }
    }

    fn kind_of(&self, stat: &Statx, made_ns: u64, all: bool) -> Kind {
        if all || made_ns >= self.since_ns {
            Kind::Create
        } else if ns(&stat.stx_mtime) >= self.since_ns {
            Kind::Write
        } else {
            Kind::Attrib
        }
    }

    fn tell(&mut self, kind: Kind, prefix: &[u8], name: &[u8], out: &mut Pending) {
        self.found += 1;
        let path = out.path(prefix, name);
        let mut rec = Rec::new(kind, self.tree, NONE, path, crate::events::clocks());
        rec.flags = flags::SYNTHETIC;
        out.recs.push(rec);
    }
}
