//! From a root descriptor and a path to a directory or a regular file, and what was seen there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    fstat, openat2, statat, statx, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat,
    StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use super::ours::links_of_ours;
use super::trouble::{retry, Result, Trouble};

/// Longest name of a directory entry, bytes.
pub const NAME_MAX: usize = 255;
const SAFE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// How often `openat2` is tried again when it says that the tree moved under it.
const RACES: usize = 16;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of content, ns.
    pub mtime_ns: i64,
    /// Last change of the inode, ns.
    pub ctime_ns: i64,
}

impl Stamp {
    /// Of a `stat`.
    pub fn of(stat: &Stat) -> Stamp {
        let ns = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        Stamp {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            size: stat.st_size as u64,
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    /// The same file with the same content, as far as its times tell; a rename in between is allowed.
    pub fn same_content(&self, other: &Stamp) -> bool {
        Stamp {
            ctime_ns: 0,
            ..*self
        } == Stamp {
            ctime_ns: 0,
            ..*other
        }
    }
}

/// Refuses absolute paths, empty ones, NUL, `.` and `..`.
pub fn check_path(path: &[u8]) -> Result<()> {
    if path.first() == Some(&b'/') {
        return Err(Trouble::new(
            "file.outside",
            "path is absolute; it must be relative to its tree",
        ));
    }
    for part in path.split(|&b| b == b'/') {
        if part == b".." {
            return Err(Trouble::new("file.outside", "path leaves its tree"));
        }
        check_name(part)?;
    }
    Ok(())
}

/// Refuses what cannot be one directory entry.
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&0) || name.contains(&b'/')
    {
        return Err(Trouble::new("file.name", "not a usable file name"));
    }
    if name.len() > NAME_MAX {
        return Err(Trouble::new(
            "file.name",
            format!("file name of {} bytes is longer than 255", name.len()),
        ));
    }
    Ok(())
}

/// Opens `path` beneath `root`.
pub fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    // No O_NOFOLLOW: with it a link in a directory's place is told as "not a directory"; SAFE refuses links by name.
    let flags = flags | OFlags::CLOEXEC;
    for _ in 0..RACES {
        match openat2(root, path, flags, Mode::empty(), SAFE) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// A directory, and how it was reached.
#[derive(Debug)]
pub struct Dir {
    /// The directory itself.
    pub fd: OwnedFd,
    /// Its path relative to the root; empty for the root.
    pub path: Vec<u8>,
}

impl Dir {
    /// The directory that holds `path`, and the name in it.
    pub fn holding(root: BorrowedFd<'_>, path: &[u8]) -> Result<(Dir, Vec<u8>)> {
        check_path(path)?;
        let (dir, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        Ok((Dir::open(root, dir)?, name.to_vec()))
    }

    /// The directory `path` beneath `root`; empty is the root itself.
    pub fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let at: &[u8] = if path.is_empty() { b"." } else { path };
        let fd = open_beneath(root, at, flags)
            .map_err(|e| Trouble::of(e, "directory cannot be opened"))?;
        Ok(Dir {
            fd,
            path: path.to_vec(),
        })
    }

    /// What stands under `name`, links not followed; `None` where nothing does.
    pub fn look(&self, name: &[u8]) -> Result<Option<Stat>> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Trouble::of(e, "file cannot be looked at")),
        }
    }

    /// The path of `name` in here, relative to the root.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() {
            return name.to_vec();
        }
        [&self.path, &b"/"[..], name].concat()
    }
}

/// A regular file that was opened once and is held.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub fd: OwnedFd,
    /// Its state when it was opened.
    pub stat: Stat,
    /// The same, to compare.
    pub stamp: Stamp,
}

impl Source {
    /// Opens `name` in `dir` if it is a regular file with one name, not immutable; never touches anything else
    /// (opening a FIFO blocks, opening a device acts).
    pub fn open(dir: &Dir, name: &[u8], access: OFlags) -> Result<Source> {
        let seen = dir
            .look(name)?
            .ok_or_else(|| Trouble::new("file.missing", "no such file"))?;
        check_kind(&seen)?;
        let quiet = access | OFlags::NONBLOCK;
        let fd = match open_beneath(dir.fd.as_fd(), name, quiet | OFlags::NOATIME) {
            Err(Errno::PERM) => open_beneath(dir.fd.as_fd(), name, quiet),
            other => other,
        }
        .map_err(|e| Trouble::of(e, "file cannot be opened"))?;
        let stat = fstat(&fd).map_err(|e| Trouble::data(e, "file cannot be looked at"))?;
        check_kind(&stat)?;
        if (stat.st_dev, stat.st_ino) != (seen.st_dev, seen.st_ino) {
            return Err(Trouble::new(
                "file.race",
                "path was swapped while it was opened",
            ));
        }
        Ok(Source {
            stamp: Stamp::of(&stat),
            fd,
            stat,
        })
    }

    /// Takes a file that somebody opened already, if it is a regular one.
    pub fn held(fd: OwnedFd) -> Result<Source> {
        let stat = fstat(&fd).map_err(|e| Trouble::data(e, "file cannot be looked at"))?;
        check_kind(&stat)?;
        Ok(Source {
            stamp: Stamp::of(&stat),
            fd,
            stat,
        })
    }

    /// Refuses a file that has other names or may not be replaced. The vault's own hard link is no other name: it is
    /// root's alone, and goes by the vault's rules.
    pub fn check_replaceable(&self) -> Result<()> {
        let links = foreign_links(&self.stat);
        if links > 1 {
            let message = format!("file has {links} hard links");
            return Err(Trouble::new("file.hardlinks", message));
        }
        let seen = statx(&self.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
            .map_err(|e| Trouble::data(e, "file cannot be looked at"))?;
        if seen
            .stx_attributes
            .intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
        {
            return Err(Trouble::new(
                "file.immutable",
                "file is immutable or append-only",
            ));
        }
        Ok(())
    }

    /// Whether it is as it was when it was opened. A link that the vault gave it or took from it meanwhile changed its
    /// ctime, and nothing that matters.
    pub fn unchanged(&self) -> Result<bool> {
        let now = self.now()?;
        let stamp = Stamp::of(&now);
        if stamp == self.stamp {
            return Ok(true);
        }
        let owned = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, foreign_links(stat));
        Ok(stamp.same_content(&self.stamp)
            && now.st_nlink != self.stat.st_nlink
            && owned(&now) == owned(&self.stat))
    }

    /// The state now.
    pub fn now(&self) -> Result<Stat> {
        retry(|| fstat(&self.fd)).map_err(|e| Trouble::data(e, "file cannot be looked at"))
    }
}

/// The names of the file of `stat` without those that the vault gave it.
pub fn foreign_links(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let links = stat.st_nlink as u64;
    if links <= 1 {
        return links;
    }
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let ours = links_of_ours(stat.st_dev as u64, stat.st_ino as u64);
    // the vault counts a link a moment before it makes it, and a moment longer than it has it
    links.saturating_sub(u64::from(ours)).max(1)
}

fn check_kind(stat: &Stat) -> Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Trouble::new("file.directory", "is a directory")),
        FileType::Symlink => Err(Trouble::new("file.symlink", "is a symbolic link")),
        FileType::Fifo => Err(Trouble::new("file.not-regular", "is a FIFO")),
        FileType::Socket => Err(Trouble::new("file.not-regular", "is a socket")),
        _ => Err(Trouble::new("file.not-regular", "is a device")),
    }
}
