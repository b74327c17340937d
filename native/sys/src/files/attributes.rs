//! Owner, mode, times, extended attributes: read from the original, put on what comes back.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use rustix::fs::{
    fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens, Gid, Mode, Stat, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use shieldd_core::envelope::metadata::{Metadata, XATTRS_MAX};

use super::trouble::{Result, Trouble};

/// Mode bits that lend privileges.
pub const PRIVILEGED: u32 = 0o7000;

/// Extended attributes, sorted by name; empty where the file system has none.
pub fn xattrs(fd: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let failed = |e| Trouble::data(e, "extended attributes cannot be read");
    let mut small = [0u8; 512];
    let names = match flistxattr(fd, &mut small) {
        Ok(n) => small[..n].to_vec(),
        Err(Errno::RANGE) => {
            let mut big = vec![0u8; 65_536];
            let n = flistxattr(fd, &mut big).map_err(failed)?;
            big.truncate(n);
            big
        }
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    let mut value = vec![0u8; 65_536];
    for name in names.split(|&b| b == 0).filter(|n| !n.is_empty()) {
        match fgetxattr(fd, name, &mut value) {
            Ok(n) => out.push((name.to_vec(), value[..n].to_vec())),
            // Gone since the list, or kept from us: there is nothing that could be sealed.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    if out.len() > XATTRS_MAX {
        return Err(Trouble::new(
            "file.budget",
            "more than 1024 extended attributes",
        ));
    }
    out.sort();
    Ok(out)
}

/// Names of users and groups from the local files, so that no directory service can hold a seal up.
#[derive(Default)]
pub struct Names {
    users: Mutex<Option<HashMap<u32, Vec<u8>>>>,
    groups: Mutex<Option<HashMap<u32, Vec<u8>>>>,
}

impl Names {
    /// The user's name, empty where `/etc/passwd` does not know it.
    pub fn user(&self, uid: u32) -> Vec<u8> {
        Self::find(&self.users, "/etc/passwd", uid)
    }

    /// The group's name, empty where `/etc/group` does not know it.
    pub fn group(&self, gid: u32) -> Vec<u8> {
        Self::find(&self.groups, "/etc/group", gid)
    }

    fn find(table: &Mutex<Option<HashMap<u32, Vec<u8>>>>, path: &str, id: u32) -> Vec<u8> {
        let Ok(mut table) = table.lock() else {
            return Vec::new();
        };
        table
            .get_or_insert_with(|| Self::read(path))
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    fn read(path: &str) -> HashMap<u32, Vec<u8>> {
        let mut out = HashMap::new();
        for line in std::fs::read(path)
            .unwrap_or_default()
            .split(|&b| b == b'\n')
        {
            let mut fields = line.split(|&b| b == b':');
            let (name, id) = (
                fields.next().unwrap_or_default(),
                fields.nth(1).unwrap_or_default(),
            );
            if let Some(id) = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()) {
                out.entry(id)
                    .or_insert_with(|| name[..name.len().min(256)].to_vec());
            }
        }
        out
    }
}

/// Gives `fd` the owner of `stat`.
///
/// # Errors
/// `file.denied` where it would stay another user's; a group that we may not give is let go.
pub fn give_to(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    match fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::INVAL) if geteuid().as_raw() == uid => Ok(()),
        Err(Errno::INVAL) => Err(Trouble::new(
            "file.denied",
            format!("user {uid} does not exist here"),
        )),
        Err(e) => Err(Trouble::of(e, "owner cannot be set")),
    }
}

/// Puts everything back on a file of our own: owner, attributes, mode, times, in the order in which none undoes
/// another. Privilege bits and file capabilities only where `privileged`.
///
/// Returns the names of attributes that this process may not set here.
pub fn restore(fd: BorrowedFd<'_>, metadata: &Metadata, privileged: bool) -> Result<Vec<Vec<u8>>> {
    give_to(fd, metadata.uid, metadata.gid)?;
    let mut skipped = Vec::new();
    for (name, value) in &metadata.xattrs {
        if name == b"security.capability" && !privileged {
            skipped.push(name.clone());
            continue;
        }
        match fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {
                skipped.push(name.clone())
            }
            Err(e) => return Err(Trouble::data(e, "extended attribute cannot be set")),
        }
    }
    let mode = if privileged {
        metadata.mode
    } else {
        metadata.mode & !PRIVILEGED
    };
    fchmod(fd.as_fd(), Mode::from_raw_mode(mode))
        .map_err(|e| Trouble::of(e, "mode cannot be set"))?;
    let time = |ns: i64| Timespec {
        tv_sec: ns.div_euclid(1_000_000_000),
        tv_nsec: ns.rem_euclid(1_000_000_000) as _,
    };
    let times = Timestamps {
        last_access: time(metadata.atime_ns),
        last_modification: time(metadata.mtime_ns),
    };
    futimens(fd, &times).map_err(|e| Trouble::of(e, "times cannot be set"))?;
    Ok(skipped)
}

/// Last access of `stat`, ns.
pub fn atime_ns(stat: &Stat) -> i64 {
    #[allow(clippy::unnecessary_cast)]
    (stat.st_atime as i64)
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_atime_nsec as i64)
}
