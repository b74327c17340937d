//! fanotify: whole file systems watched by one mark each, with the process behind every event.
//!
//! [`kernel`] holds the system calls and the records that the kernel writes. It is shared by the notification source
//! and by the answerer of permission events.

pub mod kernel;
