//! Where the events lag behind the directories: what could not be met yet, and what was met ahead of its move.
//!
//! The queue says that a directory appeared, but a path is all there is to open it by, and what is above it may have
//! moved since; those events wait further back. Such a directory is tried again when the queue is empty. The other way
//! round, a listing shows a directory under a name that its move will tell of later.

use std::os::fd::{AsFd, BorrowedFd};

use super::kernel;
use super::state::State;
use crate::events::dirs::NONE;
use crate::events::look::open_dir;
use rustix::fs::{Mode, OFlags};

/// Directories that wait to be met; beyond it their tree is rescanned.
const LATER: usize = 4_096;
/// Times that one is looked for with the queue empty before its tree is rescanned instead.
const TRIES: u32 = 40;
/// Directories met ahead of their move that are remembered.
const AHEAD: usize = 4_096;

/// A directory that was not to be found under the path that its parent had for us.
struct Unmet {
    parent: i32,
    name: Box<[u8]>,
    told: bool,
    tries: u32,
}

/// A directory that was found under a new name before its move was read.
struct Ahead {
    parent: i32,
    name: Box<[u8]>,
    id: i32,
}

#[derive(Default)]
pub(super) struct Later {
    unmet: Vec<Unmet>,
    ahead: Vec<Ahead>,
}

impl Later {
    pub(super) fn is_empty(&self) -> bool {
        self.unmet.is_empty()
    }

    /// The kernel lost events: what would have been told of these may be among them, and a rescan is due.
    pub(super) fn clear(&mut self) {
        self.unmet.clear();
        self.ahead.clear();
    }

    /// A name went away, so nothing is to be met under it.
    pub(super) fn forget(&mut self, parent: i32, name: &[u8]) {
        if !self.unmet.is_empty() {
            self.unmet
                .retain(|x| x.parent != parent || &*x.name != name);
        }
    }

    /// `id` was found elsewhere than its events have told so far.
    pub(super) fn met_ahead(&mut self, parent: i32, name: &[u8], id: i32) {
        if self.ahead.len() == AHEAD {
            self.ahead.remove(0);
        }
        let name = name.into();
        self.ahead.push(Ahead { parent, name, id });
    }

    /// The directory that had this name until a move that is only read now.
    pub(super) fn take_ahead(&mut self, parent: i32, name: &[u8]) -> Option<i32> {
        let same = |x: &Ahead| x.parent == parent && &*x.name == name;
        let at = self.ahead.iter().position(same)?;
        Some(self.ahead.remove(at).id)
    }
}

impl State {
    /// Keeps a directory for another try.
    pub(super) fn meet_later(&mut self, parent: i32, name: &[u8], tree: u16, told: bool) {
        let unmet = &mut self.later.unmet;
        if unmet.iter().any(|x| x.parent == parent && &*x.name == name) {
            return;
        }
        if unmet.len() >= LATER {
            return self.blind(tree);
        }
        let name = name.into();
        unmet.push(Unmet {
            parent,
            name,
            told,
            tries: 0,
        });
    }

    /// Tries those that wait, once all events are read and every path is as true as it gets.
    pub(super) fn meet_now(&mut self) {
        if self.later.unmet.is_empty() || kernel::waiting(self.queue()) > 0 {
            return;
        }
        let waiting = std::mem::take(&mut self.later.unmet);
        for unmet in waiting {
            let Some(tree) = self.dirs.get(unmet.parent).map(|d| d.tree) else {
                continue; // it went with its parent
            };
            if self
                .dirs
                .child(self.seed, unmet.parent, &unmet.name)
                .is_some()
            {
                continue;
            }
            if unmet.tries >= TRIES {
                self.blind(tree);
                continue;
            }
            self.follow(unmet.parent, &unmet.name, unmet.told);
            let same = |x: &&mut Unmet| x.parent == unmet.parent && x.name == unmet.name;
            if let Some(again) = self.later.unmet.iter_mut().find(same) {
                again.tries = unmet.tries + 1;
            }
        }
    }

    /// Whether an open directory lies in the one that `parent` stands for, whatever path led to it.
    pub(super) fn lies_in(&self, dir: BorrowedFd<'_>, parent: i32) -> bool {
        if parent <= NONE {
            return true; // without a watch there is nothing to compare with
        }
        let how = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(above) = rustix::fs::openat(dir, "..", how, Mode::empty()) else {
            return false;
        };
        // A directory has one watch in a queue: the kernel names the one that it has already.
        let mask = kernel::MASK | libc::IN_MASK_ADD;
        match kernel::watch(self.queue(), above.as_fd(), mask) {
            Ok(wd) if wd == parent => true,
            Ok(wd) => {
                if self.dirs.get(wd).is_none() {
                    kernel::unwatch(self.queue(), wd);
                }
                false
            }
            Err(_) => true,
        }
    }

    /// Whether a name that a move gave to `id` holds another directory: then a path had led to the wrong one before, and
    /// only a rescan can tell which is where.
    pub(super) fn check_moved(&mut self, id: i32, parent: i32, name: &[u8]) {
        let mut path = Vec::new();
        let Some(tree) = self.dirs.get(id).map(|d| d.tree).filter(|_| id > NONE) else {
            return;
        };
        if !self.dirs.prefix(parent, &mut path) {
            return;
        }
        path.extend_from_slice(name);
        let Ok(dir) = open_dir(self.trees[tree as usize].root.as_fd(), &path) else {
            return; // it moved on, and that will be read
        };
        let mask = kernel::MASK | libc::IN_MASK_ADD;
        match kernel::watch(self.queue(), dir.as_fd(), mask) {
            Ok(wd) if wd != id => {
                if self.dirs.get(wd).is_none() {
                    kernel::unwatch(self.queue(), wd);
                }
                self.blind(tree);
            }
            _ => {}
        }
    }

    /// Whether a move from this place was told of when a listing met the directory elsewhere. `to` is where this step
    /// of it led; where that is not its last, the next step is told of too.
    pub(super) fn was_ahead(&mut self, from: (i32, &[u8]), to: Option<(i32, &[u8])>) -> bool {
        let Some(id) = self.later.take_ahead(from.0, from.1) else {
            return false;
        };
        if let (Some(to), Some(now)) = (to, self.dirs.get(id)) {
            if (now.parent, &*now.name) != to {
                self.later.met_ahead(to.0, to.1, id);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_met_ahead_is_taken_once_and_the_oldest_first() {
        let mut later = Later::default();
        later.met_ahead(1, b"a", 7);
        later.met_ahead(1, b"a", 8);
        later.met_ahead(2, b"a", 9);
        assert_eq!(later.take_ahead(1, b"a"), Some(7));
        assert_eq!(later.take_ahead(1, b"a"), Some(8));
        assert_eq!(later.take_ahead(1, b"a"), None);
        assert_eq!(later.take_ahead(2, b"b"), None);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut later = Later::default();
        for id in 0..(AHEAD as i32 + 10) {
            later.met_ahead(id + 1, b"a", id + 1);
        }
        assert_eq!(later.ahead.len(), AHEAD);
        assert_eq!(later.take_ahead(1, b"a"), None);
    }
}
