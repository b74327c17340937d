//! What shieldd asks of the Linux kernel.
//!
//! * [`actors`]: the processes behind events, grouped.
//! * [`files`]: files by descriptor: openat2 from a root, replace, link, metadata.
//! * [`seal`]: sealing, opening, re-wrapping on disk; crash-safe.
//! * [`inspect`]: bounded sampling of a file into facts.
//! * [`events`]: what the sources of events share.
//! * [`inotify`]: the watcher.
//! * [`fanotify`]: whole file systems, with the process behind each event.
//! * [`preserve`]: versions of guarded files from before they were changed.
//! * [`hold`]: openers held before they write, by a process of its own.
//! * [`restore`]: bringing preserved files back.
//! * [`freeze`]: stopping, resuming and ending groups of processes.

pub mod actors;
pub mod events;
pub mod fanotify;
pub mod files;
pub mod freeze;
pub mod hold;
pub mod inotify;
pub mod inspect;
pub mod preserve;
pub mod restore;
pub mod seal;
