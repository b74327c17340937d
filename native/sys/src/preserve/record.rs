//! Records of the vault, byte for byte.
//!
//! A file of records is a row of frames: `SVr1`, length of the body u32, CRC-32C of the body u32, body; all numbers
//! little-endian. The first byte of a body is its kind. What a frame says holds for all frames before it, in any file;
//! saying it twice changes nothing. A frame that does not check is damage: reading goes on at the next one that does.

use shieldd_core::envelope::slot::crc;

use super::version::{Kind, Version, VersionId};

const MAGIC: [u8; 4] = *b"SVr1";
const HEAD: usize = 12;
/// Longest body: the longest path and all attributes that a record takes.
pub const BODY_MAX: usize = 256 << 10;
/// Most bytes of extended attributes in a record.
pub const XATTRS_MAX: usize = 128 << 10;

const TREE: u8 = 1;
const VERSION: u8 = 2;
const EXTENT: u8 = 3;
const GONE: u8 = 4;
const DIGEST: u8 = 5;
const SAME: u8 = 6;
const PIN: u8 = 7;
const UNPIN: u8 = 8;
const REPLACES: u8 = 9;

const HAS_CRC: u8 = 1;
const PARTIAL: u8 = 2;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Which root a tree's number stands for in this file, from here on.
    Tree {
        /// The number.
        number: u16,
        /// Absolute path of the root.
        root: Vec<u8>,
    },
    /// A version was made.
    Version(Box<Version>),
    /// A range of a version of [`Kind::Range`] was kept.
    Extent {
        /// The version.
        id: VersionId,
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        len: u64,
        /// CRC-32C of them.
        crc: u32,
    },
    /// Versions are no more.
    Gone(Vec<VersionId>),
    /// BLAKE3 of an object's content.
    Digest {
        /// The object.
        object: VersionId,
        /// Its digest.
        digest: [u8; 32],
    },
    /// An object's content is in another one; its own file is no more.
    Same {
        /// The object.
        object: VersionId,
        /// The other one.
        kept: VersionId,
    },
    /// Versions of an incident must stay.
    Pin {
        /// The incident.
        incident: Vec<u8>,
        /// Key of its actor, 0 for any.
        actor: u64,
        /// From when on, wall clock, ns.
        since_ns: u64,
    },
    /// An incident is over.
    Unpin {
        /// The incident.
        incident: Vec<u8>,
    },
    /// This file stands for those of these writers; they may still be there.
    Replaces(Vec<u32>),
    /// Of a kind that a later version of this program knows.
    Unknown,
}

impl Record {
    /// Appends its frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        let at = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 8]);
        self.body(out);
        let len = (out.len() - at - HEAD) as u32;
        let sum = crc(&out[at + HEAD..]);
        out[at + 4..at + 8].copy_from_slice(&len.to_le_bytes());
        out[at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
    }

    fn body(&self, out: &mut Vec<u8>) {
        match self {
            Record::Tree { number, root } => {
                out.push(TREE);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(root);
            }
            Record::Version(v) => version_body(v, out),
            Record::Extent {
                id,
                offset,
                len,
                crc,
            } => {
                out.push(EXTENT);
                for n in [id.0, *offset, *len] {
                    out.extend_from_slice(&n.to_le_bytes());
                }
                out.extend_from_slice(&crc.to_le_bytes());
            }
            Record::Gone(ids) => {
                out.push(GONE);
                for id in ids {
                    out.extend_from_slice(&id.0.to_le_bytes());
                }
            }
            Record::Digest { object, digest } => {
                out.push(DIGEST);
                out.extend_from_slice(&object.0.to_le_bytes());
                out.extend_from_slice(digest);
            }
            Record::Same { object, kept } => {
                out.push(SAME);
                out.extend_from_slice(&object.0.to_le_bytes());
                out.extend_from_slice(&kept.0.to_le_bytes());
            }
            Record::Pin {
                incident,
                actor,
                since_ns,
            } => {
                out.push(PIN);
                out.extend_from_slice(&actor.to_le_bytes());
                out.extend_from_slice(&since_ns.to_le_bytes());
                out.extend_from_slice(incident);
            }
            Record::Unpin { incident } => {
                out.push(UNPIN);
                out.extend_from_slice(incident);
            }
            Record::Replaces(writers) => {
                out.push(REPLACES);
                for writer in writers {
                    out.extend_from_slice(&writer.to_le_bytes());
                }
            }
            Record::Unknown => out.push(0),
        }
    }

