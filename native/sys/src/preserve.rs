//! The vault: what files were before they were deleted, replaced, overwritten or cut short.
//!
//! One vault for each file system, a directory that only root may enter ([`place`]). What it holds:
//!
//! * `links/ID`: a hard link to a guarded file. The inode, and with it the content, outlives every name of the file:
//!   enough for a deletion and for a rename over it, no help against a write into the file.
//! * `images/ID`: a copy of the content from before a write or a truncation, or of the ranges that were written.
//! * `index/N.log`: what each version is, one append-only file for each writer ([`record`], [`writer`]).
//!
//! An object is there before its record and goes after the record of its going; so an object without a record is what
//! a crash left, and is swept. [`Vault`] makes versions and may be used by several processes at once; [`Index`] reads
//! the records of all of them, answers questions, evicts, and is one process's: the daemon's.
//!
//! Side effects on guarded files: a hard link raises their link count by one and sets their ctime (a backup that goes
//! by ctime reads them once more), a deleted file gives its space back only when its link goes, and counts on its
//! owner's quota until then. `Options::hardlinks = false` does without. Images have no effect on the file.

mod ahead;
mod applying;
pub mod copy;
pub mod counts;
pub mod evict;
pub mod index;
pub mod linking;
mod loading;
mod merging;
mod object;
pub mod place;
pub mod ranges;
mod reading;
pub mod record;
pub mod room;
pub mod settle;
pub mod vault;
pub mod version;
pub mod walk;
pub mod writer;

pub use counts::Counts;
pub use evict::{Evicted, Policy};
pub use index::{Found, Index, Query, Standing};
pub use settle::Settled;
pub use vault::{Options, Vault};
pub use version::{About, Kind, Version, VersionId};
pub use walk::{Progress, Walk};
