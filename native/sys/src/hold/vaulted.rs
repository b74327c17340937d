//! Versions made in the vaults of [`crate::preserve`].

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::keeper::{About, Opener, Preserver};
use crate::files::trouble::Result;
use crate::preserve::{self, Options, Vault};

/// Objects that stand ready in each keeper's vault: a burst of one-file processes finds them made.
const AHEAD: usize = 64;

/// One vault, opened by one keeper for itself: what it remembers and locks is shared with no other thread, so one that
/// hangs in it holds up nobody else.
struct Vaulted(Arc<Vault>);

fn about<'a>(given: &About<'a>) -> preserve::About<'a> {
    preserve::About {
        tree: given.tree,
        path: given.path,
        actor: given.actor,
        at_ns: given.at_ns,
    }
}

impl Preserver for Vaulted {
    fn image(
        &mut self,
        file: BorrowedFd<'_>,
        given: &About<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<u64> {
        self.0
            .image_while(file, &about(given), wanted)
            .map(|version| version.0)
    }

    fn range(
        &mut self,
        file: BorrowedFd<'_>,
        given: &About<'_>,
        offset: u64,
        len: u64,
        wanted: &dyn Fn() -> bool,
    ) -> Result<u64> {
        self.0
            .range_while(file, &about(given), offset, len, wanted)
            .map(|version| version.0)
    }
}

/// Opens vaults with these options.
pub fn opener(options: Options) -> Arc<Opener> {
    let open = move |directory: OwnedFd| -> Result<Box<dyn Preserver>> {
        let vault = Vault::open(directory, options.clone())?;
        vault.prepare_ahead(AHEAD)?;
        Ok(Box::new(Vaulted(vault)))
    };
    Arc::new(open)
}