    /// From a body whose CRC holds; `None` where it makes no sense.
    pub fn read(body: &[u8]) -> Option<Record> {
        let mut from = Reader(body);
        let record = match from.u8()? {
            TREE => Record::Tree {
                number: from.u16()?,
                root: from.rest(),
            },
            VERSION => Record::Version(Box::new(read_version(&mut from)?)),
            EXTENT => Record::Extent {
                id: VersionId(from.u64()?),
                offset: from.u64()?,
                len: from.u64()?,
                crc: from.u32()?,
            },
            GONE => {
                let mut ids = Vec::new();
                while let Some(id) = from.u64() {
                    ids.push(VersionId(id));
                }
                Record::Gone(ids)
            }
            DIGEST => Record::Digest {
                object: VersionId(from.u64()?),
                digest: from.take(32)?.try_into().ok()?,
            },
            SAME => Record::Same {
                object: VersionId(from.u64()?),
                kept: VersionId(from.u64()?),
            },
            PIN => Record::Pin {
                actor: from.u64()?,
                since_ns: from.u64()?,
                incident: from.rest(),
            },
            UNPIN => Record::Unpin {
                incident: from.rest(),
            },
            REPLACES => {
                let mut writers = Vec::new();
                while let Some(writer) = from.u32() {
                    writers.push(writer);
                }
                Record::Replaces(writers)
            }
            _ => return Some(Record::Unknown),
        };
        from.0.is_empty().then_some(record)
    }
}

fn version_body(v: &Version, out: &mut Vec<u8>) {
    let flags =
        if v.crc.is_some() { HAS_CRC } else { 0 } | if v.xattrs_partial { PARTIAL } else { 0 };
    out.extend_from_slice(&[VERSION, v.kind as u8, flags]);
    out.extend_from_slice(&v.tree.to_le_bytes());
    let words = [
        v.id.0,
        v.object.0,
        v.actor,
        v.at_ns,
        v.ino,
        v.object_ino,
        v.size,
        v.stored,
        v.atime_ns as u64,
        v.mtime_ns as u64,
        v.ctime_ns as u64,
    ];
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for half in [v.mode, v.uid, v.gid, v.nlink, v.crc.unwrap_or(0)] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    let path = &v.path[..v.path.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(path.len() as u16).to_le_bytes());
    out.extend_from_slice(path);
    for (name, value) in &v.xattrs {
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(value);
    }
}

fn read_version(from: &mut Reader<'_>) -> Option<Version> {
    let (kind, flags, tree) = (Kind::of(from.u8()?)?, from.u8()?, from.u16()?);
    let mut words = [0u64; 11];
    for word in &mut words {
        *word = from.u64()?;
    }
    let mut halves = [0u32; 5];
    for half in &mut halves {
        *half = from.u32()?;
    }
    let len = usize::from(from.u16()?);
    let path = from.take(len)?.to_vec();
    let mut xattrs = Vec::new();
    while !from.0.is_empty() {
        let (name, value) = (usize::from(from.u16()?), from.u32()? as usize);
        xattrs.push((from.take(name)?.to_vec(), from.take(value)?.to_vec()));
    }
    Some(Version {
        id: VersionId(words[0]),
        object: VersionId(words[1]),
        kind,
        tree,
        path,
        actor: words[2],
        at_ns: words[3],
        ino: words[4],
        object_ino: words[5],
        size: words[6],
        stored: words[7],
        mode: halves[0],
        uid: halves[1],
        gid: halves[2],
        nlink: halves[3],
        atime_ns: words[8] as i64,
        mtime_ns: words[9] as i64,
        ctime_ns: words[10] as i64,
        crc: (flags & HAS_CRC != 0).then_some(halves[4]),
        xattrs,
        xattrs_partial: flags & PARTIAL != 0,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// What reading a piece of a file came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes that need not be read again.
    pub consumed: usize,
    /// Bytes among them that are no record.
    pub damaged: usize,
}

/// Hands every whole record in `bytes` to `each`, with its offset.
///
/// With `ended` nobody writes on: what is left at the end is damage; else it is taken to be a record on its way.
pub fn scan(bytes: &[u8], ended: bool, mut each: impl FnMut(usize, usize, Record)) -> Scanned {
    let (mut at, mut damaged) = (0, 0);
    while at < bytes.len() {
        match frame(&bytes[at..]) {
            Frame::Whole(body) => {
                let len = HEAD + body.len();
                match Record::read(body) {
                    Some(record) => each(at, len, record),
                    None => damaged += len,
                }
                at += len;
            }
            Frame::Short if !ended => break,
            Frame::Short | Frame::Broken => {
                let next = bytes[at + 1..]
                    .windows(MAGIC.len())
                    .position(|window| window == MAGIC);
                let skip = match next {
                    Some(found) => found + 1,
                    // the beginning of a frame may stand at the very end
                    None if !ended => (bytes.len() - at).saturating_sub(MAGIC.len() - 1).max(1),
                    None => bytes.len() - at,
                };
                damaged += skip;
                at += skip;
            }
        }
    }
    Scanned {
        consumed: at,
        damaged,
    }
}

enum Frame<'a> {
    Whole(&'a [u8]),
    Short,
    Broken,
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    let have = bytes.len().min(MAGIC.len());
    if bytes[..have] != MAGIC[..have] {
        return Frame::Broken;
    }
    let Some(head) = bytes.get(..HEAD) else {
        return Frame::Short;
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let len = word(4) as usize;
    if len == 0 || len > BODY_MAX {
        return Frame::Broken;
    }
    match bytes.get(HEAD..HEAD + len) {
        None => Frame::Short,
        Some(body) if crc(body) == word(8) => Frame::Whole(body),
        Some(_) => Frame::Broken,
    }
}
