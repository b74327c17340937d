//! A file that has no name yet: it gets one only when it is whole.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{
    fstat, linkat, openat, renameat_with, unlinkat, AtFlags, Mode, OFlags, RenameFlags, CWD,
};
use rustix::io::{dup, Errno};
use rustix::rand::{getrandom, GetRandomFlags};

use super::open::{Dir, Stamp};
use super::trouble::{retry, Result, Trouble};

/// What hidden names of ours begin with. The beginning alone means nothing: see [`is_own`].
pub const HIDDEN: &[u8] = b".shieldd-";

/// How long a name that we made counts as ours. Anybody may read it from the directory and use it again: soon after
/// the act it is a name like any other.
const OWN_FOR: Duration = Duration::from_secs(30);
/// Names remembered at most; beyond it those whose time is over leave.
const OWN_MOST: usize = 65_536;
static OWN: Mutex<BTreeMap<Vec<u8>, Instant>> = Mutex::new(BTreeMap::new());

fn own() -> MutexGuard<'static, BTreeMap<Vec<u8>, Instant>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a name one of ours from now on.
pub fn remember(name: &[u8]) {
    let mut names = own();
    if names.len() >= OWN_MOST {
        names.retain(|_, made| made.elapsed() < OWN_FOR);
    }
    names.insert(name.to_vec(), Instant::now());
}

/// Whether this process made that hidden name a moment ago; watchers report all others.
pub fn is_own(name: &[u8]) -> bool {
    name.starts_with(HIDDEN) && own().get(name).is_some_and(|made| made.elapsed() < OWN_FOR)
}

/// Random bytes of the kernel.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0u8; N];
    let mut at = 0;
    while at < N {
        at += retry(|| getrandom(&mut out[at..], GetRandomFlags::empty()))
            .map_err(|e| Trouble::data(e, "no random bytes"))?;
    }
    Ok(out)
}

/// A hidden name that nobody can guess.
pub fn hidden_name() -> Result<Vec<u8>> {
    let mut name = HIDDEN.to_vec();
    for byte in random::<12>()? {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    remember(&name);
    Ok(name)
}

/// A file being written: `O_TMPFILE`, or a hidden name where the file system lacks that.
#[derive(Debug)]
pub struct Staged {
    /// The file, open for reading and writing.
    pub fd: OwnedFd,
    hidden: Option<Hidden>,
}

/// A hidden name; taken away when dropped.
#[derive(Debug)]
struct Hidden {
    dir: OwnedFd,
    name: Vec<u8>,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _gone = unlinkat(&self.dir, self.name.as_slice(), AtFlags::empty());
        }
    }
}

impl Staged {
    /// A new file of mode 0600 in `dir`.
    pub fn new(dir: &Dir) -> Result<Staged> {
        let mode = Mode::RUSR | Mode::WUSR;
        match retry(|| {
            openat(
                &dir.fd,
                c".",
                OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
                mode,
            )
        }) {
            Ok(fd) => return Ok(Staged { fd, hidden: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            Err(e) => return Err(Trouble::of(e, "new file cannot be made")),
        }
        let name = hidden_name()?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = retry(|| openat(&dir.fd, name.as_slice(), flags, mode))
            .map_err(|e| Trouble::of(e, "new file cannot be made"))?;
        let dir = dup(&dir.fd).map_err(|e| Trouble::data(e, "new file cannot be made"))?;
        Ok(Staged {
            fd,
            hidden: Some(Hidden { dir, name }),
        })
    }

    /// Its state.
    pub fn stamp(&self) -> Result<Stamp> {
        fstat(&self.fd)
            .map(|s| Stamp::of(&s))
            .map_err(|e| Trouble::data(e, "new file cannot be looked at"))
    }

    /// Gives it its name. Never replaces: `file.exists`.
    pub fn publish(&mut self, dir: &Dir, name: &[u8]) -> Result<()> {
        let doing = "new file cannot be named";
        if let Some(hidden) = &self.hidden {
            remember(&hidden.name); // writing may have taken longer than the name lasted
            renameat_with(
                &hidden.dir,
                hidden.name.as_slice(),
                &dir.fd,
                name,
                RenameFlags::NOREPLACE,
            )
            .map_err(|e| Trouble::of(e, doing))?;
            if let Some(mut hidden) = self.hidden.take() {
                hidden.name.clear();
            }
            return Ok(());
        }
        // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the descriptor's own magic link needs nothing but /proc.
        match linkat(&self.fd, c"", &dir.fd, name, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT | Errno::PERM) => {
                let own = format!("/proc/self/fd/{}", self.fd.as_fd().as_raw_fd());
                linkat(CWD, own, &dir.fd, name, AtFlags::SYMLINK_FOLLOW)
            }
            other => other,
        }
        .map_err(|e| Trouble::of(e, doing))
    }
}
