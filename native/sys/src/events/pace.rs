//! Read moderation: after a few reads within 5 ms each further one is put off by a millisecond, so that a storm is read
//! in large pieces (a fifth of the processor time, and the writer runs faster); a quiet queue, and the few events of
//! one file being written, are read at once.

use std::time::{Duration, Instant};

/// More than this many reads in so long mean a busy queue.
const RECENT: Duration = Duration::from_millis(5);
const AT_ONCE: u32 = 6;
/// How long a busy queue is left to fill.
pub(crate) const NAP: Duration = Duration::from_millis(1);

/// How busy a queue was of late.
pub(crate) struct Pace {
    since: Instant,
    reads: u32,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Pace {
            since: Instant::now(),
            reads: 0,
        }
    }

    /// To be called before each read of a queue that has something.
    pub(crate) fn wait(&mut self) {
        let passed = self.since.elapsed();
        if passed >= RECENT {
            self.since = Instant::now();
            // a storm that goes on gets no new reads at once
            let goes_on = self.reads > AT_ONCE && passed < 2 * RECENT;
            self.reads = if goes_on { AT_ONCE } else { 0 };
        }
        self.reads += 1;
        if self.reads > AT_ONCE {
            std::thread::sleep(NAP);
        }
    }
}
