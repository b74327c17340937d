//! Who did it: processes as /proc shows them, grouped into actors, remembered after they are gone.
//!
//! Owns: what a process is, which processes are one actor, the actor's key. Does not own: what an actor did, and what
//! is done to it.

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
