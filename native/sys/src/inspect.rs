//! Bounded sampling of one file into [`Facts`].
//!
//! One `openat2` beneath the root (no links, never blocking on a FIFO), one `fstat`, at most three reads of 4 KiB
//! (one of 12 KiB for a small file), whatever the size. The file's fingerprint from before is compared and replaced.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{fstat, openat2, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{pread, Errno};
use shieldd_core::baseline::Baseline;
use shieldd_core::content::{self, names, Samples, WINDOW};
use shieldd_core::event::{self, Event, Kind};
use shieldd_core::facts::{flags, Facts};
use shieldd_core::windows::judge::ENCRYPTED_LIKE;

use crate::files::open::foreign_links;

/// Directories whose exposure is remembered.
const EXPOSURE_CACHE: usize = 8192;
/// It is asked again after so long, ns.
const EXPOSURE_TTL_NS: u64 = 5_000_000_000;

/// Counters of an [`Inspector`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InspectorStats {
    /// Files whose content was read.
    pub looked: u64,
    /// Files that could not be read (gone, denied).
    pub unseen: u64,
    /// Objects that are not regular files.
    pub special: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Looks at files; holds its buffer and what it knows of directories, so keep one per thread.
pub struct Inspector {
    buffer: Box<[u8; 3 * WINDOW]>,
    exposure: HashMap<(i32, u64), (bool, u64)>,
    noatime: bool,
    stats: InspectorStats,
}

impl Default for Inspector {
    fn default() -> Self {
        Self::new()
    }
}

/// Fills `out` for one event; see [`Inspector::inspect`]. Convenient, but makes a buffer for each call.
pub fn inspect(
    root: BorrowedFd<'_>,
    path: &[u8],
    ev: &Event,
    baseline: &mut Baseline,
    out: &mut Facts,
) {
    Inspector::new().inspect(root, path, None, ev, baseline, out);
}

impl Inspector {
    /// A new one.
    pub fn new() -> Self {
        Inspector {
            buffer: Box::new([0; 3 * WINDOW]),
            exposure: HashMap::new(),
            noatime: true,
            stats: InspectorStats::default(),
        }
    }

    /// Counters.
    pub fn stats(&self) -> InspectorStats {
        self.stats
    }

