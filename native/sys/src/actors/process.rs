//! One process as /proc shows it, read through a directory descriptor that is bound to that very process.
//!
//! `/proc/PID` opened once stays with its process: when that one is gone its files are gone, whoever gets the number
//! next. All reads of a record go through it, so a record never mixes two processes. Nothing here opens a file of a
//! guarded file system: `exe` is only looked at by statx(2) and readlink(2).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{openat, readlinkat, statx, AtFlags, Dir, Mode, OFlags, StatxFlags, CWD};
use rustix::io::{read, Errno};

use super::parse;

/// Most bytes of a command line that are kept.
pub const CMDLINE: usize = 512;
/// Most bytes of an environment that are looked at.
const ENVIRONMENT: usize = 128 << 10;

/// Most bytes of a list of mappings that are looked at.
const MAPS: usize = 1 << 20;

/// Why an executable's digest alone does not say what runs. Bits of [`Process::tampering`].
pub mod tampering {
    /// `LD_PRELOAD` was set when it started.
    pub const PRELOAD: u8 = 1;
    /// `LD_AUDIT` was set when it started.
    pub const AUDIT: u8 = 2;
    /// Another process traces it.
    pub const TRACED: u8 = 4;
    /// Its environment could not be read, or not to its end.
    pub const UNREADABLE: u8 = 8;
    /// Code is mapped that root does not own.
    pub const FOREIGN_CODE: u8 = 16;
}

/// The file that a process runs, as the kernel has it: no name, argument or link can make it another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exe {
    /// Device, as `st_dev`; 0 where it could not be told.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Size, bytes.
    pub size: u64,
    /// Last change of its content, ns.
    pub mtime_ns: i64,
    /// Last change of its inode, ns.
    pub ctime_ns: i64,
    /// Owner.
    pub uid: u32,
    /// Mode bits.
    pub mode: u16,
    /// Whether no name leads to it any more.
    pub deleted: bool,
    /// Name, as its own mount namespace has it; the kernel's ` (deleted)` is cut off where `deleted`.
    pub path: Vec<u8>,
}

impl Exe {
    /// Whether it is the same file.
    pub fn same(&self, other: &Exe) -> bool {
        self.ino != 0 && (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// Last name of its path.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|b| *b == b'/').next().unwrap_or(b"")
    }
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Number.
    pub pid: i32,
    /// Start, clock ticks since boot; with the number it names the process for as long as the machine runs.
    pub start_ticks: u64,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Controlling terminal, 0 for none.
    pub tty: i32,
    /// Foreground process group of that terminal.
    pub tpgid: i32,
    /// Effective user.
    pub uid: u32,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
    /// Whether it had ended already when it was read: no executable, no command line.
    pub ended: bool,
    /// What it runs.
    pub exe: Exe,
    /// Name that it gave itself.
    pub comm: Vec<u8>,
    /// Its cgroup, see [`parse::cgroup`].
    pub cgroup: Vec<u8>,
    /// Bits of [`tampering`].
    pub tampering: u8,
}

impl Process {
    /// Whether it leads its session.
    pub fn leads_session(&self) -> bool {
        self.sid == self.pid
    }

    /// Its unit, see [`parse::unit`].
    pub fn unit(&self) -> &[u8] {
        parse::unit(&self.cgroup)
    }
}

/// What only people and records ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Arguments, each ended by a zero byte; at most [`CMDLINE`] bytes.
    pub cmdline: Vec<u8>,
    /// User that logged in, `u32::MAX` for none.
    pub login_uid: u32,
    /// Inode of its pid namespace, 0 where it could not be told.
    pub pidns_ino: u64,
}

/// A process or thread held by its directory in /proc.
pub struct Handle {
    dir: OwnedFd,
}

