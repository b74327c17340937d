//! The thread that empties the group's queue.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::kernel::Group;
use super::state::State;
use crate::events::pace::{Pace, NAP};
use crate::events::taking::{lock, Front, Shared};

/// Bytes of one read at most: some 2,500 events.
const BUFFER: usize = 256 * 1024;
/// Records of one read at most.
pub(super) const READ: usize = BUFFER / 80;
/// Longest record: two directories with names of 255 bytes and the object.
const RECORD: usize = 1536;
/// How often directories in limbo are looked at.
const LIMBO: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Reads until the watcher is stopped. `patience`: how long a full queue of ours may keep events waiting in the
/// kernel's, which has no bound, before they are read and counted as lost.
pub(super) fn run(shared: &Shared<State>, group: &Group, patience: Duration) {
    let mut buffer = vec![0u8; BUFFER];
    let mut pace = Pace::new();
    let mut waits = false;
    let mut left = patience;
    while !shared.stopped.load(Ordering::Acquire) {
        let mut fds = [
            PollFd::from_borrowed_fd(group.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, waits.then_some(&LIMBO)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(NAP),
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        if fds[0].revents().is_empty() {
            let mut state = lock(&shared.state);
            state.idle(tick());
            waits = state.has_limbo();
            wake_consumer(shared, &state);
            continue;
        }
        pace.wait();
        waits = empty(shared, group, (&mut left, patience), &mut buffer);
    }
}

/// Reads until nothing is left; returns whether directories are in limbo.
fn empty(
    shared: &Shared<State>,
    group: &Group,
    (left, patience): (&mut Duration, Duration),
    buffer: &mut [u8],
) -> bool {
    let size = buffer.len();
    loop {
        hold_off(shared, left, patience);
        if shared.stopped.load(Ordering::Acquire) {
            return false;
        }
        let before_ns = tick();
        // Read under the lock: whoever holds it knows what was read and what is still queued (`Expected::end`).
        let mut state = shared.enter_to_read();
        let Ok(records) = group.read(buffer) else {
            state.emptied(before_ns);
            wake_consumer(shared, &state);
            return state.has_limbo(); // empty (EAGAIN), or out of memory: poll tells
        };
        let last = records.length() < size - RECORD;
        state.apply(records, last.then_some(before_ns));
        wake_consumer(shared, &state);
        if last {
            return state.has_limbo();
        }
    }
}

/// The clock that times of files are taken from, ns: whatever changes later has no earlier one.
pub(super) fn tick() -> u64 {
    use rustix::time::{clock_gettime, ClockId};
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits for room in our own queue, while `left` lasts: it grows back only once there was room.
fn hold_off(shared: &Shared<State>, left: &mut Duration, patience: Duration) {
    if lock(&shared.state).has_room() {
        *left = patience;
        return;
    }
    while !left.is_zero() && !shared.stopped.load(Ordering::Acquire) {
        let began = Instant::now();
        std::thread::sleep(NAP);
        *left = left.saturating_sub(began.elapsed());
        if lock(&shared.state).has_room() {
            return;
        }
    }
}

fn wake_consumer(shared: &Shared<State>, state: &State) {
    if state.waiting && !(state.pending.is_empty() && state.is_idle()) {
        shared.ready.notify_one();
    }
}
