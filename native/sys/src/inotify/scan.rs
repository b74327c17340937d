//! Following directories: watch first, then list, so that nothing made in between is missed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use shieldd_core::event::{flags, Kind};

use super::kernel;
use super::known::{Known, Stamp};
use super::state::{Scanned, State};
use crate::events::dirs::NONE;
use crate::events::look::{list, open_dir, stat_in};
use crate::events::pending::Touch;
use crate::events::PLACES;

/// A directory just met: its id, its descriptor, and whether it is new to the table.
struct Met {
    id: i32,
    dir: OwnedFd,
    new: bool,
}

impl State {
    /// Watches one directory and puts it into the table. `ino` is its inode where a listing of its parent gave it, else 0.
    /// None where it is gone, no directory, or not to be followed.
    fn meet(
        &mut self,
        (parent, name, ino): (i32, &[u8], u64),
        path: &[u8],
        tree: u16,
        told: bool,
    ) -> Option<Met> {
        let root = self.trees[tree as usize].root.as_fd();
        let dir = match open_dir(root, path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.meet_later(parent, name, tree, told);
                return None;
            }
            Err(Errno::XDEV) => {
                self.leave_out(tree, path, "another file system is mounted here");
                return None;
            }
            Err(errno) => {
                self.not_watched(parent, name, path, tree, errno.raw_os_error());
                return None;
            }
        };
        let listed = ino != 0 && rustix::fs::fstat(&dir).is_ok_and(|x| x.st_ino == ino);
        if !listed && !self.lies_in(dir.as_fd(), parent) {
            self.meet_later(parent, name, tree, told);
            return None;
        }
        let mask =
            kernel::MASK | libc::IN_MASK_ADD | if parent == NONE { kernel::ROOT_MASK } else { 0 };
        let id = match kernel::watch(self.queue(), dir.as_fd(), mask) {
            Ok(wd) => wd,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let id = self.not_watched(parent, name, path, tree, errno);
                return Some(Met { id, dir, new: true });
            }
        };
        let mut id = id;
        if let Some(known) = self.dirs.get(id) {
            if (known.parent == NONE) != (parent == NONE) {
                self.leave_out(tree, path, "another guarded tree begins here");
                return None;
            }
            if known.tree != tree {
                id = self.taken_from_another_tree(id, tree, dir.as_fd(), mask)?;
            }
        }
        if let Some(known) = self.dirs.get(id) {
            // the same directory under an older name: its move was not seen (yet)
            if known.parent != parent || &*known.name != name {
                let (above, old_name) = (known.parent, known.name.clone());
                let mut from = Vec::new();
                self.dirs.prefix(above, &mut from);
                self.later.met_ahead(above, &old_name, id);
                self.dirs.reparent(self.seed, id, parent, name);
                // told now: what happened in it since is read under its new name
                self.directory_moved(id, (&from, &old_name), parent, name);
                from.extend_from_slice(&old_name);
                if open_dir(self.trees[tree as usize].root.as_fd(), &from).is_ok() {
                    // another one is where it was; that one's coming may have been taken for this one's
                    self.meet_later(above, &old_name, tree, false);
                }
            }
            return Some(Met {
                id,
                dir,
                new: false,
            });
        }
        self.dirs.insert(self.seed, id, parent, name, tree);
        Some(Met { id, dir, new: true })
    }

    /// A directory came over from another tree before that move was read: there it is gone, here it is new.
    fn taken_from_another_tree(
        &mut self,
        id: i32,
        tree: u16,
        dir: BorrowedFd<'_>,
        mask: u32,
    ) -> Option<i32> {
        let (parent, name) = self.dirs.get(id).map(|d| (d.parent, d.name.clone()))?;
        self.later.met_ahead(parent, &name, NONE);
        self.forget(id);
        self.directory_record(Kind::RemoveDir, parent, &name, false);
        self.pending.barrier();
        let wd = kernel::watch(self.queue(), dir, mask);
        if wd.is_err() {
            self.blind(tree);
        }
        wd.ok()
    }

    fn leave_out(&mut self, tree: u16, path: &[u8], why: &'static str) {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if self.left_out.len() < PLACES
            && !self
                .left_out
                .iter()
                .any(|(t, p, _)| *t == tree && p == path)
        {
            self.left_out.push((tree, path.to_vec(), why));
        }
    }

    fn not_watched(&mut self, parent: i32, name: &[u8], path: &[u8], tree: u16, errno: i32) -> i32 {
        let id = match self.dirs.child(self.seed, parent, name) {
            Some(id) if id < 0 => id,
            _ => {
                let id = self.dirs.unwatched_id();
                self.dirs.insert(self.seed, id, parent, name, tree);
                id
            }
        };
        self.unwatched.insert(id, errno);
        self.counters.watch_failures += 1;
        let path = path.strip_suffix(b"/").unwrap_or(path);
        self.notice(Kind::WatchLimit, tree, path);
        id
    }

    /// Follows a tree from its root at the start: all directories are watched, the files become the known state.
    pub(super) fn follow_root(&mut self, tree: u16, known: &mut Known) -> bool {
        let root = self.trees[tree as usize].root.as_fd();
        let Ok(dir) = open_dir(root, b"") else {
            return false;
        };
        let mut stack = self.list_known(
            &Met {
                id: self.trees[tree as usize].id,
                dir,
                new: true,
            },
            known,
        );
        let mut path = Vec::new();
        while let Some((parent, name, ino)) = stack.pop() {
            if !self.dirs.prefix(parent, &mut path) {
                continue;
            }
            path.extend_from_slice(&name);
            if self.trees[tree as usize].globs.matches(&path, true) {
                continue;
            }
            if let Some(met) = self.meet((parent, &name, ino), &path, tree, true) {
                if met.new {
                    stack.extend(self.list_known(&met, known));
                }
            }
        }
        true
    }

    /// Watches the root of a tree again after it was gone.
    pub(super) fn root_back(&mut self, tree: u16) -> bool {
        let Some(met) = self.meet((NONE, b"", 0), b"", tree, true) else {
            return false;
        };
        self.trees[tree as usize].id = met.id;
        true
    }

    /// Lists a directory into the known state; returns its subdirectories.
    fn list_known(&self, met: &Met, known: &mut Known) -> Vec<(i32, Box<[u8]>, u64)> {
        let mut below = Vec::new();
        // an unreadable end of a listing shows as differences in the next rescan
        let listed = list(met.dir.as_fd(), |name, kind, ino| {
            if kind == FileType::Directory {
                below.push((met.id, name.into(), ino));
            } else if let Some(stat) = stat_in(met.dir.as_fd(), name) {
                known.put(met.id, name, Stamp::of(&stat), 0);
            }
        });
        drop(listed);
        below
    }

    /// Follows a directory that appeared while we watch: what is in it already is reported as found, and so is it
    /// itself where it was not `told` of.
    pub(super) fn follow(&mut self, parent: i32, name: &[u8], told: bool) {
        let Some(tree) = self.dirs.get(parent).map(|d| d.tree) else {
            return;
        };
        let mut stack: Vec<(i32, Box<[u8]>, u64, bool)> = vec![(parent, name.into(), 0, told)];
        let mut path = Vec::new();
        let mut files: Vec<(Box<[u8]>, FileType, u64)> = Vec::new();
        while let Some((parent, name, ino, told)) = stack.pop() {
            if !self.dirs.prefix(parent, &mut path) {
                continue;
            }
            path.extend_from_slice(&name);
            let Some(met) = self.meet((parent, &name, ino), &path, tree, told) else {
                continue;
            };
            if !met.new {
                continue;
            }
            if !told {
                self.directory_record(Kind::MakeDir, parent, &name, true);
            }
            path.push(b'/');
            files.clear();
            let listed = list(met.dir.as_fd(), |name, kind, ino| {
                files.push((name.into(), kind, ino))
            });
            if listed.is_err() {
                self.blind(tree);
            }
            let until = self.bytes_read + kernel::waiting(self.queue());
            for (name, kind, ino) in files.drain(..) {
                let prefix = path.len();
                path.extend_from_slice(&name);
                let directory = kind == FileType::Directory;
                if !self.trees[tree as usize].globs.matches(&path, directory) {
                    if directory {
                        stack.push((met.id, name, ino, false));
                    } else {
                        self.found(met.id, tree, &path[..prefix], name, kind, until);
                    }
                }
                path.truncate(prefix);
            }
        }
    }

    /// A file that a scan of a new directory met.
    fn found(
        &mut self,
        dir: i32,
        tree: u16,
        prefix: &[u8],
        name: Box<[u8]>,
        kind: FileType,
        until: u64,
    ) {
        let key = self.key(dir, &name);
        if self.pending.touch(key) != Touch::None {
            return; // its own event came first
        }
        if self.pending.is_full() {
            return self.lose(tree);
        }
        let path = self.pending.path(prefix, &name);
        let mut rec = self.record(Kind::Create, tree, dir, path);
        rec.flags = flags::SYNTHETIC
            | if kind == FileType::RegularFile {
                0
            } else {
                flags::SPECIAL
            };
        self.pending.push(key, rec);
        if until > self.bytes_read {
            let scanned = self.scanned.entry(dir).or_insert_with(|| Scanned {
                names: Default::default(),
                until,
            });
            scanned.until = until;
            scanned.names.insert(name);
        }
    }
}