impl Handle {
    /// Takes hold of whoever has that number now.
    pub fn open(pid: i32) -> Option<Handle> {
        let mut name = *b"/proc/\0\0\0\0\0\0\0\0\0\0\0";
        let digits = itoa(pid, &mut name[6..])?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, &name[..6 + digits], flags, Mode::empty()).ok()?;
        Some(Handle { dir })
    }

    fn read<'b>(
        &self,
        name: &str,
        buffer: &'b mut Vec<u8>,
        most: usize,
    ) -> Result<&'b [u8], Errno> {
        let fd = openat(
            &self.dir,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut done = 0;
        loop {
            let end = (done + 4096).min(most);
            if buffer.len() < end {
                buffer.resize(end, 0);
            }
            let got = match read(&fd, &mut buffer[done..end]) {
                Ok(got) => got,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            done += got;
            // a short read is the end: these files are made whole in one go
            if done < end || got == 0 || done == most {
                return Ok(&buffer[..done]);
            }
        }
    }

    /// Number's and start's check: the cheapest look at whether it still is who it was.
    pub fn start_ticks(&self, buffer: &mut Vec<u8>) -> Option<u64> {
        let bytes = self.read("stat", buffer, 4096).ok()?;
        parse::stat(bytes).map(|stat| stat.start_ticks)
    }

    /// Process that this thread belongs to.
    pub fn leader(&self, buffer: &mut Vec<u8>) -> Option<i32> {
        let bytes = self.read("status", buffer, 64 << 10).ok()?;
        parse::status(bytes).map(|status| status.tgid)
    }

    /// Reads a process; its environment only where `memory`: whoever owns that can make the reader wait.
    pub fn process(&self, memory: bool, buffer: &mut Vec<u8>) -> Option<Process> {
        let stat = parse::stat(self.read("stat", buffer, 4096).ok()?)?;
        let (pid, first_ended) = (stat.pid, stat.first_ended());
        let mut process = Process {
            pid,
            start_ticks: stat.start_ticks,
            ppid: stat.ppid,
            pgid: stat.pgid,
            sid: stat.sid,
            tty: stat.tty,
            tpgid: stat.tpgid,
            kernel: stat.kernel,
            ended: stat.ended(),
            comm: stat.comm.to_vec(),
            ..Process::default()
        };
        let status = parse::status(self.read("status", buffer, 64 << 10).ok()?)?;
        process.uid = status.uid;
        if status.tracer != 0 {
            process.tampering |= tampering::TRACED;
        }
        if process.kernel {
            return Some(process);
        }
        if let Ok(bytes) = self.read("cgroup", buffer, 64 << 10) {
            process.cgroup = parse::cgroup(bytes).to_vec();
        }
        if process.ended {
            return Some(process);
        }
        // the first thread may have ended while others go on: what they run is found with them
        let other = if first_ended {
            self.other_thread(pid)
        } else {
            None
        };
        let at = other.as_ref().unwrap_or(self);
        process.exe = at.exe().unwrap_or_default();
        if memory {
            process.tampering |= at.foreign_loading(buffer);
        }
        Some(process)
    }

    /// Another thread of a process whose first one has ended.
    fn other_thread(&self, pid: i32) -> Option<Handle> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = openat(&self.dir, "task", flags, Mode::empty()).ok()?;
        let threads = Dir::read_from(&list).ok()?.flatten();
        let numbers = threads.filter_map(|entry| parse::integer(entry.file_name().to_bytes()));
        numbers.filter(|tid: &i32| *tid != pid).find_map(|tid| {
            let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = openat(&list, tid.to_string(), path, Mode::empty()).ok()?;
            let thread = Handle { dir };
            thread.exe_stat().is_some().then_some(thread)
        })
    }

    /// What it runs now: two calls, no open.
    pub fn exe(&self) -> Option<Exe> {
        let found = self.exe_stat()?;
        let mut path = readlinkat(&self.dir, "exe", Vec::new()).ok()?.into_bytes();
        let deleted = found.deleted;
        // a living file may bear such a name: only the link count tells
        if deleted && path.ends_with(b" (deleted)") {
            path.truncate(path.len() - 10);
        }
        Some(Exe { path, ..found })
    }

    /// What it runs now, without its name.
    pub fn exe_stat(&self) -> Option<Exe> {
        stat_of(self.dir.as_fd(), "exe")
    }

    /// Bits of [`tampering`] that its environment shows, as it was when it started unless the process rewrote it.
    fn foreign_loading(&self, buffer: &mut Vec<u8>) -> u8 {
        match self.read("environ", buffer, ENVIRONMENT) {
            Ok(bytes) => {
                let (preload, audit) = parse::loads_foreign(bytes);
                let cut = bytes.len() == ENVIRONMENT;
                let found = [
                    (preload, tampering::PRELOAD),
                    (audit, tampering::AUDIT),
                    (cut, tampering::UNREADABLE),
                ];
                let bit = |(is, bit): (bool, u8)| if is { bit } else { 0 };
                found.into_iter().map(bit).fold(0, |all, bit| all | bit)
            }
            Err(_) => tampering::UNREADABLE,
        }
    }

    /// [`tampering::FOREIGN_CODE`] where a file is mapped as code that is neither the executable nor root's alone; it
    /// finds what a process no longer shows in its environment.
    pub fn foreign_code(&self, exe: &Exe, buffer: &mut Vec<u8>) -> u8 {
        let Ok(maps) = self.read("maps", buffer, MAPS) else {
            return tampering::UNREADABLE;
        };
        if maps.len() == MAPS {
            return tampering::UNREADABLE;
        }
        for (range, _) in parse::code_mappings(maps) {
            let Some(file) = stat_of(self.dir.as_fd(), [b"map_files/", range].concat()) else {
                return tampering::UNREADABLE;
            };
            if !file.same(exe) && (file.uid != 0 || file.mode & 0o022 != 0) {
                return tampering::FOREIGN_CODE;
            }
        }
        0
    }

    /// Its arguments, from its own memory.
    pub fn cmdline(&self, buffer: &mut Vec<u8>) -> Vec<u8> {
        let cmdline = self.read("cmdline", buffer, CMDLINE).map(<[u8]>::to_vec);
        cmdline.unwrap_or_default()
    }

    /// Reads what people ask for; all but the arguments.
    pub fn details(&self, buffer: &mut Vec<u8>) -> Details {
        let login = self.read("loginuid", buffer, 32).ok();
        let login_uid = login.and_then(|bytes| parse::integer(bytes.trim_ascii()));
        let pidns = stat_of(self.dir.as_fd(), "ns/pid");
        Details {
            cmdline: Vec::new(),
            login_uid: login_uid.unwrap_or(u32::MAX),
            pidns_ino: pidns.map_or(0, |x| x.ino),
        }
    }
}

/// What lies at a path in our own mount namespace, without its name.
pub fn at_path(path: &[u8]) -> Option<Exe> {
    stat_of(CWD, path)
}

fn stat_of(dir: std::os::fd::BorrowedFd<'_>, path: impl rustix::path::Arg) -> Option<Exe> {
    // what the kernel knows already: a server that hangs must not hang us
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(dir, path, flags, StatxFlags::BASIC_STATS).ok()?;
    let ns = |t: rustix::fs::StatxTimestamp| {
        t.tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(t.tv_nsec))
    };
    Some(Exe {
        dev: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
        size: found.stx_size,
        mtime_ns: ns(found.stx_mtime),
        ctime_ns: ns(found.stx_ctime),
        uid: found.stx_uid,
        mode: found.stx_mode,
        deleted: found.stx_nlink == 0,
        path: Vec::new(),
    })
}

/// Writes a positive number in decimal; its length.
fn itoa(number: i32, into: &mut [u8]) -> Option<usize> {
    let mut rest = u32::try_from(number).ok().filter(|n| *n > 0)?;
    let mut digits = [0u8; 10];
    let mut at = digits.len();
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let length = digits.len() - at;
    into.get_mut(..length)?.copy_from_slice(&digits[at..]);
    Some(length)
}
