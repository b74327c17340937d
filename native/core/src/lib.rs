//! What shieldd computes, with no I/O and no unsafe code.
//!
//! * [`event`]: what happened to a name in a guarded tree (one coalesced record).
//! * [`facts`]: what the bytes and the inode of a file say.
//! * [`observation`]: the table of the policy's inputs, shared with Python, the model and the man page.
//! * [`content`], [`phi`]: facts from samples of a file.
//! * [`windows`]: decaying memory over an actor's behaviour; turns events and facts into observations.
//! * [`baseline`]: what each file was when it was last seen.
//! * [`envelope`]: the sealed file, byte for byte (`shield-envelope(5)`).
#![forbid(unsafe_code)]

pub mod baseline;
pub mod content;
pub mod envelope;
pub mod event;
pub mod facts;
pub mod observation;
pub mod phi;
pub mod windows;
