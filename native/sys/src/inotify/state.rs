//! What the reader keeps: trees, watch table, queue, open moves; and how each kernel event changes them.

mod moves;

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use shieldd_core::event::{flags, Kind};

use super::kernel::{self, Raw, Records};
use super::later::Later;
use crate::events::dirs::{Dirs, Table, NONE};
use crate::events::expect::Expected;
use crate::events::pending::{hash, Key, Pending, Rec, Span, Touch};
use crate::events::taking::Front;
use crate::events::{clocks, Globs, Notice};
use crate::files::staged::is_own;

use moves::Move;

/// Own operations whose outcome waits for the known state; beyond it a rescan would report them.
const OWN: usize = 65_536;

/// A guarded tree.
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) path: Vec<u8>,
    pub(super) globs: Globs,
    pub(super) id: i32,
    pub(super) gone: bool,
    /// A rescan of the whole tree is due.
    pub(super) rescan: bool,
    /// `CLOCK_REALTIME` since when something may have been missed, 0 where nothing was.
    pub(super) blind_since_ns: u64,
}

/// Names that a scan reported and whose own events may still be in the queue.
pub(super) struct Scanned {
    pub(super) names: HashSet<Box<[u8]>>,
    /// Total of bytes read by when all events from before the scan have been seen.
    pub(super) until: u64,
}

/// Counts since the start.
#[derive(Default, Clone, Copy)]
pub(super) struct Counters {
    pub(super) events: u64,
    pub(super) merged: u64,
    pub(super) overflows: u64,
    pub(super) lost: u64,
    pub(super) watch_failures: u64,
    pub(super) rescans: u64,
    pub(super) reads: u64,
}

/// The directory that the last event was in.
#[derive(Default)]
struct Here {
    id: i32,
    moves: u64,
    tree: u16,
    prefix: Vec<u8>,
}

pub(super) struct State {
    pub(super) queue: Arc<OwnedFd>,
    pub(super) seed: u64,
    pub(super) trees: Vec<Tree>,
    pub(super) dirs: Dirs,
    pub(super) pending: Pending,
    pub(super) expected: Expected,
    pub(super) counters: Counters,
    pub(super) notices: Vec<Notice>,
    /// Own operations that were dropped (tree, directory, path): the known state takes their outcome in silence.
    pub(super) own: Vec<(u16, i32, Vec<u8>)>,
    /// Directories that went away (`NONE`) or got another id, for whoever keeps something by their id.
    pub(super) renumbered: Vec<(i32, i32)>,
    /// Errors behind directories without a watch.
    pub(super) unwatched: Table<i32, i32>,
    /// Places inside a tree that are not followed.
    pub(super) left_out: Vec<(u16, Vec<u8>, &'static str)>,
    pub(super) scanned: Table<i32, Scanned>,
    pub(super) bytes_read: u64,
    /// `bytes_read` when the read began that is being applied.
    began_at: u64,
    pub(super) at_ns: u64,
    pub(super) mono_ns: u64,
    /// Somebody waits for records.
    pub(super) waiting: bool,
    pub(super) later: Later,
    moves: Vec<Move>,
    move_names: Vec<u8>,
    here: Here,
    scratch: Vec<u8>,
}

impl Front for State {
    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn is_idle(&self) -> bool {
        self.notices.is_empty() && self.own.is_empty()
    }

    fn wants_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    fn wait(&mut self, waiting: bool) {
        self.waiting = waiting;
    }

    fn expected(&mut self) -> &mut Expected {
        &mut self.expected
    }

    fn queued_until(&self) -> u64 {
        self.bytes_read + kernel::waiting(self.queue())
    }

