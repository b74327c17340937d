//! Who did it: processes as /proc shows them, grouped into actors, remembered after they are gone.
//!
//! * [`parse`]: the files of /proc, from bytes.
//! * [`process`]: one process, read through a descriptor that is bound to it.
//! * [`programs`], [`grouping`]: which processes are one actor, and its key; `bursts`: against many small sessions.
//! * [`table`], [`actor`]: what is remembered; [`members`]: all of an actor that live; [`guess`]: inotify's way.
//! * [`client`]: who is behind a server's child.
//!
//! Owns: what a process is, which processes are one actor, the actor's key. Does not own: what an actor did, and what
//! is done to it.

pub mod actor;
pub mod bursts;
pub mod client;
pub mod grouping;
#[cfg(test)]
mod grouping_tests;
pub mod guess;
mod held;
pub mod members;
mod memory;
mod noting;
pub mod parse;
pub mod process;
pub mod programs;
pub mod table;

pub use actor::{Actor, Ancestor, Executable};
pub use grouping::{Group, Kind};
pub use guess::Guess;
pub use process::Process;
pub use programs::Programs;
pub use table::{ActorStats, Options, SharedTable, Table};

/// Name of an actor on this boot of this machine, the same from any process that looks: never 0, and its highest bit
/// is set, so it is no tree's own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActorKey(u64);

impl ActorKey {
    /// A key of those bits.
    pub fn new(bits: u64) -> Self {
        ActorKey(bits | 1 << 63)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Names the actor behind a process: what a source of events asks for each of them.
pub trait ActorOf {
    /// To be called after each read of the kernel's queue, before [`ActorOf::actor`] for what was read: it learns there
    /// which of the processes it knows have ended meanwhile, so that a number used again is noticed. One system call.
    fn begin(&mut self);

    /// Key of the actor of a process (or thread, where the kernel names threads), and whether that is certain.
    ///
    /// A key is never 0 and has its highest bit set, so it is no tree's own id. `(0, false)`: nothing is known of the
    /// process any more; `(key, false)`: a guess.
    fn actor(&mut self, pid: i32) -> (u64, bool);
}
