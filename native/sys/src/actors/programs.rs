//! Which programs bound an actor: those that start work for others, and servers that work for clients.
//!
//! A program is told by its file, never by what it calls itself: the name of the executable counts only where root
//! owns that file, nobody else may write to it, it lies where the system's programs lie, and the same file lies there
//! in our own view. A copy, a link, a bind mount or a mounted disk of an attacker's is an ordinary program.

use super::process::{at_path, Exe, Process};

/// They start what others asked for: an actor never reaches above their children.
const LAUNCHERS: [&[u8]; 38] = [
    b"agetty",
    b"atd",
    b"conmon",
    b"containerd",
    b"containerd-shim",
    b"containerd-shim-runc-v1",
    b"containerd-shim-runc-v2",
    b"cron",
    b"crond",
    b"crun",
    b"dbus-broker",
    b"dbus-daemon",
    b"docker-init",
    b"dockerd",
    b"dropbear",
    b"fcron",
    b"gdm-session-worker",
    b"gdm3",
    b"getty",
    b"inetd",
    b"init",
    b"lightdm",
    b"login",
    b"podman",
    b"runc",
    b"runsv",
    b"runsvdir",
    b"s6-supervise",
    b"s6-svscan",
    b"screen",
    b"sddm",
    b"slurmstepd",
    b"sshd",
    b"sshd-session",
    b"systemd",
    b"systemd-executor",
    b"tmux",
    b"xinetd",
];
/// Where they lead a session on a terminal, somebody types.
const SHELLS: [&[u8]; 14] = [
    b"ash", b"bash", b"busybox", b"csh", b"dash", b"fish", b"ksh", b"ksh93", b"mksh", b"nu",
    b"rbash", b"sh", b"tcsh", b"zsh",
];
/// One child for each client.
const SERVERS: [&[u8]; 5] = [
    b"ganesha.nfsd",
    b"proftpd",
    b"pure-ftpd",
    b"smbd",
    b"vsftpd",
];
/// Where the system's programs lie.
const SYSTEM: [&[u8]; 8] = [
    b"/usr/",
    b"/bin/",
    b"/sbin/",
    b"/lib/",
    b"/lib64/",
    b"/opt/",
    b"/nix/store/",
    b"/gnu/store/",
];

/// What a program is for the grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An ordinary program.
    Plain,
    /// The first process, a thread of the kernel, or one of our own.
    Host,
    /// Starts others' work.
    Launcher,
    /// A shell at which somebody types.
    Shell,
    /// Works for clients, in a child for each.
    Server,
}

/// Knows the programs.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Our own processes.
    pub own: Vec<i32>,
    /// Executables, by absolute path, that the configuration names as servers.
    pub servers: Vec<Vec<u8>>,
}

impl Programs {
    /// Role of a process.
    pub fn role(&self, process: &Process) -> Role {
        if process.pid == 1 || process.kernel || self.own.contains(&process.pid) {
            return Role::Host;
        }
        let name = process.exe.name();
        let role = if SERVERS.contains(&name) {
            Role::Server
        } else if LAUNCHERS.contains(&name) {
            Role::Launcher
        } else if process.leads_session() && process.tty != 0 && SHELLS.contains(&name) {
            Role::Shell
        } else if self.servers.contains(&process.exe.path) {
            return if genuine(&process.exe) {
                Role::Server
            } else {
                Role::Plain
            };
        } else {
            return Role::Plain;
        };
        let placed = SYSTEM.iter().any(|x| process.exe.path.starts_with(x))
            || self.servers.contains(&process.exe.path);
        if placed && genuine(&process.exe) {
            role
        } else {
            Role::Plain
        }
    }
}

/// Root's own file, and the one that we see under that name too (or one that an upgrade replaced).
fn genuine(exe: &Exe) -> bool {
    exe.ino != 0
        && exe.uid == 0
        && exe.mode & 0o022 == 0
        && (exe.deleted || at_path(&exe.path).is_some_and(|ours| ours.same(exe)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exe_of(path: &str) -> Exe {
        Exe {
            path: path.into(),
            ..at_path(path.as_bytes()).expect("is there")
        }
    }

    #[test]
    fn lists_are_sorted() {
        assert!(LAUNCHERS.is_sorted() && SHELLS.is_sorted() && SERVERS.is_sorted());
    }

    #[test]
    fn a_shell_is_one_only_with_its_terminal() {
        let mut shell = Process {
            pid: 9,
            sid: 9,
            tty: 1,
            exe: exe_of("/bin/sh"),
            ..Process::default()
        };
        shell.exe = Exe {
            path: b"/bin/sh".to_vec(),
            ..shell.exe
        };
        let programs = Programs::default();
        assert_eq!(programs.role(&shell), Role::Shell);
        shell.tty = 0;
        assert_eq!(programs.role(&shell), Role::Plain);
        shell.tty = 1;
        shell.exe.uid = 1000;
        assert_eq!(programs.role(&shell), Role::Plain);
    }

    #[test]
    fn a_name_alone_is_no_role() {
        let mut claimed = Process {
            pid: 9,
            sid: 1,
            exe: exe_of("/bin/sh"),
            ..Process::default()
        };
        let programs = Programs::default();
        for path in [
            "/tmp/sshd",
            "/usr/sbin/sshd",
            "/usr/../tmp/sshd",
            "/home/x/tmux",
        ] {
            claimed.exe.path = path.into();
            assert_eq!(programs.role(&claimed), Role::Plain, "{path}");
        }
    }

    #[test]
    fn ours_and_the_first_are_the_host() {
        let programs = Programs {
            own: vec![77],
            servers: vec![],
        };
        for pid in [1, 77] {
            assert_eq!(
                programs.role(&Process {
                    pid,
                    ..Process::default()
                }),
                Role::Host
            );
        }
    }
}
