//! Hard links: cheap, and enough against deletion and against a rename over the file.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{
    lgetxattr, linkat, llistxattr, statat, unlinkat, AtFlags, FileType, OFlags, Stat,
};
use rustix::io::Errno;

use super::counts::Count;
use super::record::Record;
use super::vault::{fitting, Vault};
use super::version::{name_hash, About, Attributes, Kind, Version, VersionId};
use crate::files::open::{check_path, open_beneath};
use crate::files::ours::Ours;
use crate::files::trouble::{Result, Trouble};

/// The inodes that have a link of ours.
#[derive(Debug, Default)]
pub struct Linked(HashMap<u64, Link>);

/// The link to one inode.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Its object.
    pub object: VersionId,
    /// The last version of it.
    pub last: VersionId,
    /// Stands for the name that it was last seen under.
    pub name: u64,
}

impl Link {
    fn new(object: VersionId, name: u64) -> Link {
        Link {
            object,
            last: object,
            name,
        }
    }
}

impl Linked {
    /// Whether the inode has one.
    pub fn holds(&self, ino: u64) -> bool {
        self.0.contains_key(&ino)
    }

    /// The link to an inode.
    pub fn get(&self, ino: u64) -> Option<Link> {
        self.0.get(&ino).copied()
    }

    /// The inode has one.
    pub fn put(&mut self, ino: u64, link: Link) {
        self.0.insert(ino, link);
    }

    /// The inode's link `object` is no more.
    pub fn gone(&mut self, ino: u64, object: VersionId) {
        if self.get(ino).is_some_and(|link| link.object == object) {
            self.0.remove(&ino);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Ours for Vault {
    fn links_of(&self, dev: u64, ino: u64) -> u32 {
        u32::from(dev == self.place.dev && self.linked().holds(ino))
    }
}

/// Longest lock file, bytes: host and process; `Cargo.lock` and its like are longer.
const LOCK: i64 = 256;

/// Whether a name is that of a lock file. Who takes a lock by link(2) counts the names of the file and takes a third for
/// a sign that somebody else has it: GnuPG (`.#lk…`, `….lock`), liblockfile (`.lk…`), mail programs (`….lock`, `….lck`).
fn is_lock(name: &[u8]) -> bool {
    name.starts_with(b".#lk")
        || name.starts_with(b".lk")
        || name.ends_with(b".lock")
        || name.ends_with(b".lck")
}

impl Vault {
    /// Keeps the file at `path` beneath `root` by a hard link; one that has a link already gets no second one, only a
    /// version of its new name.
    ///
    /// # Errors
    /// `preserve.unsupported` where hard links are off or the file system has none, `file.mount` where the vault is
    /// reached through another mount than the tree, `file.not-regular`, `file.missing`, `file.race`, `preserve.space`.
    pub fn link(&self, root: BorrowedFd<'_>, path: &[u8], about: &About<'_>) -> Result<VersionId> {
        let id = self.counted(self.try_link(root, path, about))?;
        self.writer.flush()?;
        Ok(id)
    }

    pub(super) fn try_link(
        &self,
        root: BorrowedFd<'_>,
        path: &[u8],
        about: &About<'_>,
    ) -> Result<VersionId> {
        check_path(path)?;
        let Some(at) = path.iter().rposition(|&b| b == b'/') else {
            return self.link_in(root, path, about);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = open_beneath(root, &path[..at], flags)
            .map_err(|e| Trouble::of(e, "directory cannot be opened"))?;
        self.link_in(dir.as_fd(), &path[at + 1..], about)
    }

    /// Links `name` in `dir`; its record is gathered, not written.
    pub(super) fn link_in(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        about: &About<'_>,
    ) -> Result<VersionId> {
        if !self.options.hardlinks || !self.links_work.load(Ordering::Relaxed) {
            return Err(Trouble::new(
                "preserve.unsupported",
                "no hard links are made here",
            ));
        }
        let seen = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| Trouble::of(e, "file cannot be looked at"))?;
        check(&seen, self.place.dev)?;
        if seen.st_size <= LOCK && is_lock(name) {
            return Err(Trouble::new(
                "file.not-regular",
                "a lock file has no versions",
            ));
        }
        let hash = name_hash(about.tree, about.path);
        let before = self.linked().get(seen.st_ino);
        match before {
            Some(link) if link.name == hash => Ok(link.last),
            Some(link) => self.named_anew(link, &seen, hash, about),
            None => self.new_link(dir, name, &seen, hash, about),
        }
    }

    fn named_anew(
        &self,
        link: Link,
        seen: &Stat,
        name: u64,
        about: &About<'_>,
    ) -> Result<VersionId> {
        let mut version = self.version_of_link(link.object, seen, about)?;
        version.id = self.writer.id()?;
        let id = version.id;
        self.writer.gather(&Record::Version(Box::new(version)))?;
        let link = Link {
            last: id,
            name,
            ..link
        };
        self.linked().put(seen.st_ino, link);
        self.counters.add(Count::Shared, 1);
        Ok(id)
    }

    fn new_link(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        seen: &Stat,
        hash: u64,
        about: &About<'_>,
    ) -> Result<VersionId> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Trouble::new(
                "preserve.full",
                "the vault holds as many versions as it may",
            ));
        }
        let id = self.writer.id()?;
        let (ino, link) = (seen.st_ino, Link::new(id, hash));
        // Counted as ours before it is there: who seals the file this moment shall not take it for a foreign one.
        self.linked().put(ino, link);
        let made = self.make_link(dir, name, seen, id, about);
        match &made {
            Ok(()) => self.counters.add(Count::Links, 1),
            Err(_) => self.linked().gone(ino, id),
        }
        made.map(|()| id)
    }

