//! What happens to directories: it is told, and it changes where everything below is.

use shieldd_core::event::Kind;

use super::kernel::{self, Handle, Named};
use super::scope::OUTSIDE;
use super::state::{Dying, State};
use crate::events::dirs::NONE;
use crate::files::staged::is_own;

impl State {
    /// An event on a directory.
    #[cold]
    pub(super) fn directory(&mut self, raw: &Named<'_>) {
        let (Some((place, name)), Some(object)) = (raw.place, raw.object) else {
            return;
        };
        const NAMES: u64 = libc::FAN_CREATE | libc::FAN_DELETE | kernel::RENAME;
        if raw.mask & NAMES == 0 {
            return; // its mode or owner
        }
        if raw.mask & kernel::RENAME != 0 {
            return self.directory_moved(raw);
        }
        let id = self.place(place);
        if id < OUTSIDE {
            return self.elsewhere(id, raw);
        }
        let removed = raw.mask & libc::FAN_DELETE != 0;
        if removed {
            self.root_left(object);
        }
        if id == OUTSIDE {
            if removed {
                self.nobodys(object);
            } else {
                // told in order: what happens in it before it may come into a tree is nobody's
                self.scope.put(object.key, OUTSIDE);
            }
            return;
        }
        let quiet = self.is_ours(raw.pid);
        self.by(raw.pid);
        if raw.mask & libc::FAN_CREATE != 0 {
            self.came(id, name, object, quiet);
        }
        match (raw.mask & libc::FAN_CREATE != 0, removed) {
            (true, true) => self.dying.push(Dying {
                parent: id,
                name: name.into(),
                key: object.key.into(),
                who: self.who,
                quiet,
            }),
            (false, true) => self.removed(id, name, object, quiet),
            _ => {}
        }
    }

    fn is_ours(&mut self, pid: i32) -> bool {
        let ours = self.own_pids.contains(&pid);
        self.counters.own += u64::from(ours);
        ours
    }

    /// A directory that was a tree's root has lost its place.
    fn root_left(&mut self, object: Handle<'_>) {
        let Some(id) = self.scope.get(object.key).filter(|&id| id > 0) else {
            return;
        };
        let root = self.dirs.get(id).filter(|dir| dir.parent == NONE);
        if let Some(tree) = root.map(|dir| dir.tree) {
            self.root_gone(tree);
        }
    }

    /// A directory outside every tree is gone, with what waited for its place.
    fn nobodys(&mut self, object: Handle<'_>) {
        if let Some(id) = self.scope.get(object.key) {
            self.scope.remove(object.key);
            if id < OUTSIDE {
                // among what waited there may be removals of directories below, and files that moved into a tree
                self.scope.put(object.key, OUTSIDE);
                for held in self.limbo.leave(id) {
                    self.event(&held.named());
                }
                self.scope.remove(object.key);
            }
        }
    }

    /// A directory appeared in a known one; true where it is to be followed.
    fn came(&mut self, parent: i32, name: &[u8], object: Handle<'_>, quiet: bool) -> bool {
        self.bury(parent, name, object);
        if !self.enter(parent) {
            return false;
        }
        if is_own(name) || self.excluded(name, true) {
            self.scope.put(object.key, OUTSIDE);
            return false;
        }
        let known = self.scope.get(object.key).filter(|&id| id > 0);
        match known.filter(|&id| self.dirs.get(id).is_some()) {
            Some(id) => self.dirs.reparent(self.seed, id, parent, name),
            None => {
                self.settle(parent, object.key, name);
            }
        }
        if self.enter(parent) && !quiet && !self.announced(name, &[Kind::MakeDir], true) {
            self.directory_record(Kind::MakeDir, parent, name);
        }
        true
    }

    fn removed(&mut self, parent: i32, name: &[u8], object: Handle<'_>, quiet: bool) {
        if !self.enter(parent) {
            return;
        }
        let known = self.scope.get(object.key);
        match known {
            Some(OUTSIDE) => {
                self.scope.remove(object.key);
                return; // excluded
            }
            None if is_own(name) || self.excluded(name, true) => return,
            Some(id) if id < OUTSIDE => {
                let place = self.found(id, parent, name, object);
                self.dirs.remove(self.seed, place);
                if place == OUTSIDE {
                    self.scope.remove(object.key);
                    return;
                }
            }
            Some(id) => {
                self.dirs.remove(self.seed, id);
            }
            None => {}
        }
        self.scope.remove(object.key);
        if self.enter(parent) && !quiet && !self.announced(name, &[Kind::RemoveDir], true) {
            self.directory_record(Kind::RemoveDir, parent, name);
        }
        // a new directory of this name may follow: what comes into it must not be told before this
        self.pending.barrier();
    }

    /// The place of a directory in limbo became known: what waited for that happens there.
    fn found(&mut self, id: i32, parent: i32, name: &[u8], object: Handle<'_>) -> i32 {
        let place = self.settle(parent, object.key, name);
        for held in self.limbo.leave(id) {
            self.event(&held.named());
        }
        place
    }

