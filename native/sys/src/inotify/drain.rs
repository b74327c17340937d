//! The taking side: turns queued records into events, keeps the known state, and carries out rescans in slices.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use shieldd_core::event::{flags, Event, Kind};
use shieldd_core::facts::Facts;

use super::dirs::NONE;
use super::kernel;
use super::known::{Change, Known, Stamp};
use super::pending::{Pending, Rec, Span};
use super::scan::{list, open_dir, stat_in};
use super::state::State;

/// Rows of one batch at most.
pub const ROWS: usize = 4096;
/// Time that one batch may take to look at its files.
const SLICE: Duration = Duration::from_millis(5);
/// Least time between two looks at directories that cannot be watched, and at roots that are gone.
const POLL: Duration = Duration::from_secs(1);
/// A poll or rescan may take this share of the time: 1 in so many.
const REST: u32 = 10;

/// Looks at one file; the caller decides how deep.
pub trait Observer {
    /// Fills `facts` for an event of a file. `path` and `from` are relative to `root`; `from` is empty but for renames.
    fn facts(
        &mut self,
        root: BorrowedFd<'_>,
        path: &[u8],
        from: &[u8],
        event: &Event,
        facts: &mut Facts,
    );
}

/// One batch, reused between calls.
#[derive(Default)]
pub struct Batch {
    /// Events in order.
    pub events: Vec<Event>,
    /// Facts, row by row.
    pub facts: Vec<Facts>,
    /// Arena of the names.
    pub names: Vec<u8>,
}

impl Batch {
    fn clear(&mut self) {
        self.events.clear();
        self.facts.clear();
        self.names.clear();
    }
}

/// A walk that compares directories with the known state.
struct Rescan {
    tree: u16,
    stack: Vec<i32>,
    whole: bool,
    found: u32,
    number: u32,
    busy: Duration,
}

/// The consumer's side.
pub(super) struct Drain {
    pub(super) current: Pending,
    at: usize,
    pub(super) known: Known,
    roots: Vec<OwnedFd>,
    seq: u64,
    renumbered: Vec<(i32, i32)>,
    walk: Option<Rescan>,
    walks: u32,
    rest_until: Instant,
    roots_at: Instant,
}

impl Drain {
    pub(super) fn new(roots: Vec<OwnedFd>, known: Known, capacity: usize) -> Self {
        Drain {
            current: Pending::new(capacity),
            at: 0,
            known,
            roots,
            seq: 0,
            renumbered: Vec::new(),
            walk: None,
            walks: 0,
            rest_until: Instant::now(),
            roots_at: Instant::now() + POLL,
        }
    }

    /// Whether records are left of what was taken.
    pub(super) fn has_rows(&self) -> bool {
        self.at < self.current.recs.len()
    }

    /// Records not yet handed out.
    pub(super) fn depth(&self) -> usize {
        self.current.recs.len() - self.at
    }

    /// Makes room for the next set; to be called while nobody waits for the state.
    pub(super) fn tidy(&mut self) {
        if !self.has_rows() {
            self.current.clear();
            self.at = 0;
        }
    }

