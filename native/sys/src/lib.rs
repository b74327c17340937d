//! What shieldd asks of the Linux kernel.
//!
//! * [`files`]: files by descriptor: openat2 from a root, replace, link, metadata.
//! * [`seal`]: sealing, opening, re-wrapping on disk; crash-safe.
//! * [`inspect`]: bounded sampling of a file into facts.
//! * [`inotify`]: the watcher.

pub mod files;
pub mod inotify;
pub mod inspect;
pub mod seal;