    /// A directory whose removal was told with its creation: all that happened in it has been read.
    pub(super) fn dies(&mut self, last: Dying) {
        let who = std::mem::replace(&mut self.who, last.who);
        self.removed(
            last.parent,
            &last.name,
            Handle { key: &last.key },
            last.quiet,
        );
        self.who = who;
    }

    /// Another directory takes the name of one that is known to be gone: that is told first.
    fn bury(&mut self, parent: i32, name: &[u8], object: Handle<'_>) {
        while let Some(at) = self
            .dying
            .iter()
            .rposition(|d| d.parent == parent && *d.name == *name && *d.key != *object.key)
        {
            // those below it were made after it
            let below = self.dying.split_off(at);
            for last in below.into_iter().rev() {
                self.dies(last);
            }
        }
    }

    fn directory_moved(&mut self, raw: &Named<'_>) {
        let (Some((from, old_name)), Some((to, name)), Some(object)) =
            (raw.place, raw.to, raw.object)
        else {
            return;
        };
        let (from, to) = (self.place(from), self.place(to));
        if from < OUTSIDE || to < OUTSIDE {
            return self.elsewhere(if from < OUTSIDE { from } else { to }, raw);
        }
        self.root_left(object);
        if from <= 0 && to <= 0 {
            return;
        }
        let quiet = self.is_ours(raw.pid);
        self.by(raw.pid);
        let seen = from > 0 && self.enter(from) && !is_own(old_name);
        let seen = seen && !self.excluded(old_name, true);
        let from_tree = self.here.tree;
        let shown = to > 0 && self.enter(to) && !is_own(name) && !self.excluded(name, true);
        if seen && shown && from_tree == self.here.tree {
            return self.directory_renamed(from, old_name, to, raw, quiet);
        }
        if seen {
            self.removed(from, old_name, object, quiet);
        }
        if shown {
            // directories below were outside, or in another tree
            self.scope.doubt_outside();
            if self.came(to, name, object, quiet) {
                self.arrives(object);
            }
        } else if to > 0 {
            self.scope.put(object.key, OUTSIDE); // excluded there
        }
    }

    /// What is in a directory is to be told.
    fn arrives(&mut self, object: Handle<'_>) {
        let id = self.place(object);
        self.arrived.push(id);
        self.untold.push(id);
    }

    /// Whether a directory lies in one that came from outside and was not looked into yet.
    fn is_untold(&self, mut id: i32) -> bool {
        while !self.untold.is_empty() && id != NONE {
            if self.untold.contains(&id) {
                return true;
            }
            id = self.dirs.get(id).map_or(NONE, |dir| dir.parent);
        }
        false
    }

    fn directory_renamed(
        &mut self,
        from: i32,
        old_name: &[u8],
        to: i32,
        raw: &Named<'_>,
        quiet: bool,
    ) {
        let (Some((_, name)), Some(object)) = (raw.to, raw.object) else {
            return;
        };
        self.bury(to, name, object);
        let untold = self.is_untold(from);
        let mut above = Vec::new();
        let known = self.dirs.prefix(from, &mut above);
        let id = match self.scope.get(object.key) {
            Some(id) if id < OUTSIDE => Some(self.found(id, from, old_name, object)),
            other => other,
        };
        let id = id.filter(|&id| id > 0 && self.dirs.get(id).is_some());
        if let Some(over) = self.dirs.child(self.seed, to, name) {
            if Some(over) != id {
                self.dirs.remove(self.seed, over); // an empty directory was replaced
            }
        }
        match id {
            Some(id) => self.dirs.reparent(self.seed, id, to, name),
            None => {
                self.settle(to, object.key, name);
            }
        }
        if known
            && self.enter(to)
            && !quiet
            && !self.announced(name, &[Kind::RenameDir, Kind::Rename], true)
        {
            if self.pending.is_full() {
                self.lose(self.here.tree, 1);
            } else {
                let path = self.pending.path(&self.here.prefix, name);
                let mut rec = self.record(Kind::RenameDir, to, path);
                rec.from = self.pending.path(&above, old_name);
                rec.from_dir = from;
                rec.merged = 2;
                self.pending.push_alone(rec);
            }
        }
        self.pending.barrier();
        if untold && self.enter(to) {
            // under its old name perhaps nobody was told of it
            self.directory_record(Kind::MakeDir, to, name);
            self.arrives(object);
        }
    }

    /// Reports something about a directory; nothing merges into it.
    fn directory_record(&mut self, kind: Kind, dir: i32, name: &[u8]) {
        if self.pending.is_full() {
            return self.lose(self.here.tree, 1);
        }
        let key = self.key(dir, name);
        let path = self.pending.path(&self.here.prefix, name);
        let rec = self.record(kind, dir, path);
        self.pending.push(key, rec);
    }
}
