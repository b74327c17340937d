//! Content of versions: checked against the record before it is given out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fstat, ftruncate, openat, Mode, OFlags};
use rustix::io::Errno;

use super::copy::{checksum, through, whole, Buffer};
use super::index::{Found, Index};
use super::version::{Kind, VersionId};
use crate::files::trouble::{retry, Result, Trouble};

impl Index {
    /// The content of a version, open for reading; with `verify` every byte was checked that can be.
    ///
    /// Of a link it is what the file holds now (see [`Found::changed`]); of ranges it is the bare ranges (use
    /// [`Index::assemble`]).
    ///
    /// # Errors
    /// `preserve.missing`; `preserve.damaged` where it is not what its record says: from then on it is not offered.
    pub fn open_version(&self, id: VersionId, verify: bool) -> Result<OwnedFd> {
        let found = self.version(id)?;
        let outcome = self.checked(&found, verify);
        if outcome
            .as_ref()
            .is_err_and(|trouble| trouble.code == "preserve.damaged")
        {
            self.inner().damage(found.version.object);
        }
        outcome
    }

    fn checked(&self, found: &Found, verify: bool) -> Result<OwnedFd> {
        let version = &found.version;
        let damaged = |what: &str| Err(Trouble::new("preserve.damaged", what));
        let fd = self.open_object(version.object, version.kind)?;
        let stat = fstat(&fd).map_err(|e| Trouble::data(e, "version cannot be looked at"))?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return damaged("preserved content is not a regular file");
        }
        let object = self.inner().objects.get(&version.object).copied();
        if object.is_none_or(|object| object.ino != stat.st_ino) {
            return damaged("another file stands in the place of the preserved content");
        }
        match version.kind {
            Kind::Link => return Ok(fd),
            Kind::Range => {
                if verify {
                    self.check_ranges(version.object, fd.as_fd())?;
                }
                return Ok(fd);
            }
            Kind::Image => {}
        }
        if stat.st_size as u64 != version.size || stat.st_nlink != 1 {
            return damaged("preserved content has another size, or another name");
        }
        if !verify {
            return Ok(fd);
        }
        let own = self
            .version(version.object)
            .ok()
            .and_then(|own| own.version.crc);
        if let Some(digest) = found.digest {
            if digest_of(fd.as_fd(), version.size)? != digest {
                return damaged("preserved content does not have its digest");
            }
        } else if let Some(crc) = version.crc.or(own) {
            let mut buffer = Buffer::default();
            if checksum(fd.as_fd(), 0, version.size, &mut buffer)? != crc {
                return damaged("preserved content does not have its checksum");
            }
        }
        Ok(fd)
    }

    pub(super) fn open_object(&self, object: VersionId, kind: Kind) -> Result<OwnedFd> {
        let dir = match kind {
            Kind::Link => &self.vault.place.links,
            _ => &self.vault.place.images,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let name = object.name();
        match openat(dir, name.as_slice(), flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => openat(dir, name.as_slice(), flags, Mode::empty()),
            other => other,
        }
        .map_err(|e| match e {
            Errno::NOENT => Trouble::new("preserve.damaged", "preserved content is not there"),
            Errno::LOOP => Trouble::new("preserve.damaged", "preserved content is a link"),
            e => Trouble::of(e, "preserved content cannot be opened"),
        })
    }

    fn check_ranges(&self, object: VersionId, fd: BorrowedFd<'_>) -> Result<()> {
        let extents = self
            .inner()
            .extents
            .get(&object)
            .cloned()
            .unwrap_or_default();
        let mut buffer = Buffer::default();
        for (offset, len, crc) in extents {
            if checksum(fd, offset, len, &mut buffer)? != crc {
                return Err(Trouble::new(
                    "preserve.damaged",
                    "a preserved range does not have its checksum",
                ));
            }
        }
        Ok(())
    }

    /// The content of a version of [`Kind::Range`], put together from the file as `current` holds it and the ranges
    /// of this and all later versions of the file. The result has no name, and lies on the vault's file system.
    ///
    /// # Errors
    /// `preserve.missing`, `preserve.damaged` also where the file is shorter now and the rest was not kept,
    /// `file.full`.
    pub fn assemble(&self, id: VersionId, current: BorrowedFd<'_>) -> Result<OwnedFd> {
        let found = self.version(id)?;
        let stat = fstat(current).map_err(|e| Trouble::data(e, "file cannot be looked at"))?;
        // Without a record, and when it is dropped without a name: nothing but its descriptor is left of it.
        let out = self.vault.new_object(self.vault.writer.id()?)?;
        let out = out
            .fd()?
            .try_clone_to_owned()
            .map_err(|_| Trouble::new("file.io", "no descriptor is left"))?;
        let mut buffer = Buffer::default();
        whole(current, out.as_fd(), &stat, &self.vault.ways, &mut buffer)?;
        let size = found.version.size;
        retry(|| ftruncate(&out, size)).map_err(|e| Trouble::data(e, "file cannot be sized"))?;
        let mut known = stat.st_size as u64;
        for object in self.ranges_since(&found) {
            let fd = self.open_object(object, Kind::Range)?;
            let mut extents = self
                .inner()
                .extents
                .get(&object)
                .cloned()
                .unwrap_or_default();
            extents.sort_unstable();
            for (offset, len, crc) in extents {
                if through(fd.as_fd(), out.as_fd(), offset, len, &mut buffer)? != crc {
                    self.inner().damage(object);
                    return Err(Trouble::new(
                        "preserve.damaged",
                        "a preserved range does not have its checksum",
                    ));
                }
                if offset <= known {
                    known = known.max(offset + len);
                }
            }
        }
        if known < size {
            return Err(Trouble::new(
                "preserve.damaged",
                "the file was cut short and its end was not kept",
            ));
        }
        retry(|| ftruncate(&out, size)).map_err(|e| Trouble::data(e, "file cannot be sized"))?;
        Ok(out)
    }

    /// Range versions of the same inode from this one on, the latest first.
    fn ranges_since(&self, found: &Found) -> Vec<VersionId> {
        let inner = self.inner();
        let ino = found.version.ino;
        let mut later: Vec<_> = inner
            .entries
            .iter()
            .filter(|e| e.live && (e.at_ns, e.id) >= (found.version.at_ns, found.version.id))
            .filter(|e| {
                inner
                    .objects
                    .get(&e.object)
                    .is_some_and(|o| o.kind == Kind::Range)
            })
            .copied()
            .collect();
        later.retain(|e| {
            let details = inner.details(e).ok().flatten();
            details.is_some_and(|version| version.ino == ino)
        });
        later.sort_unstable_by_key(|e| std::cmp::Reverse((e.at_ns, e.id)));
        later.into_iter().map(|e| e.object).collect()
    }
}

/// BLAKE3 of the first `size` bytes.
pub(super) fn digest_of(fd: BorrowedFd<'_>, size: u64) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < size {
        let want = (size - at).min(buffer.len() as u64) as usize;
        let n = retry(|| rustix::io::pread(fd, &mut buffer[..want], at))
            .map_err(|e| Trouble::data(e, "preserved content cannot be read"))?;
        if n == 0 {
            return Err(Trouble::new(
                "preserve.damaged",
                "preserved content is cut short",
            ));
        }
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}
