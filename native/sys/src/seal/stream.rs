//! The payload: read, hashed, encrypted and written by all cores, in memory that does not grow with the file.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;

use rustix::io::{pread, preadv, pwrite, pwritev};
use shieldd_core::envelope::chunk::PayloadKey;
use shieldd_core::envelope::digest::{part, Fold, Part};
use shieldd_core::envelope::layout::Fixed;
use shieldd_core::envelope::metadata::Extent;
use shieldd_core::envelope::suite::TAG_LEN;

use crate::files::trouble::{retry, Result, Trouble};

/// Chunks that a thread reads, works on and writes at a time: fewer calls, still inside the second-level cache.
const GROUP: u64 = 16;
/// Payload below which more threads cost more than they bring, bytes.
const ALONE: u64 = 2 << 20;

/// Chunks begin on a cache line: ciphers and hashes read whole lines at a time.
const LINE: usize = 64;

/// Buffer of one thread, kept from file to file.
#[derive(Default)]
pub struct Workspace(Vec<u8>);

impl Workspace {
    /// `size` bytes that begin on a cache line.
    fn room(&mut self, size: usize) -> &mut [u8] {
        if self.0.len() < size + LINE {
            self.0.resize(size + LINE, 0);
        }
        let at = self.0.as_ptr().align_offset(LINE).min(LINE);
        &mut self.0[at..at + size]
    }
}

/// The payload of one file.
pub struct Payload<'a> {
    /// Fixed fields of its sealed form.
    pub fixed: &'a Fixed,
    /// Where its bytes lie in the plain file.
    pub extents: &'a [Extent],
    /// Its key.
    pub key: &'a PayloadKey,
}

/// A run of whole chunks.
struct Group {
    first: u64,
    count: u64,
}

