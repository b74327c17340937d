//! Many files at once: all are staged, one `syncfs` makes them durable, then they get their names.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fstat, fsync, linkat, syncfs, AtFlags, FileType, OFlags, Stat};

use crate::files::open::{open_beneath, Dir, Stamp};
use crate::files::staged::remember;
use crate::files::trouble::{Result, Trouble};

use super::publish::{move_back, publish, tidy};
use super::stage::{self, mtime_ns, Staged};

/// From this many files on, one `syncfs` is cheaper than an `fsync` each.
const SYNCFS_FROM: usize = 8;

/// What a file is to be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access, ns.
    pub atime_ns: i64,
    /// Last change of content, ns.
    pub mtime_ns: i64,
    /// BLAKE3 of the content, where it is known.
    pub digest: Option<[u8; 32]>,
    /// Extended attributes, access lists among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether `xattrs` are all that it had: others that are there now go.
    pub xattrs_whole: bool,
}

/// What was seen under a name when the plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct There {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes; of a directory not looked at.
    pub size: u64,
    /// Last change of content, ns; of a directory not looked at.
    pub mtime_ns: i64,
}

impl There {
    /// Whether that is what stands there now.
    pub fn is(&self, stat: &Stat) -> bool {
        let stamp = Stamp::of(stat);
        let same = (stamp.dev, stamp.ino) == (self.dev, self.ino);
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        same && (directory || (stamp.size, mtime_ns(stat)) == (self.size, self.mtime_ns))
    }
}

/// What may stand in the way.
#[derive(Clone, Copy, Debug)]
pub enum Over {
    /// Nothing: something there is `file.exists`.
    Nothing,
    /// This, which was kept elsewhere.
    Drop(There),
    /// This; it stays beside as `NAME.before-restore`.
    Aside(There),
}

/// How a file comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A copy of the version.
    Copy,
    /// The version's own inode.
    Link,
    /// The renamed file itself.
    MoveBack,
    /// A second name of a file that is there.
    Twin,
    /// Owner, mode, times and attributes alone, of the file that is there.
    Dress,
    /// What a crash left under the hidden name is finished or taken away.
    Tidy,
}

/// One file to bring back.
#[derive(Debug)]
pub struct Item<'a> {
    /// Relative to the root.
    pub path: &'a [u8],
    /// Of [`Act::MoveBack`] and [`Act::Twin`]: where the file is, relative to the root.
    pub other: &'a [u8],
    /// Hidden name in the file's directory, written down before.
    pub hidden: &'a [u8],
    /// How.
    pub act: Act,
    /// What may stand in the way.
    pub over: Over,
    /// Of [`Act::MoveBack`] and [`Act::Dress`]: the file that is meant. Of [`Act::Twin`] only its inode is looked at.
    pub there: There,
    /// The version, open for reading.
    pub version: Option<BorrowedFd<'a>>,
    /// What it is to be.
    pub wanted: Wanted,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Restored {
    /// BLAKE3 of the content, zero where none was read.
    pub digest: [u8; 32],
    /// The inode that has the name now; 0 where that is not known.
    pub ino: u64,
    /// Name of what was set aside, empty where nothing was.
    pub aside: Vec<u8>,
    /// How many attributes were not taken.
    pub skipped: usize,
}

struct Ready {
    dir: Dir,
    name: Vec<u8>,
    staged: Option<Staged>,
}

/// Brings all of `items` back beneath `root`; one answer each, in their order.
///
/// Nothing has a name before all that was staged is durable; the names are durable when this returns.
pub fn run(root: BorrowedFd<'_>, items: &[Item<'_>]) -> Vec<Result<Restored>> {
    let mut ready: Vec<Result<Ready>> = items.iter().map(|item| prepare(root, item)).collect();
    durable(root, &mut ready);
    let mut dirs: BTreeMap<(u64, u64), OwnedFd> = BTreeMap::new();
    let mut out: Vec<Result<Restored>> = items
        .iter()
        .zip(ready)
        .map(|(item, ready)| {
            let ready = ready?;
            let done = finish(root, item, &ready);
            if let Ok(stat) = fstat(&ready.dir.fd) {
                #[allow(clippy::unnecessary_cast)]
                dirs.insert((stat.st_dev as u64, stat.st_ino as u64), ready.dir.fd);
            }
            done
        })
        .collect();
    if let Err(errno) = settled(root, &dirs) {
        for one in out.iter_mut().filter(|one| one.is_ok()) {
            *one = Err(Trouble::data(errno, "names cannot be made durable"));
        }
    }
    out
}

fn prepare(root: BorrowedFd<'_>, item: &Item<'_>) -> Result<Ready> {
    let (dir, name) = Dir::holding(root, item.path)?;
    let version = || {
        item.version
            .ok_or_else(|| Trouble::new("native.argument", "no version"))
    };
    let staged = match item.act {
        Act::Copy => Some(stage::copy(&dir, item.hidden, version()?, &item.wanted)?),
        Act::Link => Some(stage::link(version()?, &item.wanted)?),
        Act::MoveBack | Act::Twin | Act::Dress | Act::Tidy => None,
    };
    Ok(Ready { dir, name, staged })
}

