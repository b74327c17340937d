//! Making versions: what the answerer calls before it lets a writer go, and the daemon for all else.
//!
//! [`Vault::image`] opens nothing but a new file in `images/`; it reads the file through the descriptor that it
//! is given, which may be one of a permission event.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{fstat, openat, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::ahead::Ahead;
use super::copy::{whole, Buffer, Ways, SMALL};
use super::counts::{Count, Counters, Counts};
use super::linking::Linked;
use super::object::Object;
use super::place::Place;
use super::ranges::Sessions;
use super::record::{Record, XATTRS_MAX};
use super::room::Room;
use super::version::{name_hash, About, Attributes, Kind, Version, VersionId};
use super::writer::Writer;
use crate::files::attributes::xattrs;
use crate::files::trouble::{retry, Result, Trouble};

/// Said of a copy that was finished when nobody waited for it any more.
pub(super) const NOBODY_WAITS: &str = "nobody waits for the copy any more";

/// Images of one state of a file within this time are one image.
pub const WINDOW: Duration = Duration::from_secs(30);
/// Files that are remembered for it.
const RECENT_MOST: usize = 16_384;
/// A ctime this young may be shared by a later write (clocks of files tick), so it does not tell states apart, ns.
const TICK_NS: i64 = 20_000_000;

/// How the vault is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files up to this size are copied whole; larger ones only where the file system shares blocks. Bytes.
    pub whole_limit: u64,
    /// Most bytes in the vault.
    pub quota: u64,
    /// No copy is made that would leave less free than this, bytes.
    pub min_free: u64,
    /// Hard links are made.
    pub hardlinks: bool,
    /// What the numbers of trees stand for: absolute paths of their roots.
    pub trees: Vec<(u16, Vec<u8>)>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            whole_limit: 64 << 20,
            quota: u64::MAX,
            min_free: 0,
            hardlinks: true,
            trees: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Recent {
    ctime_ns: i64,
    size: u64,
    object: VersionId,
    object_ino: u64,
    /// The last version of it, and whose.
    last: (VersionId, u64, u64),
    at: Instant,
}

/// A vault, open for making versions. Thread-safe; any number of processes may have one open.
#[derive(Debug)]
pub struct Vault {
    pub(super) place: Place,
    pub(super) options: Options,
    pub(super) writer: Writer,
    pub(super) room: Room,
    pub(super) ways: Ways,
    pub(super) linked: Mutex<Linked>,
    pub(super) sessions: Mutex<Sessions>,
    pub(super) counters: Counters,
    pub(super) ahead: Arc<Ahead>,
    /// Cleared where the file system has no hard links.
    pub(super) links_work: AtomicBool,
    /// As many versions as may be: no more links.
    pub(super) full: AtomicBool,
    recent: Mutex<HashMap<u64, Recent>>,
    buffer: Mutex<Buffer>,
}

impl Vault {
    /// Opens the vault that `dir` is, for making versions; opens all that making an image needs.
    ///
    /// # Errors
    /// `preserve.unsafe`, `file.readonly`, `file.full`, `file.denied`.
    pub fn open(dir: OwnedFd, options: Options) -> Result<Arc<Vault>> {
        let place = Place::open(dir)?;
        let writer = Writer::open(place.index.as_fd(), &options.trees)?;
        let room = Room::open(place.index.as_fd(), options.min_free, options.quota)?;
        let vault = Arc::new(Vault {
            writer,
            room,
            place,
            options,
            ways: Ways::default(),
            linked: Mutex::default(),
            sessions: Mutex::default(),
            counters: Counters::default(),
            ahead: Arc::default(),
            links_work: AtomicBool::new(true),
            full: AtomicBool::new(false),
            recent: Mutex::default(),
            buffer: Mutex::default(),
        });
        let clones = vault.tried_clone().is_ok();
        vault.ways.clone.store(clones, Ordering::Relaxed);
        let ours: Arc<dyn crate::files::ours::Ours> = vault.clone();
        crate::files::ours::announce(&ours);
        Ok(vault)
    }

    /// Whether the file system shares blocks is tried once: it decides whether a large file needs room. Where it cannot be
    /// tried (no space) it does not.
    fn tried_clone(&self) -> Result<()> {
        let (from, to) = (self.writer.id()?, self.writer.id()?);
        let (from, to) = (self.new_object(from)?, self.new_object(to)?);
        let failed = |e| Trouble::data(e, "blocks cannot be shared");
        rustix::io::pwrite(from.fd()?, &[0; 4096], 0).map_err(failed)?;
        rustix::fs::ioctl_ficlone(to.fd()?, from.fd()?).map_err(failed)
    }

