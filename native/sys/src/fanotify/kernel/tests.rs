//! Groups on a file system of the test's own, and records that no kernel would write.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::records::HEADER;
use super::*;

/// A tmpfs of its own; gone with the test.
struct Own(PathBuf);

impl Own {
    /// None where this process may not mount.
    fn new(name: &str) -> Option<Own> {
        // SAFETY: no pointers.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let at = std::env::temp_dir().join(format!("shieldd-fan-{name}-{}", std::process::id()));
        fs::create_dir(&at).ok()?;
        let path = CString::new(at.as_os_str().as_bytes()).ok()?;
        let kind = c"tmpfs".as_ptr();
        // SAFETY: all strings are zero-terminated and outlive the call.
        let done =
            unsafe { libc::mount(kind, path.as_ptr(), kind, 0, c"size=16m".as_ptr().cast()) };
        let own = Own(at);
        (done == 0).then_some(own)
    }

    /// Open, and refused where it is the root's device: a mark there is everybody's business.
    fn open(&self) -> File {
        let dir = File::open(&self.0).unwrap();
        assert_ne!(
            dir.metadata().unwrap().dev(),
            fs::metadata("/").unwrap().dev()
        );
        dir
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.0.as_os_str().as_bytes()) {
            // SAFETY: the string is zero-terminated and outlives the call.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
        drop(fs::remove_dir(&self.0));
    }
}

/// Mask, process, directory handle, name, new name.
type Seen = (u64, i32, Vec<u8>, Vec<u8>, Vec<u8>);

fn named(group: &Group) -> Vec<Seen> {
    let mut buffer = vec![0; 64 * 1024];
    let Ok(records) = group.read(&mut buffer) else {
        return Vec::new();
    };
    records
        .map(|n| {
            let (handle, name) = n.place.unwrap();
            let to = n.to.map_or(Vec::new(), |(_, name)| name.to_vec());
            (n.mask, n.pid, handle.raw().to_vec(), name.to_vec(), to)
        })
        .collect()
}

#[test]
fn a_notification_group_tells_directory_name_and_process() {
    let Some(own) = Own::new("notify") else {
        return; // needs root and a mount
    };
    let dir = own.open();
    let group = Group::notify().unwrap();
    group.mark_filesystem(dir.as_fd(), NOTIFY_MASK).unwrap();
    fs::create_dir(own.0.join("d")).unwrap();
    fs::write(own.0.join("d/a"), b"x").unwrap();
    fs::rename(own.0.join("d/a"), own.0.join("b")).unwrap();
    let seen = named(&group);
    let root = handle_of(dir.as_fd()).unwrap().0;
    let below = handle_of(File::open(own.0.join("d")).unwrap().as_fd())
        .unwrap()
        .0;
    assert!(seen.iter().all(|e| e.1 == std::process::id() as i32));
    assert_eq!(seen[0].0, libc::FAN_CREATE | ONDIR);
    assert_eq!((&seen[0].2, &seen[0].3), (&root, &b"d".to_vec()));
    assert_eq!((&seen[1].2, &seen[1].3), (&below, &b"a".to_vec()));
    assert_ne!(seen[1].0 & libc::FAN_CLOSE_WRITE, 0);
    assert_eq!(seen[2].0, RENAME);
    assert_eq!((&seen[2].3, &seen[2].4), (&b"a".to_vec(), &b"b".to_vec()));
    let opened = open_handle(dir.as_fd(), &seen[1].2, libc::O_PATH | libc::O_DIRECTORY).unwrap();
    assert_eq!(handle_of(opened.as_fd()).unwrap().0, below);
    let mut buffer = vec![0; 4096];
    fs::write(own.0.join("b"), b"y").unwrap();
    let record = group.read(&mut buffer).unwrap().next().unwrap();
    assert_eq!(
        record.place.unwrap().0.fsid(),
        fsid_of(dir.as_fd()).unwrap()
    );
    drop(opened);
}

#[test]
fn an_ignored_directory_is_quiet_until_it_is_regarded_again() {
    let Some(own) = Own::new("ignore") else {
        return; // needs root and a mount
    };
    let dir = own.open();
    fs::create_dir(own.0.join("d")).unwrap();
    let below = File::open(own.0.join("d")).unwrap();
    let group = Group::notify().unwrap();
    group.mark_filesystem(dir.as_fd(), NOTIFY_MASK).unwrap();
    for evictable in [true, false] {
        group
            .ignore_directory(below.as_fd(), NOTIFY_MASK, evictable)
            .unwrap();
        fs::write(own.0.join("d/a"), b"x").unwrap();
        assert_eq!(named(&group), []);
        group.regard_directory(below.as_fd(), NOTIFY_MASK).unwrap();
        fs::write(own.0.join("d/a"), b"x").unwrap();
        assert_eq!(named(&group).len(), 1);
    }
    group.unmark_filesystem(dir.as_fd(), NOTIFY_MASK).unwrap();
    fs::write(own.0.join("d/a"), b"x").unwrap();
    assert_eq!(named(&group), []);
}

