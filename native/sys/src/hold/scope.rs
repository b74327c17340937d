//! Which files are guarded, by the path of the event's descriptor.
//!
//! A path is believed only as far as it can be checked: an opener in a mount namespace of its own sees names of its own
//! choosing. That a path lies *inside* is believed at once, it costs a version too many at worst. That it lies *outside*
//! is believed where the same file is found under this path from here, asked for with `O_PATH` beneath the root of
//! the file system and without crossing mounts, links, or the answerer's patience with other file systems. Everything else
//! is [`Place::Foreign`] and guarded. What was found out holds for a directory as seen through one mount, for a moment.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{openat2, readlinkat_raw, statx, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};

use crate::events::Globs;

/// How long a directory's answer holds, ns.
const TTL_NS: u64 = 1_000_000_000;
/// Directories remembered.
const KNOWN: usize = 65_536;
/// `STATX_MNT_ID_UNIQUE` of Linux 6.8: an id that no later mount gets.
const MOUNT_UNIQUE: u32 = 0x4000;

/// A guarded tree.
#[derive(Debug)]
pub struct Tree {
    /// Absolute path of the root.
    pub path: Vec<u8>,
    /// The root.
    pub root: OwnedFd,
    /// What is left out.
    pub exclude: Globs,
}

/// A file system that is marked.
#[derive(Debug)]
pub struct FileSystem {
    /// Device number, as in [`rustix::fs::Stat`].
    pub dev: u64,
    /// Root of the mount through which the tree is reached here, `O_PATH`.
    pub top: OwnedFd,
    /// Its absolute path, without a slash at the end (empty for `/`).
    pub at: Vec<u8>,
}

/// Where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this tree; its path relative to the root begins at this offset of the whole.
    Inside(u16, usize),
    /// In no tree, certainly.
    Outside,
    /// That cannot be told; guarded.
    Foreign,
}

/// Trees, file systems, and what is known of directories.
pub struct Scope {
    trees: Vec<Tree>,
    systems: Vec<FileSystem>,
    known: HashMap<(u64, u64), (Place, u64)>,
    hasher: RandomState,
    own_fds: OwnedFd,
}

/// Whether `path` is `root` or below it; where the part below begins.
fn below(path: &[u8], root: &[u8]) -> Option<usize> {
    let rest = path.strip_prefix(root)?;
    match rest.first() {
        None => Some(path.len()),
        Some(b'/') => Some(root.len() + 1),
        Some(_) => root.ends_with(b"/").then_some(root.len()),
    }
}

impl Scope {
    /// Over these trees and marked file systems.
    pub fn new(trees: Vec<Tree>, systems: Vec<FileSystem>) -> std::io::Result<Scope> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own_fds = rustix::fs::open("/proc/thread-self/fd", flags, Mode::empty())?;
        Ok(Scope {
            trees,
            systems,
            known: HashMap::new(),
            hasher: RandomState::new(),
            own_fds,
        })
    }

    /// The file systems.
    pub fn systems(&self) -> &[FileSystem] {
        &self.systems
    }

    /// The trees.
    pub fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// Forgets what is known of directories: one of them moved.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Path of an open descriptor as its opener sees it; `None` where it has none any more.
    pub fn path<'a>(&self, fd: BorrowedFd<'_>, room: &'a mut [u8; 4096]) -> Option<&'a [u8]> {
        let mut name = [0u8; 16];
        let mut rest = &mut name[..];
        write!(rest, "{}", fd.as_raw_fd()).ok()?;
        let free = rest.len();
        let length = name.len() - free;
        let used = readlinkat_raw(&self.own_fds, &name[..length], &mut room[..]).ok()?;
        let path = &room[..used];
        // a file without a name: it may be in use, but nothing can be restored under no name
        (used < 4096 && path.starts_with(b"/")).then_some(path)
    }

    /// Where the file `fd` with this path is.
    pub fn place(&mut self, fd: BorrowedFd<'_>, path: &[u8], now_ns: u64) -> Place {
        let cut = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
        let mask = StatxFlags::INO | StatxFlags::from_bits_retain(MOUNT_UNIQUE);
        let Ok(stat) = statx(fd, c"", AtFlags::EMPTY_PATH, mask) else {
            return Place::Foreign;
        };
        let key = (stat.stx_mnt_id, self.hasher.hash_one(&path[..cut]));
        let known = self
            .known
            .get(&key)
            .filter(|(_, until_ns)| now_ns < *until_ns);
        let directory = match known {
            Some((place, _)) => *place,
            None => {
                let place = self.find(
                    &path[..cut],
                    path,
                    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
                );
                if self.known.len() >= KNOWN {
                    self.known.clear();
                }
                self.known.insert(key, (place, now_ns + TTL_NS));
                place
            }
        };
        match directory {
            Place::Inside(tree, at) => {
                let relative = path.get(at..).unwrap_or_default();
                if self.trees[usize::from(tree)]
                    .exclude
                    .matches(relative, false)
                {
                    return Place::Outside;
                }
                directory
            }
            other => other,
        }
    }

    /// By the directory's path alone, if that is to be believed.
    fn named(&self, directory: &[u8]) -> Place {
        let mut best: Option<(u16, usize)> = None;
        for (i, tree) in self.trees.iter().enumerate() {
            if let Some(at) = below(directory, &tree.path) {
                // the innermost tree has it
                if best.is_none_or(|(_, other)| at > other) {
                    best = Some((
                        i as u16,
                        at.max(tree.path.len() + usize::from(!tree.path.ends_with(b"/"))),
                    ));
                }
            }
        }
        let Some((tree, at)) = best else {
            return Place::Outside;
        };
        let exclude = &self.trees[usize::from(tree)].exclude;
        let relative = directory.get(at..).unwrap_or_default();
        let out = !exclude.is_empty()
            && !relative.is_empty()
            && (0..=relative.len())
                .filter(|&end| end == relative.len() || relative[end] == b'/')
                .any(|end| exclude.matches(&relative[..end], true));
        if out {
            Place::Outside
        } else {
            Place::Inside(tree, at)
        }
    }

    fn find(&self, directory: &[u8], path: &[u8], file: (u32, u32, u64)) -> Place {
        match self.named(directory) {
            Place::Outside if self.is_true(path, file) => Place::Outside,
            Place::Outside => Place::Foreign,
            other => other,
        }
    }

    /// Whether that path leads to that file from here, too.
    fn is_true(&self, path: &[u8], (major, minor, ino): (u32, u32, u64)) -> bool {
        let dev = rustix::fs::makedev(major, minor);
        self.systems.iter().filter(|s| s.dev == dev).any(|system| {
            let Some(at) = below(path, &system.at) else {
                return false;
            };
            beneath(&system.top, &path[at..], OFlags::NOFOLLOW)
                .and_then(|fd| statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO))
                .is_ok_and(|s| (s.stx_dev_major, s.stx_dev_minor, s.stx_ino) == (major, minor, ino))
        })
    }

    /// The directory of a path that is outside, to be ignored by a mark: only where it is where its path says, and that
    /// is outside.
    pub fn directory_outside(&self, path: &[u8], file: BorrowedFd<'_>) -> Option<OwnedFd> {
        let cut = path.iter().rposition(|&b| b == b'/')?;
        let dev = rustix::fs::fstat(file).ok()?.st_dev;
        let system = self.systems.iter().find(|s| s.dev == dev)?;
        let at = below(&path[..cut], &system.at)?;
        let relative = path[..cut]
            .get(at..)
            .filter(|p| !p.is_empty())
            .unwrap_or(b".");
        let directory = beneath(&system.top, relative, OFlags::DIRECTORY).ok()?;
        self.is_outside(directory.as_fd()).then_some(directory)
    }

    /// Whether a directory of ours (opened here) is outside all trees now.
    pub fn is_outside(&self, directory: BorrowedFd<'_>) -> bool {
        let mut room = [0; 4096];
        self.path(directory, &mut room).is_some_and(|path| {
            self.named(path.strip_suffix(b"/").unwrap_or(path)) == Place::Outside
        })
    }
}

