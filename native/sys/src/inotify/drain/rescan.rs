//! Rescans: a tree, or the directories without a watch, is compared with the known state, a slice at a time.

use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use shieldd_core::event::Kind;

use super::Drain;
use crate::events::dirs::NONE;
use crate::events::look::{list, open_dir, stat_in};
use crate::events::rows::{POLL, REST};
use crate::events::taking::lock;
use crate::inotify::kernel;
use crate::inotify::known::{Change, Stamp};
use crate::inotify::state::State;

/// A walk that compares directories with the known state.
pub(super) struct Rescan {
    tree: u16,
    pub(super) stack: Vec<i32>,
    whole: bool,
    found: u32,
    number: u32,
    pub(super) busy: Duration,
}

impl Drain {
    pub(super) fn begin(&mut self, state: &Mutex<State>) {
        if Instant::now() < self.rest_until {
            return;
        }
        let mut guard = lock(state);
        for tree in 0..guard.trees.len() {
            if guard.trees[tree].gone {
                self.come_back(&mut guard, tree);
            }
        }
        let whole = guard.trees.iter().position(|t| t.rescan && !t.gone);
        let (tree, stack) = match whole {
            Some(tree) => {
                guard.trees[tree].rescan = false;
                (tree as u16, vec![guard.trees[tree].id])
            }
            None => (0, guard.dirs.unwatched_ids()),
        };
        drop(guard);
        if stack.is_empty() {
            self.rest_until = Instant::now() + POLL;
            return;
        }
        self.walks += 1;
        self.walk = Some(Rescan {
            tree,
            stack,
            whole: whole.is_some(),
            found: 0,
            number: self.walks,
            busy: Duration::ZERO,
        });
    }

    /// A root that went away is looked for under its path; what is there then is watched and reported.
    fn come_back(&mut self, state: &mut State, tree: usize) {
        use rustix::fs::{Mode, OFlags};
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(root) = rustix::fs::open(state.trees[tree].path.as_slice(), how, Mode::empty())
        else {
            return;
        };
        let Ok(ours) = root.try_clone() else { return };
        state.trees[tree].root = root;
        self.rows.roots[tree] = ours;
        if state.root_back(tree as u16) {
            state.trees[tree].gone = false;
            state.trees[tree].rescan = true;
        }
    }

    pub(super) fn finish(&mut self, state: &Mutex<State>, walk: &Rescan) {
        let pause = (walk.busy * REST).max(if walk.whole { Duration::ZERO } else { POLL });
        self.rest_until = Instant::now() + pause;
        if !walk.whole {
            return;
        }
        let mut guard = lock(state);
        guard.counters.rescans += 1;
        let tree = &mut guard.trees[walk.tree as usize];
        if !tree.rescan && !tree.gone {
            tree.blind_since_ns = 0;
        }
        drop(guard);
        let found = walk.found;
        self.add(walk.tree, Kind::RescanDone, NONE, b"", b"", found);
        if let Some(last) = self.current.recs.last_mut() {
            last.flags = 0;
        }
    }

    /// Compares one directory with what is known of it.
    pub(super) fn compare(&mut self, state: &Mutex<State>, walk: &mut Rescan, mut id: i32) {
        let mut prefix = Vec::new();
        let mut guard = lock(state);
        let Some((tree, parent, name)) = guard
            .dirs
            .get(id)
            .map(|d| (d.tree, d.parent, d.name.clone()))
        else {
            return;
        };
        if !guard.dirs.prefix(id, &mut prefix) {
            return;
        }
        let root = self.rows.root(tree);
        let dir = match open_dir(root, &prefix) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) if parent != NONE => {
                let ids = guard.dirs.subtree(id);
                guard.forget(id);
                let mut above = Vec::new();
                guard.dirs.prefix(parent, &mut above);
                drop(guard);
                self.all_missing(walk, tree, &ids, &prefix);
                walk.found += 1;
                return self.add(tree, Kind::RemoveDir, parent, &above, &name, 1);
            }
            Err(_) => return,
        };
        match kernel::watch(guard.queue(), dir.as_fd(), kernel::MASK | libc::IN_MASK_ADD) {
            Ok(wd) if wd == id => {}
            Ok(wd) if id < 0 && guard.dirs.get(wd).is_none() => {
                guard.unwatched.remove(&id);
                let seed = guard.seed;
                guard.dirs.rekey(seed, id, wd);
                self.known.rekey(id, wd);
                id = wd;
            }
            Ok(_) if parent != NONE && id > 0 => {
                // another directory stands under the name
                guard.forget(id);
                guard.directory_record(Kind::MakeDir, parent, &name, true);
                guard.follow(parent, &name, true);
                walk.found += 1;
                return;
            }
            Ok(_) | Err(_) => {}
        }
        if walk.whole {
            walk.stack.extend(guard.dirs.children(id));
        }
        let globs = guard.trees[tree as usize].globs.clone();
        drop(guard);
        let mut below: Vec<Box<[u8]>> = Vec::new();
        let mut files: Vec<(Box<[u8]>, Stat)> = Vec::new();
        let mut path = prefix.clone();
        let whole_listing = list(dir.as_fd(), |name, kind, _| {
            path.truncate(prefix.len());
            path.extend_from_slice(name);
            if globs.matches(&path, kind == FileType::Directory) {
                return;
            }
            if kind == FileType::Directory {
                below.push(name.into());
            } else if let Some(stat) = stat_in(dir.as_fd(), name) {
                files.push((name.into(), stat));
            }
        });
        for (name, stat) in files {
            let kind = match self.known.put(id, &name, Stamp::of(&stat), walk.number) {
                Change::Same => continue,
                Change::New | Change::Replaced => Kind::Create,
                Change::Written => Kind::Write,
                Change::Attributes => Kind::Attrib,
            };
            walk.found += 1;
            self.add(tree, kind, id, &prefix, &name, 1);
        }
        if whole_listing.is_ok() {
            for name in self.known.missing(id, walk.number) {
                walk.found += 1;
                self.add(tree, Kind::Delete, id, &prefix, &name, 1);
            }
        }
        let mut guard = lock(state);
        for name in below {
            if guard.dirs.child(guard.seed, id, &name).is_none() && guard.dirs.get(id).is_some() {
                walk.found += 1;
                guard.directory_record(Kind::MakeDir, id, &name, true);
                guard.follow(id, &name, true);
            }
        }
    }

    /// Reports the known files of a directory that is gone with all below it.
    fn all_missing(&mut self, walk: &mut Rescan, tree: u16, ids: &[i32], prefix: &[u8]) {
        for &id in ids {
            // only the top's path is still known; files further down are told by their directory's removal
            for name in self.known.missing(id, walk.number) {
                walk.found += 1;
                if id == ids[0] {
                    self.add(tree, Kind::Delete, id, prefix, &name, 1);
                }
            }
        }
    }
}
