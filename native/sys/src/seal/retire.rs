//! Taking away a file whose successor is safe: move aside, compare, unlink.
//!
//! A plain unlink removes whatever bears the name at that moment. Moved aside first, the file can be compared with
//! the one that was read, and goes back if it is another or was written meanwhile.

use std::os::fd::AsFd;

use rustix::fs::{renameat_with, unlinkat, AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::files::lease::Lease;
use crate::files::{Dir, Source, Stamp, Trouble};

/// Why a file could not be taken away.
pub struct Kept {
    /// The reason.
    pub trouble: Trouble,
    /// It stands under its own name as before; otherwise it is stuck aside, and the journal must stay open.
    pub in_place: bool,
}

impl From<Trouble> for Kept {
    fn from(trouble: Trouble) -> Kept {
        Kept {
            trouble,
            in_place: true,
        }
    }
}

/// Takes `name` away if it still is `source`, unchanged since it was opened.
pub fn retire(dir: &Dir, name: &[u8], source: &Source, aside: &[u8]) -> Result<(), Kept> {
    let lease = Lease::take(source.fd.as_fd())?;
    if !source.unchanged()? {
        return Err(Trouble::new("file.changed", "file changed while it was worked on").into());
    }
    renameat_with(&dir.fd, name, &dir.fd, aside, RenameFlags::NOREPLACE).map_err(|e| match e {
        Errno::NOENT => Trouble::new(
            "file.race",
            "file went away or was renamed while it was worked on",
        ),
        e => Trouble::of(e, "file cannot be moved aside"),
    })?;
    let outcome = check_and_unlink(dir, source, aside);
    drop(lease);
    outcome.map_err(|trouble| {
        let back = renameat_with(&dir.fd, aside, &dir.fd, name, RenameFlags::NOREPLACE);
        Kept {
            trouble,
            in_place: back.is_ok(),
        }
    })
}

fn check_and_unlink(dir: &Dir, source: &Source, aside: &[u8]) -> Result<(), Trouble> {
    let moved = dir.look(aside)?.map(|stat| Stamp::of(&stat));
    if !moved.is_some_and(|stamp| stamp.same_content(&source.stamp)) {
        return Err(Trouble::new(
            "file.race",
            "another file stood under the name",
        ));
    }
    if !Stamp::of(&source.now()?).same_content(&source.stamp) {
        return Err(Trouble::new(
            "file.changed",
            "file changed while it was worked on",
        ));
    }
    unlinkat(&dir.fd, aside, AtFlags::empty()).map_err(|e| Trouble::of(e, "file cannot be removed"))
}

/// Takes away a file of ours that was just published, where it still stands under its name.
pub fn withdraw(dir: &Dir, name: &[u8], ino: u64) {
    if dir
        .look(name)
        .ok()
        .flatten()
        .is_some_and(|stat| stat.st_ino == ino)
    {
        let _gone = unlinkat(&dir.fd, name, AtFlags::empty());
    }
}