    /// Fills `out` for one event on `path` (relative to `root`), `from` being the old path of a rename.
    ///
    /// Never fails: what cannot be read is [`flags::UNSEEN`]. `ev.tree` keys the fingerprint, `ev.kind` says whether
    /// to look (a deleted file's fingerprint leaves the baseline, a renamed one follows its name).
    pub fn inspect(
        &mut self,
        root: BorrowedFd<'_>,
        path: &[u8],
        from: Option<&[u8]>,
        ev: &Event,
        baseline: &mut Baseline,
        out: &mut Facts,
    ) {
        *out = Facts::default();
        let key = baseline.key();
        names::fill(&key, ev.tree, path, from, out);
        if !(Kind::Create as u8..=Kind::Attrib as u8).contains(&ev.kind) {
            return;
        }
        if ev.kind == Kind::Delete as u8 {
            if let Some(old) = baseline.remove(out.path_hash) {
                content::remember(&old, out);
            }
            return;
        }
        let before = if ev.kind == Kind::Rename as u8 && out.from_hash != 0 {
            let over = baseline.rename(out.from_hash, out.path_hash);
            over.or_else(|| baseline.peek(out.path_hash).copied())
        } else {
            baseline.get(out.path_hash).copied()
        };
        if let Some(old) = &before {
            content::remember(old, out);
        }
        if ev.flags & event::flags::SPECIAL != 0 {
            out.flags |= flags::UNSEEN;
            self.stats.special += 1;
            return;
        }
        let looked = self.open(root, path).and_then(|fd| {
            let stat = fstat(&fd)?;
            Ok((fd, stat))
        });
        let Ok((fd, stat)) = looked else {
            out.flags |= flags::UNSEEN;
            self.stats.unseen += 1;
            return;
        };
        out.mode = stat.st_mode;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            out.flags |= flags::UNSEEN;
            self.stats.special += 1;
            return;
        }
        out.size = stat.st_size.max(0) as u64;
        if foreign_links(&stat) > 1 {
            out.flags |= flags::HARDLINKED;
        }
        // fewer blocks than bytes: some of it is a hole, whose samples are zeros that nobody wrote
        if (stat.st_blocks.max(0) as u64).saturating_mul(512) < out.size / 2 {
            out.flags |= flags::SPARSE;
        }
        if self.reachable(root, path, ev.mono_ns, out.dir_hash) {
            out.flags |= flags::REACHABLE_BY_OTHERS;
        }
        match self.sample(&fd, out.size) {
            Ok(samples) => {
                let mut room = [0; 12];
                let extension = names::lower_extension(names::split(path).1, &mut room);
                let original = match &before {
                    Some(_) => None,
                    None => names::without_extension(path)
                        .map(|stem| names::path_hash(&key, ev.tree, stem))
                        .and_then(|stem| baseline.peek(stem).copied()),
                };
                let mut now =
                    content::analyse(&samples, extension, before.as_ref(), original.as_ref(), out);
                now.mtime_ns = mtime_ns(&stat);
                now.ino = stat.st_ino;
                out.flags |= flags::LOOKED;
                let read = samples.bytes();
                self.stats.looked += 1;
                self.stats.bytes += read;
                // being cut short, perhaps to be written anew: what it was is compared with once its writer is done
                let cutting = ev.flags & event::flags::OPEN != 0
                    && out.encrypted_like < ENCRYPTED_LIKE
                    && before.as_ref().is_some_and(|old| out.size < old.size);
                if !cutting {
                    baseline.put(out.path_hash, now);
                }
            }
            Err(_) => {
                out.flags |= flags::UNSEEN;
                self.stats.unseen += 1;
            }
        }
    }

    fn open(&mut self, root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
        let base =
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if self.noatime {
            match openat2(root, path, base | OFlags::NOATIME, Mode::empty(), resolve) {
                Err(Errno::PERM) => {} // not the owner: O_NOATIME is refused
                other => return other,
            }
        }
        openat2(root, path, base, Mode::empty(), resolve)
    }

    fn sample(&mut self, fd: &OwnedFd, size: u64) -> Result<Samples<'_>, Errno> {
        if size <= (3 * WINDOW) as u64 {
            let n = read_full(fd, &mut self.buffer[..], 0)?;
            return Ok(Samples::whole(&self.buffer[..n]));
        }
        let middle = content::middle_offset(size);
        let [a, b, c] = [0, middle, size - WINDOW as u64];
        let head = read_full(fd, &mut self.buffer[..WINDOW], a)?;
        let mid = read_full(fd, &mut self.buffer[WINDOW..2 * WINDOW], b)?;
        let tail = read_full(fd, &mut self.buffer[2 * WINDOW..], c)?;
        Ok(Samples::of_parts(
            &self.buffer[..head],
            &self.buffer[WINDOW..WINDOW + mid],
            &self.buffer[2 * WINDOW..2 * WINDOW + tail],
            size,
        ))
    }

    /// Whether every directory from the root down grants others search permission.
    fn reachable(&mut self, root: BorrowedFd<'_>, path: &[u8], now_ns: u64, dir: u64) -> bool {
        use std::os::fd::AsRawFd;
        let key = (root.as_raw_fd(), dir);
        if let Some((answer, at)) = self.exposure.get(&key) {
            if now_ns.saturating_sub(*at) < EXPOSURE_TTL_NS && now_ns >= *at {
                return *answer;
            }
        }
        if self.exposure.len() >= EXPOSURE_CACHE {
            self.exposure.clear();
        }
        let answer = directories_open(root, names::split(path).0);
        self.exposure.insert(key, (answer, now_ns));
        answer
    }
}

fn directories_open(root: BorrowedFd<'_>, dir: &[u8]) -> bool {
    let searchable = |stat: Result<Stat, Errno>| stat.is_ok_and(|s| s.st_mode & 0o001 != 0);
    if !searchable(fstat(root)) {
        return false;
    }
    let ends = dir
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'/')
        .map(|(i, _)| i)
        .chain(std::iter::once(dir.len()));
    for end in ends {
        if end == 0 {
            continue;
        }
        let opened = openat2(
            root,
            &dir[..end],
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        );
        if !searchable(opened.and_then(fstat)) {
            return false;
        }
    }
    true
}

fn mtime_ns(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64)
}

/// Reads until the buffer is full or the file ends.
fn read_full(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(fd, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
