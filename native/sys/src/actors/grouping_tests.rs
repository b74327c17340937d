//! The grouping on made-up processes.

use std::collections::HashMap;
use std::sync::Arc;

use super::grouping::{Group, Grouping, Kind, Lineage};
use super::process::{at_path, Exe, Process};
use super::programs::Programs;

const SHELL: i32 = 100;

#[derive(Default)]
struct Host {
    processes: HashMap<i32, Arc<Process>>,
    remembered: HashMap<i32, Group>,
}

impl Lineage for Host {
    fn process(&mut self, pid: i32) -> Option<Arc<Process>> {
        self.processes.get(&pid).cloned()
    }
    fn remembered(&mut self, process: &Process) -> Option<Group> {
        self.remembered.get(&process.pid).copied()
    }
}

impl Host {
    /// pid, parent, session; started in the order of their numbers.
    fn add(&mut self, pid: i32, ppid: i32, sid: i32, change: impl FnOnce(&mut Process)) {
        let mut process = Process {
            pid,
            ppid,
            sid,
            pgid: sid,
            tpgid: -1,
            start_ticks: pid as u64,
            uid: 1000,
            exe: Exe {
                dev: 1,
                ino: 7,
                path: b"/usr/bin/tool".to_vec(),
                ..Exe::default()
            },
            ..Process::default()
        };
        change(&mut process);
        self.processes.insert(pid, Arc::new(process));
    }

    fn group(&mut self, pid: i32) -> Group {
        let grouping = Grouping::new(
            Programs {
                own: vec![50],
                servers: vec![b"/bin/sh".to_vec()],
            },
            b"boot\n",
        );
        let process = self.processes[&pid].clone();
        grouping.group(&process, self)
    }
}

fn system(path: &str) -> Exe {
    Exe {
        path: path.into(),
        ..at_path(path.as_bytes()).expect("is there")
    }
}

/// A terminal with a shell, whose jobs are (pid, group, foreground group).
fn terminal(jobs: &[(i32, i32, i32)]) -> Host {
    let mut host = Host::default();
    host.add(1, 0, 1, |_| {});
    host.add(SHELL, 1, SHELL, |p| {
        p.tty = 34816;
        p.exe = system("/bin/bash");
    });
    for (pid, pgid, tpgid) in jobs {
        host.add(*pid, SHELL, SHELL, |p| {
            (p.pgid, p.tpgid, p.tty) = (*pgid, *tpgid, 34816)
        });
    }
    host
}

#[test]
fn workers_and_their_parent_are_one() {
    let mut host = Host::default();
    host.add(1, 0, 1, |_| {});
    host.add(10, 1, 10, |_| {});
    host.add(11, 10, 10, |_| {});
    host.add(12, 11, 10, |_| {});
    host.add(13, 11, 10, |_| {});
    let top = host.group(10);
    assert_eq!((top.top, top.kind), (10, Kind::Tree));
    for pid in [11, 12, 13] {
        assert_eq!(host.group(pid), top);
    }
    assert_eq!(top.key.get() >> 63, 1);
}

#[test]
fn sessions_and_units_are_boundaries() {
    let mut host = Host::default();
    host.add(1, 0, 1, |_| {});
    host.add(10, 1, 10, |_| {});
    host.add(11, 10, 11, |_| {});
    host.add(12, 10, 10, |p| {
        p.cgroup = b"/system.slice/x.service".to_vec()
    });
    assert_ne!(host.group(11).key, host.group(10).key);
    // a unit of its own, and no leader of its session within it
    assert_eq!(host.group(12).top, 12);
}

#[test]
fn groups_below_a_unit_are_no_boundary() {
    let mut host = Host::default();
    host.add(10, 1, 10, |p| p.cgroup = b"/u/a.service".to_vec());
    host.add(11, 10, 10, |p| p.cgroup = b"/u/a.service/mine".to_vec());
    assert_eq!(host.group(11), host.group(10));
}

#[test]
fn what_runs_in_the_foreground_is_the_terminal() {
    let mut host = terminal(&[(101, 101, 101), (102, 102, 102)]);
    let shell = host.group(SHELL);
    assert_eq!(shell.kind, Kind::Terminal);
    assert_eq!(host.group(101), shell);
    assert_eq!(host.group(102), shell);
}

