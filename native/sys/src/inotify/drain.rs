//! The taking side: turns queued records into events, keeps the known state, and carries out rescans in slices.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use shieldd_core::event::{flags, Kind};

use super::kernel;
use super::known::{Change, Known, Stamp};
use super::state::State;
use crate::events::clocks;
use crate::events::dirs::NONE;
use crate::events::look::{list, open_dir, stat_in};
use crate::events::pending::{hash, Pending, Rec};
use crate::events::rows::{
    describe, moved_above, stands, Batch, Observer, Rows, POLL, REST, ROWS, SLICE,
};
use crate::events::taking::{lock, Side};

/// A walk that compares directories with the known state.
struct Rescan {
    tree: u16,
    stack: Vec<i32>,
    whole: bool,
    found: u32,
    number: u32,
    busy: Duration,
}

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

    fn begin(&mut self, state: &Mutex<State>) {
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

    fn finish(&mut self, state: &Mutex<State>, walk: &Rescan) {
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

    fn add(&mut self, tree: u16, kind: Kind, dir: i32, prefix: &[u8], name: &[u8], merged: u32) {
        let path = self.current.path(prefix, name);
        let mut rec = Rec::new(kind, tree, dir, path, clocks());
        rec.merged = merged;
        rec.flags = flags::SYNTHETIC;
        self.current.recs.push(rec);
    }

    /// Compares one directory with what is known of it.
    fn compare(&mut self, state: &Mutex<State>, walk: &mut Rescan, mut id: i32) {
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