impl Payload<'_> {
    fn groups(&self) -> u64 {
        self.fixed.chunks().div_ceil(GROUP)
    }

    fn group(&self, index: u64) -> Group {
        let first = index * GROUP;
        Group {
            first,
            count: GROUP.min(self.fixed.chunks() - first),
        }
    }

    fn stride(&self) -> usize {
        (self.fixed.chunk_len() as usize + TAG_LEN).next_multiple_of(LINE)
    }

    /// Encrypts from the plain file `from` to the sealed file `to`; returns the digest of the payload.
    pub fn seal(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        threads: usize,
        w: &mut Workspace,
    ) -> Result<[u8; 32]> {
        self.run(threads, w, &|group, buffer, digest| {
            let chunks = self.split(group, buffer);
            let mut plain: Vec<&mut [u8]> = chunks
                .into_iter()
                .map(|c| {
                    let n = c.len() - TAG_LEN;
                    &mut c[..n]
                })
                .collect();
            self.read_plain(from, group.first << self.fixed.chunk_log2, &mut plain)?;
            for (i, chunk) in self.split(group, buffer).into_iter().enumerate() {
                let index = group.first + i as u64;
                let data = &chunk[..chunk.len() - TAG_LEN];
                digest(
                    index,
                    part(
                        data,
                        index,
                        self.fixed.chunk_len(),
                        self.fixed.chunks() == 1,
                    ),
                );
                self.key.seal(index, chunk);
            }
            let chunks = self.split(group, buffer);
            let sealed: Vec<&[u8]> = chunks.into_iter().map(|c| &*c).collect();
            write_slices(to, &sealed, self.fixed.chunk_at(group.first))
        })
    }

    /// Decrypts from the sealed file `from` to the plain file `to`; nothing is written before its tag held.
    pub fn open(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        threads: usize,
        w: &mut Workspace,
    ) -> Result<()> {
        self.run(threads, w, &|group, buffer, _| {
            self.read_sealed(from, group, buffer)?;
            let chunks = self.split(group, buffer);
            let plain: Vec<&[u8]> = chunks
                .into_iter()
                .map(|c| &c[..c.len() - TAG_LEN])
                .collect();
            self.write_plain(to, group.first << self.fixed.chunk_log2, &plain)
        })?;
        Ok(())
    }

    /// Checks every tag and returns the digest of the payload.
    pub fn digest(
        &self,
        from: BorrowedFd<'_>,
        threads: usize,
        w: &mut Workspace,
    ) -> Result<[u8; 32]> {
        self.run(threads, w, &|group, buffer, digest| {
            self.read_sealed(from, group, buffer)?;
            for (i, chunk) in self.split(group, buffer).into_iter().enumerate() {
                let index = group.first + i as u64;
                let data = &chunk[..chunk.len() - TAG_LEN];
                digest(
                    index,
                    part(
                        data,
                        index,
                        self.fixed.chunk_len(),
                        self.fixed.chunks() == 1,
                    ),
                );
            }
            Ok(())
        })
    }

    /// Decrypts in order and hands each verified piece to `sink`, with its offset in the plain file.
    pub fn pieces(
        &self,
        from: BorrowedFd<'_>,
        w: &mut Workspace,
        mut sink: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let buffer = w.room(self.stride() * GROUP as usize);
        for index in 0..self.groups() {
            let group = self.group(index);
            self.read_sealed(from, &group, buffer)?;
            let mut at = group.first << self.fixed.chunk_log2;
            for chunk in self.split(&group, buffer) {
                let data = &chunk[..chunk.len() - TAG_LEN];
                for (offset, range) in places(self.extents, at, data.len() as u64) {
                    sink(offset, &data[range])?;
                }
                at += data.len() as u64;
            }
        }
        Ok(())
    }

    /// Digest of the plain file's payload as it lies there now.
    pub fn digest_plain(
        &self,
        from: BorrowedFd<'_>,
        threads: usize,
        w: &mut Workspace,
    ) -> Result<[u8; 32]> {
        self.run(threads, w, &|group, buffer, digest| {
            let chunks = self.split(group, buffer);
            let mut plain: Vec<&mut [u8]> = chunks
                .into_iter()
                .map(|c| {
                    let n = c.len() - TAG_LEN;
                    &mut c[..n]
                })
                .collect();
            self.read_plain(from, group.first << self.fixed.chunk_log2, &mut plain)?;
            for (i, data) in plain.into_iter().enumerate() {
                let index = group.first + i as u64;
                digest(
                    index,
                    part(
                        data,
                        index,
                        self.fixed.chunk_len(),
                        self.fixed.chunks() == 1,
                    ),
                );
            }
            Ok(())
        })
    }

    /// The chunks of a group in `buffer`, each with the place of its tag.
    fn split<'b>(&self, group: &Group, buffer: &'b mut [u8]) -> Vec<&'b mut [u8]> {
        let places = buffer.chunks_mut(self.stride()).take(group.count as usize);
        places
            .enumerate()
            .map(|(i, place)| {
                let plain = self.fixed.chunk_plain(group.first + i as u64) as usize;
                &mut place[..plain + TAG_LEN]
            })
            .collect()
    }

    fn read_sealed(&self, from: BorrowedFd<'_>, group: &Group, buffer: &mut [u8]) -> Result<()> {
        let mut chunks = self.split(group, buffer);
        let at = self.fixed.chunk_at(group.first);
        read_slices(from, &mut chunks, at, "envelope.truncated")?;
        for (i, chunk) in chunks.into_iter().enumerate() {
            self.key.open(group.first + i as u64, chunk)?;
        }
        Ok(())
    }

    /// Reads payload from `at` on into `into`.
    fn read_plain(&self, from: BorrowedFd<'_>, at: u64, into: &mut [&mut [u8]]) -> Result<()> {
        if let [whole] = self.extents {
            return read_slices(from, into, whole.at + at, "file.changed");
        }
        let mut at = at;
        for slice in into {
            let len = slice.len() as u64;
            for (offset, range) in places(self.extents, at, len) {
                read_exact(from, &mut slice[range], offset, "file.changed")?;
            }
            at += len;
        }
        Ok(())
    }

    /// Writes payload from `at` on.
    fn write_plain(&self, to: BorrowedFd<'_>, at: u64, from: &[&[u8]]) -> Result<()> {
        if let [whole] = self.extents {
            return write_slices(to, from, whole.at + at);
        }
        let mut at = at;
        for slice in from {
            let len = slice.len() as u64;
            for (offset, range) in places(self.extents, at, len) {
                write_all(to, &slice[range], offset)?;
            }
            at += len;
        }
        Ok(())
    }

    /// Runs `work` on every group, on as many threads as pay, and folds the digest.
    fn run(&self, threads: usize, own: &mut Workspace, work: &Work<'_>) -> Result<[u8; 32]> {
        let threads = if self.fixed.payload_len < ALONE {
            1
        } else {
            threads.min(self.groups() as usize).max(1)
        };
        let next = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let fold = Mutex::new(Fold::default());
        let size = self.stride() * GROUP.min(self.fixed.chunks()) as usize;
        let one = |w: &mut Workspace| -> Result<()> {
            let buffer = w.room(size);
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.groups() || stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let done = work(&self.group(index), buffer, &|index, part| {
                    if let Ok(mut fold) = fold.lock() {
                        fold.add(index, part);
                    }
                });
                if done.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    return done;
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                .map(|_| scope.spawn(|| one(&mut Workspace::default())))
                .collect();
            let mut outcome = one(own);
            for other in others {
                let theirs = other
                    .join()
                    .unwrap_or_else(|_| Err(Trouble::new("native.panic", "a sealing thread died")));
                outcome = outcome.and(theirs);
            }
            outcome
        })?;
        fold.into_inner()
            .map(Fold::finish)
            .map_err(|_| Trouble::new("native.panic", "a sealing thread died"))
    }
}