fn beneath(top: &OwnedFd, relative: &[u8], more: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    openat2(
        top,
        relative,
        OFlags::PATH | OFlags::CLOEXEC | more,
        Mode::empty(),
        resolve,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn scope(top: &Path, exclude: &[&str]) -> Scope {
        let tree = top.join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::create_dir_all(tree.join("cache")).unwrap();
        fs::create_dir_all(top.join("trees")).unwrap();
        for name in [
            "tree/a/f",
            "tree/f",
            "tree/cache/f",
            "tree/x.tmp",
            "trees/f",
            "f",
        ] {
            fs::write(top.join(name), b"x").unwrap();
        }
        let open = |p: &Path| OwnedFd::from(fs::File::open(p).unwrap());
        let dev = rustix::fs::fstat(open(top)).unwrap().st_dev;
        let tree = Tree {
            path: tree.as_os_str().as_bytes().to_vec(),
            root: open(&tree),
            exclude: Globs::new(exclude.iter().map(|g| g.as_bytes())),
        };
        let system = FileSystem {
            dev,
            top: open(top),
            at: top.as_os_str().as_bytes().to_vec(),
        };
        Scope::new(vec![tree], vec![system]).unwrap()
    }

    #[test]
    fn places_follow_roots_and_what_is_left_out() {
        let top = std::env::temp_dir()
            .canonicalize()
            .unwrap()
            .join(format!("shieldd-scope-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        let mut scope = scope(&top, &["cache/", "*.tmp"]);
        let mut room = [0; 4096];
        for _ in 0..2 {
            for (name, wanted) in [
                ("tree/a/f", Some("a/f")),
                ("tree/f", Some("f")),
                ("tree/cache/f", None),
                ("tree/x.tmp", None),
                ("trees/f", None),
                ("f", None),
            ] {
                let file = fs::File::open(top.join(name)).unwrap();
                let path = scope.path(file.as_fd(), &mut room).unwrap().to_vec();
                let place = scope.place(file.as_fd(), &path, 1);
                match wanted {
                    None => assert_eq!(place, Place::Outside, "{name}"),
                    Some(relative) => {
                        let Place::Inside(0, at) = place else {
                            panic!("{name}: {place:?}")
                        };
                        assert_eq!(&path[at..], relative.as_bytes());
                    }
                }
            }
        }
        // a path that leads elsewhere from here is not believed
        let file = fs::File::open(top.join("f")).unwrap();
        let lie = top.join("other/f");
        assert_eq!(
            scope.place(file.as_fd(), lie.as_os_str().as_bytes(), 1),
            Place::Foreign
        );
        assert_eq!(scope.place(file.as_fd(), b"/nowhere/f", 1), Place::Foreign);
        let outside = top.join("trees/f");
        let path = outside.as_os_str().as_bytes();
        let file = fs::File::open(&outside).unwrap();
        assert!(scope.directory_outside(path, file.as_fd()).is_some());
        let inside = top.join("tree/f");
        let file = fs::File::open(&inside).unwrap();
        assert!(scope
            .directory_outside(inside.as_os_str().as_bytes(), file.as_fd())
            .is_none());
        fs::remove_dir_all(&top).unwrap();
    }
}
