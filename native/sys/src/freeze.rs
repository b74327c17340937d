//! Stops, resumes and ends whole groups of processes, and nobody else.
//!
//! * [`stat`]: a process as `/proc/PID/stat` tells it.
//! * [`kin`]: who belongs to a group beyond those that were named.
//! * [`spared`]: who is never signalled, whatever group it is found in.
//! * [`code`]: whose code a process runs: its executable's identity and digest, and code that is not its own.
//! * [`group`]: the signal itself, by pidfd, pass after pass until nobody new is found.
//! * [`urgent`]: first in line for the processor meanwhile.
//! * [`ice`]: the freezer of control groups, where a group of processes is a control group of its own.
//!
//! A process is (pid, start in clock ticks since boot). A signal only goes through a pidfd that was opened *before* the
//! start was read and found right, so it never reaches whoever has the number now.

pub mod code;
pub mod group;
pub mod ice;
pub mod kin;
mod rest;
pub mod spared;
pub mod stat;
pub mod urgent;

pub use group::{send, Fate, Limits, Member, Report, Sign, Told};
pub use spared::{Never, Why};
