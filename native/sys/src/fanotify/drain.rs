//! The taking side: turns queued records into events, and walks.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use shieldd_core::event::{flags, Kind};

use super::doubts::Doubts;
use super::mounts;
use super::state::State;
use super::walk::{Arrived, Walk};
use crate::events::clocks;
use crate::events::dirs::NONE;
use crate::events::look::stat_in;
use crate::events::pending::{hash, Pending, Rec};
use crate::events::rows::{
    describe, moved_above, stands, Batch, Observer, Rows, POLL, REST, ROWS, SLICE,
};
use crate::events::taking::{lock, Side};

/// How often a directory that came and moved on is looked into, and how long is waited in between.
const TRIES: u32 = 8;
const AGAIN: Duration = Duration::from_millis(30);

/// The consumer's side.
pub(super) struct Drain {
    current: Pending,
    at: usize,
    rows: Rows,
    doubts: Doubts,
    walk: Option<Walk>,
    arrived: VecDeque<Arrived>,
    /// When the first of them is to be looked into.
    arrived_at: Instant,
    rest_until: Instant,
    roots_at: Instant,
}

impl Drain {
    pub(super) fn new(roots: Vec<OwnedFd>, capacity: usize) -> Self {
        Drain {
            current: Pending::new(capacity),
            at: 0,
            rows: Rows::new(roots),
            doubts: Doubts::default(),
            walk: None,
            arrived: VecDeque::new(),
            arrived_at: Instant::now(),
            rest_until: Instant::now(),
            roots_at: Instant::now() + POLL,
        }
    }

    /// Records not yet handed out.
    pub(super) fn depth(&self) -> usize {
        self.current.recs.len() - self.at
    }

    fn row(
        &mut self,
        rec: &Rec,
        state: &Mutex<State>,
        batch: &mut Batch,
        observer: &mut Option<&mut dyn Observer>,
    ) -> bool {
        if self.rows.is_nameless(rec, &self.current.arena) {
            return false;
        }
        let path = rec.path.of(&self.current.arena);
        let from = rec.from.of(&self.current.arena);
        let mut event = self.rows.event(rec, &self.current.arena, batch);
        let mut now = None;
        let looks = match rec.kind {
            Kind::Create | Kind::Write | Kind::Rename | Kind::Attrib | Kind::MakeDir => true,
            Kind::Delete => rec.unsure, // it may have been made again (by a link)
            _ => false,
        };
        if looks {
            let root = self.rows.root(rec.tree);
            let mut stat = stat_in(root, path);
            if stat.is_none() && rec.kind != Kind::Delete {
                let name = rec.path.name_of(&self.current.arena);
                let mut moved = Vec::new();
                if moved_above(&lock(state).dirs, rec.dir, name, path, &mut moved) {
                    stat = stat_in(root, &moved);
                    now = Some(moved);
                }
            }
            if let Some(stat) = stat {
                if rec.kind == Kind::Delete {
                    event.kind = Kind::Create as u8;
                }
                describe(&mut event, &stat);
                let grown = rec.kind == Kind::Create && event.flags & flags::SYNTHETIC != 0;
                if grown && stat.st_size > 0 {
                    event.ops |= 1 << Kind::Write as u16;
                }
            }
            if rec.kind != Kind::MakeDir {
                let there = event.kind != Kind::Delete as u8;
                self.doubts.told(rec, path, there, stat.is_some());
            }
        } else if rec.kind == Kind::Delete {
            self.doubts.told(rec, path, false, false);
        }
        if rec.kind != Kind::RenameDir && rec.from.len > 0 {
            // an exchange gives the old name another file
            let there =
                rec.kind == Kind::Rename && stat_in(self.rows.root(rec.tree), from).is_some();
            let old = Rec {
                dir: rec.from_dir,
                ..*rec
            };
            self.doubts.told(&old, from, false, there);
        }
        let at = now.as_deref().unwrap_or(path);
        self.rows.add(event, (path, from, at), batch, observer);
        looks
    }

    /// Begins the walk that is most wanted: into what arrived, then after a gap.
    fn begin(&mut self, state: &Mutex<State>) {
        let mut guard = lock(state);
        let new = guard.arrived.drain(..).map(|id| Arrived { id, tries: 0 });
        self.arrived.extend(new);
        while self.arrived_at <= Instant::now() {
            let Some(one) = self.arrived.pop_front() else {
                break;
            };
            let mut path = Vec::new();
            let tree = guard.dirs.get(one.id).map(|dir| dir.tree);
            if let Some(tree) = tree.filter(|_| guard.dirs.prefix(one.id, &mut path)) {
                self.walk = Some(Walk::of_directory(tree, path, one));
                return;
            }
            guard.untold.retain(|&id| id != one.id);
        }
        if Instant::now() < self.rest_until {
            return;
        }
        for tree in 0..guard.trees.len() {
            if guard.trees[tree].gone {
                self.come_back(&mut guard, tree);
            }
        }
        let Some(number) = guard.trees.iter().position(|t| t.rescan && !t.gone) else {
            self.rest_until = Instant::now() + POLL;
            return;
        };
        let tree = &mut guard.trees[number];
        tree.rescan = false;
        let all = std::mem::take(&mut tree.all);
        self.walk = Some(Walk::of_tree(number as u16, tree.blind_since_ns, all));
    }

