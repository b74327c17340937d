//! Records as the rows of a batch: numbered, with names in one arena and what the object is now.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use shieldd_core::event::{flags, Event, Kind};
use shieldd_core::facts::Facts;

use super::dirs::Dirs;
use super::look::stat_in;
use super::pending::Rec;

/// Rows of one batch at most.
pub const ROWS: usize = 4096;
/// Time that one batch may take to look at its files.
pub(crate) const SLICE: Duration = Duration::from_millis(5);
/// Least time between two looks at roots, and at what cannot be watched.
pub(crate) const POLL: Duration = Duration::from_secs(1);
/// A rescan may take this share of the time: 1 in so many.
pub(crate) const REST: u32 = 10;

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

    /// A directory above this file got another name: what is known of the file goes along. Paths are relative to the root.
    fn moved(&mut self, _tree: u16, _from: &[u8], _to: &[u8]) {}
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
    pub(crate) fn clear(&mut self) {
        self.events.clear();
        self.facts.clear();
        self.names.clear();
    }
}

/// Numbers the rows and holds the roots that their paths begin at.
pub(crate) struct Rows {
    pub(crate) roots: Vec<OwnedFd>,
    seq: u64,
}

impl Rows {
    pub(crate) fn new(roots: Vec<OwnedFd>) -> Self {
        Rows { roots, seq: 0 }
    }

    pub(crate) fn root(&self, tree: u16) -> BorrowedFd<'_> {
        self.roots[tree as usize].as_fd()
    }

    /// Whether the record is of a file that has no name (see [`nameless`]) and so is nobody's event.
    pub(crate) fn is_nameless(&self, rec: &Rec, arena: &[u8]) -> bool {
        matches!(rec.kind, Kind::Create | Kind::Write | Kind::Attrib)
            && nameless(rec.path.name_of(arena))
            && stat_in(self.root(rec.tree), rec.path.of(arena)).is_none()
    }

    /// The event of a record; its names go into the batch.
    pub(crate) fn event(&mut self, rec: &Rec, arena: &[u8], batch: &mut Batch) -> Event {
        self.seq += 1;
        let path = rec.path.of(arena);
        let from = rec.from.of(arena);
        let known = rec.actor != 0;
        let mut event = Event {
            seq: self.seq,
            at_ns: rec.at_ns,
            mono_ns: rec.mono_ns,
            actor: if known {
                rec.actor
            } else {
                u64::from(rec.tree) + 1
            },
            path_off: batch.names.len() as u32,
            path_len: path.len() as u32,
            from_off: 0,
            from_len: from.len() as u32,
            pid: rec.pid,
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
        event
    }

    /// Puts the row into the batch; the observer looks at the file, which is at `at` now.
    pub(crate) fn add(
        &self,
        event: Event,
        (path, from, at): (&[u8], &[u8], &[u8]),
        batch: &mut Batch,
        observer: &mut Option<&mut dyn Observer>,
    ) {
        let mut facts = Facts::default();
        if let Some(observer) = observer.as_mut().filter(|_| !path.is_empty()) {
            observer.facts(self.root(event.tree), at, from, &event, &mut facts);
        }
        batch.events.push(event);
        batch.facts.push(facts);
    }
}

/// Whether this is how the kernel speaks of an `O_TMPFILE` file (`#` and its inode number): it has no name, so nothing
/// under a name was changed; once it is linked it has a name and an event of its own.
fn nameless(name: &[u8]) -> bool {
    name.len() > 1 && name[0] == b'#' && name[1..].iter().all(u8::is_ascii_digit)
}

/// Says what the object of an event is now.
pub(crate) fn describe(event: &mut Event, stat: &Stat) {
    event.dev = stat.st_dev;
    event.ino = stat.st_ino;
    event.uid = stat.st_uid;
    event.mode = stat.st_mode;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if event.kind != Kind::MakeDir as u8 && kind != FileType::RegularFile {
        event.flags |= flags::SPECIAL;
    }
}

/// Where a file is now, where a directory above it was renamed since its record was made; false where none was.
#[cold]
pub(crate) fn moved_above(
    dirs: &Dirs,
    dir: i32,
    name: &[u8],
    path: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    if !dirs.prefix(dir, out) {
        return false;
    }
    out.extend_from_slice(name);
    out.as_slice() != path
}

/// Whether a root still stands under its path: a directory that somebody has open sends no event when it is removed,
/// and none when one above it is renamed.
pub(crate) fn stands(path: &[u8], root: &OwnedFd) -> bool {
    if path.is_empty() {
        return true;
    }
    match (rustix::fs::stat(path), rustix::fs::fstat(root)) {
        (Ok(there), Ok(here)) => (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino),
        // not ours to say: the path may be closed to us while the descriptor is not
        (Err(Errno::ACCESS), Ok(here)) => here.st_nlink > 0,
        _ => false,
    }
}
