//! Which of a file's hard links are our own: the vault's do not count where other links would be in the way.

use std::sync::{Arc, PoisonError, RwLock, Weak};

/// Somebody of this process who keeps hard links to guarded files.
pub trait Ours: Send + Sync {
    /// How many of the links of this inode are its own.
    fn links_of(&self, dev: u64, ino: u64) -> u32;
}

static KEEPERS: RwLock<Vec<Weak<dyn Ours>>> = RwLock::new(Vec::new());

/// From now on `keeper` is asked, for as long as it lives.
pub fn announce(keeper: &Arc<dyn Ours>) {
    let mut keepers = KEEPERS.write().unwrap_or_else(PoisonError::into_inner);
    keepers.retain(|one| one.strong_count() > 0);
    keepers.push(Arc::downgrade(keeper));
}

/// How many of the links of this inode are ours.
pub fn links_of_ours(dev: u64, ino: u64) -> u32 {
    let keepers = KEEPERS.read().unwrap_or_else(PoisonError::into_inner);
    keepers
        .iter()
        .filter_map(Weak::upgrade)
        .map(|keeper| keeper.links_of(dev, ino))
        .sum()
}
