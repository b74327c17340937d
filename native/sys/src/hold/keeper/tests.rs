//! Keepers that answer, hang, and are given up.

use super::*;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::time::Instant;

/// Says what it sees, and hangs as long as it is told to.
struct Told {
    seen: Sender<(u64, Vec<u8>)>,
    hang: Arc<Mutex<Option<Receiver<()>>>>,
}

impl Preserver for Told {
    fn image(
        &mut self,
        file: BorrowedFd<'_>,
        about: &About<'_>,
        _: &dyn Fn() -> bool,
    ) -> Result<u64> {
        if about.path == b"hang" {
            let wait = lock(&self.hang).take();
            assert!(wait.is_none_or(|w| w.recv().is_ok()));
        }
        let mut content = vec![0; 16];
        let length = rustix::io::pread(file, &mut content, 0).unwrap();
        content.truncate(length);
        self.seen.send((about.actor, content)).unwrap();
        Ok(about.actor + 1)
    }

    fn range(
        &mut self,
        _: BorrowedFd<'_>,
        _: &About<'_>,
        _: u64,
        _: u64,
        _: &dyn Fn() -> bool,
    ) -> Result<u64> {
        Err(Trouble::new("file.full", "full"))
    }
}

fn collect(keepers: &Keepers, at: At) -> Done {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(done) = keepers.collect(at) {
            return done;
        }
        assert!(Instant::now() < end, "no answer of the keeper");
        std::thread::yield_now();
    }
}

#[test]
fn jobs_are_kept_given_up_and_refused() {
    let path = std::env::temp_dir().join(format!("shieldd-keeper-{}", std::process::id()));
    std::fs::write(&path, b"content").unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let directory: OwnedFd = std::fs::File::open(std::env::temp_dir()).unwrap().into();
    let (seen, sees) = channel();
    let (go_on, hang) = channel();
    let hang = Arc::new(Mutex::new(Some(hang)));
    let seen = Mutex::new(seen);
    let open = move |_: OwnedFd| -> Result<Box<dyn Preserver>> {
        let seen = lock(&seen).clone();
        Ok(Box::new(Told {
            seen,
            hang: hang.clone(),
        }))
    };
    let keepers = Keepers::start(&[directory], Arc::new(open)).unwrap();
    let stat = rustix::fs::fstat(&file).unwrap();
    let job = |path: &[u8]| Job {
        fd: file.as_raw_fd(),
        dev: stat.st_dev,
        ino: stat.st_ino,
        path: path.to_vec(),
        actor: 5,
        ..Job::default()
    };
    let at = keepers.give(&mut job(b"x")).unwrap();
    assert_eq!(
        collect(&keepers, at),
        Done {
            kept: Kept::Yes,
            version: 6,
            errno: 0
        }
    );
    assert_eq!(sees.recv().unwrap(), (5, b"content".to_vec()));
    // another file than the one that was meant
    let at = keepers
        .give(&mut Job {
            ino: stat.st_ino + 1,
            ..job(b"x")
        })
        .unwrap();
    assert_eq!(collect(&keepers, at).kept, Kept::Failed);
    let at = keepers
        .give(&mut Job {
            range: Some((0, 4)),
            ..job(b"x")
        })
        .unwrap();
    assert_eq!(collect(&keepers, at).kept, Kept::Full);
    // one hangs; what waits behind it is taken back, and what began is collected in the end
    let hung = keepers.give(&mut job(b"hang")).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while keepers.crew[hung.keeper].shared.slots[hung.slot]
        .state
        .load(Ordering::Acquire)
        != TAKEN
    {
        assert!(Instant::now() < end);
        std::thread::yield_now();
    }
    let slots = &keepers.crew[hung.keeper].shared.slots;
    let behind = (0..DEPTH).find(|&i| i != hung.slot).unwrap();
    slots[behind].state.store(GIVEN, Ordering::Release);
    assert!(keepers.give_up(At {
        slot: behind,
        ..hung
    }));
    assert!(!keepers.give_up(hung));
    go_on.send(()).unwrap();
    assert_eq!(collect(&keepers, hung).kept, Kept::Yes);
    std::fs::remove_file(&path).unwrap();
}
