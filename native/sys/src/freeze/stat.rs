//! A process as `/proc/PID/stat` tells it, and all of them.

use std::fs::File;
use std::io::Read;

/// Kernel threads have this bit in their flags (`PF_KTHREAD`).
const KERNEL_THREAD: u32 = 0x0020_0000;
/// Longest `stat` line that is read; the kernel's have some 400 bytes.
const LINE: usize = 1024;

/// One process at the moment it was looked at. Numbers are those of our own pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Process id.
    pub pid: i32,
    /// Parent.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// State of the first thread: `R S D T t Z X I P`.
    pub state: u8,
    /// The kernel's flags of it.
    pub flags: u32,
    /// Threads that are left.
    pub threads: u32,
    /// Start, clock ticks since boot.
    pub start_ticks: u64,
}

impl Seen {
    /// Whether it is a thread of the kernel.
    pub fn kernel(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }

    /// Whether nothing of it can run any more. A first thread that ended before the others leaves a `Z` behind that
    /// goes on: it has more than one thread.
    pub fn dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// Looks at one process; `None` where there is none.
pub fn seen(pid: i32) -> Option<Seen> {
    let mut line = [0u8; LINE];
    parse(read(&format!("/proc/{pid}/stat"), &mut line)?)
}

/// Looks at every process that `/proc` shows.
pub fn everybody() -> Vec<Seen> {
    let mut found = Vec::with_capacity(256);
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return found;
    };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_str().and_then(|x| x.parse().ok());
        if let Some(seen) = pid.and_then(seen) {
            found.push(seen);
        }
    }
    found
}

/// States of all threads of a process; empty where it is gone.
pub fn threads(pid: i32) -> Vec<u8> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut line = [0u8; LINE];
    let mut states = Vec::new();
    for entry in entries.flatten() {
        let name = format!("{}/stat", entry.path().display());
        if let Some(seen) = read(&name, &mut line).and_then(parse) {
            states.push(seen.state);
        }
    }
    states
}

/// A number from `/proc/PID/status` (its first, where a line has several): `TracerPid`, `Uid`.
pub fn status(pid: i32, key: &str) -> Option<i64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|x| {
        x.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(':'))
    })?;
    line[key.len() + 1..]
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn read<'a>(name: &str, line: &'a mut [u8; LINE]) -> Option<&'a [u8]> {
    let mut file = File::open(name).ok()?;
    let count = file.read(line).ok()?;
    Some(&line[..count])
}

/// Reads a line of proc(5). The name may hold spaces and brackets: the last bracket ends it.
fn parse(line: &[u8]) -> Option<Seen> {
    let open = line.iter().position(|&b| b == b'(')?;
    let close = line.iter().rposition(|&b| b == b')')?;
    let text = |part: &[u8]| std::str::from_utf8(part).ok().map(str::to_owned);
    let pid = text(line.get(..open)?)?.trim().parse().ok()?;
    let rest = text(line.get(close + 1..)?)?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // fields[0] is the third of proc(5).
    let at = |number: usize| fields.get(number - 3).copied();
    Some(Seen {
        pid,
        state: *at(3)?.as_bytes().first()?,
        ppid: at(4)?.parse().ok()?,
        pgid: at(5)?.parse().ok()?,
        sid: at(6)?.parse().ok()?,
        flags: at(9)?.parse().ok()?,
        threads: at(20)?.parse().ok()?,
        start_ticks: at(22)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_is_no_trap() {
        let line = b"42 (a) R 1 (b) S 7 8 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 1234 5 6\n";
        let seen = parse(line).expect("whole");
        assert_eq!((seen.pid, seen.ppid, seen.pgid, seen.sid), (42, 7, 8, 9));
        assert_eq!(
            (seen.state, seen.threads, seen.start_ticks),
            (b'S', 3, 1234)
        );
        assert!(parse(b"42 (a) S 1").is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn we_find_ourselves() {
        let own = std::process::id() as i32;
        let alone = seen(own).expect("we are there");
        assert!(everybody()
            .iter()
            .any(|x| x.pid == own && x.start_ticks == alone.start_ticks));
        assert!(!threads(own).is_empty());
        assert_eq!(status(own, "Pid"), Some(i64::from(own)));
    }

    #[test]
    fn a_first_thread_that_ended_alone_is_not_a_dead_process() {
        let mut seen = seen(std::process::id() as i32).expect("we are there");
        (seen.state, seen.threads) = (b'Z', 2);
        assert!(!seen.dead());
        seen.threads = 1;
        assert!(seen.dead());
    }
}
