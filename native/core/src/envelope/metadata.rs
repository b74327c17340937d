//! What the sealed file knows of its original: deterministic CBOR (RFC 8949, section 4.2.1), padded with zeros.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::layout::{METADATA_MAX, METADATA_PAD};
use super::Refusal;

/// Longest path, bytes (PATH_MAX).
pub const NAME_MAX: usize = 4096;
/// Longest reason, bytes.
pub const WHY_MAX: usize = 1024;
/// Longest user, group or host name, bytes.
pub const LABEL_MAX: usize = 256;
/// Most data regions of a sparse file.
pub const EXTENTS_MAX: usize = 16_384;
/// Most extended attributes.
pub const XATTRS_MAX: usize = 1024;

/// A region of the original that holds data; between regions it has holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the original, bytes.
    pub at: u64,
    /// Bytes.
    pub len: u64,
}

/// All that is sealed beside the content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Original path, relative to its guarded tree.
    pub name: Vec<u8>,
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name on the sealing host, empty where unknown.
    pub user: Vec<u8>,
    /// Group's name on the sealing host, empty where unknown.
    pub group: Vec<u8>,
    /// Last access, ns since the epoch.
    pub atime_ns: i64,
    /// Last change of content, ns since the epoch.
    pub mtime_ns: i64,
    /// Bytes, holes included.
    pub size: u64,
    /// Regions with data, ascending, apart; the payload is their concatenation.
    pub extents: Vec<Extent>,
    /// Extended attributes, POSIX ACLs among them, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// BLAKE3 of the payload.
    pub digest: [u8; 32],
    /// What the file was sealed for.
    pub purpose: u8,
    /// Why, in words.
    pub why: String,
    /// When, ns since the epoch.
    pub sealed_at_ns: i64,
    /// By which host.
    pub host_id: Vec<u8>,
}

const FIELDS: u64 = 16;

impl Metadata {
    /// Bytes of payload.
    pub fn payload_len(&self) -> u64 {
        self.extents.iter().map(|e| e.len).sum()
    }

    /// CBOR and zeros up to a multiple of 256 bytes. The length does not depend on the digest's value.
    pub fn encode(&self) -> Result<Vec<u8>, Refusal> {
        self.check()?;
        let mut out = Vec::with_capacity(512);
        self.write(&mut Encoder::new(&mut out))
            .map_err(|_| Refusal::Metadata)?;
        out.resize(out.len().next_multiple_of(METADATA_PAD as usize), 0);
        if out.len() > METADATA_MAX as usize {
            return Err(Refusal::Metadata);
        }
        Ok(out)
    }

    fn write(
        &self,
        e: &mut Encoder<&mut Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        e.map(FIELDS)?;
        e.u8(1)?.bytes(&self.name)?;
        e.u8(2)?.u32(self.mode)?;
        e.u8(3)?.u32(self.uid)?;
        e.u8(4)?.u32(self.gid)?;
        e.u8(5)?.bytes(&self.user)?;
        e.u8(6)?.bytes(&self.group)?;
        e.u8(7)?.i64(self.atime_ns)?;
        e.u8(8)?.i64(self.mtime_ns)?;
        e.u8(9)?.u64(self.size)?;
        e.u8(10)?.array(2 * self.extents.len() as u64)?;
        for extent in &self.extents {
            e.u64(extent.at)?.u64(extent.len)?;
        }
        e.u8(11)?.array(2 * self.xattrs.len() as u64)?;
        for (name, value) in &self.xattrs {
            e.bytes(name)?.bytes(value)?;
        }
        e.u8(12)?.bytes(&self.digest)?;
        e.u8(13)?.u8(self.purpose)?;
        e.u8(14)?.str(&self.why)?;
        e.u8(15)?.i64(self.sealed_at_ns)?;
        e.u8(16)?.bytes(&self.host_id)?;
        Ok(())
    }

    /// Reads padded metadata; anything but the canonical encoding is refused.
    pub fn decode(padded: &[u8]) -> Result<Metadata, Refusal> {
        let metadata = Self::read(&mut Decoder::new(padded)).ok_or(Refusal::Metadata)?;
        if metadata.encode()? != padded {
            return Err(Refusal::Metadata);
        }
        Ok(metadata)
    }

    fn read(d: &mut Decoder<'_>) -> Option<Metadata> {
        let mut m = Metadata::default();
        if d.map().ok()?? != FIELDS {
            return None;
        }
        let mut next = 0;
        let mut key = |d: &mut Decoder<'_>| {
            next += 1;
            (d.u8().ok()? == next).then_some(())
        };
        key(d)?;
        m.name = bytes(d)?;
        key(d)?;
        m.mode = d.u32().ok()?;
        key(d)?;
        m.uid = d.u32().ok()?;
        key(d)?;
        m.gid = d.u32().ok()?;
        key(d)?;
        m.user = bytes(d)?;
        key(d)?;
        m.group = bytes(d)?;
        key(d)?;
        m.atime_ns = d.i64().ok()?;
        key(d)?;
        m.mtime_ns = d.i64().ok()?;
        key(d)?;
        m.size = d.u64().ok()?;
        key(d)?;
        for _ in 0..pairs(d, EXTENTS_MAX)? {
            m.extents.push(Extent {
                at: d.u64().ok()?,
                len: d.u64().ok()?,
            });
        }
        key(d)?;
        for _ in 0..pairs(d, XATTRS_MAX)? {
            m.xattrs.push((bytes(d)?, bytes(d)?));
        }
        key(d)?;
        m.digest = d.bytes().ok()?.try_into().ok()?;
        key(d)?;
        m.purpose = d.u8().ok()?;
        key(d)?;
        m.why = (d.datatype().ok()? == Type::String)
            .then(|| d.str().ok())??
            .to_owned();
        key(d)?;
        m.sealed_at_ns = d.i64().ok()?;
        key(d)?;
        m.host_id = bytes(d)?;
        Some(m)
    }

    fn check(&self) -> Result<(), Refusal> {
        let parts_ok = self
            .name
            .split(|&b| b == b'/')
            .all(|part| !part.is_empty() && part != b"." && part != b"..");
        let mut end = 0;
        let mut first = true;
        let extents_ok = self.extents.iter().all(|e| {
            let fits = e.len > 0
                && (first || e.at > end)
                && e.at.checked_add(e.len).is_some_and(|x| x <= self.size);
            first = false;
            end = e.at.saturating_add(e.len);
            fits
        });
        let ok = parts_ok
            && self.name.len() <= NAME_MAX
            && !self.name.contains(&0)
            && self.mode <= 0o7777
            && self.user.len() <= LABEL_MAX
            && self.group.len() <= LABEL_MAX
            && self.host_id.len() <= LABEL_MAX
            && self.why.len() <= WHY_MAX
            && self.extents.len() <= EXTENTS_MAX
            && extents_ok
            && self.xattrs.len() <= XATTRS_MAX
            && self.xattrs.windows(2).all(|pair| pair[0].0 < pair[1].0)
            && self
                .xattrs
                .iter()
                .all(|(name, _)| !name.is_empty() && name.len() <= 255 && !name.contains(&0));
        if ok {
            Ok(())
        } else {
            Err(Refusal::Metadata)
        }
    }
}

fn bytes(d: &mut Decoder<'_>) -> Option<Vec<u8>> {
    d.bytes().ok().map(<[u8]>::to_vec)
}

/// Number of pairs in the array that comes next.
fn pairs(d: &mut Decoder<'_>, most: usize) -> Option<u64> {
    let len = d.array().ok()??;
    (len % 2 == 0 && len / 2 <= most as u64).then_some(len / 2)
}
