//! What every source has: the two sides, the reader's thread between start and stop, and what is asked of all alike.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::rows::{Batch, Observer};
use super::taking::{lock, Ended, Front, Shared, Side, Taking};

/// A source's two sides and its reader.
pub(crate) struct Running<F, S> {
    pub(crate) shared: Arc<Shared<F>>,
    pub(crate) taking: Mutex<Taking<S>>,
    reader: Mutex<Option<JoinHandle<()>>>,
    hold: Duration,
}

impl<F: Front + Send + 'static, S: Side<F>> Running<F, S> {
    pub(crate) fn new(front: F, side: S, hold: Duration) -> io::Result<Self> {
        Ok(Running {
            shared: Arc::new(Shared::new(front)?),
            taking: Mutex::new(Taking::new(side)),
            reader: Mutex::new(None),
            hold,
        })
    }

    /// Prepares, then lets `read` run in a thread of this name; once, and never after a stop.
    pub(crate) fn start(
        &self,
        name: &str,
        prepare: impl FnOnce() -> io::Result<()>,
        read: impl FnOnce(&Shared<F>) + Send + 'static,
    ) -> io::Result<()> {
        let mut reader = lock(&self.reader);
        if reader.is_some() || self.shared.stopped.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the watcher was started before",
            ));
        }
        prepare()?;
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.into());
        *reader = Some(thread.spawn(move || read(&shared))?);
        Ok(())
    }

    /// See [`super::Watch::next_batch`].
    pub(crate) fn next_batch(
        &self,
        timeout: Duration,
        batch: &mut Batch,
        observer: Option<&mut dyn Observer>,
    ) -> Result<(), Ended> {
        let mut taking = lock(&self.taking);
        self.shared
            .next_batch(&mut taking, self.hold, timeout, batch, observer)
    }

    /// See [`super::Watch::expect`].
    pub(crate) fn expect(&self, tree: u16, path: &[u8], kinds: u16, count: u16, ttl: Duration) {
        let now_ns = super::clocks().1;
        let until = now_ns.saturating_add(ttl.as_nanos() as u64);
        let mut state = self.shared.enter();
        if count > 0 {
            let expected = state.expected();
            return expected.add(tree, path, kinds, count, until, now_ns);
        }
        // What the act did is queued by now, or in the reader's hand: it takes nothing without having said so.
        let last = state.queued_until() + self.shared.in_hand.load(Ordering::SeqCst);
        state.expected().end(tree, path, until, last);
    }

    /// See [`super::Watch::rescan`].
    pub(crate) fn rescan(&self, tree: u16) -> bool {
        let known = self.shared.enter().rescan(tree);
        if known {
            self.shared.ready.notify_all();
        }
        known
    }

    /// See [`super::Watch::stop`].
    pub(crate) fn stop(&self) {
        self.shared.stop();
        if let Some(reader) = lock(&self.reader).take() {
            if reader.join().is_err() {
                // it panicked; its work is over all the same
            }
        }
        self.shared.ready.notify_all();
    }
}
