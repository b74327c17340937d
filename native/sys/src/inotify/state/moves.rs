//! Moves: the kernel tells them in two halves, which may come apart, or one of which may never come.

use shieldd_core::event::Kind;

use super::State;
use crate::events::dirs::NONE;
use crate::events::pending::{Renamed, Span};
use crate::inotify::kernel::Raw;

/// How long the second half of a move may take, ns. The kernel queues both at once; only a preempted writer parts them,
/// and what is told then is mended when the other half comes.
const MOVE_WAIT_NS: u64 = 20_000_000;

/// First half of a move.
pub(super) struct Move {
    cookie: u32,
    dir: i32,
    tree: u16,
    at_ns: u64,
    name: (u32, u16),
    directory: bool,
    /// One of our own names or an excluded one: its arrival is a creation.
    unseen: bool,
}

impl State {
    pub(super) fn departs(&mut self, raw: &Raw<'_>, unseen: bool) {
        let directory = raw.mask & libc::IN_ISDIR != 0;
        if directory {
            self.later.forget(raw.wd, raw.name);
        }
        let unseen = unseen || self.excluded(raw.name, directory);
        let off = self.move_names.len() as u32;
        self.move_names.extend_from_slice(raw.name);
        self.moves.push(Move {
            cookie: raw.cookie,
            dir: raw.wd,
            tree: self.here.tree,
            at_ns: self.mono_ns,
            name: (off, raw.name.len() as u16),
            directory,
            unseen,
        });
    }

    pub(super) fn take_move(&mut self, cookie: u32) -> Option<Move> {
        let at = self.moves.iter().rposition(|m| m.cookie == cookie)?;
        Some(self.moves.remove(at))
    }

    fn move_name(&self, from: &Move) -> Box<[u8]> {
        let at = from.name.0 as usize;
        self.move_names[at..at + from.name.1 as usize].into()
    }

    /// Whether something is due soon though no event comes: the second half of a move, a directory to be met.
    pub(in crate::inotify) fn is_waiting(&self) -> bool {
        !self.moves.is_empty() || !self.later.is_empty()
    }

    /// A file took a new name inside the trees, or came from outside.
    pub(super) fn arrives(&mut self, raw: &Raw<'_>) {
        let from = self.take_move(raw.cookie);
        self.taken_again(raw.wd, raw.name);
        let hidden = self.excluded(raw.name, false);
        let Some(from) = from else {
            if !hidden {
                self.moved_in(raw);
            }
            return;
        };
        if from.unseen || from.tree != self.here.tree || hidden {
            if !from.unseen {
                self.ended_move(&from);
            }
            if !hidden && self.enter(raw.wd) {
                self.moved_in(raw);
            }
            self.tidy_moves();
            return;
        }
        if self.announced(raw.name, &[Kind::Rename, Kind::Create], true) {
            return self.tidy_moves();
        }
        let at = from.name.0 as usize;
        let names = std::mem::take(&mut self.move_names);
        let old_name = &names[at..at + from.name.1 as usize];
        self.renamed(&from, old_name, raw);
        self.move_names = names;
        self.tidy_moves();
    }

    fn tidy_moves(&mut self) {
        if self.moves.is_empty() {
            self.move_names.clear();
        }
    }

    fn moved_in(&mut self, raw: &Raw<'_>) {
        if self.announced(raw.name, &[Kind::Create, Kind::Rename], true) {
            return;
        }
        if !self.scanned.is_empty() && self.was_scanned(raw.wd, raw.name) {
            return;
        }
        self.operation(raw.wd, raw.name, Kind::Create, Some(false), true);
    }

    fn renamed(&mut self, from: &Move, old_name: &[u8], raw: &Raw<'_>) {
        let old = self.key(from.dir, old_name);
        let new = self.key(raw.wd, raw.name);
        let mut above = std::mem::take(&mut self.scratch);
        let known = self.dirs.prefix(from.dir, &mut above);
        let rec = self.record(Kind::Rename, self.here.tree, raw.wd, Span::default());
        let from = (known.then_some(above.as_slice()), old);
        let what = self.pending.renamed(rec, from, (&self.here.prefix, new));
        self.scratch = above;
        match what {
            Renamed::Carried(_) => self.counters.merged += 2,
            Renamed::Added(_) => self.counters.merged += 1,
            Renamed::Full => self.lose(self.here.tree),
        }
    }

