//! Living processes, each held by a pidfd in one epoll set, so that one question tells which of them ended.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rustix::event::{epoll, poll, PollFd, PollFlags, Timespec};
use rustix::process::{getrlimit, pidfd_open, Pid, PidfdFlags, Resource};

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// A process (or thread) that is held; dropping it lets go.
pub struct Hold {
    pidfd: OwnedFd,
    count: Arc<AtomicU64>,
}

impl Hold {
    /// Whether it still runs, as of now.
    pub fn lives(&self) -> bool {
        let mut asked = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut asked, Some(&AT_ONCE)), Ok(0))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All that are held.
pub struct Held {
    set: OwnedFd,
    count: Arc<AtomicU64>,
    most: u64,
}

impl Held {
    /// Room for `most`, and never more than a quarter of the descriptors that this process may have.
    pub fn new(most: usize) -> io::Result<Self> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Ok(Held {
            set: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            count: Arc::default(),
            most: (most as u64).min(limit / 4),
        })
    }

    /// How many are held.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Holds whoever has the number now; also says whether that may be a thread that leads no process.
    pub fn hold(&self, pid: i32) -> (Option<Hold>, bool) {
        let Some(number) = Pid::from_raw(pid).filter(|_| self.count() < self.most) else {
            return (None, true);
        };
        let (opened, thread) = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => (Some(pidfd), false),
            Err(_) => {
                // PIDFD_THREAD, Linux 6.9
                let flags = PidfdFlags::from_bits_retain(libc::O_EXCL as u32);
                (pidfd_open(number, flags).ok(), true)
            }
        };
        let hold = opened.and_then(|pidfd| {
            let data = epoll::EventData::new_u64(pid as u64);
            epoll::add(&self.set, &pidfd, data, epoll::EventFlags::IN).ok()?;
            self.count.fetch_add(1, Ordering::Relaxed);
            Some(Hold {
                pidfd,
                count: Arc::clone(&self.count),
            })
        });
        (hold, thread)
    }

    /// Tells of each that has ended; who is told lets go of it.
    pub fn ended(&self, mut tell: impl FnMut(i32)) {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; 64];
        while self.count() > 0 {
            let Ok((ended, rest)) = epoll::wait(&self.set, &mut room, Some(&AT_ONCE)) else {
                return;
            };
            for event in &*ended {
                tell(event.data.u64() as i32);
            }
            if !rest.is_empty() {
                return;
            }
        }
    }
}
