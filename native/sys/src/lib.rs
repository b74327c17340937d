//! What shieldd asks of the Linux kernel.
//!
//! * [`files`]: files by descriptor: openat2 from a root, replace, link, metadata.
//! * [`seal`]: sealing, opening, re-wrapping on disk; crash-safe.
//! * [`inspect`]: bounded sampling of a file into facts.
//! * [`inotify`]: the watcher.
//! * [`fanotify`]: whole file systems, with the process behind each event.

pub mod fanotify;
pub mod files;
pub mod inotify;
pub mod inspect;
pub mod seal;
