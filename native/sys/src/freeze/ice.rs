//! The freezer of control groups (v2): nothing in a frozen group runs, and no signal wakes it.
//!
//! It comes after the signals, never first: it takes milliseconds where a signal takes microseconds. And only where the
//! group of processes is a control group of its own; a session, a user's slice or the root hold neighbours.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to say that all is frozen.
const WAIT: Duration = Duration::from_millis(200);

/// Why a group was not frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warm {
    /// No version 2 hierarchy with a freezer is mounted here.
    Absent,
    /// It is not a control group of its own; what it is instead.
    Shared(&'static str),
    /// The kernel said no.
    Failed(i32),
}

impl Warm {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Warm::Absent => "no cgroup v2 with a freezer is mounted here".into(),
            Warm::Shared(what) => format!("not a control group of its own: {what}"),
            Warm::Failed(errno) => {
                format!(
                    "cgroup.freeze: {}",
                    std::io::Error::from_raw_os_error(*errno)
                )
            }
        }
    }
}

/// Freezes the control group that holds these processes and nobody else. Returns its directory.
pub fn freeze(pids: &[i32]) -> Result<PathBuf, Warm> {
    let mount = hierarchy().ok_or(Warm::Absent)?;
    let members: HashSet<i32> = pids.iter().copied().collect();
    let mut place: Option<String> = None;
    for &pid in pids {
        let Some(path) = group_of(pid) else { continue };
        match &place {
            Some(known) if *known != path => {
                return Err(Warm::Shared("its processes are in several"))
            }
            _ => place = Some(path),
        }
    }
    let path = place.ok_or(Warm::Shared("its processes are gone"))?;
    if path == "/" || path.ends_with(".slice") || path.contains("..") {
        return Err(Warm::Shared("it is a slice or the root"));
    }
    let own = group_of(std::process::id() as i32).unwrap_or_default();
    if own == path || own.starts_with(&format!("{path}/")) {
        return Err(Warm::Shared("we are in it"));
    }
    let directory = mount.join(path.trim_start_matches('/'));
    if !directory.join("cgroup.freeze").exists() {
        return Err(Warm::Absent);
    }
    only(&directory, &members)?;
    write(&directory, b"1")?;
    if let Err(shared) = only(&directory, &members) {
        // Somebody moved in between the look and the frost.
        let _ = write(&directory, b"0");
        return Err(shared);
    }
    let begun = Instant::now();
    while !frozen(&directory) && begun.elapsed() < WAIT {
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(directory)
}

/// Thaws a control group that [`freeze`] froze; one that is gone needs nothing.
pub fn thaw(directory: &Path) -> Result<(), Warm> {
    let mount = hierarchy().ok_or(Warm::Absent)?;
    let inside = directory.starts_with(&mount) && directory != mount;
    if !inside || directory.to_string_lossy().contains("..") {
        return Err(Warm::Shared("it lies outside the hierarchy"));
    }
    if !directory.exists() {
        return Ok(());
    }
    write(directory, b"0")
}

/// Whether every process in the control group has come to rest.
pub fn frozen(directory: &Path) -> bool {
    std::fs::read_to_string(directory.join("cgroup.events"))
        .is_ok_and(|text| text.lines().any(|x| x == "frozen 1"))
}

fn write(directory: &Path, value: &[u8]) -> Result<(), Warm> {
    std::fs::write(directory.join("cgroup.freeze"), value)
        .map_err(|e| Warm::Failed(e.raw_os_error().unwrap_or(0)))
}

/// Refuses a control group that holds, at any depth, a process that is none of `members`.
fn only(directory: &Path, members: &HashSet<i32>) -> Result<(), Warm> {
    let mut places = vec![directory.to_path_buf()];
    while let Some(place) = places.pop() {
        let text = std::fs::read_to_string(place.join("cgroup.procs"))
            .map_err(|e| Warm::Failed(e.raw_os_error().unwrap_or(0)))?;
        // 0 stands for a process of another pid namespace.
        let mut pids = text.lines().filter_map(|x| x.parse::<i32>().ok());
        if !pids.all(|pid| members.contains(&pid)) {
            return Err(Warm::Shared("others are in it"));
        }
        let below = std::fs::read_dir(&place).into_iter().flatten().flatten();
        places.extend(
            below
                .filter(|x| x.file_type().is_ok_and(|x| x.is_dir()))
                .map(|x| x.path()),
        );
    }
    Ok(())
}

/// Where version 2 is mounted, in whatever layout.
fn hierarchy() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == "cgroup2")
            .then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn group_of(pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines()
        .find_map(|x| x.strip_prefix("0::"))
        .map(str::to_owned)
}
