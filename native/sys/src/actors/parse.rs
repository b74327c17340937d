//! Files of /proc, parsed strictly from bytes: what does not fit is `None`, never a default.
//!
//! A process chooses its own name (any bytes, parentheses and newlines among them), arguments and environment; only
//! the fields that the kernel itself writes are believed. Layouts: proc(5), cgroups(7).

/// `PF_KTHREAD` among a task's flags.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Process (or thread).
    pub pid: i32,
    /// Its name, as it set it.
    pub comm: &'a [u8],
    /// `R`, `S`, `D`, `T`, `Z`, …
    pub state: u8,
    /// Parent process.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Controlling terminal, 0 for none.
    pub tty: i32,
    /// Foreground process group of that terminal, -1 for none.
    pub tpgid: i32,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
    /// Its threads.
    pub threads: u32,
    /// Start, clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat<'_> {
    /// Whether its first thread ended; the process did too unless others of its threads go on.
    pub fn first_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Whether it ended and only waits for its parent to notice.
    pub fn ended(&self) -> bool {
        self.first_ended() && self.threads < 2
    }
}

/// Parses `/proc/PID/stat`. The name ends at the *last* `)`: all after it is the kernel's own.
pub fn stat(bytes: &[u8]) -> Option<Stat<'_>> {
    let open = bytes.iter().position(|b| *b == b'(')?;
    let close = bytes.iter().rposition(|b| *b == b')')?;
    let pid = integer(bytes[..open].strip_suffix(b" ")?)?;
    let comm = bytes.get(open + 1..close)?;
    let rest = bytes.get(close + 1..)?.strip_prefix(b" ")?;
    let mut fields = rest
        .strip_suffix(b"\n")
        .unwrap_or(rest)
        .split(|b| *b == b' ');
    let [state] = *fields.next()? else {
        return None;
    };
    if !state.is_ascii_alphabetic() {
        return None;
    }
    let mut next = || integer::<i64>(fields.next()?);
    let [ppid, pgid, sid, tty, tpgid] = [next()?, next()?, next()?, next()?, next()?];
    let flags = u64::try_from(next()?).ok()?;
    for _ in 0..10 {
        next()?; // faults, times, priorities
    }
    let threads = u32::try_from(next()?).ok()?;
    next()?;
    let start_ticks = u64::try_from(next()?).ok()?;
    next()?; // more follows: the start is whole
    let small = |value: i64| i32::try_from(value).ok();
    Some(Stat {
        pid,
        comm,
        state,
        ppid: small(ppid)?,
        pgid: small(pgid)?,
        sid: small(sid)?,
        tty: small(tty)?,
        tpgid: small(tpgid)?,
        kernel: flags & KERNEL_THREAD != 0,
        threads,
        start_ticks,
    })
}

/// What `/proc/PID/status` adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Process that the thread belongs to.
    pub tgid: i32,
    /// Who traces it, 0 for nobody.
    pub tracer: i32,
    /// Effective user.
    pub uid: u32,
}

/// Parses the head of `/proc/PID/status`; the kernel escapes newlines in its first line, the name.
pub fn status(bytes: &[u8]) -> Option<Status> {
    let (mut tgid, mut tracer, mut uid) = (None, None, None);
    for line in bytes.split(|b| *b == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii();
        match &line[..colon] {
            b"Tgid" => tgid = integer(value),
            b"TracerPid" => tracer = integer(value),
            b"Uid" => uid = value.split(|b| *b == b'\t').nth(1).and_then(integer),
            _ => {}
        }
        if let (Some(tgid), Some(tracer), Some(uid)) = (tgid, tracer, uid) {
            return Some(Status { tgid, tracer, uid });
        }
    }
    None
}