    /// The directories in which files are made: an answerer has its marks ignore them, with what is in them.
    pub fn directories(&self) -> [BorrowedFd<'_>; 4] {
        self.place.directories()
    }

    /// Device of the file system.
    pub fn dev(&self) -> u64 {
        self.place.dev
    }

    /// Keeps the content of `file` as it is now, by a copy.
    ///
    /// `file` is open for reading; its offset may move. Where this state of the file was kept a moment ago, no second
    /// copy is made: for the same actor and path that version is returned, for another a version with the same object.
    ///
    /// # Errors
    /// `preserve.large` beyond `whole_limit` (use [`Vault::range`]), `preserve.space`, `preserve.quota`,
    /// `file.not-regular`, `file.mount` for a file of another file system, `file.changed`, `file.io`, `file.full`.
    pub fn image(&self, file: BorrowedFd<'_>, about: &About<'_>) -> Result<VersionId> {
        self.image_while(file, about, &|| true)
    }

    /// As [`Vault::image`], for as long as somebody waits: where `wanted` says no once the copy is there, the file may
    /// have been written while it was made, and no version is left.
    ///
    /// # Errors
    /// As [`Vault::image`]; `file.changed` where nobody waits any more.
    pub fn image_while(
        &self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<VersionId> {
        self.counted(self.try_image(file, about, wanted))
    }

    fn try_image(
        &self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<VersionId> {
        let stat = self.look(file)?;
        if let Some(id) = self.kept_already(&stat, file, about)? {
            return Ok(id);
        }
        let size = stat.st_size as u64;
        if size > self.options.whole_limit && !self.ways.clone.load(Ordering::Relaxed) {
            return Err(Trouble::new(
                "preserve.large",
                format!("{size} bytes are more than is copied whole"),
            ));
        }
        let data = size.min((stat.st_blocks as u64).saturating_mul(512).max(4096));
        // shared blocks take no room before the file is written
        let shared = size > SMALL && self.ways.clone.load(Ordering::Relaxed);
        self.room.take(if shared { 4096 } else { data })?;
        let (id, mut object) = self.ready_object()?;
        let copied = {
            let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            if size > self.options.whole_limit {
                self.clone_only(file, &object)?
            } else {
                whole(file, object.fd()?, &stat, &self.ways, &mut buffer)?
            }
        };
        if !wanted() {
            return Err(Trouble::new("file.changed", NOBODY_WAITS));
        }
        let object_ino = object.ino()?;
        let mut version = Version::of(id, Kind::Image, about, &stat);
        (version.xattrs, version.xattrs_partial) = attributes(file);
        version.object_ino = object_ino;
        (version.crc, version.stored) = (copied.crc, copied.stored);
        self.record(version)?;
        object.keep();
        self.counters.add(Count::Images, 1);
        self.counters.add(Count::Bytes, copied.stored);
        self.remember(&stat, id, object_ino, about);
        Ok(id)
    }

    /// Whether another look at this is worth a copy of the whole: its blocks can only be shared.
    fn clone_only(&self, file: BorrowedFd<'_>, object: &Object<'_>) -> Result<super::copy::Copied> {
        let to = object.fd()?;
        match retry(|| rustix::fs::ioctl_ficlone(to, file)) {
            Ok(()) => Ok(super::copy::Copied {
                crc: None,
                stored: 0,
            }),
            Err(e) => {
                if matches!(e, Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL) {
                    self.ways.clone.store(false, Ordering::Relaxed);
                }
                Err(Trouble::new(
                    "preserve.large",
                    "file is larger than is copied whole, and its blocks cannot be shared",
                ))
            }
        }
    }

    /// Writes out what waits; where `durable`, to the disk.
    pub fn flush(&self, durable: bool) -> Result<()> {
        if !durable {
            return self.writer.flush();
        }
        self.writer.flush()?;
        retry(|| rustix::fs::syncfs(&self.place.top))
            .map_err(|e| Trouble::data(e, "vault cannot be made durable"))
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        let c = |what| self.counters.get(what);
        Counts {
            links: c(Count::Links),
            images: c(Count::Images),
            ranges: c(Count::Ranges),
            bytes: c(Count::Bytes),
            shared: c(Count::Shared),
            no_room: c(Count::NoRoom),
            too_large: c(Count::TooLarge),
            failed: c(Count::Failed),
        }
    }

    /// Whether the file system shares blocks between files, and whether it has hard links (`true` also where it was not
    /// asked yet).
    pub fn abilities(&self) -> [bool; 2] {
        [
            self.ways.clone.load(Ordering::Relaxed),
            self.links_work.load(Ordering::Relaxed),
        ]
    }

    /// Whether the vault holds as many versions as it may; no hard links are made then.
    pub(super) fn crowded(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    pub(super) fn counted<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(trouble) = &outcome {
            let what = match trouble.code {
                "preserve.space" | "preserve.quota" | "file.full" => Count::NoRoom,
                "preserve.large" => Count::TooLarge,
                _ => Count::Failed,
            };
            self.counters.add(what, 1);
        }
        outcome
    }

    pub(super) fn look(&self, file: BorrowedFd<'_>) -> Result<Stat> {
        let stat = fstat(file).map_err(|e| Trouble::data(e, "file cannot be looked at"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Trouble::new("file.not-regular", "is not a regular file"));
        }
        if stat.st_dev != self.place.dev {
            return Err(Trouble::new("file.mount", "file is on another file system"));
        }
        Ok(stat)
    }

    /// The record is what makes a version: without it the object does not count.
    pub(super) fn record(&self, mut version: Version) -> Result<()> {
        version.nlink -= u32::from(self.linked().holds(version.ino)).min(version.nlink);
        self.writer.append(&Record::Version(Box::new(version)))
    }

    pub(super) fn linked(&self) -> MutexGuard<'_, Linked> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, HashMap<u64, Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept_already(
        &self,
        stat: &Stat,
        file: BorrowedFd<'_>,
        about: &About<'_>,
    ) -> Result<Option<VersionId>> {
        let mut recent = self.recent();
        let Some(before) = recent.get_mut(&(stat.st_ino)) else {
            return Ok(None);
        };
        if before.ctime_ns != ctime_ns(stat)
            || before.size != stat.st_size as u64
            || before.at.elapsed() > WINDOW
        {
            return Ok(None);
        }
        let mine = (about.actor, name_hash(about.tree, about.path));
        if (before.last.1, before.last.2) == mine {
            self.counters.add(Count::Shared, 1);
            return Ok(Some(before.last.0));
        }
        let id = self.writer.id()?;
        let mut version = Version::of(id, Kind::Image, about, stat);
        (version.xattrs, version.xattrs_partial) = attributes(file);
        (version.object, version.object_ino) = (before.object, before.object_ino);
        self.record(version)?;
        before.last = (id, mine.0, mine.1);
        self.counters.add(Count::Shared, 1);
        Ok(Some(id))
    }

    fn remember(&self, stat: &Stat, id: VersionId, object_ino: u64, about: &About<'_>) {
        let now = i64::try_from(about.at_ns).unwrap_or(i64::MAX);
        if now.saturating_sub(ctime_ns(stat)) < TICK_NS {
            return;
        }
        let mut recent = self.recent();
        if recent.len() >= RECENT_MOST {
            recent.retain(|_, one| one.at.elapsed() < WINDOW);
            if recent.len() >= RECENT_MOST {
                recent.clear();
            }
        }
        recent.insert(
            stat.st_ino,
            Recent {
                ctime_ns: ctime_ns(stat),
                size: stat.st_size as u64,
                object: id,
                object_ino,
                last: (id, about.actor, name_hash(about.tree, about.path)),
                at: Instant::now(),
            },
        );
    }

    /// A file for the content of `id`, under its name at once: it counts for nothing before there is a record of it. (A
    /// nameless file that is linked later takes a third longer on ext4, which has to note it as an orphan.)
    pub(super) fn new_object(&self, id: VersionId) -> Result<Object<'_>> {
        let images = &self.place.images;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let name = id.name();
        let fd = retry(|| openat(images, name.as_slice(), flags, mode))
            .map_err(|e| Trouble::of(e, "copy cannot be made"))?;
        Ok(self.object(id, fd))
    }

    /// The file `fd` of the object `id`, which has its name but no record.
    pub(super) fn object(&self, id: VersionId, fd: OwnedFd) -> Object<'_> {
        Object::new(fd, &self.place.images, id)
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        for (id, fd) in self.ahead.end() {
            drop(self.object(id, fd));
        }
    }
}

/// Extended attributes as far as a record takes them, and whether some are missing.
pub(super) fn attributes(file: BorrowedFd<'_>) -> (Attributes, bool) {
    match xattrs(file) {
        Ok(all) => fitting(all),
        Err(_) => (Vec::new(), true),
    }
}

pub(super) fn fitting(all: Attributes) -> (Attributes, bool) {
    let mut left = XATTRS_MAX;
    let before = all.len();
    let kept: Vec<_> = all
        .into_iter()
        .filter(|(name, value)| {
            let len = name.len() + value.len();
            let fits = len <= left;
            left -= if fits { len } else { 0 };
            fits
        })
        .collect();
    let partial = kept.len() < before;
    (kept, partial)
}

fn ctime_ns(stat: &Stat) -> i64 {
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    (stat.st_ctime as i64)
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_ctime_nsec as i64)
}
