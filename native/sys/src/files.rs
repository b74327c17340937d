//! Files by descriptor: nothing here follows a link, leaves the root or crosses a mount.
//!
//! A path is bytes, relative to a root descriptor, and is walked by `openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`.

pub mod attributes;
pub mod holes;
pub mod lease;
pub mod open;
pub mod ours;
pub mod staged;
pub mod trouble;

pub use open::{Dir, Source, Stamp};
pub use trouble::Trouble;
