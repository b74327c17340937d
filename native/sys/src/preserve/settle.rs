//! Off the hot path: digests of copies, one object for equal content, a label on each object.

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::fs::{fsetxattr, fstat, unlinkat, AtFlags, XattrFlags};

use super::index::Index;
use super::reading::digest_of;
use super::record::Record;
use super::version::{Kind, VersionId};
use crate::files::trouble::{Result, Trouble};

/// The record of an object's version, on the object itself: enough to know it without the index.
pub const LABEL: &str = "trusted.shieldd.version";
/// Copies this young may still be shared by their writer as they are, ns.
const SETTLED_NS: u64 = 2_000_000_000;

/// Objects by digest and size.
type Twins = HashMap<([u8; 32], u64), VersionId>;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settled {
    /// Copies that have a digest now.
    pub digested: u64,
    /// Objects that went because another one has the same content.
    pub shared: u64,
    /// Bytes given back.
    pub bytes: u64,
    /// Copies that are not what their record says.
    pub damaged: u64,
    /// Copies still without a digest.
    pub left: u64,
}

impl Index {
    /// Digests copies for at most about `budget` bytes, and lets equal ones share an object.
    pub fn settle(&self, now_ns: u64, budget: u64) -> Result<Settled> {
        self.refresh()?;
        let mut out = Settled::default();
        let (todo, mut by_digest) = self.undigested(now_ns);
        let mut read = 0;
        let mut twins = Vec::new();
        for (at, id) in todo.iter().enumerate() {
            if read >= budget {
                out.left = (todo.len() - at) as u64;
                break;
            }
            let Ok(found) = self.version(*id) else {
                continue;
            };
            read += found.version.size.max(4096);
            let digest = match self.digest_checked(*id) {
                Ok(digest) => digest,
                Err(trouble) if trouble.code == "preserve.damaged" => {
                    out.damaged += 1;
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            self.vault.writer.gather(&Record::Digest {
                object: *id,
                digest,
            })?;
            self.inner().digests.insert(*id, digest);
            out.digested += 1;
            match by_digest.get(&(digest, found.version.size)) {
                Some(kept) => twins.push((*id, *kept)),
                None => {
                    by_digest.insert((digest, found.version.size), *id);
                }
            }
        }
        self.share(&twins, &mut out)?;
        self.vault.writer.flush()?;
        Ok(out)
    }

    /// Images without a digest, the oldest first; and the objects by digest and size of those that have one.
    fn undigested(&self, now_ns: u64) -> (Vec<VersionId>, Twins) {
        let inner = self.inner();
        let limit = now_ns.saturating_sub(SETTLED_NS);
        let mut todo: Vec<VersionId> = inner
            .objects
            .iter()
            .filter(|(id, o)| {
                o.kind == Kind::Image
                    && !o.damaged
                    && o.made_ns < limit
                    && !inner.digests.contains_key(id)
            })
            .map(|(id, _)| *id)
            .collect();
        todo.sort_unstable();
        let by_digest = inner
            .digests
            .iter()
            .filter_map(|(id, digest)| {
                let object = inner.objects.get(id).filter(|o| !o.damaged)?;
                Some(((*digest, object.stored), *id))
            })
            .collect();
        (todo, by_digest)
    }

    fn digest_checked(&self, id: VersionId) -> Result<[u8; 32]> {
        let fd = self.open_version(id, true)?;
        let size = fstat(&fd)
            .map_err(|e| Trouble::data(e, "copy cannot be looked at"))?
            .st_size;
        let digest = digest_of(fd.as_fd(), size as u64)?;
        if let Ok(found) = self.version(id) {
            let mut label = Vec::new();
            Record::Version(Box::new(found.version)).write(&mut label);
            // A help for people who lost the index; where it does not fit or cannot be, nothing depends on it.
            let _help = fsetxattr(&fd, LABEL, &label, XattrFlags::empty());
        }
        Ok(digest)
    }

    fn share(&self, twins: &[(VersionId, VersionId)], out: &mut Settled) -> Result<()> {
        if twins.is_empty() {
            return Ok(());
        }
        for (object, kept) in twins {
            let (object, kept) = (*object, *kept);
            self.vault.writer.gather(&Record::Same { object, kept })?;
        }
        self.vault.writer.sync()?;
        self.refresh()?;
        let images = &self.vault.place.images;
        let inner = self.inner();
        for (object, kept) in twins {
            if inner.objects.contains_key(object) || !inner.objects.contains_key(kept) {
                continue;
            }
            if let Ok(stat) = rustix::fs::statat(images, object.name().as_slice(), AtFlags::empty())
            {
                out.bytes += (stat.st_blocks as u64).saturating_mul(512);
            }
            let _gone = unlinkat(images, object.name().as_slice(), AtFlags::empty());
            out.shared += 1;
        }
        Ok(())
    }
}
