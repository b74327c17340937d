//! Roots of trees, the file systems they lie on, and what is mounted inside them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{fstat, fstatfs, FileType};

use super::kernel::{fsid_of, handle_of, key_of, open_handle, Group, NOTIFY_MASK};

/// File systems whose changes are not all made here, or not seen by marks: inotify does no worse there, and says less.
const REMOTE: [(i64, &str); 9] = [
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smbfs"),
    (0x6573_5546, "fuse"),
    (0x00c3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x5346_414f, "afs"),
    (0x0bd0_0bd0, "lustre"),
];

/// What identifies a root.
pub(super) struct Root {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) key: Vec<u8>,
    pub(super) fsid: u64,
    pub(super) mount: i32,
}

impl Root {
    /// None where it is no directory, or has no handle.
    pub(super) fn of(root: BorrowedFd<'_>) -> Option<Root> {
        let stat = fstat(root).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || stat.st_nlink == 0 {
            return None;
        }
        let (raw, mount) = handle_of(root).ok()?;
        let fsid = fsid_of(root).ok()?;
        Some(Root {
            dev: stat.st_dev,
            ino: stat.st_ino,
            key: key_of(fsid, &raw),
            fsid,
            mount,
        })
    }
}

fn unsupported(path: &[u8], why: &str) -> io::Error {
    let path = String::from_utf8_lossy(path);
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{path:?} cannot be watched by a mark: {why}"),
    )
}

/// Marks the file system of a root, after making sure that its events can be understood.
///
/// Errors: `NotFound` where the root is no directory, `Unsupported` with the reason where the file system does not do.
pub(super) fn mark(group: &Group, root: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    let stat = fstat(root)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    let kind = fstatfs(root)?.f_type;
    if let Some((_, name)) = REMOTE.iter().find(|(magic, _)| *magic == kind as i64) {
        let why = format!("changes on {name} are made elsewhere too, or not reported");
        return Err(unsupported(path, &why));
    }
    let same = handle_of(root)
        .and_then(|(raw, _)| open_handle(root, &raw, libc::O_PATH | libc::O_DIRECTORY))
        .and_then(|dir| Ok(fstat(&dir)?.st_ino == stat.st_ino));
    match same {
        Ok(true) => {}
        Ok(false) => return Err(unsupported(path, "its file handles are not its own")),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            return Err(unsupported(
                path,
                "opening file handles needs CAP_DAC_READ_SEARCH",
            ));
        }
        Err(e) => return Err(unsupported(path, &format!("no file handles ({e})"))),
    }
    group
        .mark_filesystem(root.as_fd(), NOTIFY_MASK)
        .map_err(|e| {
            let why = match e.raw_os_error() {
                Some(libc::EPERM) => "needs CAP_SYS_ADMIN".to_owned(),
                Some(libc::EXDEV) => {
                    "it is a part of a file system that has an id of its own".to_owned()
                }
                Some(libc::EOPNOTSUPP | libc::ENODEV) => {
                    "the file system has no file handles or no id".to_owned()
                }
                _ => e.to_string(),
            };
            unsupported(path, &why)
        })
}

/// Mount points strictly below `path`, relative to it, as this process sees them.
pub(super) fn below(path: &[u8]) -> Vec<Vec<u8>> {
    let Ok(table) = std::fs::read("/proc/self/mountinfo") else {
        return Vec::new();
    };
    let mut top = path.strip_suffix(b"/").unwrap_or(path).to_vec();
    top.push(b'/');
    let mut found: Vec<Vec<u8>> = table
        .split(|&b| b == b'\n')
        .filter_map(|line| line.split(|&b| b == b' ').nth(4))
        .map(plain)
        .filter_map(|point| point.strip_prefix(top.as_slice()).map(<[u8]>::to_vec))
        .filter(|point| !point.is_empty())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Undoes the octal escapes of mountinfo.
fn plain(escaped: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(escaped.len());
    let mut at = 0;
    while at < escaped.len() {
        let digits = escaped.get(at + 1..at + 4).unwrap_or_default();
        if escaped[at] == b'\\'
            && digits.len() == 3
            && digits.iter().all(|d| (b'0'..=b'7').contains(d))
        {
            let value = digits.iter().fold(0u32, |n, d| n * 8 + u32::from(d - b'0'));
            out.push(value as u8);
            at += 4;
        } else {
            out.push(escaped[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_lose_their_escapes() {
        assert_eq!(plain(b"/a\\040b\\134"), b"/a b\\");
        assert_eq!(plain(b"/a\\9"), b"/a\\9");
        assert_eq!(plain(b"\\04"), b"\\04");
    }
}