#[test]
fn background_jobs_are_one_by_executable_and_user() {
    let mut host = terminal(&[
        (101, 101, SHELL),
        (102, 102, SHELL),
        (103, 103, SHELL),
        (104, 104, SHELL),
    ]);
    Arc::make_mut(host.processes.get_mut(&103).expect("there"))
        .exe
        .ino = 8;
    Arc::make_mut(host.processes.get_mut(&104).expect("there")).uid = 0;
    let first = host.group(101);
    assert_eq!(first.kind, Kind::Jobs);
    assert_eq!(host.group(102).key, first.key);
    for other in [103, 104, SHELL] {
        assert_ne!(host.group(other).key, first.key, "{other}");
    }
}

#[test]
fn what_lost_its_privileges_is_not_the_roots_who_started_it() {
    let mut host = Host::default();
    host.add(1, 0, 1, |_| {});
    host.add(10, 1, 10, |p| p.uid = 0);
    for pid in [11, 12] {
        host.add(pid, 10, 10, |p| p.uid = 1000);
    }
    host.add(13, 11, 10, |p| p.uid = 1000);
    host.add(14, 13, 10, |p| p.uid = 0);
    host.add(15, 10, 10, |p| p.uid = 0);
    let first = host.group(11);
    assert_eq!(first.kind, Kind::Jobs);
    for same in [12, 13] {
        assert_eq!(host.group(same).key, first.key, "{same}");
    }
    // what came by privileges through it (a set-user-ID program) is still its doing
    assert_eq!(host.group(14).key, first.key);
    assert_ne!(host.group(10).key, first.key);
    assert_eq!(host.group(15).key, host.group(10).key);
}

#[test]
fn an_orphan_belongs_to_its_sessions_leader() {
    let mut host = Host::default();
    host.add(1, 0, 1, |_| {});
    host.add(10, 1, 10, |_| {});
    host.add(12, 1, 10, |_| {});
    assert_eq!(host.group(12), host.group(10));
    host.processes.remove(&10);
    assert_eq!(host.group(12).top, 12);
}

#[test]
fn a_number_used_again_is_no_parent() {
    let mut host = Host::default();
    host.add(10, 1, 10, |p| p.start_ticks = 500);
    host.add(12, 10, 10, |p| p.start_ticks = 400);
    assert_eq!(host.group(12).top, 12);
}

#[test]
fn a_servers_children_are_its_clients() {
    let mut host = Host::default();
    host.add(1, 0, 1, |_| {});
    for (pid, ppid) in [(10, 1), (11, 10), (12, 10)] {
        host.add(pid, ppid, 10, |p| p.exe = system("/bin/sh"));
    }
    host.add(13, 11, 10, |_| {});
    assert_eq!(host.group(10).kind, Kind::Host);
    let client = host.group(11);
    assert_eq!(client.kind, Kind::Client);
    assert_ne!(client.key, host.group(12).key);
    assert_eq!(
        host.group(13),
        client,
        "what runs for a client is the client's"
    );
    host.processes.remove(&10);
    assert_eq!(
        host.group(12).kind,
        Kind::Client,
        "the server ended, its clients go on"
    );
}

#[test]
fn ours_and_the_first_are_never_climbed_into() {
    let mut host = Host::default();
    host.add(50, 1, 50, |_| {});
    host.add(51, 50, 50, |_| {});
    assert_eq!(host.group(50).kind, Kind::Host);
    assert_eq!((host.group(51).kind, host.group(51).top), (Kind::Tree, 51));
}

#[test]
fn what_was_remembered_wins() {
    let mut host = Host::default();
    host.add(10, 1, 10, |_| {});
    host.add(11, 1, 11, |_| {});
    host.add(12, 11, 11, |_| {});
    let old = host.group(10);
    host.remembered.insert(11, old);
    assert_eq!(host.group(12), old);
}

#[test]
fn threads_of_the_kernel_go_by_name() {
    let mut host = Host::default();
    for (pid, comm) in [
        (10, "nfsd"),
        (11, "nfsd"),
        (12, "kworker/0:1"),
        (13, "kworker/u8:3"),
    ] {
        host.add(pid, 2, 0, |p| (p.kernel, p.comm) = (true, comm.into()));
    }
    assert_eq!(host.group(10).key, host.group(11).key);
    assert_eq!(host.group(12).key, host.group(13).key);
    assert_ne!(host.group(10).key, host.group(12).key);
    assert_eq!(host.group(10).kind, Kind::Host);
}

#[test]
fn a_circle_of_parents_ends() {
    let mut host = Host::default();
    host.add(10, 11, 9, |p| p.start_ticks = 5);
    host.add(11, 10, 9, |p| p.start_ticks = 5);
    assert_eq!(host.group(10).kind, Kind::Tree);
}
