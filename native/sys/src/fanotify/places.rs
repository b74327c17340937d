//! Where what is read happened: the directory behind a handle, its tree and its path.

use std::os::fd::AsFd;

use super::kernel::Handle;
use super::scope::{Top, OUTSIDE};
use super::state::State;
use crate::files::staged::is_own;

impl State {
    /// Id of the directory of a handle: positive inside a tree, [`OUTSIDE`], or lower where it is gone.
    #[inline]
    pub(super) fn place(&mut self, handle: Handle<'_>) -> i32 {
        match self.scope.get(handle.key) {
            Some(id) if id <= 0 || self.dirs.get(id).is_some() => id,
            _ => self.find(handle),
        }
    }

    #[cold]
    fn find(&mut self, handle: Handle<'_>) -> i32 {
        let fsid = handle.fsid();
        let Some(tree) = self.trees.iter().find(|t| !t.gone && t.fsid == fsid) else {
            return OUTSIDE;
        };
        let (root, dirs) = (tree.root.as_fd(), &self.dirs);
        let known = |id| dirs.get(id).is_some();
        let (top, steps) = self.scope.climb(root, tree.mount, handle, known);
        let mut id = match top {
            Top::Known(id) => id,
            Top::Gone => {
                let id = self.limbo.enter(handle.key, self.mono_ns);
                self.scope.put(handle.key, id);
                return id;
            }
            Top::Outside => OUTSIDE,
            Top::Failed => {
                self.lose_on(fsid, 1);
                return OUTSIDE; // not remembered
            }
        };
        for step in steps.iter().rev() {
            id = self.settle(id, &step.key, &step.name);
        }
        if steps.is_empty() {
            self.scope.put(handle.key, id);
        }
        id
    }

    /// Puts a directory under the one above it; excluded ones are outside.
    pub(super) fn settle(&mut self, above: i32, key: &[u8], name: &[u8]) -> i32 {
        let inside = above > 0 && self.enter(above) && !is_own(name) && !self.excluded(name, true);
        if !inside {
            self.scope.put(key, OUTSIDE);
            return OUTSIDE;
        }
        let id = self.scope.new_id();
        let tree = self.here.tree;
        self.dirs.insert(self.seed, id, above, name, tree);
        self.scope.put(key, id);
        id
    }

    /// Too many directories are known: all but the roots are looked up anew.
    pub(super) fn forget_directories(&mut self) {
        for tree in 0..self.trees.len() {
            let root = self.trees[tree].id;
            for child in self.dirs.children(root) {
                self.dirs.remove(self.seed, child);
            }
        }
        let dirs = &self.dirs;
        self.scope
            .retain(|id| id < OUTSIDE || dirs.get(id).is_some());
        self.pending.barrier();
    }

    /// Makes `id` the current directory; false where it is not (any more) known.
    #[inline]
    pub(super) fn enter(&mut self, id: i32) -> bool {
        if self.here.id == id && self.here.moves == self.dirs.moves {
            return true;
        }
        let Some(dir) = self.dirs.get(id) else {
            return false;
        };
        self.here.tree = dir.tree;
        self.here.id = id;
        self.here.moves = self.dirs.moves;
        self.dirs.prefix(id, &mut self.here.prefix)
    }

    /// Path of a name in the current directory, into `scratch`.
    pub(super) fn here_path(&mut self, name: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.here.prefix);
        self.scratch.extend_from_slice(name);
    }

    pub(super) fn excluded(&mut self, name: &[u8], directory: bool) -> bool {
        if self.trees[self.here.tree as usize].globs.is_empty() {
            return false;
        }
        self.here_path(name);
        self.trees[self.here.tree as usize]
            .globs
            .matches(&self.scratch, directory)
    }
}
