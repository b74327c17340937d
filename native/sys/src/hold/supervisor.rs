//! The supervisor: kills an answerer whose heart has stopped, so that the kernel lets all openers go.
//!
//! It opens nothing, allocates nothing in its loop and waits for nobody but the clock. A heart that beats late because
//! the whole machine stood still is no stopped heart: where the supervisor itself was late, it looks once more before it
//! judges.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_send_signal, Signal};
use rustix::time::{
    timerfd_create, timerfd_settime, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags,
};

use super::control::{Control, State, Word};
use super::{mono_ns, real_ns};

/// A heart that has not beaten for so long has stopped; with a tick on top it is killed within 200 ms.
pub const STALE: Duration = Duration::from_millis(170);
/// Pace of looking.
const TICK: Duration = Duration::from_millis(20);

/// What a supervisor holds.
#[derive(Debug)]
pub struct Setup {
    /// The control block.
    pub control: Control,
    /// Hangs up when the daemon is gone.
    pub lifeline: OwnedFd,
    /// The answerer (pidfd_open(2)).
    pub answerer: OwnedFd,
    /// The daemon.
    pub daemon: OwnedFd,
}

/// Why a supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The answerer is gone.
    AnswererGone,
    /// The daemon is gone; the answerer sees that by itself, and is killed where it does not.
    DaemonGone,
}

/// Watches until one of both is gone.
pub fn run(setup: &Setup) -> io::Result<Ended> {
    let timer = timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?;
    let pace = Timespec::try_from(TICK).map_err(io::Error::other)?;
    let every = Itimerspec {
        it_interval: pace,
        it_value: pace,
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every)?;
    let control = &setup.control;
    let mut last_ns = mono_ns();
    let mut daemon_gone_ns = 0;
    let mut killed = false;
    loop {
        let mut fds = [
            PollFd::new(&timer, PollFlags::IN),
            PollFd::new(&setup.answerer, PollFlags::IN),
            PollFd::new(&setup.daemon, PollFlags::IN),
            PollFd::new(&setup.lifeline, PollFlags::IN),
        ];
        let seen = if daemon_gone_ns == 0 { 4 } else { 2 };
        match poll(&mut fds[..seen], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = |i: usize| !fds[i].revents().is_empty();
        let (answerer_gone, daemon_gone) = (gone(1), gone(2) || gone(3));
        let mut eight = [0; 8];
        if rustix::io::read(timer.as_fd(), &mut eight).is_err() {
            // woken by another; the timer goes on
        }
        let now_ns = mono_ns();
        control.set(Word::SupervisorBeat, now_ns);
        if answerer_gone {
            return Ok(if daemon_gone_ns == 0 {
                Ended::AnswererGone
            } else {
                Ended::DaemonGone
            });
        }
        if daemon_gone && daemon_gone_ns == 0 {
            daemon_gone_ns = now_ns;
        }
        let late = now_ns - last_ns > 3 * TICK.as_nanos() as u64;
        last_ns = now_ns;
        let stale_ns = STALE.as_nanos() as u64;
        let stopped = !killed
            && control.get(Word::State) == State::Running as u64
            && now_ns.saturating_sub(control.get(Word::Beat)) > stale_ns
            && !late;
        let left_over = !killed && daemon_gone_ns != 0 && now_ns - daemon_gone_ns > stale_ns;
        if stopped || left_over {
            killed = true;
            kill(setup);
        }
        // killed, but in a sleep that SIGKILL does not end: its group is gone with the thread that answered
        if daemon_gone_ns != 0 && now_ns - daemon_gone_ns > 12 * stale_ns {
            return Ok(Ended::DaemonGone);
        }
    }
}

fn kill(setup: &Setup) {
    let control = &setup.control;
    // told first: the daemon may look as soon as the answerer is gone
    control.word(Word::Kills).fetch_add(1, Ordering::Release);
    control.set(Word::KilledAt, real_ns());
    // a process in a sleep of the kernel's stays, but its group does not
    control.set(Word::State, State::Ended as u64);
    if pidfd_send_signal(&setup.answerer, Signal::KILL).is_err() {
        // it is gone already
    }
}
