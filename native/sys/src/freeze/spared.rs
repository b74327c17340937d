//! Who is never signalled, whatever group it is found in.
//!
//! A name spares nobody. What the system needs is known by the file behind it: the one that lies in a system directory
//! *here*, that only root can write, run by a system account, with no code of others in it. What the configuration
//! spares is known by digest, with no code of others in it, or by its unit, which the kernel keeps.

use std::collections::HashSet;

use super::code::{foreign, Digests, Executable, Foreign};
use super::stat::{self, Seen};

/// Real uids below this are the system's own (`SYS_UID_MAX` of login.defs plus one).
const FIRST_PERSON: i64 = 1000;
/// Where the system's own programs lie; nobody but root writes there.
const DIRECTORIES: [&str; 10] = [
    "/usr/sbin/",
    "/usr/bin/",
    "/sbin/",
    "/bin/",
    "/usr/lib/systemd/",
    "/lib/systemd/",
    "/usr/lib/openssh/",
    "/usr/libexec/",
    "/usr/libexec/openssh/",
    "/usr/lib/postgresql/",
];
/// Without these nobody can log in, and nothing is started or told any more.
const MANAGERS: [&str; 32] = [
    "init",
    "systemd",
    "systemd-journald",
    "systemd-logind",
    "systemd-udevd",
    "systemd-networkd",
    "systemd-resolved",
    "systemd-timesyncd",
    "systemd-executor",
    "dbus-daemon",
    "dbus-broker",
    "dbus-broker-launch",
    "polkitd",
    "sshd",
    "sshd-session",
    "sshd-auth",
    "login",
    "agetty",
    "getty",
    "gdm3",
    "gdm",
    "gdm-session-worker",
    "lightdm",
    "sddm",
    "cron",
    "crond",
    "atd",
    "auditd",
    "containerd",
    "containerd-shim-runc-v2",
    "dockerd",
    "conmon",
];
/// Servers with a process for each client: that process may be stopped, the one that makes them may not.
const PER_CLIENT: [&str; 6] = [
    "smbd",
    "postgres",
    "proftpd",
    "vsftpd",
    "pure-ftpd",
    "sftp-server",
];
/// Servers whose processes each serve many: never stopped.
const SHARED: [&str; 14] = [
    "nmbd",
    "winbindd",
    "ganesha.nfsd",
    "rpc.nfsd",
    "rpc.mountd",
    "nginx",
    "apache2",
    "httpd",
    "mysqld",
    "mariadbd",
    "slapd",
    "named",
    "haproxy",
    "glusterfsd",
];

/// Why a process is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// PID 1.
    First = 1,
    /// A thread of the kernel.
    Kernel = 2,
    /// The daemon, its answerer or its supervisor.
    Ourselves = 3,
    /// One that the daemon descends from.
    Ancestor = 4,
    /// The system's own: service manager, message bus, logins.
    Manager = 5,
    /// A server as a whole.
    Server = 6,
    /// On the configured list.
    Listed = 7,
}

/// The list, and what is remembered to apply it quickly.
#[derive(Debug, Default)]
pub struct Never {
    own: HashSet<i32>,
    digests: HashSet<[u8; 32]>,
    units: HashSet<Vec<u8>>,
    above_us: Vec<i32>,
    known: Digests,
}

impl Never {
    /// A list.
    ///
    /// * `own`: further processes of ours; the calling one and those that it descends from are always spared.
    /// * `digests`: SHA-256 of executables.
    /// * `units`: names of units such as `backup.service`.
    pub fn new(own: &[i32], digests: &[[u8; 32]], units: &[Vec<u8>]) -> Never {
        Never {
            own: own.iter().copied().collect(),
            digests: digests.iter().copied().collect(),
            units: units.iter().cloned().collect(),
            above_us: ancestors(),
            known: Digests::default(),
        }
    }

    /// Looks again who our ancestors are; a parent may have ended and another have taken us over.
    pub fn refresh(&mut self) {
        self.above_us = ancestors();
    }

    /// Why a process is spared; `None` for all others. Looks at what it is *now*: an exec since makes it another.
    pub fn why(&mut self, seen: &Seen) -> Option<Why> {
        if seen.pid <= 1 {
            return Some(Why::First);
        }
        if seen.kernel() {
            return Some(Why::Kernel);
        }
        if seen.pid == std::process::id() as i32 || self.own.contains(&seen.pid) {
            return Some(Why::Ourselves);
        }
        if self.above_us.contains(&seen.pid) {
            return Some(Why::Ancestor);
        }
        let of_system = system_role(seen);
        if of_system.is_some() {
            return of_system;
        }
        (self.listed_unit(seen.pid) || self.listed_digest(seen.pid)).then_some(Why::Listed)
    }

