//! What is lost, and roots that go and come back.

use std::os::fd::AsFd;

use shieldd_core::event::Kind;

use super::mounts::Root;
use super::state::State;
use crate::events::dirs::NONE;
use crate::events::Notice;

impl State {
    /// Our own queue is full: the event is counted and its tree will be rescanned.
    pub(super) fn lose(&mut self, tree: u16, count: u64) {
        self.counters.lost += count;
        self.blind(tree);
        self.notice(Kind::Overflow, tree);
    }

    /// Events of some file system cannot be placed.
    pub(super) fn lose_on(&mut self, fsid: u64, count: u64) {
        self.counters.lost += count;
        for tree in 0..self.trees.len() {
            if self.trees[tree].fsid == fsid && !self.trees[tree].gone {
                self.blind(tree as u16);
                self.notice(Kind::Overflow, tree as u16);
            }
        }
    }

    pub(super) fn blind(&mut self, tree: u16) {
        let since = self.empty_ns;
        let tree = &mut self.trees[tree as usize];
        tree.rescan = true;
        if tree.blind_since_ns == 0 {
            tree.blind_since_ns = since;
        }
    }

    pub(super) fn notice(&mut self, kind: Kind, tree: u16) {
        crate::events::notice(&mut self.notices, kind, tree, b"");
    }

    /// The kernel lost an unknown number of events, of any tree; renames of directories may be among them.
    pub(super) fn overflowed(&mut self) {
        self.counters.overflows += 1;
        self.counters.lost += 1;
        for tree in 0..self.trees.len() as u16 {
            if !self.trees[tree as usize].gone {
                self.blind(tree);
                self.notice(Kind::Overflow, tree);
            }
        }
        self.dying.clear();
        self.forget_directories();
    }

    /// Takes the roots as they are now; false where there is none.
    pub(super) fn root_back(&mut self, tree: u16) -> bool {
        let Some(found) = Root::of(self.trees[tree as usize].root.as_fd()) else {
            return false;
        };
        let id = self.scope.new_id();
        let seed = self.seed;
        self.dirs.insert(seed, id, NONE, b"", tree);
        self.scope.doubt_outside();
        self.scope.put(&found.key, id);
        let tree = &mut self.trees[tree as usize];
        tree.all = tree.ino != 0 && (tree.dev, tree.ino) != (found.dev, found.ino);
        (tree.dev, tree.ino) = (found.dev, found.ino);
        (tree.key, tree.fsid, tree.mount) = (found.key, found.fsid, found.mount);
        tree.id = id;
        tree.gone = false;
        true
    }

    pub(super) fn root_gone(&mut self, tree: u16) {
        let root = self.trees[tree as usize].id;
        if root == NONE {
            return;
        }
        self.blind(tree);
        let key = std::mem::take(&mut self.trees[tree as usize].key);
        self.scope.remove(&key);
        self.dirs.remove(self.seed, root);
        let tree_ref = &mut self.trees[tree as usize];
        tree_ref.gone = true;
        tree_ref.id = NONE;
        tree_ref.rescan = false;
        self.notices.push(Notice {
            kind: Kind::RootGone,
            tree,
            path: Vec::new(),
            count: 1,
        });
    }
}