type Work<'a> = dyn Fn(&Group, &mut [u8], &dyn Fn(u64, Part)) -> Result<()> + Sync + 'a;

/// Where `len` bytes of payload from `at` on lie in the plain file: offset there, range in the piece.
fn places(extents: &[Extent], at: u64, len: u64) -> Vec<(u64, std::ops::Range<usize>)> {
    let mut out = Vec::new();
    let mut start = 0;
    for e in extents {
        let (from, to) = (at.max(start), (at + len).min(start + e.len));
        if from < to {
            out.push((
                e.at + (from - start),
                (from - at) as usize..(to - at) as usize,
            ));
        }
        start += e.len;
        if start >= at + len {
            break;
        }
    }
    out
}

/// Fills all slices from `at` on; `code` where the file ends before.
fn read_slices(
    fd: BorrowedFd<'_>,
    into: &mut [&mut [u8]],
    mut at: u64,
    code: &'static str,
) -> Result<()> {
    let mut slices: Vec<IoSliceMut<'_>> = into.iter_mut().map(|s| IoSliceMut::new(s)).collect();
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        let n = retry(|| preadv(fd, slices, at))
            .map_err(|e| Trouble::data(e, "file cannot be read"))?;
        if n == 0 {
            return Err(Trouble::new(code, "file ends before its content does"));
        }
        at += n as u64;
        IoSliceMut::advance_slices(&mut slices, n);
    }
    Ok(())
}

/// Writes all slices from `at` on.
fn write_slices(fd: BorrowedFd<'_>, from: &[&[u8]], mut at: u64) -> Result<()> {
    let mut slices: Vec<IoSlice<'_>> = from.iter().map(|s| IoSlice::new(s)).collect();
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        let n = retry(|| pwritev(fd, slices, at))
            .map_err(|e| Trouble::data(e, "file cannot be written"))?;
        at += n as u64;
        IoSlice::advance_slices(&mut slices, n);
    }
    Ok(())
}

/// Reads exactly; `code` where the file ends before.
pub fn read_exact(
    fd: BorrowedFd<'_>,
    mut into: &mut [u8],
    mut at: u64,
    code: &'static str,
) -> Result<()> {
    while !into.is_empty() {
        let n = retry(|| pread(fd, &mut *into, at))
            .map_err(|e| Trouble::data(e, "file cannot be read"))?;
        if n == 0 {
            return Err(Trouble::new(code, "file ends before its content does"));
        }
        into = &mut into[n..];
        at += n as u64;
    }
    Ok(())
}

/// Writes all.
pub fn write_all(fd: BorrowedFd<'_>, mut from: &[u8], mut at: u64) -> Result<()> {
    while !from.is_empty() {
        let n = retry(|| pwrite(fd, from, at))
            .map_err(|e| Trouble::data(e, "file cannot be written"))?;
        from = &from[n..];
        at += n as u64;
    }
    Ok(())
}