    fn rescan(&mut self, tree: u16) -> bool {
        let tree = self.trees.get_mut(tree as usize);
        tree.map(|tree| tree.rescan = true).is_some()
    }
}

impl State {
    pub(super) fn new(queue: Arc<OwnedFd>, seed: u64, trees: Vec<Tree>, capacity: usize) -> Self {
        State {
            queue,
            seed,
            trees,
            dirs: Dirs::default(),
            pending: Pending::new(capacity),
            expected: Expected::default(),
            counters: Counters::default(),
            notices: Vec::new(),
            own: Vec::new(),
            renumbered: Vec::new(),
            unwatched: Table::default(),
            left_out: Vec::new(),
            scanned: Table::default(),
            bytes_read: 0,
            began_at: 0,
            at_ns: 0,
            mono_ns: 0,
            waiting: false,
            later: Later::default(),
            moves: Vec::new(),
            move_names: Vec::new(),
            here: Here::default(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn queue(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    #[inline]
    pub(super) fn key<'a>(&self, dir: i32, name: &'a [u8]) -> Key<'a> {
        Key {
            hash: hash(self.seed, dir, name),
            dir,
            name,
        }
    }

    /// Applies one read of the kernel's queue.
    pub(super) fn apply(&mut self, bytes: &[u8]) {
        (self.at_ns, self.mono_ns) = clocks();
        self.counters.reads += 1;
        self.began_at = self.bytes_read;
        self.bytes_read += bytes.len() as u64;
        for raw in Records::new(bytes) {
            self.counters.events += 1;
            self.one(&raw);
        }
        if !self.scanned.is_empty() {
            let read = self.bytes_read;
            self.scanned.retain(|_, s| s.until > read);
        }
        self.expire_moves();
        self.meet_now();
    }

    #[inline]
    fn one(&mut self, raw: &Raw<'_>) {
        const RARE: u32 = libc::IN_ISDIR
            | libc::IN_Q_OVERFLOW
            | libc::IN_IGNORED
            | libc::IN_UNMOUNT
            | libc::IN_DELETE_SELF
            | libc::IN_MOVE_SELF;
        if raw.mask & RARE != 0 || raw.name.is_empty() {
            return self.rare(raw);
        }
        if !self.enter(raw.wd) {
            return;
        }
        if is_own(raw.name) {
            return self.ours(raw);
        }
        if raw.mask & libc::IN_CREATE != 0 {
            self.taken_again(raw.wd, raw.name);
            if !self.scanned.is_empty() && self.was_scanned(raw.wd, raw.name) {
                return;
            }
            self.operation(raw.wd, raw.name, Kind::Create, Some(true), true);
        } else if raw.mask & libc::IN_MODIFY != 0 {
            self.operation(raw.wd, raw.name, Kind::Write, Some(true), false);
        } else if raw.mask & libc::IN_CLOSE_WRITE != 0 {
            self.operation(raw.wd, raw.name, Kind::Write, Some(false), true);
        } else if raw.mask & libc::IN_ATTRIB != 0 {
            self.operation(raw.wd, raw.name, Kind::Attrib, None, true);
        } else if raw.mask & libc::IN_DELETE != 0 {
            self.operation(raw.wd, raw.name, Kind::Delete, Some(false), true);
        } else if raw.mask & libc::IN_MOVED_FROM != 0 {
            self.departs(raw, false);
        } else if raw.mask & libc::IN_MOVED_TO != 0 {
            self.arrives(raw);
        }
    }

    /// Makes `id` the current directory; false where it is not (any more) in the table.
    #[inline]
    fn enter(&mut self, id: i32) -> bool {
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

    /// Path of a name in the current directory.
    fn here_path(&mut self, name: &[u8]) -> &[u8] {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.here.prefix);
        self.scratch.extend_from_slice(name);
        &self.scratch
    }

    fn excluded(&mut self, name: &[u8], directory: bool) -> bool {
        if self.trees[self.here.tree as usize].globs.is_empty() {
            return false;
        }
        self.here_path(name);
        self.trees[self.here.tree as usize]
            .globs
            .matches(&self.scratch, directory)
    }

    fn announced(&mut self, name: &[u8], kinds: &[Kind], ends: bool) -> bool {
        if self.expected.is_empty() {
            return false;
        }
        self.here_path(name);
        let (tree, at) = (self.here.tree, (self.mono_ns, self.began_at));
        let taken = self.expected.takes(tree, &self.scratch, kinds, ends, at);
        if taken && ends && self.own.len() < OWN {
            self.own.push((tree, self.here.id, self.scratch.clone()));
        }
        taken
    }

    fn was_scanned(&mut self, dir: i32, name: &[u8]) -> bool {
        self.scanned
            .get_mut(&dir)
            .is_some_and(|s| s.names.remove(name))
    }

    pub(super) fn record(&self, kind: Kind, tree: u16, dir: i32, path: Span) -> Rec {
        Rec::new(kind, tree, dir, path, (self.at_ns, self.mono_ns))
    }

    /// An operation on a file in the directory `dir`.
    #[inline]
    fn operation(&mut self, dir: i32, name: &[u8], kind: Kind, held: Option<bool>, ends: bool) {
        if self.announced(name, &[kind], ends) {
            return;
        }
        if let Some(at) = self.pending.again(dir, name) {
            self.counters.merged += 1;
            return self.pending.merge(at, kind, held, 1);
        }
        let key = self.key(dir, name);
        if let Touch::Live(at) = self.pending.touch(key) {
            self.counters.merged += 1;
            return self.pending.merge(at, kind, held, 1);
        }
        if self.excluded(name, false) {
            return;
        }
        if self.pending.is_full() {
            return self.lose(self.here.tree);
        }
        let path = self.pending.path(&self.here.prefix, name);
        let mut rec = self.record(kind, self.here.tree, dir, path);
        rec.held = held.unwrap_or(false);
        self.pending.push(key, rec);
    }

    /// The in-process queue is full: the event is counted and its tree will be rescanned.
    pub(super) fn lose(&mut self, tree: u16) {
        self.counters.lost += 1;
        self.blind(tree);
        self.notice(Kind::Overflow, tree, b"");
    }

    pub(super) fn blind(&mut self, tree: u16) {
        let at_ns = self.at_ns;
        let tree = &mut self.trees[tree as usize];
        tree.rescan = true;
        if tree.blind_since_ns == 0 {
            tree.blind_since_ns = at_ns;
        }
    }

    pub(super) fn notice(&mut self, kind: Kind, tree: u16, path: &[u8]) {
        crate::events::notice(&mut self.notices, kind, tree, path);
    }

    /// Our own temporary names are not reported, but what they become is.
    fn ours(&mut self, raw: &Raw<'_>) {
        if raw.mask & libc::IN_MOVED_FROM != 0 {
            self.departs(raw, true);
        } else if raw.mask & libc::IN_MOVED_TO != 0 {
            // a visible file took a hidden name: for everybody else it is gone
            if let Some(from) = self.take_move(raw.cookie) {
                self.ended_move(&from);
            }
        }
    }

    fn rare(&mut self, raw: &Raw<'_>) {
        if raw.mask & libc::IN_Q_OVERFLOW != 0 {
            return self.overflowed();
        }
        if raw.mask & (libc::IN_UNMOUNT | libc::IN_DELETE_SELF | libc::IN_MOVE_SELF) != 0 {
            if let Some(tree) = self.trees.iter().position(|t| t.id == raw.wd) {
                self.root_gone(tree as u16);
            }
            return;
        }
        if raw.mask & libc::IN_IGNORED != 0 {
            return self.ignored(raw.wd);
        }
        if raw.name.is_empty() || !self.enter(raw.wd) {
            return;
        }
        if raw.mask & libc::IN_CREATE != 0 {
            self.taken_again(raw.wd, raw.name);
            self.directory_came(raw.wd, raw.name);
        } else if raw.mask & libc::IN_DELETE != 0 {
            self.directory_gone(raw.wd, raw.name);
        } else if raw.mask & libc::IN_MOVED_FROM != 0 {
            self.departs(raw, false);
        } else if raw.mask & libc::IN_MOVED_TO != 0 {
            self.directory_arrives(raw);
        }
    }

    /// The kernel lost an unknown number of events, of any tree.
    fn overflowed(&mut self) {
        self.counters.overflows += 1;
        self.counters.lost += 1;
        for tree in 0..self.trees.len() as u16 {
            if !self.trees[tree as usize].gone {
                self.blind(tree);
                self.notice(Kind::Overflow, tree, b"");
            }
        }
        self.pending.barrier();
        self.moves.clear();
        self.move_names.clear();
        self.later.clear();
    }

    /// The kernel took a watch away. A directory that is still in the table is reported and looked for again.
    fn ignored(&mut self, wd: i32) {
        let Some(dir) = self.dirs.get(wd) else { return };
        let tree = dir.tree;
        if dir.parent == NONE {
            return self.root_gone(tree);
        }
        // its own removal event may be behind this one in the queue, or a mount below went away: the rescan tells
        let new = self.dirs.unwatched_id();
        self.dirs.rekey(self.seed, wd, new);
        self.unwatched.insert(new, libc::ENOENT);
        self.renumbered.push((wd, new));
    }

    pub(super) fn root_gone(&mut self, tree: u16) {
        let root = self.trees[tree as usize].id;
        if root == NONE {
            return;
        }
        self.forget(root);
        self.blind(tree);
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

    /// Takes a directory and all below it out of the table and gives its watches back.
    pub(super) fn forget(&mut self, id: i32) {
        for gone in self.dirs.remove(self.seed, id) {
            if gone > 0 {
                kernel::unwatch(self.queue.as_fd(), gone);
            }
            self.unwatched.remove(&gone);
            self.scanned.remove(&gone);
            self.renumbered.push((gone, NONE));
        }
    }

    /// Reports something about a directory; nothing merges into it.
    pub(super) fn directory_record(&mut self, kind: Kind, dir: i32, name: &[u8], synthetic: bool) {
        if !self.enter(dir) {
            return;
        }
        if self.pending.is_full() {
            return self.lose(self.here.tree);
        }
        let key = self.key(dir, name);
        let path = self.pending.path(&self.here.prefix, name);
        let mut rec = self.record(kind, self.here.tree, dir, path);
        rec.flags = if synthetic { flags::SYNTHETIC } else { 0 };
        self.pending.push(key, rec);
    }

    fn directory_came(&mut self, parent: i32, name: &[u8]) {
        if self.dirs.child(self.seed, parent, name).is_some() || self.excluded(name, true) {
            return; // a scan met it first and reported it
        }
        if !self.announced(name, &[Kind::MakeDir], true) {
            self.directory_record(Kind::MakeDir, parent, name, false);
        }
        self.follow(parent, name, true);
    }

    fn directory_gone(&mut self, parent: i32, name: &[u8]) {
        self.later.forget(parent, name);
        let known = self.dirs.child(self.seed, parent, name);
        if let Some(id) = known {
            self.forget(id);
        } else if self.excluded(name, true) {
            return;
        }
        if self.enter(parent) && !self.announced(name, &[Kind::RemoveDir], true) {
            self.directory_record(Kind::RemoveDir, parent, name, false);
        }
        // a new directory of this name may follow: what comes into it must not be told before this
        self.pending.barrier();
    }
}
