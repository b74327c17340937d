//! First in line for the processor while a group is stopped: among a hundred busy processes an ordinary thread waits
//! for its turn longer than the whole work takes.

use libc::{pthread_getschedparam, pthread_self, pthread_setschedparam, sched_param, SCHED_FIFO};

/// Above everything ordinary, below what the kernel itself runs so.
const PRIORITY: i32 = 10;

/// The calling thread runs first until this is dropped; where that is not permitted it runs as before.
pub struct Urgent(Option<(i32, sched_param)>);

impl Urgent {
    /// Begins.
    pub fn begin() -> Urgent {
        let mut policy = 0;
        // SAFETY: a record of plain integers, for which zeros are fine.
        let mut before: sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: the calling thread's own handle, and two writable places that outlive the call.
        let known = unsafe { pthread_getschedparam(pthread_self(), &mut policy, &mut before) } == 0;
        let first = sched_param {
            sched_priority: PRIORITY,
        };
        // SAFETY: the calling thread's own handle and a readable record.
        let taken =
            known && unsafe { pthread_setschedparam(pthread_self(), SCHED_FIFO, &first) } == 0;
        Urgent(taken.then_some((policy, before)))
    }

    /// Whether it is so.
    pub fn granted(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some((policy, before)) = &self.0 {
            // SAFETY: the calling thread's own handle and a readable record; back to what it was is always permitted.
            unsafe { pthread_setschedparam(pthread_self(), *policy, before) };
        }
    }
}