    fn make_link(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        seen: &Stat,
        id: VersionId,
        about: &About<'_>,
    ) -> Result<()> {
        let (links, object) = (&self.place.links, id.name());
        let flags = AtFlags::empty();
        linkat(dir, name, links, object.as_slice(), flags).map_err(|e| match e {
            Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS => {
                // EPERM is an immutable file's too
                if self.counters.get(Count::Links) == 0 && !protected(dir, name) {
                    self.links_work.store(false, Ordering::Relaxed);
                }
                Trouble::new("preserve.unsupported", "file cannot be hard-linked")
            }
            Errno::MLINK => Trouble::new("preserve.unsupported", "file has too many links"),
            e => Trouble::of(e, "hard link cannot be made"),
        })?;
        let made = self.check_link(&object, seen).and_then(|now| {
            let version = self.version_of_link(id, &now, about)?;
            self.writer.gather(&Record::Version(Box::new(version)))
        });
        if made.is_err() {
            let _gone = unlinkat(links, object.as_slice(), AtFlags::empty());
        }
        made
    }

    /// What was linked is what was looked at, not what was put in its place in between.
    fn check_link(&self, object: &[u8; 16], seen: &Stat) -> Result<Stat> {
        let now = statat(
            &self.place.links,
            object.as_slice(),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|e| Trouble::data(e, "hard link cannot be looked at"))?;
        if now.st_ino != seen.st_ino {
            return Err(Trouble::new(
                "file.race",
                "path was swapped while it was linked",
            ));
        }
        check(&now, self.place.dev)?;
        Ok(now)
    }

    fn version_of_link(
        &self,
        object: VersionId,
        stat: &Stat,
        about: &About<'_>,
    ) -> Result<Version> {
        let mut version = Version::of(object, Kind::Link, about, stat);
        version.object = object;
        version.object_ino = version.ino;
        version.stored = (stat.st_blocks as u64).saturating_mul(512);
        version.nlink = version.nlink.saturating_sub(1); // ours
        (version.xattrs, version.xattrs_partial) = self.attributes_of(object);
        Ok(version)
    }

    /// Extended attributes by the link's name: opening the file would be an event, and a wait, of a guarded file.
    fn attributes_of(&self, object: VersionId) -> (Attributes, bool) {
        let name = object.name();
        let name = std::str::from_utf8(&name).unwrap_or_default();
        let path = format!("/proc/self/fd/{}/{name}", self.place.links.as_raw_fd());
        let mut names = [0u8; 1024];
        let n = match llistxattr(path.as_str(), &mut names) {
            Ok(n) => n,
            Err(Errno::OPNOTSUPP) => return (Vec::new(), false),
            Err(_) => return (Vec::new(), true),
        };
        let (mut all, mut partial) = (Vec::new(), false);
        let mut value = vec![0u8; if n == 0 { 0 } else { 65_536 }];
        for attribute in names[..n]
            .split(|&b| b == 0)
            .filter(|name| !name.is_empty())
        {
            match lgetxattr(path.as_str(), attribute, &mut value) {
                Ok(len) => all.push((attribute.to_vec(), value[..len].to_vec())),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(_) => partial = true,
            }
        }
        all.sort();
        let (all, cut) = fitting(all);
        (all, partial || cut)
    }
}

fn check(stat: &Stat, dev: u64) -> Result<()> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Trouble::new("file.not-regular", "is not a regular file"));
    }
    if stat.st_dev != dev {
        return Err(Trouble::new("file.mount", "file is on another file system"));
    }
    Ok(())
}

/// Whether the file itself refuses links: immutable or append-only.
fn protected(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    use rustix::fs::{statx, StatxAttributes, StatxFlags};
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE).is_ok_and(|seen| {
        seen.stx_attributes
            .intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
    })
}

#[cfg(test)]
mod tests {
    use super::is_lock;

    #[test]
    fn lock_files_are_told_by_their_names() {
        for name in [
            &b".#lk0x55d0.pacs.4711"[..],
            b"pubring.kbx.lock",
            b".lk04711x",
            b"inbox.lck",
        ] {
            assert!(is_lock(name));
        }
        for name in [
            &b"lock"[..],
            b"clock",
            b"report.locked",
            b".lock.txt",
            b"#lk",
        ] {
            assert!(!is_lock(name));
        }
    }
}
