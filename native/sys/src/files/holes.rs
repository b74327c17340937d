//! Where a sparse file has data.

use std::os::fd::BorrowedFd;

use rustix::fs::{seek, SeekFrom, Stat};
use rustix::io::Errno;
use shieldd_core::envelope::metadata::{Extent, EXTENTS_MAX};

use super::trouble::{Result, Trouble};

/// The data regions of a file of `stat`, ascending and apart.
///
/// Where there are more than [`EXTENTS_MAX`], small holes count as data: the content stays the same, a little of
/// the saving goes.
///
/// # Errors
/// `file.budget` where the data is more than `budget` bytes.
pub fn extents(fd: BorrowedFd<'_>, stat: &Stat, budget: u64) -> Result<Vec<Extent>> {
    let size = stat.st_size as u64;
    let allocated = (stat.st_blocks as u64).saturating_mul(512);
    let mut found = if size == 0 {
        Vec::new()
    } else if allocated >= size {
        vec![Extent { at: 0, len: size }]
    } else {
        walk(fd, size)?
    };
    let mut smallest = 8192;
    while found.len() > EXTENTS_MAX {
        found = merged(&found, smallest);
        smallest *= 2;
    }
    let data: u64 = found.iter().map(|e| e.len).sum();
    if data > budget {
        return Err(Trouble::new(
            "file.budget",
            format!("{data} bytes of data are beyond the limit of {budget}"),
        ));
    }
    Ok(found)
}

fn walk(fd: BorrowedFd<'_>, size: u64) -> Result<Vec<Extent>> {
    let mut found: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(fd, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(vec![Extent { at: 0, len: size }]),
            Err(e) => return Err(Trouble::data(e, "holes cannot be found")),
        };
        let end = seek(fd, SeekFrom::Hole(start))
            .map_err(|e| Trouble::data(e, "holes cannot be found"))?
            .min(size);
        if start >= size || end <= start {
            break;
        }
        // A map that grows without bound would itself be an attack on memory.
        if found.len() >= 64 * EXTENTS_MAX {
            found = merged(&found, 1 << 20);
        }
        match found.last_mut() {
            Some(last) if last.at + last.len == start => last.len = end - last.at,
            _ => found.push(Extent {
                at: start,
                len: end - start,
            }),
        }
        at = end;
    }
    Ok(found)
}

fn merged(found: &[Extent], smallest: u64) -> Vec<Extent> {
    let mut out: Vec<Extent> = Vec::new();
    for e in found {
        match out.last_mut() {
            Some(last) if e.at - (last.at + last.len) < smallest => {
                last.len = e.at + e.len - last.at
            }
            _ => out.push(*e),
        }
    }
    out
}
