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
/// How often open moves are looked at.
const MOVES: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// Reads until the watcher is stopped.
pub(super) fn run(shared: &Shared<State>, queue: &OwnedFd) {
    let mut buffer = vec![0u8; BUFFER];
    let mut pace = Pace::new();
    let mut open_moves = false;
    while !shared.stopped.load(Ordering::Acquire) {
        let mut fds = [
            PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN),
        ];
        let timeout = open_moves.then_some(&MOVES);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => std::thread::sleep(NAP),
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        if fds[0].revents().is_empty() {
            open_moves = idle(shared);
            continue;
        }
        pace.wait();
        open_moves = empty(shared, queue, &mut buffer);
    }
}

fn idle(shared: &Shared<State>) -> bool {
    let mut state = lock(&shared.state);
    state.mono_ns = clocks().1;
    state.expire_moves();
    wake_consumer(shared, &state);
    state.has_moves()
}

/// Reads until a read comes back half empty; returns whether moves are open.
fn empty(shared: &Shared<State>, queue: &OwnedFd, buffer: &mut [u8]) -> bool {
    let mut open_moves = false;
    while !shared.stopped.load(Ordering::Acquire) {
        let length = match rustix::io::read(queue, &mut *buffer) {
            Ok(length) if length > 0 => length,
            _ => return open_moves, // empty (EAGAIN), or interrupted: poll tells
        };
        let mut state = lock(&shared.state);
        state.apply(&buffer[..length]);
        open_moves = state.has_moves();
        wake_consumer(shared, &state);
        drop(state);
        if length < buffer.len() / 2 {
            return open_moves;
        }
    }
    open_moves
}

fn wake_consumer(shared: &Shared<State>, state: &State) {
    if state.waiting && (!state.pending.is_empty() || !state.notices.is_empty()) {
        shared.ready.notify_one();
    }
}