/// The cgroup that names the service: of the lines of `/proc/PID/cgroup` the unified hierarchy's, else systemd's, else
/// empty. The root of a hierarchy (`/`) counts as none.
pub fn cgroup(bytes: &[u8]) -> &[u8] {
    let mut found: &[u8] = b"";
    for line in bytes.split(|b| *b == b'\n') {
        let mut parts = line.splitn(3, |b| *b == b':');
        let (Some(number), Some(names), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        if path.len() < 2 || path[0] != b'/' {
            continue;
        }
        if number == b"0" && names.is_empty() {
            return path;
        }
        if names == b"name=systemd" {
            found = path;
        }
    }
    found
}

/// The unit within a cgroup's path: up to its deepest `.service` or `.scope`, the whole path where it has none.
///
/// What a service makes below its own unit is no boundary: whoever it delegates to may make such groups at will.
pub fn unit(cgroup: &[u8]) -> &[u8] {
    let mut end = cgroup.len();
    let mut at = 0;
    for part in cgroup.split(|b| *b == b'/') {
        let after = at + part.len();
        if part.ends_with(b".service") || part.ends_with(b".scope") {
            end = after;
        }
        at = after + 1;
    }
    &cgroup[..end]
}

/// The container's name in a cgroup's path: 64 hexadecimal digits (docker, containerd, cri-o, podman, Kubernetes), or
/// what LXC and systemd-nspawn call it. Empty where there is none.
pub fn container(cgroup: &[u8]) -> &[u8] {
    for part in cgroup.rsplit(|b| *b == b'/') {
        let scope = part.strip_suffix(b".scope").unwrap_or(part);
        let id = scope.rsplit(|b| *b == b'-').next().unwrap_or(scope);
        let id = id.rsplit(|b| *b == b':').next().unwrap_or(id); // cri-containerd:ID
        if id.len() == 64 && id.iter().all(u8::is_ascii_hexdigit) {
            return id;
        }
        let named = scope
            .strip_prefix(b"lxc.payload.")
            .or_else(|| scope.strip_prefix(b"machine-"));
        if let Some(name) = named.filter(|name| !name.is_empty()) {
            return name;
        }
    }
    let mut parts = cgroup.split(|b| *b == b'/').skip_while(|x| *x != b"lxc");
    parts.nth(1).unwrap_or(b"")
}

/// Whether an environment makes the loader bring in foreign code: (`LD_PRELOAD`, `LD_AUDIT`), each with a value.
pub fn loads_foreign(environ: &[u8]) -> (bool, bool) {
    let mut found = (false, false);
    for entry in environ.split(|b| *b == 0) {
        let set = |name: &[u8]| entry.strip_prefix(name).is_some_and(|v| !v.is_empty());
        found.0 |= set(b"LD_PRELOAD=");
        found.1 |= set(b"LD_AUDIT=");
    }
    found
}

/// Whether `/proc/PID/fdinfo/N` is of a descriptor open for writing; None where it does not say.
pub fn open_for_writing(fdinfo: &[u8]) -> Option<bool> {
    let mut lines = fdinfo.split(|b| *b == b'\n');
    let flags = lines.find_map(|line| line.strip_prefix(b"flags:"))?;
    let text = std::str::from_utf8(flags.trim_ascii()).ok()?;
    let flags = u32::from_str_radix(text, 8).ok()?;
    Some(flags & 0o3 != 0 && flags & libc::O_PATH as u32 == 0)
}

/// The files mapped as code in `/proc/PID/maps`: (range as `/proc/PID/map_files` names it, path).
pub fn code_mappings(maps: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    maps.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.splitn(6, |b| *b == b' ');
        let (range, permissions) = (fields.next()?, fields.next()?);
        let (_offset, _device, inode) = (fields.next()?, fields.next()?, fields.next()?);
        let path = fields.next()?.trim_ascii_start();
        let code = permissions.get(2) == Some(&b'x') && inode != b"0";
        (code && range.contains(&b'-')).then_some((range, path))
    })
}

