//! Giving what was staged its name, in place of exactly what was expected there.

use std::os::fd::AsFd;

use rustix::fs::{renameat_with, unlinkat, AtFlags, FileType, RenameFlags, Stat};
use rustix::io::Errno;

use crate::files::open::Dir;
use crate::files::staged::remember;
use crate::files::trouble::{Result, Trouble};

use super::batch::{Over, There, Wanted};
use super::stage::{self, mtime_ns, Staged};

/// How many names are tried for what is set aside (`NAME.before-restore`, `NAME.before-restore.1`, …).
const ASIDE_TRIES: usize = 100;
/// Added to the name of what somebody else left there.
pub const ASIDE: &[u8] = b".before-restore";

/// Gives `staged` the name `name`; returns the name under which what was there lies now, if it was set aside.
///
/// # Errors
/// `file.exists` where something is there that was not, `file.race` where something else is there than was expected:
/// all is as it was before then.
pub fn publish(
    dir: &Dir,
    name: &[u8],
    hidden: &[u8],
    staged: &Staged,
    over: &Over,
) -> Result<Option<Vec<u8>>> {
    match over {
        Over::Nothing => {
            if !staged.named {
                stage::name(staged.fd.as_fd(), dir, name)?;
                return Ok(None);
            }
            remember(hidden);
            rename(dir, hidden, dir, name, RenameFlags::NOREPLACE)?;
            Ok(None)
        }
        Over::Drop(there) | Over::Aside(there) => {
            remember(hidden);
            if !staged.named {
                stage::name(staged.fd.as_fd(), dir, hidden)?;
            }
            swap(dir, name, hidden, there)?;
            settle(dir, name, hidden, over)
        }
    }
}

/// Ends what an exchange left under the hidden name: dropped, or set aside beside the file.
pub fn settle(dir: &Dir, name: &[u8], hidden: &[u8], over: &Over) -> Result<Option<Vec<u8>>> {
    remember(hidden);
    if let Over::Aside(_) = over {
        return aside(dir, name, hidden).map(Some);
    }
    unlinkat(&dir.fd, hidden, AtFlags::empty())
        .map_err(|e| Trouble::of(e, "what was replaced cannot be taken away"))?;
    Ok(None)
}

/// What a crash left under a hidden name is finished or taken away.
///
/// Returns the name under which what was there lies now, if it was set aside.
///
/// # Errors
/// `file.race` where what lies there is not ours: it stays.
pub fn tidy(
    dir: &Dir,
    name: &[u8],
    hidden: &[u8],
    over: &Over,
    wanted: &Wanted,
) -> Result<Option<Vec<u8>>> {
    let Some(stat) = dir.look(hidden)? else {
        return Ok(None);
    };
    if let Over::Drop(there) | Over::Aside(there) = over {
        if there.is(&stat) {
            return settle(dir, name, hidden, over);
        }
    }
    #[allow(clippy::unnecessary_cast)]
    let whole = stat.st_size as u64 == wanted.size && mtime_ns(&stat) == wanted.mtime_ns;
    let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o7777 == 0o600;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !(whole || ours) {
        return Err(Trouble::new(
            "file.race",
            "something that is not ours lies under a hidden name of ours",
        ));
    }
    remember(hidden);
    unlinkat(&dir.fd, hidden, AtFlags::empty())
        .map_err(|e| Trouble::of(e, "hidden file cannot be taken away"))?;
    Ok(None)
}

/// Moves a file to its own name, if it is still the one that was meant.
pub fn move_back(from: &Dir, old: &[u8], dir: &Dir, name: &[u8], there: &There) -> Result<()> {
    let found = from
        .look(old)?
        .ok_or_else(|| Trouble::new("file.missing", "the renamed file is gone"))?;
    if !there.is(&found) {
        return Err(Trouble::new(
            "file.race",
            "another file has that name by now",
        ));
    }
    rename(from, old, dir, name, RenameFlags::NOREPLACE)?;
    let moved: Option<Stat> = dir.look(name)?;
    if moved.as_ref().is_some_and(|stat| there.is(stat)) {
        return Ok(());
    }
    // Swapped between the look and the rename: back to where it was.
    rename(dir, name, from, old, RenameFlags::NOREPLACE)?;
    Err(Trouble::new(
        "file.race",
        "another file has that name by now",
    ))
}

fn swap(dir: &Dir, name: &[u8], hidden: &[u8], there: &There) -> Result<()> {
    let seen = dir.look(name)?;
    if !seen.as_ref().is_some_and(|stat| there.is(stat)) {
        drop_hidden(dir, hidden);
        return Err(changed());
    }
    if let Err(trouble) = rename(dir, hidden, dir, name, RenameFlags::EXCHANGE) {
        drop_hidden(dir, hidden);
        return Err(trouble);
    }
    let out = dir.look(hidden)?;
    if out.as_ref().is_some_and(|stat| there.is(stat)) {
        return Ok(());
    }
    // Something else came out than was expected: it goes back to its place, ours goes away.
    rename(dir, hidden, dir, name, RenameFlags::EXCHANGE)?;
    drop_hidden(dir, hidden);
    Err(changed())
}

fn changed() -> Trouble {
    Trouble::new(
        "file.race",
        "changed since the plan was made; nothing was done to it",
    )
}

fn drop_hidden(dir: &Dir, hidden: &[u8]) {
    let _gone = unlinkat(&dir.fd, hidden, AtFlags::empty());
}

fn aside(dir: &Dir, name: &[u8], hidden: &[u8]) -> Result<Vec<u8>> {
    for number in 0..ASIDE_TRIES {
        let end = match number {
            0 => ASIDE.to_vec(),
            n => [ASIDE, format!(".{n}").as_bytes()].concat(),
        };
        let keep = name.len().min(255 - end.len());
        let beside = [&name[..keep], &end[..]].concat();
        match renameat_with(
            &dir.fd,
            hidden,
            &dir.fd,
            beside.as_slice(),
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => return Ok(beside),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Trouble::of(e, "what was there cannot be set aside")),
        }
    }
    Err(Trouble::new(
        "file.exists",
        "a hundred files were set aside here already",
    ))
}

fn rename(from: &Dir, old: &[u8], to: &Dir, new: &[u8], how: RenameFlags) -> Result<()> {
    match renameat_with(&from.fd, old, &to.fd, new, how) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Err(Trouble::new(
            "file.io",
            "this file system cannot exchange names or rename without replacing",
        )),
        other => other.map_err(|e| Trouble::of(e, "file cannot be named")),
    }
}
