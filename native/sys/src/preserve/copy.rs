//! Copying content into an object: shared blocks where the file system has them, holes kept, nothing opened.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{copy_file_range, ftruncate, ioctl_ficlone, Stat};
use rustix::io::{pread, pwrite, Errno};

use crate::files::holes::extents;
use crate::files::trouble::{retry, Result, Trouble};

/// Below this size reading and writing is quicker than any other way, and gives a checksum; bytes. Sharing blocks
/// first waits until the file's dirty pages are written.
pub(super) const SMALL: u64 = 256 << 10;
const BUFFER: usize = 256 << 10;
/// Asked of the kernel at once, bytes.
const PIECE: usize = 16 << 20;

/// What the file system was found to do, so that it is not asked for ever.
#[derive(Debug)]
pub struct Ways {
    /// Shares blocks between files.
    pub clone: AtomicBool,
    /// Copies inside the kernel.
    pub range: AtomicBool,
}

impl Default for Ways {
    fn default() -> Self {
        Ways {
            clone: AtomicBool::new(true),
            range: AtomicBool::new(true),
        }
    }
}

/// What a copy came to.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// CRC-32C of the content where it passed through our hands whole.
    pub crc: Option<u32>,
    /// Bytes of data written; 0 where blocks are shared.
    pub stored: u64,
}

/// Buffer of one thread.
pub struct Buffer(Box<[u8]>);

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Buffer")
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer(vec![0; BUFFER].into_boxed_slice())
    }
}

/// Copies the file of `stat` whole into the empty file `to`.
///
/// # Errors
/// `file.changed` where it ends early, `file.full`, `file.io`.
pub fn whole(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    ways: &Ways,
    buffer: &mut Buffer,
) -> Result<Copied> {
    let size = stat.st_size as u64;
    let sparse = (stat.st_blocks as u64).saturating_mul(512) < size;
    if size <= SMALL && !(sparse && size > 4096) {
        let crc = through(from, to, 0, size, buffer)?;
        return Ok(Copied {
            crc: Some(crc),
            stored: size,
        });
    }
    if size > SMALL && cloned(from, to, ways)? {
        return Ok(Copied {
            crc: None,
            stored: 0,
        });
    }
    let mut stored = 0;
    let found = extents(from, stat, u64::MAX)?;
    for extent in &found {
        in_kernel(from, to, extent.at, extent.len, ways, buffer)?;
        stored += extent.len;
    }
    if found.last().is_none_or(|last| last.at + last.len < size) {
        retry(|| ftruncate(to, size)).map_err(|e| Trouble::data(e, "copy cannot be sized"))?;
    }
    Ok(Copied { crc: None, stored })
}

fn cloned(from: BorrowedFd<'_>, to: BorrowedFd<'_>, ways: &Ways) -> Result<bool> {
    if !ways.clone.load(Ordering::Relaxed) {
        return Ok(false);
    }
    match retry(|| ioctl_ficlone(to, from)) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS) => {
            ways.clone.store(false, Ordering::Relaxed);
            Ok(false)
        }
        // swap files, files under another policy of encryption, a full file system: copying may still do
        Err(_) => Ok(false),
    }
}

fn in_kernel(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    at: u64,
    len: u64,
    ways: &Ways,
    buffer: &mut Buffer,
) -> Result<()> {
    let mut done = 0;
    while done < len && ways.range.load(Ordering::Relaxed) {
        let (mut source, mut target) = (at + done, at + done);
        let piece = (len - done).min(PIECE as u64) as usize;
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), piece) {
            Ok(0) => {
                return Err(Trouble::new(
                    "file.changed",
                    "file ends before its content does",
                ))
            }
            Ok(n) => done += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::XDEV | Errno::INVAL) => {
                ways.range.store(false, Ordering::Relaxed);
            }
            Err(e) => return Err(Trouble::data(e, "content cannot be copied")),
        }
    }
    if done < len {
        through(from, to, at + done, len - done, buffer)?;
    }
    Ok(())
}

/// Copies a range by reading and writing; its CRC-32C.
///
/// # Errors
/// As [`whole`].
pub fn through(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    at: u64,
    len: u64,
    buffer: &mut Buffer,
) -> Result<u32> {
    let (mut sum, mut done) = (0, 0);
    while done < len {
        let piece = (len - done).min(BUFFER as u64) as usize;
        let room = &mut buffer.0[..piece];
        let n = retry(|| pread(from, &mut *room, at + done))
            .map_err(|e| Trouble::data(e, "content cannot be read"))?;
        if n == 0 {
            return Err(Trouble::new(
                "file.changed",
                "file ends before its content does",
            ));
        }
        sum = shieldd_core::content::checksum::crc32c_append(sum, &buffer.0[..n]);
        let mut written = 0;
        while written < n {
            let left = &buffer.0[written..n];
            written += retry(|| pwrite(to, left, at + done + written as u64))
                .map_err(|e| Trouble::data(e, "content cannot be written"))?;
        }
        done += n as u64;
    }
    Ok(sum)
}

/// CRC-32C of a range as it is now.
pub fn checksum(from: BorrowedFd<'_>, at: u64, len: u64, buffer: &mut Buffer) -> Result<u32> {
    let (mut sum, mut done) = (0, 0);
    while done < len {
        let room = &mut buffer.0[..(len - done).min(BUFFER as u64) as usize];
        let n = retry(|| pread(from, &mut *room, at + done))
            .map_err(|e| Trouble::data(e, "content cannot be read"))?;
        if n == 0 {
            return Err(Trouble::new(
                "preserve.damaged",
                "preserved content is cut short",
            ));
        }
        sum = shieldd_core::content::checksum::crc32c_append(sum, &buffer.0[..n]);
        done += n as u64;
    }
    Ok(sum)
}
