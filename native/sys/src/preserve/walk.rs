//! Linking a whole tree, in slices: so many files at a time, so that whoever calls stays in command.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, RawDir};

use super::place;
use super::vault::Vault;
use super::version::{name_hash, About};
use crate::events::Globs;
use crate::files::open::open_beneath;
use crate::files::staged::is_own;
use crate::files::trouble::Result;

/// Entries of one directory read at a time, bytes.
const BUFFER: usize = 256 << 10;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Progress {
    /// Regular files come by.
    pub files: u64,
    /// Links made.
    pub linked: u64,
    /// Files that had a link.
    pub had: u64,
    /// Files that could not be linked, and directories that could not be read.
    pub failed: u64,
    /// 1: all of the tree was seen.
    pub done: u64,
}

/// A walk over one tree. Not for two threads at once.
#[derive(Debug)]
pub struct Walk {
    vault: Arc<Vault>,
    root: OwnedFd,
    tree: u16,
    exclude: Globs,
    /// Directories still to be read.
    todo: Vec<Vec<u8>>,
    /// Names of the directory in hand that are still to be linked, the last first.
    names: Vec<(Vec<u8>, u64)>,
    here: Option<(OwnedFd, Vec<u8>)>,
    progress: Progress,
}

impl Walk {
    /// Of the tree beneath `root`, leaving out what `exclude` matches, the vault, and other file systems.
    pub fn new(vault: Arc<Vault>, root: OwnedFd, tree: u16, exclude: Globs) -> Walk {
        Walk {
            vault,
            root,
            tree,
            exclude,
            todo: vec![Vec::new()],
            names: Vec::new(),
            here: None,
            progress: Progress::default(),
        }
    }

    /// Only what is beneath `path`, a directory that was renamed: linked files are noted under their new names.
    pub fn beneath(mut self, path: &[u8]) -> Walk {
        self.todo = vec![path.to_vec()];
        self
    }

    /// Links up to `budget` more files. The records are written when this returns.
    ///
    /// # Errors
    /// `preserve.unsupported`, `preserve.full`, `file.full`, `file.readonly`: it makes no sense to go on. What fails
    /// for one file alone is counted.
    pub fn step(&mut self, budget: usize, now_ns: u64) -> Result<Progress> {
        let mut left = budget;
        while left > 0 {
            let Some((name, ino)) = self.names.pop() else {
                if !self.next_directory() {
                    self.progress.done = 1;
                    break;
                }
                continue;
            };
            left -= 1;
            self.progress.files += 1;
            let Some((dir, path)) = &self.here else {
                continue;
            };
            let path = join(path, &name);
            // a file with several names has one link, and a version under each of them
            let known = self.vault.linked().get(ino);
            if known.is_some_and(|link| link.name == name_hash(self.tree, &path)) {
                self.progress.had += 1;
                continue;
            }
            let about = About {
                tree: self.tree,
                path: &path,
                actor: 0,
                at_ns: now_ns,
            };
            match self.vault.link_in(dir.as_fd(), &name, &about) {
                Ok(_) => self.progress.linked += 1,
                Err(trouble) if hopeless(trouble.code, &self.vault) => {
                    self.vault.writer.flush()?;
                    return Err(trouble);
                }
                Err(_) => self.progress.failed += 1,
            }
        }
        self.vault.writer.flush()?;
        Ok(self.progress)
    }

    fn next_directory(&mut self) -> bool {
        self.here = None;
        let Some(path) = self.todo.pop() else {
            return false;
        };
        let at: &[u8] = if path.is_empty() { b"." } else { &path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
        let Ok(dir) = open_beneath(self.root.as_fd(), at, flags) else {
            // gone by now is no failure; a mount or a link in its place is not ours to follow
            self.progress.failed += 1;
            return true;
        };
        if self.list(dir.as_fd(), &path).is_err() {
            self.progress.failed += 1;
        }
        self.here = Some((dir, path));
        true
    }

    fn list(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<()> {
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); BUFFER];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = CStr::to_bytes(entry.file_name());
            if name == b"." || name == b".." || name == place::NAME || is_own(name) {
                continue;
            }
            match entry.file_type() {
                FileType::Directory if self.wanted(path, name, true) => {
                    self.todo.push(join(path, name));
                }
                FileType::RegularFile | FileType::Unknown if self.wanted(path, name, false) => {
                    self.names.push((name.to_vec(), entry.ino()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn wanted(&self, path: &[u8], name: &[u8], directory: bool) -> bool {
        self.exclude.is_empty() || !self.exclude.matches(&join(path, name), directory)
    }
}

fn hopeless(code: &str, vault: &Vault) -> bool {
    match code {
        "preserve.full" | "file.full" | "file.readonly" => true,
        "preserve.unsupported" => !vault.abilities()[1],
        _ => false,
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        return name.to_vec();
    }
    [path, &b"/"[..], name].concat()
}
