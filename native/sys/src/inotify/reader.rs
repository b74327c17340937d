//! The thread that empties the kernel's queue.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::State;
use crate::events::clocks;
use crate::events::pace::{Pace, NAP};
use crate::events::taking::{lock, Shared};

/// Bytes of one read at most: about 2,000 events, and it stays in the processor's cache.
const BUFFER: usize = 128 * 1024;
/// How often open moves and directories yet to be met are looked at.
const DUE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// Reads until the watcher is stopped.
pub(super) fn run(shared: &Shared<State>, queue: &OwnedFd) {
    let mut buffer = vec![0u8; BUFFER];
    let mut pace = Pace::new();
    let mut due = false;
    while !shared.stopped.load(Ordering::Acquire) {
        let mut fds = [
            PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN),
        ];
        let timeout = due.then_some(&DUE);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(NAP),
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        if fds[0].revents().is_empty() {
            due = idle(shared);
            continue;
        }
        pace.wait();
        due = empty(shared, queue, &mut buffer);
    }
}

fn idle(shared: &Shared<State>) -> bool {
    let mut state = lock(&shared.state);
    state.mono_ns = clocks().1;
    state.expire_moves();
    state.meet_now();
    wake_consumer(shared, &state);
    state.is_waiting()
}

/// Reads until a read comes back half empty; returns whether something is due soon.
fn empty(shared: &Shared<State>, queue: &OwnedFd, buffer: &mut [u8]) -> bool {
    let mut due = false;
    while !shared.stopped.load(Ordering::Acquire) {
        // Said before it is read, taken back under the lock: see `Running::expect`.
        shared.in_hand.store(BUFFER as u64, Ordering::SeqCst);
        let read = rustix::io::read(queue, &mut *buffer);
        let mut state = shared.enter_to_read();
        shared.in_hand.store(0, Ordering::SeqCst);
        let length = match read {
            Ok(length) if length > 0 => length,
            _ => return due, // empty (EAGAIN), or interrupted: poll tells
        };
        state.apply(&buffer[..length]);
        due = state.is_waiting();
        wake_consumer(shared, &state);
        drop(state);
        if length < buffer.len() / 2 {
            return due;
        }
    }
    due
}

fn wake_consumer(shared: &Shared<State>, state: &State) {
    if state.waiting && (!state.pending.is_empty() || !state.notices.is_empty()) {
        shared.ready.notify_one();
    }
}
