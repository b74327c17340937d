//! Which file systems are marked, and what is refused.
//!
//! Order: what must be ignored is ignored first (the vaults, the daemon's state where it shares a file system), then
//! the file system is marked. Where an ignoring mark cannot be put, nothing is held: that a lost mark is survived (see
//! [`super`]) is no reason to begin without.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    fstat, fstatfs, open, openat, statx, AtFlags, Dir, FileType, Mode, OFlags, StatxFlags,
};

use super::scope::{FileSystem, Tree};
use crate::fanotify::kernel::{Class, Group, ONDIR, OPEN_PERM, PRE_ACCESS, RENAME};
use crate::files::trouble::{Result, Trouble};

/// What is asked for and ignored.
pub const MASK: u64 = OPEN_PERM | PRE_ACCESS;
/// Directories of a vault that are ignored one by one at most.
const VAULT_DIRECTORIES: usize = 1024;

/// File systems whose opens may wait for another machine or process: opening one for an event would stop the answerer.
const REMOTE: [(i64, &str); 10] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x7375_7245, "coda"),
    (0x0187, "autofs"),
];

/// A group and what it covers.
pub struct Marked {
    /// The permission group.
    pub group: Group,
    /// Directories that move, where the kernel tells.
    pub moves: Option<Group>,
    /// Devices on which ranges are seen.
    pub ranges: Vec<u64>,
    kept_out: Vec<OwnedFd>,
    evictable: bool,
    pre_content: bool,
}

fn trouble(error: &io::Error, code: &'static str, doing: &str) -> Trouble {
    Trouble {
        code,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("{doing}: {error}"),
    }
}

/// A permission group; the better class where the kernel has it.
///
/// # Errors
/// `hold.unsupported`.
pub fn group(ranges: bool) -> Result<(Group, bool)> {
    if ranges {
        if let Ok(group) = Group::permission(Class::PreContent) {
            return Ok((group, true));
        }
    }
    let group = Group::permission(Class::Content).map_err(|e| {
        trouble(
            &e,
            "hold.unsupported",
            "the kernel lets nobody hold an open here",
        )
    })?;
    Ok((group, false))
}

/// The file systems of some trees, each once.
///
/// # Errors
/// `hold.filesystem` for one that must not be marked, `hold.failed`.
pub fn systems(trees: &[Tree]) -> Result<Vec<FileSystem>> {
    let mut out: Vec<FileSystem> = Vec::new();
    for tree in trees {
        let failed =
            |e: rustix::io::Errno| trouble(&e.into(), "hold.failed", "a tree cannot be looked at");
        let dev = fstat(&tree.root).map_err(failed)?.st_dev;
        if out.iter().any(|system| system.dev == dev) {
            continue;
        }
        let kind = fstatfs(&tree.root).map_err(failed)?.f_type as i64 & 0xffff_ffff;
        if let Some((_, name)) = REMOTE.iter().find(|(magic, _)| *magic == kind) {
            return Err(Trouble::new(
                "hold.filesystem",
                format!("opens on {name} may wait for another machine or process and are not held"),
            ));
        }
        let (top, at) = top_of(&tree.path, &tree.root).map_err(failed)?;
        out.push(FileSystem { dev, top, at });
    }
    Ok(out)
}

/// The root of the mount through which a path is reached, and its path.
fn top_of(path: &[u8], root: &OwnedFd) -> rustix::io::Result<(OwnedFd, Vec<u8>)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mount = |fd: BorrowedFd<'_>| -> rustix::io::Result<(u64, u64)> {
        let s = statx(
            fd,
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::MNT_ID | StatxFlags::INO,
        )?;
        Ok((s.stx_mnt_id, s.stx_ino))
    };
    let mut top = open(
        if path.is_empty() { b"/" } else { path },
        flags,
        Mode::empty(),
    )?;
    let (here, ino) = mount(top.as_fd())?;
    if fstat(root)?.st_ino != ino {
        return Err(rustix::io::Errno::STALE); // another directory stands there now
    }
    let mut at = path.strip_suffix(b"/").unwrap_or(path).to_vec();
    while !at.is_empty() {
        let up = openat(&top, c"..", flags, Mode::empty())?;
        if mount(up.as_fd())?.0 != here {
            break;
        }
        let cut = at.iter().rposition(|&b| b == b'/').unwrap_or(0);
        at.truncate(cut);
        top = up;
    }
    Ok((top, at))
}

/// The vault's directory and what directories are in it. Reading a directory is no event.
fn directories(top: BorrowedFd<'_>, into: &mut Vec<OwnedFd>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut next = into.len();
    into.push(openat(top, c".", flags, Mode::empty())?);
    while next < into.len() {
        let mut found = Vec::new();
        for entry in Dir::read_from(&into[next])? {
            let entry = entry?;
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
                found.push(openat(&into[next], name, flags, Mode::empty())?);
            }
        }
        into.append(&mut found);
        next += 1;
        if into.len() > VAULT_DIRECTORIES {
            return Err(io::Error::other("too many directories"));
        }
    }
    Ok(())
}

