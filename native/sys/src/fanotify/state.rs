//! What the reader keeps: trees, scope, queue; and how one read of the kernel's queue changes them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use shieldd_core::event::{flags, Kind};

use super::kernel::{self, Group, Handle, Named, NamedRecords};
use super::limbo::Limbo;
use super::scope::{Scope, Top, INSIDE_MOST, OUTSIDE};
use crate::actors::ActorOf;
use crate::events::dirs::{Dirs, NONE};
use crate::events::expect::Expected;
use crate::events::pending::{hash, Key, Pending, Rec, Span, Touch};
use crate::events::taking::Front;
use crate::events::{clocks, Globs, Notice};
use crate::files::staged::is_own;

/// A guarded tree.
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) path: Vec<u8>,
    pub(super) globs: Globs,
    /// Id of its root, `NONE` while that is gone.
    pub(super) id: i32,
    /// Device, inode and handle of the root, id of its file system, and the mount it was opened through.
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) key: Vec<u8>,
    pub(super) fsid: u64,
    pub(super) mount: i32,
    pub(super) gone: bool,
    /// Why it cannot come back, where that is known.
    pub(super) why: String,
    /// A rescan of the whole tree is due; `all`: of everything in it, since nothing of it is known.
    pub(super) rescan: bool,
    pub(super) all: bool,
    /// `CLOCK_REALTIME` since when something may have been missed, 0 where nothing was.
    pub(super) blind_since_ns: u64,
}

/// Counts since the start.
#[derive(Default, Clone, Copy)]
pub(super) struct Counters {
    pub(super) events: u64,
    pub(super) merged: u64,
    pub(super) overflows: u64,
    pub(super) lost: u64,
    pub(super) failures: u64,
    pub(super) rescans: u64,
    pub(super) reads: u64,
    /// Own operations, by our process ids.
    pub(super) own: u64,
}

/// The directory that the last event was in.
#[derive(Default)]
pub(super) struct Here {
    id: i32,
    moves: u64,
    pub(super) tree: u16,
    pub(super) prefix: Vec<u8>,
}

/// Who did what is being read.
#[derive(Default, Clone, Copy)]
pub(super) struct Who {
    pub(super) pid: i32,
    pub(super) actor: u64,
    pub(super) flags: u8,
}

/// A rename whose next event may say that it replaced a file.
pub(super) struct LastMove {
    pub(super) pid: i32,
    pub(super) rec: usize,
    pub(super) object: Vec<u8>,
    /// The file that it seems to have replaced.
    pub(super) over: Vec<u8>,
}

/// A directory whose removal was told together with its creation: what happened in it comes in between.
pub(super) struct Dying {
    pub(super) parent: i32,
    pub(super) name: Box<[u8]>,
    pub(super) key: Box<[u8]>,
    pub(super) who: Who,
    pub(super) quiet: bool,
}

pub(super) struct State {
    pub(super) group: Arc<Group>,
    pub(super) seed: u64,
    pub(super) trees: Vec<Tree>,
    pub(super) dirs: Dirs,
    pub(super) scope: Scope,
    pub(super) limbo: Limbo,
    pub(super) pending: Pending,
    pub(super) expected: Expected,
    pub(super) counters: Counters,
    pub(super) notices: Vec<Notice>,
    /// Directories that came from outside: what is in them is to be told.
    pub(super) arrived: Vec<i32>,
    /// Those of them that were not looked into yet.
    pub(super) untold: Vec<i32>,
    pub(super) at_ns: u64,
    pub(super) mono_ns: u64,
    /// Somebody waits for records.
    pub(super) waiting: bool,
    /// Our own processes: what they do is not reported.
    pub(super) own_pids: Vec<i32>,
    pub(super) here: Here,
    pub(super) who: Who,
    pub(super) last_move: Option<LastMove>,
    pub(super) dying: Vec<Dying>,
    pub(super) scratch: Vec<u8>,
    actors: Box<dyn ActorOf + Send>,
    /// Time of files when the queue was last seen empty: what was lost happened since.
    empty_ns: u64,
}

impl Front for State {
    fn pending(&self) -> &Pending {
        &self.pending
    }

    fn is_idle(&self) -> bool {
        self.notices.is_empty()
    }

    fn wants_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    fn wait(&mut self, waiting: bool) {
        self.waiting = waiting;
    }
}

impl State {
    pub(super) fn new(
        group: Arc<Group>,
        seed: u64,
        trees: Vec<Tree>,
        capacity: usize,
        own_pids: Vec<i32>,
        actors: Box<dyn ActorOf + Send>,
    ) -> Self {
        State {
            group,
            seed,
            trees,
            dirs: Dirs::default(),
            scope: Scope::default(),
            limbo: Limbo::default(),
            pending: Pending::new(capacity),
            expected: Expected::default(),
            counters: Counters::default(),
            notices: Vec::new(),
            arrived: Vec::new(),
            untold: Vec::new(),
            at_ns: 0,
            mono_ns: 0,
            waiting: false,
            own_pids,
            here: Here::default(),
            who: Who::default(),
            last_move: None,
            dying: Vec::new(),
            scratch: Vec::new(),
            actors,
            empty_ns: super::reader::tick(),
        }
    }

    /// Applies one read of the group's queue. `emptied_ns`: nothing was left in it, at this time of files.
    pub(super) fn apply(&mut self, records: NamedRecords<'_>, emptied_ns: Option<u64>) {
        (self.at_ns, self.mono_ns) = clocks();
        self.counters.reads += 1;
        self.actors.begin();
        self.who = Who::default();
        self.last_move = None;
        for raw in records {
            self.one(&raw);
        }
        if let Some(at_ns) = emptied_ns {
            self.emptied(at_ns);
        }
        if self.dirs.len() > INSIDE_MOST {
            self.forget_directories();
        }
    }

