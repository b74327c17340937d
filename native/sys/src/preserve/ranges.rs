//! Ranges of files that are too large to be copied whole: what each page was before it was first written.
//!
//! The object of such a version is a sparse file: every kept range lies in it at its own offset. The version's content
//! is the file as it is now, with the ranges of this version and of all later ones of the inode put back, the latest
//! first, cut or grown to the size of then.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::copy::{through, Buffer};
use super::counts::Count;
use super::record::Record;
use super::vault::{attributes, Vault, NOBODY_WAITS};
use super::version::{About, Kind, Version, VersionId};
use crate::files::trouble::Result;

/// Ranges are widened to this, bytes.
const PAGE: u64 = 4096;
/// Writes of one actor within this time belong to one version.
const SESSION: Duration = Duration::from_secs(60);
const SESSIONS_MOST: usize = 256;
/// Ranges remembered of one file; beyond it another version begins.
const RANGES_MOST: usize = 65_536;

/// Files that are being written in parts, by inode and actor.
#[derive(Debug, Default)]
pub struct Sessions {
    open: HashMap<(u64, u64), Session>,
    buffer: Option<Buffer>,
}

#[derive(Debug)]
struct Session {
    id: VersionId,
    object: OwnedFd,
    size: u64,
    /// End by beginning; apart and not touching.
    kept: BTreeMap<u64, u64>,
    began: Instant,
}

impl Session {
    /// The parts of `from..to` that are not kept yet.
    fn missing(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut at = from;
        let before = self.kept.range(..from).next_back().map(|(_, end)| *end);
        at = at.max(before.unwrap_or(0));
        for (&start, &end) in self.kept.range(from..to) {
            if start > at {
                out.push((at, start));
            }
            at = at.max(end);
        }
        if at < to {
            out.push((at, to));
        }
        out
    }

    fn keep(&mut self, mut from: u64, mut to: u64) {
        if let Some((&start, &end)) = self.kept.range(..=from).next_back() {
            if end >= from {
                from = start;
                to = to.max(end);
            }
        }
        let swallowed: Vec<u64> = self
            .kept
            .range(from..=to)
            .map(|(start, _)| *start)
            .collect();
        for start in swallowed {
            to = to.max(self.kept.remove(&start).unwrap_or(0));
        }
        self.kept.insert(from, to);
    }
}

impl Vault {
    /// Keeps `offset..offset + len` of `file` as it is now (for a truncation: from the new length to the end).
    ///
    /// What this actor's version of the file has already is not copied again. A range beyond the end is nothing, but the
    /// version with the size of now is there then.
    ///
    /// # Errors
    /// As [`Vault::image`], but for `preserve.large`.
    pub fn range(
        &self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        offset: u64,
        len: u64,
    ) -> Result<VersionId> {
        self.range_while(file, about, offset, len, &|| true)
    }

    /// As [`Vault::range`], for as long as somebody waits, as in [`Vault::image_while`].
    ///
    /// # Errors
    /// As [`Vault::range`]; `file.changed` where nobody waits any more.
    pub fn range_while(
        &self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        offset: u64,
        len: u64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<VersionId> {
        self.counted(self.try_range(file, about, offset, len, wanted))
    }

    fn try_range(
        &self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        offset: u64,
        len: u64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<VersionId> {
        let stat = self.look(file)?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = &mut *sessions;
        let key = (stat.st_ino, about.actor);
        let stale = |s: &Session| s.began.elapsed() > SESSION || s.kept.len() > RANGES_MOST;
        if sessions.open.get(&key).is_some_and(stale) {
            sessions.open.remove(&key);
        }
        if !sessions.open.contains_key(&key) {
            if sessions.open.len() >= SESSIONS_MOST {
                sessions.open.clear();
            }
            let mut version = Version::of(self.writer.id()?, Kind::Range, about, &stat);
            (version.xattrs, version.xattrs_partial) = attributes(file);
            let mut object = self.new_object(version.id)?;
            version.object_ino = object.ino()?;
            let session = Session {
                id: version.id,
                object: object
                    .fd()?
                    .try_clone_to_owned()
                    .map_err(|_| crate::files::Trouble::new("file.io", "no descriptor is left"))?,
                size: version.size,
                kept: BTreeMap::new(),
                began: Instant::now(),
            };
            self.record(version)?;
            object.keep();
            sessions.open.insert(key, session);
        }
        let buffer = sessions.buffer.get_or_insert_with(Buffer::default);
        let Some(session) = sessions.open.get_mut(&key) else {
            return Err(crate::files::Trouble::new("file.io", "session is gone"));
        };
        let end = session.size.min(stat.st_size as u64);
        let from = offset / PAGE * PAGE;
        let to = offset
            .saturating_add(len)
            .div_ceil(PAGE)
            .saturating_mul(PAGE)
            .min(end);
        for (from, to) in session.missing(from, to) {
            self.room.take(to - from)?;
            let crc = through(file, session.object.as_fd(), from, to - from, buffer)?;
            if !wanted() {
                return Err(crate::files::Trouble::new("file.changed", NOBODY_WAITS));
            }
            self.writer.append(&Record::Extent {
                id: session.id,
                offset: from,
                len: to - from,
                crc,
            })?;
            session.keep(from, to);
            self.counters.add(Count::Ranges, 1);
            self.counters.add(Count::Bytes, to - from);
        }
        Ok(session.id)
    }
}