/// Opens a file in another thread; what became of it, once it was answered.
fn opening(path: &Path, writing: bool) -> std::thread::JoinHandle<io::Result<Vec<u8>>> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        if writing {
            File::create(path)?.write_all(b"new")?;
            return Ok(Vec::new());
        }
        let mut content = Vec::new();
        File::open(path)?.read_to_end(&mut content)?;
        Ok(content)
    })
}

fn one_permission(group: &Group, answer: Option<Answer>) -> (u64, Vec<u8>) {
    let end = Instant::now() + Duration::from_secs(30);
    let mut buffer = vec![0; 4096];
    loop {
        match group.read_permissions(&mut buffer) {
            Ok(mut records) => {
                let event = records.next().unwrap();
                assert!(event.tid > 0);
                let fd = event.fd.unwrap();
                let mut content = vec![0; 100];
                let length = rustix::io::pread(&fd, &mut content, 0).unwrap();
                content.truncate(length);
                if let Some(answer) = answer {
                    group.answer(fd.as_fd(), answer).unwrap();
                }
                return (event.mask, content);
            }
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(Instant::now() < end, "no event");
        std::thread::yield_now();
    }
}

#[test]
fn a_permission_group_holds_the_opener_until_it_is_answered() {
    let Some(own) = Own::new("permission") else {
        return; // needs root and a mount
    };
    let dir = own.open();
    let path = own.0.join("a");
    fs::write(&path, b"old").unwrap();
    let group = Group::permission(Class::PreContent).unwrap();
    group.mark_filesystem(dir.as_fd(), OPEN_PERM).unwrap();

    let opener = opening(&path, true);
    let (mask, before) = one_permission(&group, Some(Answer::Deny));
    assert_eq!((mask, before.as_slice()), (OPEN_PERM, &b"old"[..]));
    let refused = opener.join().unwrap().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));

    let opener = opening(&path, true);
    one_permission(&group, Some(Answer::DenyWith(libc::EIO)));
    let refused = opener.join().unwrap().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));

    let opener = opening(&path, false);
    one_permission(&group, Some(Answer::Allow));
    assert_eq!(opener.join().unwrap().unwrap(), b"old");
}

#[test]
fn what_is_left_unanswered_is_allowed() {
    let Some(own) = Own::new("unanswered") else {
        return; // needs root and a mount
    };
    let dir = own.open();
    let path = own.0.join("a");
    fs::write(&path, b"old").unwrap();
    let group = Group::permission(Class::Content).unwrap();
    group.mark_filesystem(dir.as_fd(), OPEN_PERM).unwrap();
    let opener = opening(&path, false);
    let end = Instant::now() + Duration::from_secs(30);
    let mut buffer = vec![0; 4096];
    loop {
        if let Ok(records) = group.read_permissions(&mut buffer) {
            drop(records);
            break;
        }
        assert!(Instant::now() < end, "no event");
        std::thread::yield_now();
    }
    assert_eq!(opener.join().unwrap().unwrap(), b"old");
}

#[test]
fn an_overflow_has_no_place() {
    let mut bytes = vec![0; HEADER];
    bytes[..4].copy_from_slice(&(HEADER as u32).to_ne_bytes());
    bytes[6] = HEADER as u8;
    bytes[8..16].copy_from_slice(&OVERFLOW.to_ne_bytes());
    bytes[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
    let seen: Vec<_> = NamedRecords { rest: &bytes }.collect();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].mask, OVERFLOW);
    assert!(seen[0].place.is_none());
}

#[test]
fn torn_and_lying_records_end_the_walk_without_harm() {
    let mut random = 7u32;
    for length in 0..600usize {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 24) as u8 & 0x1f
            })
            .collect();
        let mut last = 0;
        for event in (NamedRecords { rest: &bytes }) {
            last += 1 + event.place.map_or(0, |(_, name)| name.len().min(1));
            assert!(last <= 2 * length);
        }
    }
    assert!(open_handle(File::open("/").unwrap().as_fd(), &[1, 0, 0], libc::O_PATH).is_err());
}
