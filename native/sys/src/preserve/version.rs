//! What a preserved version is, and what it is called.

use rustix::fs::Stat;

/// Name of a version, and of the object that holds its content: the writer's number and a count of its own, so that
/// writers need not agree on anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(pub u64);

impl VersionId {
    /// The `n`th of a writer.
    pub fn new(writer: u32, n: u32) -> VersionId {
        VersionId((u64::from(writer) << 32) | u64::from(n))
    }

    /// Number of the writer that made it.
    pub fn writer(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Name of its object: 16 hexadecimal digits.
    pub fn name(self) -> [u8; 16] {
        let mut out = [0; 16];
        for (i, digit) in out.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(self.0 >> (60 - 4 * i)) as usize & 15];
        }
        out
    }

    /// The id that an object's name stands for; `None` for any other name.
    pub fn of_name(name: &[u8]) -> Option<VersionId> {
        if name.len() != 16 || name.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let text = std::str::from_utf8(name).ok()?;
        u64::from_str_radix(text, 16).ok().map(VersionId)
    }
}

/// How a version is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A hard link: the inode itself, with whatever was written into it since.
    Link = 1,
    /// A whole copy.
    Image = 2,
    /// Copies of the ranges that were written; the rest is in the file as it is now.
    Range = 3,
}

impl Kind {
    /// From its number.
    pub fn of(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Link),
            2 => Some(Kind::Image),
            3 => Some(Kind::Range),
            _ => None,
        }
    }
}

/// Whose version it is to be: what the maker of a version knows of the file beside its descriptor.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Number of the guarded tree, one of those that [`super::Options::trees`] names.
    pub tree: u16,
    /// Path relative to its root.
    pub path: &'a [u8],
    /// Key of the actor whose act it is kept for; 0: nobody's (made at start).
    pub actor: u64,
    /// Wall clock, ns.
    pub at_ns: u64,
}

/// Extended attributes: name and value, sorted by name.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// One preserved version, as its record tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its name.
    pub id: VersionId,
    /// The object that holds the content; another version's where the content is the same.
    pub object: VersionId,
    /// How it is kept.
    pub kind: Kind,
    /// Number of its tree.
    pub tree: u16,
    /// Path relative to the tree's root.
    pub path: Vec<u8>,
    /// Key of the actor, 0 for nobody.
    pub actor: u64,
    /// When it was made, wall clock, ns.
    pub at_ns: u64,
    /// Inode of the file.
    pub ino: u64,
    /// Inode of the object; of a link the same.
    pub object_ino: u64,
    /// Bytes, holes included.
    pub size: u64,
    /// Bytes that the object takes (a link: that it takes once the file has no other name).
    pub stored: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of the file, ours not counted.
    pub nlink: u32,
    /// Last access, ns.
    pub atime_ns: i64,
    /// Last change of content, ns.
    pub mtime_ns: i64,
    /// Last change of the inode, ns.
    pub ctime_ns: i64,
    /// CRC-32C of the content, where it was read on the way.
    pub crc: Option<u32>,
    /// Extended attributes, access lists among them.
    pub xattrs: Attributes,
    /// Some extended attributes could not be read or were too large: not all are in `xattrs`.
    pub xattrs_partial: bool,
}

impl Version {
    /// A version of the file of `stat`.
    pub fn of(id: VersionId, kind: Kind, about: &About<'_>, stat: &Stat) -> Version {
        let ns = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
        Version {
            id,
            object: id,
            kind,
            tree: about.tree,
            path: about.path.to_vec(),
            actor: about.actor,
            at_ns: about.at_ns,
            ino: stat.st_ino,
            object_ino: 0,
            size: stat.st_size as u64,
            stored: 0,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: stat.st_nlink as u32,
            atime_ns: ns(stat.st_atime as i64, stat.st_atime_nsec as i64),
            mtime_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            crc: None,
            xattrs: Vec::new(),
            xattrs_partial: false,
        }
    }
}

/// What stands for a name in memory; equal names have equal ones, the record has the last word.
pub fn name_hash(tree: u16, path: &[u8]) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    hasher.write_u16(tree);
    hasher.write(path);
    hasher.finish()
}