impl Marked {
    /// Ignores vaults and state, then marks. Nothing is marked where this fails: the group goes with it.
    ///
    /// # Errors
    /// `hold.deadlock`, `hold.unsupported`.
    pub fn new(
        (group, pre_content): (Group, bool),
        trees: &[Tree],
        systems: &[FileSystem],
        vaults: &[OwnedFd],
        state: Option<&OwnedFd>,
    ) -> Result<Marked> {
        let shares = |fd: &OwnedFd| {
            fstat(fd).is_ok_and(|stat| systems.iter().any(|system| system.dev == stat.st_dev))
        };
        let mut kept_out = Vec::new();
        for fd in vaults.iter().chain(state).filter(|fd| shares(fd)) {
            directories(fd.as_fd(), &mut kept_out).map_err(|e| {
                trouble(
                    &e,
                    "hold.deadlock",
                    "a directory of our own cannot be left out",
                )
            })?;
        }
        let mut marked = Marked::mark((group, pre_content), trees, kept_out)?;
        marked.moves = Group::notify().ok().filter(|moves| {
            let all = |mask| {
                trees
                    .iter()
                    .all(|t| moves.mark_filesystem(t.root.as_fd(), mask).is_ok())
            };
            all(RENAME | ONDIR)
        });
        Ok(marked)
    }

    /// The same marks in a new group (but none for directories that move); what waits for the one before still waits for it until that is dropped.
    ///
    /// # Errors
    /// As [`Marked::new`].
    pub fn again(&self, trees: &[Tree]) -> Result<Marked> {
        let copies = self.kept_out.iter().map(OwnedFd::try_clone);
        let kept_out = copies
            .collect::<io::Result<_>>()
            .map_err(|e| trouble(&e, "hold.failed", "no descriptor is left"))?;
        Marked::mark(group(self.pre_content)?, trees, kept_out)
    }

    fn mark(
        (group, pre_content): (Group, bool),
        trees: &[Tree],
        kept_out: Vec<OwnedFd>,
    ) -> Result<Marked> {
        let mut marked = Marked {
            group,
            moves: None,
            ranges: Vec::new(),
            kept_out,
            evictable: true,
            pre_content,
        };
        marked.ignore_own()?;
        let mut devices = Vec::new();
        for tree in trees {
            let dev = fstat(&tree.root).map_or(0, |stat| stat.st_dev);
            if devices.contains(&dev) {
                continue;
            }
            devices.push(dev);
            let root = tree.root.as_fd();
            if pre_content && marked.group.mark_filesystem(root, MASK).is_ok() {
                marked.ranges.push(dev);
                continue;
            }
            marked.group.mark_filesystem(root, OPEN_PERM).map_err(|e| {
                trouble(
                    &e,
                    "hold.unsupported",
                    "opens on this file system cannot be held",
                )
            })?;
        }
        Ok(marked)
    }

    fn ignore_own(&self) -> Result<()> {
        for directory in &self.kept_out {
            self.leave_out(directory.as_fd()).map_err(|e| {
                trouble(
                    &e,
                    "hold.deadlock",
                    "a directory of our own cannot be left out",
                )
            })?;
        }
        Ok(())
    }

    fn leave_out(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        if self.pre_content && self.group.ignore_directory(directory, MASK, false).is_ok() {
            return Ok(());
        }
        self.group.ignore_directory(directory, OPEN_PERM, false)
    }

    /// About how many wait that were not read yet.
    pub fn unread(&self) -> u64 {
        self.group.waiting()
    }

    /// Ignores a directory outside until it moves or the kernel drops the mark.
    pub fn ignore(&mut self, directory: BorrowedFd<'_>) -> bool {
        self.evictable && {
            self.evictable = self
                .group
                .ignore_directory(directory, self.mask(), true)
                .is_ok();
            self.evictable
        }
    }

    /// Takes [`Marked::ignore`] back.
    pub fn regard(&self, directory: BorrowedFd<'_>) -> io::Result<()> {
        self.group.regard_directory(directory, self.mask())
    }

    /// Ranges of a file whose opens are ignored are not to be answered either; only one class knows them.
    fn mask(&self) -> u64 {
        if self.pre_content && !self.ranges.is_empty() {
            MASK
        } else {
            OPEN_PERM
        }
    }

    /// Takes all ignoring marks away, but for our own directories.
    ///
    /// # Errors
    /// `hold.deadlock`, `hold.failed`.
    pub fn forget(&self) -> Result<()> {
        self.group
            .forget_inodes()
            .map_err(|e| trouble(&e, "hold.failed", "marks cannot be taken back"))?;
        self.ignore_own()
    }
}
