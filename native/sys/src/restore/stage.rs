//! What comes back, made under no name or a hidden one: content, holes, owner, attributes, mode, times.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    copy_file_range, fchmod, fremovexattr, fsetxattr, fstat, ftruncate, futimens, ioctl_ficlone,
    linkat, openat, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags, CWD,
};
use rustix::io::{pread, pwrite, Errno};

use crate::files::attributes::{give_to, xattrs};
use crate::files::holes::extents;
use crate::files::open::Dir;
use crate::files::staged::remember;
use crate::files::trouble::{retry, Result, Trouble};

use super::batch::Wanted;

const CHUNK: usize = 1 << 20;

/// A file about to get its name.
#[derive(Debug)]
pub struct Staged {
    /// The file, readable.
    pub fd: OwnedFd,
    /// Whether it stands under its hidden name already.
    pub named: bool,
    /// BLAKE3 of what was written, zero where nothing had to be read.
    pub digest: [u8; 32],
    /// Attributes that this process may not set here, or that the file system does not take.
    pub skipped: Vec<Vec<u8>>,
}

/// Writes a copy of `version` into `dir`, as `wanted` says, and reads it back.
///
/// # Errors
/// `restore.digest` where what was read back is not the version; else what the file system said. Nothing is left.
pub fn copy(dir: &Dir, hidden: &[u8], version: BorrowedFd<'_>, wanted: &Wanted) -> Result<Staged> {
    let (fd, named) = unnamed(dir, hidden)?;
    let done = fill(&fd, version, wanted);
    match done {
        Ok((digest, skipped)) => Ok(Staged {
            fd,
            named,
            digest,
            skipped,
        }),
        Err(trouble) => {
            if named {
                let _gone = rustix::fs::unlinkat(&dir.fd, hidden, AtFlags::empty());
            }
            Err(trouble)
        }
    }
}

/// Takes the version's own inode, if it is still what was preserved; nothing is written.
///
/// # Errors
/// `restore.version` where it is not, `restore.digest` where its content is another.
pub fn link(version: BorrowedFd<'_>, wanted: &Wanted) -> Result<Staged> {
    let stat = look(version)?;
    #[allow(clippy::unnecessary_cast)]
    if stat.st_size as u64 != wanted.size || mtime_ns(&stat) != wanted.mtime_ns {
        return Err(Trouble::new(
            "restore.version",
            "the preserved link was written to since",
        ));
    }
    let mut digest = [0; 32];
    if wanted.digest.is_some() {
        digest = digest_of(version)?;
        compare(wanted, &digest)?;
    }
    let fd = version
        .try_clone_to_owned()
        .map_err(|e| Trouble::new("file.io", format!("descriptor cannot be held: {e}")))?;
    let changed = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
        != (wanted.mode & 0o7777, wanted.uid, wanted.gid)
        || (wanted.xattrs_whole && xattrs(version)? != wanted.xattrs);
    let skipped = if changed {
        dress(version, wanted)?
    } else {
        Vec::new()
    };
    Ok(Staged {
        fd,
        named: false,
        digest,
        skipped,
    })
}

/// Puts owner, attributes, mode and times on `fd`, in the order in which none undoes another.
///
/// Returns the names of attributes that were not taken.
pub fn dress(fd: BorrowedFd<'_>, wanted: &Wanted) -> Result<Vec<Vec<u8>>> {
    give_to(fd, wanted.uid, wanted.gid)?;
    let mut skipped = Vec::new();
    if wanted.xattrs_whole {
        for (name, _) in xattrs(fd)? {
            // What may not be taken away (a label of the security module) is not ours to judge.
            if !wanted.xattrs.iter().any(|(kept, _)| *kept == name) {
                let _stays = fremovexattr(fd, name.as_slice());
            }
        }
    }
    for (name, value) in &wanted.xattrs {
        match fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {
                skipped.push(name.clone())
            }
            Err(e) => return Err(Trouble::data(e, "extended attribute cannot be set")),
        }
    }
    fchmod(fd, Mode::from_raw_mode(wanted.mode & 0o7777))
        .map_err(|e| Trouble::of(e, "mode cannot be set"))?;
    let times = Timestamps {
        last_access: timespec(wanted.atime_ns),
        last_modification: timespec(wanted.mtime_ns),
    };
    futimens(fd, &times).map_err(|e| Trouble::of(e, "times cannot be set"))?;
    Ok(skipped)
}