/// A whole decimal number, with a sign where the type has one.
pub fn integer<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &[u8] =
        b" S 7 8 9 34816 8 4194304 1 2 3 4 5 6 7 8 20 0 1 0 1497164 99 1 18446744073709551615\n";

    fn line(comm: &[u8]) -> Vec<u8> {
        [b"42 (", comm, b")", TAIL].concat()
    }

    #[test]
    fn a_name_may_hold_anything() {
        for comm in [
            &b"cat"[..],
            b"a b",
            b"x) S 1 1 1",
            b") R 0 (\n)",
            b"",
            b"\xff\n)",
            b"(((",
            b"9 (x) Z",
        ] {
            let bytes = line(comm);
            let found = stat(&bytes).expect("parses");
            assert_eq!((found.pid, found.comm, found.ppid), (42, comm, 7));
            assert_eq!(
                (found.pgid, found.sid, found.tty, found.tpgid),
                (8, 9, 34816, 8)
            );
            assert_eq!((found.start_ticks, found.state), (1_497_164, b'S'));
        }
    }

    #[test]
    fn half_a_line_is_nothing() {
        let whole = line(b"cat");
        let starts = whole
            .windows(7)
            .position(|w| w == b"1497164")
            .expect("there");
        for end in 0..starts {
            assert_eq!(stat(&whole[..end]), None, "{end}");
        }
        assert_eq!(stat(b"42 (x) S running"), None);
        assert_eq!(stat(b"42(x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"), None);
    }

    #[test]
    fn status_takes_the_effective_user() {
        let text = b"Name:\tTgid: 1\nUmask:\t0022\nState:\tR\nTgid:\t5\nPid:\t6\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nGid:\t0\n";
        let expected = Status {
            tgid: 5,
            tracer: 0,
            uid: 2,
        };
        assert_eq!(status(text), Some(expected));
        assert_eq!(
            status(b"Name:\tx\nTgid:\tfive\nTracerPid:\t0\nUid:\t1\t2\t3\t4\n"),
            None
        );
    }

    #[test]
    fn cgroups_units_and_containers() {
        let id = "0123456789abcdef".repeat(4);
        let docker = format!("/system.slice/docker-{id}.scope");
        assert_eq!(cgroup(b"9:name=systemd:/a\n0::/\n"), b"/a");
        assert_eq!(cgroup(b"9:name=systemd:/a\n0::/b:c\n"), b"/b:c");
        assert_eq!(cgroup(b"4:memory:/x\n0::/\n"), b"");
        assert_eq!(
            unit(b"/user.slice/user@1.service/app.slice/x.scope/in"),
            b"/user.slice/user@1.service/app.slice/x.scope"
        );
        assert_eq!(unit(b"/docker/abc"), b"/docker/abc");
        assert_eq!(container(docker.as_bytes()), id.as_bytes());
        assert_eq!(
            container(format!("/docker/{id}/sub").as_bytes()),
            id.as_bytes()
        );
        assert_eq!(
            container(format!("/kubepods/besteffort/pod1/cri-containerd:{id}").as_bytes()),
            id.as_bytes()
        );
        assert_eq!(container(b"/lxc/web/init.scope"), b"web");
        assert_eq!(container(b"/lxc.payload.web/x.service"), b"web");
        assert_eq!(container(b"/machine.slice/machine-deb.scope"), b"deb");
        assert_eq!(container(b"/system.slice/cron.service"), b"");
    }

    #[test]
    fn descriptors() {
        assert_eq!(
            open_for_writing(b"pos:\t0\nflags:\t0100001\nmnt_id:\t9\n"),
            Some(true)
        );
        assert_eq!(open_for_writing(b"pos:\t0\nflags:\t0100000\n"), Some(false));
        assert_eq!(
            open_for_writing(b"pos:\t0\nflags:\t012000002\n"),
            Some(false)
        ); // O_PATH
        assert_eq!(open_for_writing(b"pos:\t0\n"), None);
    }

    #[test]
    fn mappings() {
        let maps = b"7f00-7f01 r--p 00000000 08:01 12  /lib/a.so\n7f01-7f02 r-xp 00001000 08:01 12   /lib/a b.so\n\
            7f03-7f04 r-xp 00000000 00:00 0   [vdso]\n7f05-7f06 rw-p 0 00:00 0 \n";
        let found: Vec<_> = code_mappings(maps).collect();
        assert_eq!(found, [(&b"7f01-7f02"[..], &b"/lib/a b.so"[..])]);
    }

    #[test]
    fn environments() {
        assert_eq!(loads_foreign(b"A=1\0LD_PRELOAD=/x.so\0"), (true, false));
        assert_eq!(
            loads_foreign(b"LD_AUDIT=x\0XLD_PRELOAD=y\0LD_PRELOAD=\0"),
            (false, true)
        );
    }
}
