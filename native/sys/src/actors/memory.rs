//! What lies in a process' own memory (arguments, environment, mappings), read by a thread of its own.
//!
//! Whoever owns that memory can make a reader wait, for as long as he likes (a mapping of a file system of his own, and
//! a second thread that wants the lock). So the reader of the kernel's queue never looks there: it hands the process
//! over, and takes what was found with one of its next batches. A thread that hangs is left behind for another one, a
//! few times; then nothing more is found out, what acts counts as not looked at, and nobody is trusted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::process::{Handle, Process};
use super::table::now_ns;

/// Processes that wait to be looked at, a descriptor each; beyond it they stay unlooked at.
const WAITING: usize = 256;
/// Threads at most, those that hang included.
const THREADS: usize = 4;
/// A thread that is busy with one process for longer hangs, ns.
const HANGS_NS: u64 = 500_000_000;

/// A process to look at.
pub struct Asked {
    /// Actor that it acts for.
    pub key: u64,
    /// It.
    pub handle: Handle,
    /// Whether its arguments are wanted.
    pub cmdline: bool,
    /// Whether the files mapped as code are to be looked at.
    pub mappings: bool,
}

/// What was found.
pub struct Found {
    /// Actor that it acts for.
    pub key: u64,
    /// It as it is now, tampering included; None where it has ended.
    pub process: Option<Process>,
    /// Its arguments, where they were wanted.
    pub cmdline: Vec<u8>,
}

/// The threads that look.
pub struct Memory {
    ask: Option<SyncSender<Asked>>,
    asked: Arc<Mutex<Receiver<Asked>>>,
    found: Receiver<Found>,
    tell: Sender<Found>,
    /// Since when each thread is busy with one process, ns; 0 while it waits.
    busy: Arc<[AtomicU64; THREADS]>,
    threads: usize,
}

impl Memory {
    /// No thread runs before the first process is handed over.
    pub fn new() -> Self {
        let (ask, asked) = sync_channel(WAITING);
        let (tell, found) = channel();
        Memory {
            ask: Some(ask),
            asked: Arc::new(Mutex::new(asked)),
            found,
            tell,
            busy: Arc::default(),
            threads: 0,
        }
    }

    /// Hands a process over; false where nobody will look at it.
    pub fn ask(&mut self, asked: Asked) -> bool {
        let idle = self.busy[..self.threads].iter().any(|since| {
            let since = since.load(Ordering::Relaxed);
            since == 0 || now_ns().saturating_sub(since) < HANGS_NS
        });
        if !idle && !self.start() {
            return false;
        }
        let Some(ask) = &self.ask else { return false };
        ask.try_send(asked).is_ok()
    }

    /// What was found since the last time.
    pub fn found(&self) -> Option<Found> {
        self.found.try_recv().ok()
    }

    fn start(&mut self) -> bool {
        if self.threads == THREADS {
            return false;
        }
        let (asked, tell) = (Arc::clone(&self.asked), self.tell.clone());
        let busy = Arc::clone(&self.busy);
        let at = self.threads;
        let body = move || {
            let mut buffer = Vec::new();
            loop {
                let next = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(next) = next else { return };
                busy[at].store(now_ns(), Ordering::Relaxed);
                let found = look(&next, &mut buffer);
                busy[at].store(0, Ordering::Relaxed);
                if tell.send(found).is_err() {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("actors".into()).spawn(body);
        self.threads += usize::from(started.is_ok());
        started.is_ok()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.ask = None; // the threads that do not hang end; nobody waits for one that does
    }
}

fn look(asked: &Asked, buffer: &mut Vec<u8>) -> Found {
    let mut process = asked.handle.process(true, buffer).filter(|x| !x.ended);
    if let Some(process) = process.as_mut().filter(|_| asked.mappings) {
        process.tampering |= asked.handle.foreign_code(&process.exe, buffer);
    }
    let cmdline = if asked.cmdline {
        asked.handle.cmdline(buffer)
    } else {
        Vec::new()
    };
    Found {
        key: asked.key,
        process,
        cmdline,
    }
}