    /// Takes what is due from the reader's side.
    pub(super) fn take(&mut self, state: &mut State, now_ns: u64, hold_ns: u64) {
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
                super::pending::hash(seed, dir, name)
            });
        self.at = 0;
        self.renumbered.append(&mut state.renumbered);
        for (tree, dir, path) in state.own.drain(..) {
            let name = path.rsplit(|&b| b == b'/').next().unwrap_or(&path);
            match stat_in(self.roots[tree as usize].as_fd(), &path) {
                Some(stat) => {
                    self.known.put(dir, name, Stamp::of(&stat), 0);
                }
                None => self.known.remove(dir, name),
            }
        }
        for notice in state.notices.drain(..) {
            let path = self.current.path(b"", &notice.path);
            let (at_ns, mono_ns) = kernel::clocks();
            self.current.recs.push(Rec {
                at_ns,
                mono_ns,
                path,
                from: Span::default(),
                dir: NONE,
                from_dir: NONE,
                merged: notice.count,
                epoch: 0,
                ops: 1 << notice.kind as u16,
                tree: notice.tree,
                kind: notice.kind,
                flags: 0,
                held: false,
            });
        }
    }

    /// Fills a batch from what was taken.
    pub(super) fn fill(
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

    fn row(
        &mut self,
        rec: &Rec,
        state: &Mutex<State>,
        batch: &mut Batch,
        observer: &mut Option<&mut dyn Observer>,
        looked: &mut u32,
    ) {
        let path = rec.path.of(&self.current.arena);
        if matches!(rec.kind, Kind::Create | Kind::Write | Kind::Attrib)
            && nameless(rec.path.name_of(&self.current.arena))
            && stat_in(self.roots[rec.tree as usize].as_fd(), path).is_none()
        {
            return;
        }
        self.seq += 1;
        let from = rec.from.of(&self.current.arena);
        let mut event = Event {
            seq: self.seq,
            at_ns: rec.at_ns,
            mono_ns: rec.mono_ns,
            actor: u64::from(rec.tree) + 1,
            path_off: batch.names.len() as u32,
            path_len: path.len() as u32,
            from_off: 0,
            from_len: from.len() as u32,
            merged: rec.merged,
            tree: rec.tree,
            ops: rec.ops,
            kind: rec.kind as u8,
            flags: rec.flags | if rec.held { flags::OPEN } else { 0 },
            uid: u32::MAX,
            ..Event::default()
        };
        batch.names.extend_from_slice(path);
        if !from.is_empty() {
            event.from_off = batch.names.len() as u32;
            batch.names.extend_from_slice(from);
        }
        let mut facts = Facts::default();
        let mut now = None;
        if matches!(
            rec.kind,
            Kind::Create | Kind::Write | Kind::Rename | Kind::Attrib | Kind::MakeDir
        ) {
            let root = self.roots[rec.tree as usize].as_fd();
            let mut moved = Vec::new();
            let mut stat = stat_in(root, path);
            let mut at = path;
            if stat.is_none()
                && renamed_above(
                    state,
                    rec,
                    path,
                    rec.path.name_of(&self.current.arena),
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
                    self.known.put(rec.dir, name, Stamp::of(&stat), 0);
                }
            }
            now = Some(at.to_vec()).filter(|_| !moved.is_empty());
        } else if rec.kind == Kind::Delete {
            self.known
                .remove(rec.dir, rec.path.name_of(&self.current.arena));
        }
        if let Some(observer) = observer.as_mut().filter(|_| !path.is_empty()) {
            let root = self.roots[rec.tree as usize].as_fd();
            let at = now.as_deref().unwrap_or(path);
            observer.facts(root, at, from, &event, &mut facts);
        }
        batch.events.push(event);
        batch.facts.push(facts);
    }

    /// Goes on with a walk, or begins one that is due. True where it put records into the current set.
    pub(super) fn work(&mut self, state: &Mutex<State>) -> bool {
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

    /// Looks, once a second, whether each root still stands under its path: a directory that somebody has open sends
    /// no event when it is removed, and none when one above it is renamed.
    pub(super) fn check_roots(&mut self, state: &Mutex<State>) {
        let now = Instant::now();
        if now < self.roots_at {
            return;
        }
        self.roots_at = now + POLL;
        for (tree, root) in self.roots.iter().enumerate() {
            let mut guard = super::lock(state);
            if guard.trees[tree].gone || guard.trees[tree].path.is_empty() {
                continue;
            }
            let there = rustix::fs::stat(guard.trees[tree].path.as_slice());
            let here = rustix::fs::fstat(root);
            let same = match (&there, &here) {
                (Ok(there), Ok(here)) => (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino),
                // not ours to say: the path may be closed to us while the descriptor is not
                (Err(Errno::ACCESS), Ok(here)) => here.st_nlink > 0,
                _ => false,
            };
            if !same {
                (guard.at_ns, guard.mono_ns) = kernel::clocks();
                guard.root_gone(tree as u16);
            }
        }
    }

    /// When the roots are looked at next.
    pub(super) fn roots_at(&self) -> Instant {
        self.roots_at
    }

    /// When a walk is worth waking for: in progress, or due after the rest.
    pub(super) fn next_work(&self, state: &State) -> Option<Instant> {
        if self.walk.is_some() {
            return Some(Instant::now());
        }
        let due = state.trees.iter().any(|t| t.rescan || t.gone) || state.dirs.unwatched() > 0;
        due.then_some(self.rest_until)
    }

    fn begin(&mut self, state: &Mutex<State>) {
        if Instant::now() < self.rest_until {
            return;
        }
        let mut guard = super::lock(state);
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
        self.roots[tree] = ours;
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
        let mut guard = super::lock(state);
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
        let (at_ns, mono_ns) = kernel::clocks();
        self.current.recs.push(Rec {
            at_ns,
            mono_ns,
            path,
            from: Span::default(),
            dir,
            from_dir: NONE,
            merged,
            epoch: 0,
            ops: 1 << kind as u16,
            tree,
            kind,
            flags: flags::SYNTHETIC,
            held: false,
        });
    }

    /// Compares one directory with what is known of it.
    fn compare(&mut self, state: &Mutex<State>, walk: &mut Rescan, mut id: i32) {
        let mut prefix = Vec::new();
        let mut guard = super::lock(state);
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
        let root = self.roots[tree as usize].as_fd();
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
                guard.follow(parent, &name);
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
        let whole_listing = list(dir.as_fd(), |name, kind| {
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
        let mut guard = super::lock(state);
        for name in below {
            if guard.dirs.child(guard.seed, id, &name).is_none() && guard.dirs.get(id).is_some() {
                walk.found += 1;
                guard.directory_record(Kind::MakeDir, id, &name, true);
                guard.follow(id, &name);
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

/// A directory above was renamed since the record: where the file is now.
#[cold]
fn renamed_above(
    state: &Mutex<State>,
    rec: &Rec,
    path: &[u8],
    name: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    if !super::lock(state).dirs.prefix(rec.dir, out) {
        return false;
    }
    out.extend_from_slice(name);
    out.as_slice() != path
}

/// Whether this is how the kernel speaks of an `O_TMPFILE` file (`#` and its inode number): it has no name, so nothing
/// under a name was changed; once it is linked it has a name and an event of its own.
fn nameless(name: &[u8]) -> bool {
    name.len() > 1 && name[0] == b'#' && name[1..].iter().all(u8::is_ascii_digit)
}

fn describe(event: &mut Event, stat: &Stat) {
    event.dev = stat.st_dev;
    event.ino = stat.st_ino;
    event.uid = stat.st_uid;
    event.mode = stat.st_mode;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if event.kind != Kind::MakeDir as u8 && kind != FileType::RegularFile {
        event.flags |= flags::SPECIAL;
    }
}
