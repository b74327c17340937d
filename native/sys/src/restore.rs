//! Bringing files back beneath a tree's root: whole, checked, and never over something that nobody was told of.
//!
//! * [`stage`]: what comes back, made without a name: a copy of a version with all it had, or a second name of it.
//! * [`publish`]: giving it its name, in place of exactly what was expected there or of nothing.
//! * [`batch`]: many at once, with one `syncfs` before the names are given and one after.

pub mod batch;
pub mod publish;
pub mod stage;

pub use batch::{run, Act, Item, Over, Restored, Wanted};
