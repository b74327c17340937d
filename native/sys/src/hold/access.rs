//! What a blocked thread is about to do, read off its registers: `/proc/TID/syscall` (proc_pid_syscall(5)).
//!
//! The event itself does not say how a file is opened. Strict: only what is certainly a read is one. "running" (the
//! thread has not gone to sleep yet), io_uring (its call is 426), 32-bit calls (other numbers), calls that nobody has
//! heard of, anything that does not parse: writes. openat2(2) keeps its flags in the caller's memory, where another
//! thread can change them after the kernel has read them: a write, too. The registers cannot be changed meanwhile.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{openat, Mode, OFlags};
use rustix::io::pread;

/// What an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Certainly no change.
    Read,
    /// Decoded, and no read.
    Write,
    /// Certainly cuts the file short: truncate(2), ftruncate(2), an open with `O_TRUNC`.
    Truncate,
    /// Not decoded: taken for a write.
    Unknown,
}

/// Number of a call and its six arguments.
fn parse(text: &[u8]) -> Option<(i64, [u64; 6])> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let mut fields = text.split(' ');
    let number = fields.next()?.parse().ok()?;
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    // stack pointer and program counter, and nothing after them
    (fields.count() == 2).then_some((number, arguments))
}

/// By the flags of an open.
fn by_flags(flags: u64) -> Access {
    let flags = flags as i32;
    if flags & libc::O_TRUNC != 0 {
        Access::Truncate
    } else if flags & libc::O_ACCMODE == libc::O_RDONLY {
        Access::Read
    } else {
        Access::Write
    }
}

/// Classifies an open by the text of `/proc/TID/syscall`.
pub fn of_open(text: &[u8]) -> Access {
    let Some((number, arguments)) = parse(text) else {
        return Access::Unknown;
    };
    match number {
        libc::SYS_openat | libc::SYS_open_by_handle_at => by_flags(arguments[2]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => by_flags(arguments[1]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => Access::Truncate,
        libc::SYS_execve | libc::SYS_execveat => Access::Read,
        _ => Access::Unknown,
    }
}

/// Classifies an access to a range by the text of `/proc/TID/syscall`.
pub fn of_range(text: &[u8]) -> Access {
    let Some((number, arguments)) = parse(text) else {
        return Access::Unknown;
    };
    match number {
        libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_readv
        | libc::SYS_preadv
        | libc::SYS_preadv2
        | libc::SYS_execve
        | libc::SYS_execveat => Access::Read,
        // a private mapping never reaches the file; a shared one may be made writable later
        libc::SYS_mmap if arguments[3] as i32 & libc::MAP_TYPE == libc::MAP_PRIVATE => Access::Read,
        libc::SYS_truncate | libc::SYS_ftruncate => Access::Truncate,
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev => {
            Access::Write
        }
        _ => Access::Unknown,
    }
}

/// Threads whose file is kept open.
const KNOWN: usize = 512;

/// Reads what threads are doing.
#[derive(Debug)]
pub struct Calls {
    proc: OwnedFd,
    /// Each bound to the very thread: where that has ended, reading fails, whoever has its number now.
    known: HashMap<i32, OwnedFd>,
    text: [u8; 256],
}

impl Calls {
    /// Over a directory of processes (`/proc`).
    pub fn new() -> std::io::Result<Calls> {
        let proc = rustix::fs::open(
            "/proc",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Calls {
            proc,
            known: HashMap::with_capacity(KNOWN),
            text: [0; 256],
        })
    }

    /// What thread `tid` is blocked in; empty where that cannot be told.
    pub fn text(&mut self, tid: i32) -> &[u8] {
        if let Some(file) = self.known.get(&tid) {
            if let Ok(length @ 1..) = pread(file, &mut self.text, 0) {
                return &self.text[..length];
            }
            self.known.remove(&tid);
        }
        let mut path = [0u8; 32];
        let mut rest = &mut path[..];
        if tid <= 0 || write!(rest, "{tid}/syscall").is_err() {
            return &[];
        }
        let free = rest.len();
        let length = path.len() - free;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = openat(self.proc.as_fd(), &path[..length], flags, Mode::empty());
        let Ok(file) = opened else { return &[] };
        let Ok(length) = pread(&file, &mut self.text, 0) else {
            return &[];
        };
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(tid, file);
        &self.text[..length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "0x0 0x0 0x0 0x7ffc0 0x7f00";

    fn open(text: &str) -> Access {
        of_open(format!("{text}\n").as_bytes())
    }

    #[test]
    fn only_what_is_certainly_a_read_is_one() {
        let at = libc::SYS_openat;
        assert_eq!(
            open(&format!("{at} 0xffffff9c 0x7f 0x80000 {REST}")),
            Access::Read
        );
        assert_eq!(
            open(&format!("{at} 0x0 0x7f 0x200 {REST}")),
            Access::Truncate
        );
        for flags in [1, 2, 3, 0o1 | 0o2000, 0x80001] {
            let text = format!("{at} 0xffffff9c 0x7f {flags:#x} {REST}");
            assert_eq!(open(&text), Access::Write, "{text}");
        }
        for text in [
            "running",
            "",
            "-1 0x7ffc 0x7f00",
            &format!("{at}"),
            &format!("{at} 0x0 0x0 0x0 0x0 0x0 0x0 0x0"),
            &format!("{at} 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0"),
            &format!("{at} 0 0 0 0 0 0 0 0"),
            &format!("426 0x0 0x0 0x0 {REST}"),
            &format!("5 0x0 0x0 0x0 {REST}"),
            &format!("{} 0x0 0x0 0x0 {REST}", libc::SYS_openat2),
            &format!("99999 0x0 0x0 0x0 {REST}"),
        ] {
            assert_eq!(open(text), Access::Unknown, "{text}");
        }
        assert_eq!(
            of_open(format!("{at} 0x0 0x0 0x0 {REST}").as_bytes()),
            Access::Unknown
        );
    }

    #[test]
    fn ranges_are_read_cut_or_written() {
        let range = |number: i64, rest: &str| of_range(format!("{number} {rest}\n").as_bytes());
        let plain = format!("0x0 0x0 0x0 {REST}");
        assert_eq!(range(libc::SYS_pread64, &plain), Access::Read);
        assert_eq!(range(libc::SYS_pwrite64, &plain), Access::Write);
        assert_eq!(range(libc::SYS_ftruncate, &plain), Access::Truncate);
        assert_eq!(range(libc::SYS_sendfile, &plain), Access::Unknown);
        let mapped = |kind: i32| format!("0x0 0x1000 0x1 {kind:#x} 0x3 0x0 0x7ffc 0x7f00");
        assert_eq!(
            range(libc::SYS_mmap, &mapped(libc::MAP_PRIVATE)),
            Access::Read
        );
        assert_eq!(
            range(libc::SYS_mmap, &mapped(libc::MAP_SHARED)),
            Access::Unknown
        );
    }

    #[test]
    fn our_own_call_is_read_by_its_number() {
        let mut calls = Calls::new().unwrap();
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        // a thread that reads its own file is inside a read
        for _ in 0..3 {
            assert_eq!(of_range(calls.text(me)), Access::Read);
        }
        assert!(calls.text(0).is_empty());
        assert!(calls.text(i32::MAX).is_empty());
    }
}