    /// The second half did not come, or went where we do not look: the name is gone.
    pub(super) fn ended_move(&mut self, from: &Move) {
        if from.unseen || !self.enter(from.dir) {
            return;
        }
        let name = self.move_name(from);
        if from.directory {
            let known = self.dirs.child(self.seed, from.dir, &name);
            if known.is_some() || !self.was_ahead((from.dir, &name), None) {
                self.directory_gone(from.dir, &name);
            }
        } else if !self.announced(&name, &[Kind::Delete, Kind::Rename], true) {
            self.operation(from.dir, &name, Kind::Delete, Some(false), true);
        }
    }

    /// A name that something moved away from is in use again: whatever left went out of our sight.
    pub(super) fn taken_again(&mut self, dir: i32, name: &[u8]) {
        if self.moves.is_empty() {
            return;
        }
        let names = &self.move_names;
        let same = |m: &Move| {
            let at = m.name.0 as usize;
            m.dir == dir && &names[at..at + m.name.1 as usize] == name
        };
        if let Some(at) = self.moves.iter().position(same) {
            let from = self.moves.remove(at);
            self.ended_move(&from);
            self.enter(dir);
        }
    }

    pub(in crate::inotify) fn expire_moves(&mut self) {
        while let Some(first) = self.moves.first() {
            if self.mono_ns.saturating_sub(first.at_ns) < MOVE_WAIT_NS {
                return;
            }
            let from = self.moves.remove(0);
            self.ended_move(&from);
        }
        self.tidy_moves();
    }

    pub(super) fn directory_arrives(&mut self, raw: &Raw<'_>) {
        let from = self.take_move(raw.cookie);
        self.taken_again(raw.wd, raw.name);
        let hidden = self.excluded(raw.name, true);
        let Some(from) = from else {
            if !hidden {
                self.directory_came(raw.wd, raw.name);
            }
            return;
        };
        if from.unseen || hidden || from.tree != self.here.tree {
            self.ended_move(&from);
            if !hidden && self.enter(raw.wd) {
                self.directory_came(raw.wd, raw.name);
            }
        } else {
            let old_name = self.move_name(&from);
            self.directory_renamed(&from, &old_name, raw);
        }
        self.tidy_moves();
    }

    fn directory_renamed(&mut self, from: &Move, old_name: &[u8], raw: &Raw<'_>) {
        let known = self.dirs.child(self.seed, from.dir, old_name);
        let over = self.dirs.child(self.seed, raw.wd, raw.name);
        let mut prefix = Vec::new();
        self.dirs.prefix(from.dir, &mut prefix);
        if known.is_none() && self.was_ahead((from.dir, old_name), Some((raw.wd, raw.name))) {
            return;
        }
        if let Some(id) = known {
            if let Some(over) = over.filter(|&over| over != id) {
                self.forget(over); // an empty directory was replaced
            }
            self.dirs.reparent(self.seed, id, raw.wd, raw.name);
            self.check_moved(id, raw.wd, raw.name);
        }
        self.directory_moved(known.unwrap_or(NONE), (&prefix, old_name), raw.wd, raw.name);
        if known.is_none() && over.is_none() {
            self.follow(raw.wd, raw.name, true); // it was moved on before it could be opened under its first name
        }
    }

    /// Reports that a directory, `NONE` where it is not known, has a new name.
    pub(in crate::inotify) fn directory_moved(
        &mut self,
        id: i32,
        (prefix, old_name): (&[u8], &[u8]),
        parent: i32,
        name: &[u8],
    ) {
        if self.enter(parent) && !self.announced(name, &[Kind::RenameDir, Kind::Rename], true) {
            if self.pending.is_full() {
                self.lose(self.here.tree);
            } else {
                let path = self.pending.path(&self.here.prefix, name);
                let span = self.pending.path(prefix, old_name);
                let mut rec = self.record(Kind::RenameDir, self.here.tree, parent, path);
                rec.from = span;
                // the directory itself: what is known of the files below it goes with its name
                rec.from_dir = id;
                rec.merged = 2;
                self.pending.push_alone(rec);
            }
        }
        self.pending.barrier();
    }
}