/// Gives a nameless file a name in `dir` that nothing has.
pub fn name(fd: BorrowedFd<'_>, dir: &Dir, name: &[u8]) -> Result<()> {
    // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the descriptor's own magic link needs nothing but /proc.
    match linkat(fd, c"", &dir.fd, name, AtFlags::EMPTY_PATH) {
        Err(Errno::NOENT | Errno::PERM) => {
            let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
            linkat(CWD, own, &dir.fd, name, AtFlags::SYMLINK_FOLLOW)
        }
        other => other,
    }
    .map_err(|e| Trouble::of(e, "file cannot be named"))
}

/// BLAKE3 of all of a file.
pub fn digest_of(fd: BorrowedFd<'_>) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0u8; CHUNK];
    let mut at = 0u64;
    loop {
        let n = retry(|| pread(fd, &mut chunk, at))
            .map_err(|e| Trouble::data(e, "content cannot be read"))?;
        if n == 0 {
            return Ok(*hasher.finalize().as_bytes());
        }
        hasher.update(&chunk[..n]);
        at += n as u64;
    }
}

/// Last change of content, ns.
pub fn mtime_ns(stat: &Stat) -> i64 {
    #[allow(clippy::unnecessary_cast)]
    (stat.st_mtime as i64)
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64)
}

fn unnamed(dir: &Dir, hidden: &[u8]) -> Result<(OwnedFd, bool)> {
    let mode = Mode::RUSR | Mode::WUSR;
    let tmpfile = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match retry(|| openat(&dir.fd, c".", tmpfile, mode)) {
        Ok(fd) => return Ok((fd, false)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        Err(e) => return Err(Trouble::of(e, "new file cannot be made")),
    }
    remember(hidden);
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    retry(|| openat(&dir.fd, hidden, flags, mode))
        .map(|fd| (fd, true))
        .map_err(|e| Trouble::of(e, "new file cannot be made"))
}

type Filled = ([u8; 32], Vec<Vec<u8>>);

fn fill(fd: &OwnedFd, version: BorrowedFd<'_>, wanted: &Wanted) -> Result<Filled> {
    let stat = look(version)?;
    content(fd, version, &stat)?;
    let digest = digest_of(fd.as_fd())?;
    match wanted.digest {
        Some(_) => compare(wanted, &digest)?,
        None if digest_of(version)? == digest => {}
        None => {
            return Err(Trouble::new(
                "restore.digest",
                "version changed while it was copied",
            ))
        }
    }
    Ok((digest, dress(fd.as_fd(), wanted)?))
}

fn content(fd: &OwnedFd, version: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    let failed = |e| Trouble::data(e, "content cannot be written");
    if stat.st_size == 0 || ioctl_ficlone(fd, version).is_ok() {
        return Ok(());
    }
    #[allow(clippy::unnecessary_cast)]
    ftruncate(fd, stat.st_size as u64).map_err(failed)?;
    for extent in extents(version, stat, u64::MAX)? {
        let end = extent.at + extent.len;
        let (mut from, mut to) = (extent.at, extent.at);
        while from < end {
            let left = (end - from).min(1 << 30) as usize;
            match copy_file_range(version, Some(&mut from), fd, Some(&mut to), left) {
                Ok(0) => break, // cut short since: the digest tells
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                    by_hand(fd, version, from, end)?;
                    break;
                }
                Err(e) => return Err(failed(e)),
            }
        }
    }
    Ok(())
}

fn by_hand(fd: &OwnedFd, version: BorrowedFd<'_>, mut at: u64, end: u64) -> Result<()> {
    let mut chunk = vec![0u8; CHUNK.min((end - at) as usize)];
    while at < end {
        let most = chunk.len().min((end - at) as usize);
        let n = retry(|| pread(version, &mut chunk[..most], at))
            .map_err(|e| Trouble::data(e, "version cannot be read"))?;
        if n == 0 {
            return Ok(());
        }
        let mut done = 0;
        while done < n {
            done += retry(|| pwrite(fd, &chunk[done..n], at + done as u64))
                .map_err(|e| Trouble::data(e, "content cannot be written"))?;
        }
        at += n as u64;
    }
    Ok(())
}

fn compare(wanted: &Wanted, digest: &[u8; 32]) -> Result<()> {
    if wanted.digest.is_some_and(|known| known != *digest) {
        return Err(Trouble::new(
            "restore.digest",
            "version does not have the content that was preserved",
        ));
    }
    Ok(())
}

fn look(version: BorrowedFd<'_>) -> Result<Stat> {
    let stat = fstat(version).map_err(|e| Trouble::data(e, "version cannot be looked at"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Trouble::new(
            "restore.version",
            "version is not a regular file",
        ));
    }
    Ok(stat)
}

fn timespec(ns: i64) -> Timespec {
    Timespec {
        tv_sec: ns.div_euclid(1_000_000_000),
        tv_nsec: ns.rem_euclid(1_000_000_000) as _,
    }
}