    /// The queue was seen empty.
    pub(super) fn emptied(&mut self, at_ns: u64) {
        (self.at_ns, self.mono_ns) = clocks();
        self.empty_ns = at_ns;
        while let Some(last) = self.dying.pop() {
            self.dies(last); // made later, removed earlier
        }
        for (id, key) in self.limbo.expired(self.mono_ns) {
            self.scope.remove(&key);
            let events = self.limbo.leave(id);
            if !events.is_empty() {
                self.lose_on(Handle { key: &key }.fsid(), events.len() as u64);
            }
        }
    }

    /// Nothing was read for a while.
    pub(super) fn idle(&mut self, at_ns: u64) {
        if self.has_limbo() {
            self.emptied(at_ns);
        }
    }

    /// Whether what one read brings has room.
    pub(super) fn has_room(&self) -> bool {
        self.pending.has_room(super::reader::READ)
    }

    pub(super) fn has_limbo(&self) -> bool {
        !self.limbo.is_empty()
    }

    #[inline]
    fn one(&mut self, raw: &Named<'_>) {
        const COUNTED: u64 = kernel::NOTIFY_MASK & !kernel::ONDIR;
        self.counters.events += u64::from((raw.mask & COUNTED).count_ones());
        self.event(raw);
    }

    /// One event, read now or kept before.
    #[inline]
    pub(super) fn event(&mut self, raw: &Named<'_>) {
        let Some((place, name)) = raw.place else {
            return self.without_a_name(raw);
        };
        if raw.mask & kernel::ONDIR != 0 {
            return self.directory(raw);
        }
        if raw.mask & kernel::RENAME != 0 {
            return self.moved(raw);
        }
        let id = self.place(place);
        if id <= 0 {
            return self.elsewhere(id, raw);
        }
        if self.own_pids.contains(&raw.pid) {
            self.counters.own += 1;
            return;
        }
        if !self.enter(id) || is_own(name) {
            return;
        }
        self.by(raw.pid);
        self.operations(id, name, raw);
    }

    /// What happened in a directory that has no id: nobody's business, or to be told later.
    #[cold]
    pub(super) fn elsewhere(&mut self, id: i32, raw: &Named<'_>) {
        if id < OUTSIDE && !self.limbo.keep(id, raw) {
            if let Some((place, _)) = raw.place {
                self.lose_on(place.fsid(), 1);
            }
        }
    }

    /// Learns whose event is being read.
    #[inline]
    pub(super) fn by(&mut self, pid: i32) {
        if self.who.pid == pid && pid != 0 {
            return;
        }
        let (actor, certain) = self.actors.actor(pid);
        self.who = Who {
            pid,
            actor,
            flags: match (actor, certain) {
                (0, _) => 0,
                (_, true) => flags::ATTRIBUTED,
                (_, false) => flags::GUESSED,
            },
        };
    }

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
    fn forget_directories(&mut self) {
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
    fn here_path(&mut self, name: &[u8]) {
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

    pub(super) fn announced(&mut self, name: &[u8], kinds: &[Kind], ends: bool) -> bool {
        if self.expected.is_empty() {
            return false;
        }
        self.here_path(name);
        let (tree, now_ns) = (self.here.tree, self.mono_ns);
        self.expected
            .takes(tree, &self.scratch, kinds, ends, now_ns)
    }

    #[inline]
    pub(super) fn key<'a>(&self, dir: i32, name: &'a [u8]) -> Key<'a> {
        Key {
            hash: hash(self.seed, dir, name),
            dir,
            name,
        }
    }

    /// A record by whoever is being read.
    #[inline]
    pub(super) fn record(&self, kind: Kind, dir: i32, path: Span) -> Rec {
        let at = (self.at_ns, self.mono_ns);
        let mut rec = Rec::new(kind, self.here.tree, dir, path, at);
        (rec.pid, rec.actor, rec.flags) = (self.who.pid, self.who.actor, self.who.flags);
        rec
    }

    /// The record of a name that may take another operation of the same actor.
    #[inline]
    pub(super) fn live(&self, key: Key<'_>) -> Option<usize> {
        match self.pending.touch(key) {
            Touch::Live(at) if self.pending.recs[at].actor == self.who.actor => Some(at),
            _ => None,
        }
    }

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
    fn overflowed(&mut self) {
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

    /// An overflow, or a file whose link count changed: after a rename that is the file that was replaced.
    #[cold]
    fn without_a_name(&mut self, raw: &Named<'_>) {
        if raw.mask & kernel::OVERFLOW != 0 {
            return self.overflowed();
        }
        let (Some(last), Some(object)) = (&mut self.last_move, raw.object) else {
            return;
        };
        if last.pid == raw.pid && last.over.is_empty() && last.object != object.key {
            last.over = object.key.to_vec();
            if let Some(rec) = self.pending.recs.get_mut(last.rec) {
                rec.flags |= flags::OVER;
            }
        }
    }

    /// What seemed to be replaced by the last rename was unlinked, or got another name.
    #[inline]
    pub(super) fn was_not_replaced(&mut self, raw: &Named<'_>) {
        let Some(last) = self.last_move.take_if(|last| last.pid == raw.pid) else {
            return;
        };
        if !last.over.is_empty() && raw.object.is_some_and(|o| o.key == last.over) {
            if let Some(rec) = self.pending.recs.get_mut(last.rec) {
                rec.flags &= !flags::OVER;
            }
        }
    }

    /// Takes the roots as they are now; false where there is none.
    pub(super) fn root_back(&mut self, tree: u16) -> bool {
        let Some(found) = super::mounts::Root::of(self.trees[tree as usize].root.as_fd()) else {
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
