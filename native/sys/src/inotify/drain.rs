//! The taking side: turns queued records into events and keeps the known state; rescans take turns with that.

mod rescan;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use shieldd_core::event::{flags, Kind};

use super::known::{Known, Stamp};
use super::state::State;
use crate::events::clocks;
use crate::events::dirs::NONE;
use crate::events::look::stat_in;
use crate::events::pending::{hash, Pending, Rec};
use crate::events::rows::{
    describe, moved_above, stands, Batch, Observer, Rows, POLL, ROWS, SLICE,
};
use crate::events::taking::{lock, Side};

use rescan::Rescan;

/// A file that was cut short by somebody who has not closed it: `truncate(2)` never will, so after so long without
/// another change it is looked at as it is.
const CUT: Duration = Duration::from_secs(2);
/// So many of them at a time.
const CUTS: usize = 65_536;

/// Files by directory and name, each with when it is due and its tree.
type Cuts = HashMap<(i32, Box<[u8]>), (Instant, u16)>;

/// The consumer's side.
pub(super) struct Drain {
    pub(super) current: Pending,
    at: usize,
    pub(super) known: Known,
    rows: Rows,
    renumbered: Vec<(i32, i32)>,
    cuts: Cuts,
    walk: Option<Rescan>,
    walks: u32,
    rest_until: Instant,
    roots_at: Instant,
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
        for (old, new) in self.renumbered.drain(..) {
            if new == NONE {
                self.known.remove_dir(old);
            } else {
                self.known.rekey(old, new);
            }
        }
        let seed = state.seed;
        state
            .pending
            .take(&mut self.current, now_ns, hold_ns, |dir, name| {
                hash(seed, dir, name)
            });
        self.at = 0;
        self.renumbered.append(&mut state.renumbered);
        for (tree, dir, path) in state.own.drain(..) {
            let name = path.rsplit(|&b| b == b'/').next().unwrap_or(&path);
            match stat_in(self.rows.root(tree), &path) {
                Some(stat) => {
                    self.known.put(dir, name, Stamp::of(&stat), 0);
                }
                None => self.known.remove(dir, name),
            }
        }
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
            self.row(&rec, state, batch, &mut observer, &mut looked);
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
        if self.walk.is_some() {
            return Some(Instant::now());
        }
        let due = state.trees.iter().any(|t| t.rescan || t.gone) || state.dirs.unwatched() > 0;
        let cut = self.cuts.values().map(|(at, _)| *at).min();
        let walk = due.then_some(self.rest_until);
        [cut, walk].into_iter().flatten().min()
    }

    fn work(&mut self, state: &Mutex<State>) -> bool {
        if self.cuts_due(state) {
            return true;
        }
        if self.walk.is_none() {
            self.begin(state);
        }
        let Some(mut walk) = self.walk.take() else {
            return false;
        };
        self.current.recs.clear();
        self.current.arena.clear();
        self.at = 0;
        let began = Instant::now();
        while let Some(id) = walk.stack.pop() {
            self.compare(state, &mut walk, id);
            if self.current.recs.len() >= ROWS || began.elapsed() > SLICE {
                break;
            }
        }
        walk.busy += began.elapsed();
        if walk.stack.is_empty() {
            self.finish(state, &walk);
        } else {
            self.walk = Some(walk);
        }
        self.has_rows()
    }
}