fn durable(root: BorrowedFd<'_>, ready: &mut [Result<Ready>]) {
    let staged = |one: &Result<Ready>| one.as_ref().is_ok_and(|r| r.staged.is_some());
    let count = ready.iter().filter(|one| staged(one)).count();
    let whole = (count >= SYNCFS_FROM).then(|| syncfs(root));
    for one in ready.iter_mut() {
        let Some(fd) = one
            .as_ref()
            .ok()
            .and_then(|r| r.staged.as_ref())
            .map(|s| &s.fd)
        else {
            continue;
        };
        let done = whole.unwrap_or_else(|| fsync(fd));
        if let Err(errno) = done {
            *one = Err(Trouble::data(errno, "content cannot be made durable"));
        }
    }
}

fn settled(root: BorrowedFd<'_>, dirs: &BTreeMap<(u64, u64), OwnedFd>) -> rustix::io::Result<()> {
    if dirs.len() >= SYNCFS_FROM {
        return syncfs(root);
    }
    dirs.values().try_for_each(fsync)
}

fn finish(root: BorrowedFd<'_>, item: &Item<'_>, ready: &Ready) -> Result<Restored> {
    let (dir, name) = (&ready.dir, ready.name.as_slice());
    let mut done = Restored::default();
    match (item.act, &ready.staged) {
        (Act::Copy | Act::Link, Some(staged)) => {
            let aside = publish(dir, name, item.hidden, staged, &item.over)?;
            done.aside = aside.unwrap_or_default();
            done.digest = staged.digest;
            done.skipped = staged.skipped.len();
        }
        (Act::MoveBack, _) => {
            let (from, old) = Dir::holding(root, item.other)?;
            move_back(&from, &old, dir, name, &item.there)?;
            fsync(&from.fd).map_err(|e| Trouble::data(e, "names cannot be made durable"))?;
        }
        (Act::Twin, _) => done.aside = twin(root, item, dir, name)?,
        (Act::Dress, _) => done.skipped = dressed(dir, name, item)?,
        (Act::Tidy, _) => {
            let aside = tidy(dir, name, item.hidden, &item.over, &item.wanted)?;
            done.aside = aside.unwrap_or_default();
        }
        (Act::Copy | Act::Link, None) => {
            return Err(Trouble::new("native.argument", "nothing was staged"))
        }
    }
    done.ino = dir.look(name)?.map_or(0, |stat| Stamp::of(&stat).ino);
    Ok(done)
}

/// A second name for the file at `item.other`.
fn twin(root: BorrowedFd<'_>, item: &Item<'_>, dir: &Dir, name: &[u8]) -> Result<Vec<u8>> {
    let (from, old) = Dir::holding(root, item.other)?;
    let found = from
        .look(&old)?
        .ok_or_else(|| Trouble::new("file.missing", "its other name is gone"))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Trouble::new(
            "file.not-regular",
            "its other name is no regular file",
        ));
    }
    let fd = open_beneath(from.fd.as_fd(), &old, OFlags::PATH)
        .map_err(|e| Trouble::of(e, "its other name cannot be opened"))?;
    let held = fstat(&fd).map_err(|e| Trouble::data(e, "its other name cannot be looked at"))?;
    if (held.st_dev, held.st_ino) != (found.st_dev, found.st_ino) {
        return Err(Trouble::new("file.race", "its other name was swapped"));
    }
    remember(item.hidden);
    if matches!(item.over, Over::Nothing) {
        stage::name(fd.as_fd(), dir, name)?;
        return Ok(Vec::new());
    }
    linkat(
        &from.fd,
        old.as_slice(),
        &dir.fd,
        item.hidden,
        AtFlags::empty(),
    )
    .map_err(|e| Trouble::of(e, "file cannot be named"))?;
    let staged = Staged {
        fd,
        named: true,
        digest: [0; 32],
        skipped: Vec::new(),
    };
    Ok(publish(dir, name, item.hidden, &staged, &item.over)?.unwrap_or_default())
}

/// Puts owner, attributes, mode and times on the file that is there; how many attributes were not taken.
fn dressed(dir: &Dir, name: &[u8], item: &Item<'_>) -> Result<usize> {
    let seen = dir.look(name)?;
    let regular = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !seen.as_ref().is_some_and(regular) {
        return Err(Trouble::new("file.not-regular", "not a regular file"));
    }
    let fd = open_beneath(dir.fd.as_fd(), name, OFlags::RDONLY | OFlags::NONBLOCK)
        .map_err(|e| Trouble::of(e, "file cannot be opened"))?;
    let stat = fstat(&fd).map_err(|e| Trouble::data(e, "file cannot be looked at"))?;
    if !item.there.is(&stat) {
        return Err(Trouble::new(
            "file.race",
            "changed since the plan was made; nothing was done to it",
        ));
    }
    Ok(stage::dress(fd.as_fd(), &item.wanted)?.len())
}
