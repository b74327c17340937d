//! What the reader keeps: trees, scope, queue; and how one read of the kernel's queue changes them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use shieldd_core::event::{flags, Kind};

use super::kernel::{self, Group, Handle, Named, NamedRecords};
use super::limbo::Limbo;
use super::scope::{Scope, INSIDE_MOST, OUTSIDE};
use crate::actors::ActorOf;
use crate::events::dirs::Dirs;
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
    pub(super) id: i32,
    pub(super) moves: u64,
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
    /// Records read.
    pub(super) read: u64,
    /// `read` when the read began that is being applied.
    began_at: u64,
    /// Time of files when the queue was last seen empty: what was lost happened since.
    pub(super) empty_ns: u64,
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

    fn expected(&mut self) -> &mut Expected {
        &mut self.expected
    }

    fn queued_until(&self) -> u64 {
        self.read + self.group.waiting()
    }

    fn rescan(&mut self, tree: u16) -> bool {
        let tree = self.trees.get_mut(tree as usize);
        tree.map(|tree| tree.rescan = true).is_some()
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
            read: 0,
            began_at: 0,
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
        self.began_at = self.read;
        for raw in records {
            self.read += 1;
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

    pub(super) fn announced(&mut self, name: &[u8], kinds: &[Kind], ends: bool) -> bool {
        if self.expected.is_empty() {
            return false;
        }
        self.here_path(name);
        let (tree, at) = (self.here.tree, (self.mono_ns, self.began_at));
        self.expected.takes(tree, &self.scratch, kinds, ends, at)
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
}
