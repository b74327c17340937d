//! The vault's directory: made, opened, and whether it is ours alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fchmod, fstat, mkdirat, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::files::open::open_beneath;
use crate::files::trouble::{Result, Trouble};

/// Name of a vault beneath the top of a file system.
pub const NAME: &[u8] = b".shieldd-vault";
/// Hard links.
pub const LINKS: &[u8] = b"links";
/// Copies.
pub const IMAGES: &[u8] = b"images";
/// Records.
pub const INDEX: &[u8] = b"index";

/// The directories of a vault. Nothing else is in it.
#[derive(Debug)]
pub struct Place {
    /// The vault itself.
    pub top: OwnedFd,
    /// Hard links, by id.
    pub links: OwnedFd,
    /// Copies, by id.
    pub images: OwnedFd,
    /// Record files, the lock, the room that is left.
    pub index: OwnedFd,
    /// Device of all of them.
    pub dev: u64,
}

/// Makes the vault `name` in `parent` where there is none, and opens it.
///
/// # Errors
/// `preserve.unsafe` for a link, a file, a foreign owner, a directory that others may enter or one on another file
/// system; `file.readonly`, `file.full`, `file.denied` where it cannot be made.
pub fn make(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let made = match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(e) => return Err(Trouble::of(e, "vault cannot be made")),
    };
    let fd = directory(parent, name)?;
    if made {
        // a default access list or the umask may have had their say
        fchmod(&fd, Mode::RWXU).map_err(|e| Trouble::of(e, "mode of the vault cannot be set"))?;
    }
    let beside = fstat(parent).map_err(|e| Trouble::data(e, "vault cannot be looked at"))?;
    check(&fd, beside.st_dev)?;
    Ok(fd)
}

impl Place {
    /// Opens the vault that `top` is, checks it, makes what it lacks.
    ///
    /// # Errors
    /// As [`make`].
    pub fn open(top: OwnedFd) -> Result<Place> {
        let stat = fstat(&top).map_err(|e| Trouble::data(e, "vault cannot be looked at"))?;
        let dev = stat.st_dev;
        check(&top, dev)?;
        let inner = |name: &[u8]| {
            match directory(top.as_fd(), name) {
                Err(trouble) if trouble.code == "file.missing" => make(top.as_fd(), name),
                other => other,
            }
            .and_then(|fd| check(&fd, dev).map(|_| fd))
        };
        Ok(Place {
            links: inner(LINKS)?,
            images: inner(IMAGES)?,
            index: inner(INDEX)?,
            dev,
            top,
        })
    }

    /// The directories in which files are made: an answerer has its marks ignore them.
    pub fn directories(&self) -> [BorrowedFd<'_>; 4] {
        [
            self.top.as_fd(),
            self.links.as_fd(),
            self.images.as_fd(),
            self.index.as_fd(),
        ]
    }
}

fn directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    open_beneath(parent, name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| match e {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Trouble::new(
            "preserve.unsafe",
            "something else stands in the vault's place",
        ),
        e => Trouble::of(e, "vault cannot be opened"),
    })
}

fn check(fd: &OwnedFd, dev: u64) -> Result<Stat> {
    let stat = fstat(fd).map_err(|e| Trouble::data(e, "vault cannot be looked at"))?;
    let refuse = |message: String| Err(Trouble::new("preserve.unsafe", message));
    if stat.st_uid != geteuid().as_raw() {
        return refuse(format!("vault belongs to uid {}", stat.st_uid));
    }
    if stat.st_mode & 0o077 != 0 {
        return refuse(format!("vault has mode {:04o}", stat.st_mode & 0o7777));
    }
    if stat.st_dev != dev {
        return refuse("a part of the vault is on another file system".into());
    }
    Ok(stat)
}
