//! Whose code a process runs: the file that it was started from, by inode and digest, and code that came from elsewhere.
//!
//! Names tell nothing here: argv, links and renamed copies lead to the same inode, an exec to another one, and a deleted
//! executable is still read through the process itself.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use shieldd_core::envelope::suite::{AwsLc, Suite};

use super::stat;

/// Executables larger than this are not digested, and so are on no list: 256 MiB.
const EXECUTABLE_LIMIT: u64 = 256 << 20;
/// Digests kept.
const DIGESTS: usize = 256;

/// A file as what a process runs: which one, and in which state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Executable {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    uid: u32,
    mode: u32,
}

impl Executable {
    fn of(seen: &Metadata) -> Executable {
        let ns = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
        Executable {
            dev: seen.dev(),
            ino: seen.ino(),
            size: seen.size(),
            mtime_ns: ns(seen.mtime(), seen.mtime_nsec()),
            ctime_ns: ns(seen.ctime(), seen.ctime_nsec()),
            uid: seen.uid(),
            mode: seen.mode(),
        }
    }

    /// What a process runs now; `None` where it is gone, a kernel thread, or not ours to see.
    pub fn of_process(pid: i32) -> Option<Executable> {
        std::fs::metadata(format!("/proc/{pid}/exe"))
            .ok()
            .map(|x| Executable::of(&x))
    }

    /// The file of that name as it lies here, links followed.
    pub fn of_path(path: &str) -> Option<Executable> {
        std::fs::metadata(path).ok().map(|x| Executable::of(&x))
    }

    /// Whether only root could have put its content there.
    pub fn of_root_alone(&self) -> bool {
        of_root_alone(self.uid, self.mode)
    }
}

fn of_root_alone(uid: u32, mode: u32) -> bool {
    uid == 0 && mode & 0o022 == 0
}

/// Digests of executables, kept by inode, size and times.
#[derive(Debug, Default)]
pub struct Digests {
    kept: HashMap<Executable, [u8; 32]>,
}

impl Digests {
    /// SHA-256 of what a process runs, and which file that is; `None` where it cannot be read whole.
    pub fn of_process(&mut self, pid: i32) -> Option<(Executable, [u8; 32])> {
        let mut file = File::open(format!("/proc/{pid}/exe")).ok()?;
        let executable = Executable::of(&file.metadata().ok()?);
        if let Some(digest) = self.kept.get(&executable) {
            return Some((executable, *digest));
        }
        if executable.size > EXECUTABLE_LIMIT {
            return None;
        }
        let mut content = Vec::with_capacity(executable.size as usize);
        file.by_ref()
            .take(EXECUTABLE_LIMIT + 1)
            .read_to_end(&mut content)
            .ok()?;
        let still = Executable::of(&file.metadata().ok()?) == executable;
        if !still || content.len() as u64 != executable.size {
            return None;
        }
        let digest = AwsLc::hash(&content);
        if self.kept.len() >= DIGESTS {
            self.kept.clear();
        }
        self.kept.insert(executable, digest);
        Some((executable, digest))
    }
}

/// Why a process cannot be taken for its executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// Another process that is not root's holds it by ptrace and can make it do anything.
    Traced(i32),
    /// It has mapped, as code, a file that others than root could have written.
    Mapped(Vec<u8>),
    /// What it has mapped cannot be seen.
    Unseen,
}

impl Foreign {
    /// For people; no path in it.
    pub fn text(&self) -> String {
        match self {
            Foreign::Traced(pid) => format!("process {pid} controls it by ptrace"),
            Foreign::Mapped(_) => {
                "it runs code of a file that others than root can write (LD_PRELOAD?)".into()
            }
            Foreign::Unseen => "what code it runs cannot be seen".into(),
        }
    }
}

/// Looks for code in a process that did not come with its executable and root's libraries.
pub fn foreign(pid: i32, executable: &Executable) -> Option<Foreign> {
    let tracer = stat::status(pid, "TracerPid").unwrap_or(0) as i32;
    if tracer != 0 && stat::status(tracer, "Uid") != Some(0) {
        return Some(Foreign::Traced(tracer));
    }
    let Ok(maps) = std::fs::read(format!("/proc/{pid}/maps")) else {
        return Some(Foreign::Unseen);
    };
    if maps.is_empty() {
        return Some(Foreign::Unseen);
    }
    for line in maps.split(|&b| b == b'\n') {
        let mut words = line
            .splitn(6, |&b| b == b' ')
            .filter_map(|x| std::str::from_utf8(x).ok());
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            continue;
        };
        let inode = words.nth(2).and_then(|x| x.parse::<u64>().ok());
        if rights.as_bytes().get(2) != Some(&b'x') || inode.unwrap_or(0) == 0 {
            continue; // no code, or no file behind it: the kernel's own pages, code made on the spot
        }
        let path = line.splitn(6, |&b| b == b' ').nth(5).unwrap_or_default();
        let path = path.trim_ascii_start();
        match mapped(pid, range, path, inode.unwrap_or(0)) {
            None => return Some(Foreign::Unseen),
            Some(file) => {
                let own = (file.dev, file.ino) == (executable.dev, executable.ino);
                if !own && !file.of_root_alone() {
                    return Some(Foreign::Mapped(path.to_vec()));
                }
            }
        }
    }
    None
}

/// The file behind a mapping: through the mapping itself, or by its name in the process's own view where that is
/// forbidden and the inode agrees.
fn mapped(pid: i32, range: &str, path: &[u8], inode: u64) -> Option<Executable> {
    let (from, to) = range.split_once('-')?;
    let plain = |x: &str| format!("{:x}", u64::from_str_radix(x, 16).unwrap_or(0));
    let name = format!("/proc/{pid}/map_files/{}-{}", plain(from), plain(to));
    if let Ok(seen) = std::fs::metadata(name) {
        return Some(Executable::of(&seen));
    }
    let path = std::str::from_utf8(path).ok()?;
    let seen = std::fs::metadata(format!("/proc/{pid}/root{path}")).ok()?;
    (seen.ino() == inode).then(|| Executable::of(&seen))
}
