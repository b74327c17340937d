//! The C ABI that Python sees: every export returns an `int32_t` status (0 = done), writes results to
//! out-pointers, describes a failure in a caller-owned [`abi::ShdError`], catches panics and keeps no Python memory.

pub mod abi;
pub mod actors;
pub mod envelope;
pub mod fanotify;
pub mod files;
pub mod freeze;
pub mod hold;
pub mod observe;
pub mod preserve;
pub mod restore;
pub mod watch;