    /// A root that went away is looked for under its path; its file system is marked, and what is there is reported.
    fn come_back(&mut self, state: &mut State, tree: usize) {
        use rustix::fs::{Mode, OFlags};
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = state.trees[tree].path.clone();
        let Ok(root) = rustix::fs::open(path.as_slice(), how, Mode::empty()) else {
            return;
        };
        let Ok(ours) = root.try_clone() else { return };
        if let Err(error) = mounts::mark(&state.group, std::os::fd::AsFd::as_fd(&root), &path) {
            state.counters.failures += 1;
            state.trees[tree].why = error.to_string();
            return;
        }
        state.trees[tree].root = root;
        self.rows.roots[tree] = ours;
        if state.root_back(tree as u16) {
            state.trees[tree].rescan = true;
        }
    }

    fn finish(&mut self, state: &Mutex<State>, walk: &Walk) {
        if !walk.whole {
            if walk.missed {
                self.again(state, walk);
            } else {
                lock(state).untold.retain(|&id| id != walk.of.id);
            }
            return;
        }
        self.rest_until = Instant::now() + walk.busy * REST;
        let mut guard = lock(state);
        guard.counters.rescans += 1;
        let tree = &mut guard.trees[walk.tree as usize];
        if !tree.rescan && !tree.gone {
            tree.blind_since_ns = 0;
        }
        drop(guard);
        let path = self.current.path(b"", b"");
        let mut rec = Rec::new(Kind::RescanDone, walk.tree, NONE, path, clocks());
        rec.merged = walk.found;
        self.current.recs.push(rec);
    }
}

impl Drain {
    /// A directory moved while it was looked into, perhaps the one that came itself: once its move was read, again.
    fn again(&mut self, state: &Mutex<State>, walk: &Walk) {
        let Arrived { id, tries } = walk.of;
        if tries < TRIES {
            self.arrived_at = Instant::now() + AGAIN;
            let tries = tries + 1;
            return self.arrived.push_back(Arrived { id, tries });
        }
        let mut guard = lock(state);
        guard.untold.retain(|&one| one != id);
        if guard.dirs.get(id).is_some() {
            guard.lose(walk.tree, 1);
            guard.trees[walk.tree as usize].all = true;
        }
    }
}

impl Side<State> for Drain {
    fn has_rows(&self) -> bool {
        self.at < self.current.recs.len()
    }

    fn tidy(&mut self) {
        if !self.has_rows() {
            self.current.clear();
            self.at = 0;
        }
    }

    fn take(&mut self, state: &mut State, now_ns: u64, hold_ns: u64) {
        let seed = state.seed;
        state
            .pending
            .take(&mut self.current, now_ns, hold_ns, |dir, name| {
                hash(seed, dir, name)
            });
        state.last_move = None;
        self.at = 0;
        self.current.tell(&mut state.notices);
    }

    fn fill(
        &mut self,
        state: &Mutex<State>,
        batch: &mut Batch,
        mut observer: Option<&mut dyn Observer>,
    ) {
        batch.clear();
        let end = self.current.recs.len().min(self.at + ROWS);
        let began = Instant::now();
        let mut looked = 0u32;
        while self.at < end {
            let rec = self.current.recs[self.at];
            self.at += 1;
            looked += u32::from(self.row(&rec, state, batch, &mut observer));
            if looked >= 32 {
                looked = 0;
                if began.elapsed() > SLICE {
                    break;
                }
            }
        }
    }

    fn check_roots(&mut self, state: &Mutex<State>) {
        let now = Instant::now();
        if now < self.roots_at {
            return;
        }
        self.roots_at = now + POLL;
        for (tree, root) in self.rows.roots.iter().enumerate() {
            let mut guard = lock(state);
            if !guard.trees[tree].gone && !stands(&guard.trees[tree].path, root) {
                (guard.at_ns, guard.mono_ns) = clocks();
                guard.root_gone(tree as u16);
            }
        }
    }

    fn roots_at(&self) -> Instant {
        self.roots_at
    }

    fn next_work(&self, state: &State) -> Option<Instant> {
        if self.walk.is_some() || !state.arrived.is_empty() {
            return Some(Instant::now());
        }
        if !self.arrived.is_empty() {
            return Some(self.arrived_at);
        }
        let due = state.trees.iter().any(|t| t.rescan || t.gone);
        let walk = due.then_some(self.rest_until);
        walk.into_iter().chain(self.doubts.due()).min()
    }

    fn work(&mut self, state: &Mutex<State>) -> bool {
        self.current.clear();
        self.at = 0;
        self.doubts
            .judge(&lock(state), &self.rows, &mut self.current);
        if self.walk.is_none() {
            self.begin(state);
        }
        let Some(mut walk) = self.walk.take() else {
            return self.has_rows();
        };
        let guard = lock(state);
        let globs = guard.trees[walk.tree as usize].globs.clone();
        let others: Vec<(u64, u64)> = guard
            .trees
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != walk.tree as usize)
            .map(|(_, t)| (t.dev, t.ino))
            .collect();
        drop(guard);
        let until = Instant::now() + SLICE;
        let enough = |out: &Pending| out.recs.len() >= ROWS || Instant::now() > until;
        if walk.go_on(&self.rows, &globs, &others, &mut self.current, enough) {
            self.finish(state, &walk);
        } else {
            self.walk = Some(walk);
        }
        self.has_rows()
    }
}
