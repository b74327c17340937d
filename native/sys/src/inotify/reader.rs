//! The thread that empties the kernel's queue.
//!
//! Read moderation: after a few reads within 5 ms each further one is put off by a millisecond, so that a storm is read
//! in large pieces (a fifth of the processor time, and the writer runs faster); a quiet queue, and the few events of one
//! file being written, are read at once.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::{lock, Shared};

/// Bytes of one read at most: about 2,000 events, and it stays in the processor's cache.
const BUFFER: usize = 128 * 1024;
/// More than this many reads in so long mean a busy queue.
const RECENT: Duration = Duration::from_millis(5);
const AT_ONCE: u32 = 6;
/// How long a busy queue is left to fill.
const NAP: Duration = Duration::from_millis(1);
/// How often open moves are looked at.
const MOVES: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// Reads until the watcher is stopped.
pub(super) fn run(shared: &Shared) {
    let mut buffer = vec![0u8; BUFFER];
    let mut since = Instant::now();
    let mut reads = 0;
    let mut open_moves = false;
    while !shared.stopped.load(Ordering::Acquire) {
        let mut fds = [
            PollFd::from_borrowed_fd(shared.queue.as_fd(), PollFlags::IN),
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
        let passed = since.elapsed();
        if passed >= RECENT {
            since = Instant::now();
            // a storm that goes on gets no new reads at once
            let goes_on = reads > AT_ONCE && passed < 2 * RECENT;
            reads = if goes_on { AT_ONCE } else { 0 };
        }
        reads += 1;
        if reads > AT_ONCE {
            std::thread::sleep(NAP);
        }
        open_moves = empty(shared, &mut buffer);
    }
}

fn idle(shared: &Shared) -> bool {
    let mut state = lock(&shared.state);
    state.mono_ns = super::kernel::clocks().1;
    state.expire_moves();
    wake_consumer(shared, &state);
    state.has_moves()
}

/// Reads until a read comes back half empty; returns whether moves are open.
fn empty(shared: &Shared, buffer: &mut [u8]) -> bool {
    let mut open_moves = false;
    while !shared.stopped.load(Ordering::Acquire) {
        let length = match rustix::io::read(&shared.queue, &mut *buffer) {
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

fn wake_consumer(shared: &Shared, state: &super::State) {
    if state.waiting && (!state.pending.is_empty() || !state.notices.is_empty()) {
        shared.ready.notify_one();
    }
}
