//! The file of a copy, before it counts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fstat, unlinkat, AtFlags};

use super::version::VersionId;
use crate::files::trouble::{Result, Trouble};

/// An object on its way; it loses its name again unless it is kept.
pub(super) struct Object<'a> {
    fd: Option<OwnedFd>,
    images: &'a OwnedFd,
    name: Option<[u8; 16]>,
}

impl<'a> Object<'a> {
    /// The file `fd`, which stands in `images` under the name of `id`.
    pub(super) fn new(fd: OwnedFd, images: &'a OwnedFd, id: VersionId) -> Object<'a> {
        Object {
            fd: Some(fd),
            images,
            name: Some(id.name()),
        }
    }

    /// The file.
    pub(super) fn fd(&self) -> Result<BorrowedFd<'_>> {
        let fd = self.fd.as_ref().map(AsFd::as_fd);
        fd.ok_or_else(|| Trouble::new("file.io", "copy was given away"))
    }

    /// The file, which stays.
    pub(super) fn into_fd(mut self) -> Result<OwnedFd> {
        self.name = None;
        let fd = self.fd.take();
        fd.ok_or_else(|| Trouble::new("file.io", "copy was given away"))
    }

    /// Its inode.
    pub(super) fn ino(&self) -> Result<u64> {
        let stat = fstat(self.fd()?).map_err(|e| Trouble::data(e, "copy cannot be looked at"))?;
        Ok(stat.st_ino)
    }

    /// It has its record: it stays.
    pub(super) fn keep(&mut self) {
        self.name = None;
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            let _gone = unlinkat(self.images, name.as_slice(), AtFlags::empty());
        }
    }
}