impl Drain {
    pub(super) fn new(roots: Vec<OwnedFd>, known: Known, capacity: usize) -> Self {
        Drain {
            current: Pending::new(capacity),
            at: 0,
            known,
            rows: Rows::new(roots),
            renumbered: Vec::new(),
            cuts: HashMap::new(),
            walk: None,
            walks: 0,
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
        looked: &mut u32,
    ) {
        if self.rows.is_nameless(rec, &self.current.arena) {
            return;
        }
        let path = rec.path.of(&self.current.arena);
        let from = rec.from.of(&self.current.arena);
        let mut event = self.rows.event(rec, &self.current.arena, batch);
        let mut now = None;
        if matches!(
            rec.kind,
            Kind::Create | Kind::Write | Kind::Rename | Kind::Attrib | Kind::MakeDir
        ) {
            let root = self.rows.root(rec.tree);
            let mut moved = Vec::new();
            let mut stat = stat_in(root, path);
            let mut at = path;
            if stat.is_none()
                && moved_above(
                    &lock(state).dirs,
                    rec.dir,
                    rec.path.name_of(&self.current.arena),
                    path,
                    &mut moved,
                )
            {
                at = &moved;
                stat = stat_in(root, at);
            }
            *looked += 1;
            if let Some(stat) = stat {
                describe(&mut event, &stat);
            }
            if rec.kind != Kind::MakeDir {
                let name = rec.path.name_of(&self.current.arena);
                if rec.kind == Kind::Rename {
                    if self.known.has(rec.dir, name) {
                        event.flags |= flags::OVER;
                    }
                    self.known
                        .remove(rec.from_dir, rec.from.name_of(&self.current.arena));
                }
                if let Some(stat) = stat {
                    if event.flags & flags::SYNTHETIC != 0
                        && rec.kind == Kind::Create
                        && stat.st_size > 0
                    {
                        event.ops |= 1 << Kind::Write as u16;
                    }
                    let before = self.known.size(rec.dir, name).unwrap_or(0);
                    self.known.put(rec.dir, name, Stamp::of(&stat), 0);
                    let cut = (stat.st_size as u64) < before;
                    note_cut(&mut self.cuts, rec, name, cut);
                }
            }
            now = Some(at.to_vec()).filter(|_| !moved.is_empty());
        } else if rec.kind == Kind::Delete {
            self.known
                .remove(rec.dir, rec.path.name_of(&self.current.arena));
        }
        let at = now.as_deref().unwrap_or(path);
        self.rows.add(event, (path, from, at), batch, observer);
        if rec.kind == Kind::RenameDir && rec.from_dir != NONE {
            self.carry_below(rec, state, observer);
        }
    }

    /// What is known of the files below a renamed directory goes with its name.
    fn carry_below(
        &self,
        rec: &Rec,
        state: &Mutex<State>,
        observer: &mut Option<&mut dyn Observer>,
    ) {
        let Some(observer) = observer.as_mut() else {
            return;
        };
        let dirs = lock(state).dirs.below(rec.from_dir);
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for (id, below) in dirs {
            for name in self.known.names(id) {
                for (out, top) in [(&mut from, rec.from), (&mut to, rec.path)] {
                    out.clear();
                    out.extend_from_slice(top.of(&self.current.arena));
                    out.push(b'/');
                    out.extend_from_slice(&below);
                    out.extend_from_slice(&name);
                }
                observer.moved(rec.tree, &from, &to);
            }
        }
    }

    /// Puts a write into the current set for each file that was cut short and then left alone.
    fn cuts_due(&mut self, state: &Mutex<State>) -> bool {
        let now = Instant::now();
        if !self.cuts.values().any(|(at, _)| *at <= now) {
            return false;
        }
        let mut due = Vec::new();
        self.cuts.retain(|(dir, name), (at, tree)| {
            let over = *at <= now;
            if over {
                due.push((*tree, *dir, name.clone()));
            }
            !over
        });
        self.current.clear();
        self.at = 0;
        let mut prefix = Vec::new();
        for (tree, dir, name) in due {
            if lock(state).dirs.prefix(dir, &mut prefix) {
                self.add(tree, Kind::Write, dir, &prefix, &name, 1);
                if let Some(last) = self.current.recs.last_mut() {
                    last.flags = 0;
                }
            }
        }
        self.has_rows()
    }

    fn add(&mut self, tree: u16, kind: Kind, dir: i32, prefix: &[u8], name: &[u8], merged: u32) {
        let path = self.current.path(prefix, name);
        let mut rec = Rec::new(kind, tree, dir, path, clocks());
        rec.merged = merged;
        rec.flags = flags::SYNTHETIC;
        self.current.recs.push(rec);
    }
}

/// Remembers a file that was cut short under an open descriptor, until it is closed or changed no more.
fn note_cut(cuts: &mut Cuts, rec: &Rec, name: &[u8], cut: bool) {
    if rec.kind != Kind::Write || (!cut && cuts.is_empty()) {
        return;
    }
    let key = (rec.dir, Box::from(name));
    if !rec.held {
        cuts.remove(&key);
    } else if cut && cuts.len() < CUTS || cuts.contains_key(&key) {
        cuts.insert(key, (Instant::now() + CUT, rec.tree));
    }
}
