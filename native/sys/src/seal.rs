//! Sealing, opening and re-wrapping on disk, crash-safe: at every instant the original or a complete sealed file
//! exists under a name that [`recovery`] finds.

pub mod batch;
pub mod journal;
pub mod keyring;
pub mod opening;
pub mod reading;
pub mod recovery;
pub mod retire;
pub mod rewrapping;
pub mod sealing;
mod secret;
pub mod stream;

/// What sealed names end in.
pub const SUFFIX: &[u8] = b".shield";