    /// Digest of what a process runs, and the code in it that is not its own.
    pub fn standing(&mut self, pid: i32) -> Option<(Executable, [u8; 32], Option<Foreign>)> {
        let (executable, digest) = self.known.of_process(pid)?;
        Some((executable, digest, foreign(pid, &executable)))
    }

    fn listed_digest(&mut self, pid: i32) -> bool {
        if self.digests.is_empty() {
            return false;
        }
        let Some((executable, digest)) = self.known.of_process(pid) else {
            return false;
        };
        self.digests.contains(&digest) && foreign(pid, &executable).is_none()
    }

    fn listed_unit(&self, pid: i32) -> bool {
        !self.units.is_empty() && unit(pid).is_some_and(|x| self.units.contains(&x))
    }
}

fn ancestors() -> Vec<i32> {
    let mut found = Vec::new();
    let mut at = std::process::id() as i32;
    while let Some(seen) = stat::seen(at) {
        if seen.ppid <= 0 || found.len() > 256 {
            break;
        }
        found.push(seen.ppid);
        at = seen.ppid;
    }
    found
}

/// What part of the system a process is, if any.
fn system_role(seen: &Seen) -> Option<Why> {
    let link = std::fs::read_link(format!("/proc/{}/exe", seen.pid)).ok()?;
    let path = link.to_str()?;
    let at = path.rfind('/')? + 1;
    let (directory, name) = path.split_at(at);
    let has = |list: &[&str]| list.contains(&name);
    let (manager, per_client, shared) = (has(&MANAGERS), has(&PER_CLIENT), has(&SHARED));
    if !(manager || per_client || shared) || !DIRECTORIES.iter().any(|x| directory.starts_with(x)) {
        return None;
    }
    // The name led here; from now on only the file counts. In another mount namespace that name is another file.
    let executable = Executable::of_process(seen.pid)?;
    if Executable::of_path(path)? != executable || !executable.of_root_alone() {
        return None;
    }
    if stat::status(seen.pid, "Uid")? >= FIRST_PERSON || foreign(seen.pid, &executable).is_some() {
        return None;
    }
    if manager {
        return Some(Why::Manager);
    }
    let of_client = per_client && Executable::of_process(seen.ppid) == Some(executable);
    (!of_client).then_some(Why::Server)
}

/// The unit that a process belongs to, by its control group: the first part that is no slice. Deeper parts belong to
/// whom the unit delegates to (a user's manager, a container) and may have any name.
fn unit(pid: i32) -> Option<Vec<u8>> {
    unit_of(&std::fs::read(format!("/proc/{pid}/cgroup")).ok()?)
}

fn unit_of(groups: &[u8]) -> Option<Vec<u8>> {
    let path = |prefix: &[u8]| {
        groups
            .split(|&b| b == b'\n')
            .find_map(|line| {
                let (number, rest) = line.split_at(line.iter().position(|&b| b == b':')? + 1);
                let rest = rest.strip_prefix(prefix)?;
                (!number.is_empty()).then(|| rest.to_vec())
            })
            .filter(|x| x.len() > 1)
    };
    let path = path(b":").or_else(|| path(b"name=systemd:"))?;
    path.split(|&b| b == b'/')
        .find(|part| !part.is_empty() && !part.ends_with(b".slice"))
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_what_the_system_made_and_not_what_lies_in_it() {
        let unit =
            |text: &str| unit_of(text.as_bytes()).map(|x| String::from_utf8(x).expect("text"));
        assert_eq!(
            unit("0::/system.slice/backup.service\n").as_deref(),
            Some("backup.service")
        );
        assert_eq!(
            unit("0::/system.slice/system-getty.slice/getty@tty1.service\n").as_deref(),
            Some("getty@tty1.service")
        );
        let nested = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service\n";
        assert_eq!(unit(nested).as_deref(), Some("user@1000.service"));
        let old = "4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n";
        assert_eq!(unit(old).as_deref(), Some("a.service"));
        assert_eq!(unit("0::/\n"), None);
        assert_eq!(unit(""), None);
    }

    #[test]
    fn the_first_process_ourselves_and_our_parents_are_spared() {
        let mut never = Never::new(&[], &[], &[]);
        let own = stat::seen(std::process::id() as i32).expect("we are there");
        assert_eq!(never.why(&own), Some(Why::Ourselves));
        if let Some(parent) = stat::seen(own.ppid).filter(|x| x.pid > 1) {
            assert_eq!(never.why(&parent), Some(Why::Ancestor));
        }
        if let Some(first) = stat::seen(1) {
            assert_eq!(never.why(&first), Some(Why::First));
        }
    }

    #[test]
    fn our_own_code_is_our_own() {
        let own = std::process::id() as i32;
        let mut never = Never::default();
        let (executable, digest, _) = never.standing(own).expect("we can be read");
        assert_eq!(Executable::of_process(own), Some(executable));
        assert_eq!(never.standing(own).expect("kept").1, digest);
    }
}
