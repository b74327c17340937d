//! What each file was when it was last seen: a bounded table of fingerprints.
//!
//! Keyed by [`crate::facts::Facts::path_hash`]. When it is full the fingerprint that was used longest ago leaves,
//! and a counter says so. Serialises to bytes with a digest; damaged or foreign bytes are refused.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::content::names::Key;

/// Hashes kept of the content of a file.
pub const SKETCH: usize = 12;

/// Bits of [`Fingerprint::flags`].
pub mod marks {
    /// It was well-formed for its format.
    pub const STRUCTURE_OK: u16 = 1;
    /// It declared encryption.
    pub const DECLARED: u16 = 2;
    /// Its content was read (else only size and times are known).
    pub const LOOKED: u16 = 4;
    /// It was plain text.
    pub const TEXT: u16 = 8;
}

/// What is kept of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fingerprint {
    /// Size, bytes.
    pub size: u64,
    /// Modification time, ns since the epoch.
    pub mtime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Hash of size and samples, 0 unknown.
    pub content_hash: u64,
    /// Smallest hashes of the samples' shingles, ascending; `u32::MAX` where there are fewer.
    pub sketch: [u32; SKETCH],
    /// Mean entropy, bits per byte; negative unknown.
    pub entropy: f32,
    /// How encrypted it looked, 0..=1; negative unknown.
    pub encrypted_like: f32,
    /// Index into the format table.
    pub format: u16,
    /// Bits of [`marks`].
    pub flags: u16,
}

/// Estimated Jaccard similarity of the content behind two sketches, 0..=1; negative where one is empty.
///
/// Both hold the `SKETCH` smallest shingle hashes; of the `SKETCH` smallest of their union, the share in both.
pub fn similarity(a: &[u32; SKETCH], b: &[u32; SKETCH]) -> f32 {
    if a[0] == u32::MAX || b[0] == u32::MAX {
        return -1.0;
    }
    let (mut i, mut j, mut union, mut both) = (0, 0, 0u32, 0u32);
    while union < SKETCH as u32 {
        let x = a.get(i).copied().unwrap_or(u32::MAX);
        let y = b.get(j).copied().unwrap_or(u32::MAX);
        if x == u32::MAX && y == u32::MAX {
            break;
        }
        union += 1;
        if x == y {
            both += 1;
            i += 1;
            j += 1;
        } else if x < y {
            i += 1;
        } else {
            j += 1;
        }
    }
    both as f32 / union.max(1) as f32
}

/// The keys are hashes already.
#[derive(Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// A map whose keys are hashes.
pub type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    value: Fingerprint,
    newer: u32,
    older: u32,
}

/// Counters of a [`Baseline`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BaselineStats {
    /// Fingerprints held.
    pub entries: u64,
    /// Most that will be held.
    pub capacity: u64,
    /// Fingerprints that left because the table was full.
    pub evictions: u64,
}

/// Why bytes are not a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too short, not ours, or the digest does not hold.
    Corrupt,
    /// Ours, of a version that this build does not read.
    Version(u32),
}

/// Bounded table of fingerprints, least recently used leaves first.
pub struct Baseline {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashedMap<u32>,
    newest: u32,
    oldest: u32,
    capacity: usize,
    evictions: u64,
    key: Key,
}

/// First bytes of a serialised baseline.
pub const MAGIC: &[u8; 8] = b"SHDBASE\0";
/// Version of the serialisation.
pub const VERSION: u32 = 2;
const HEAD: usize = 8 + 4 + 4 + 8 + 8 + 16;
const RECORD: usize = 8 + 8 + 8 + 8 + 8 + 4 * SKETCH + 4 + 4 + 2 + 2;
const DIGEST: usize = 32;

impl Baseline {
    /// An empty table for at most `capacity` files (at least 1), whose paths are hashed under `key`.
    pub fn new(capacity: usize, key: Key) -> Self {
        let capacity = capacity.clamp(1, NONE as usize - 1);
        Baseline {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashedMap::default(),
            newest: NONE,
            oldest: NONE,
            capacity,
            evictions: 0,
            key,
        }
    }

    /// What paths are hashed under to be found here; a loaded table brings its own.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Counters.
    pub fn stats(&self) -> BaselineStats {
        BaselineStats {
            entries: self.index.len() as u64,
            capacity: self.capacity as u64,
            evictions: self.evictions,
        }
    }

    /// The fingerprint of a path, which becomes the most recently used.
    pub fn get(&mut self, key: u64) -> Option<&Fingerprint> {
        let at = *self.index.get(&key)?;
        self.unlink(at);
        self.push(at);
        Some(&self.slots[at as usize].value)
    }

    /// The fingerprint of a path, its age untouched.
    pub fn peek(&self, key: u64) -> Option<&Fingerprint> {
        self.index
            .get(&key)
            .map(|at| &self.slots[*at as usize].value)
    }

    /// Keeps a fingerprint; the oldest leaves when the table is full.
    pub fn put(&mut self, key: u64, value: Fingerprint) {
        if let Some(at) = self.index.get(&key).copied() {
            self.slots[at as usize].value = value;
            self.unlink(at);
            self.push(at);
            return;
        }
        if self.index.len() >= self.capacity {
            let last = self.oldest;
            self.drop_slot(last);
            self.evictions += 1;
        }
        let slot = Slot {
            key,
            value,
            newer: NONE,
            older: NONE,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(key, at);
        self.push(at);
    }

    /// Forgets a path and returns what was known.
    pub fn remove(&mut self, key: u64) -> Option<Fingerprint> {
        let at = *self.index.get(&key)?;
        let value = self.slots[at as usize].value;
        self.drop_slot(at);
        Some(value)
    }

    /// A path got another name: its fingerprint follows, and what stood at the new name is returned.
    pub fn rename(&mut self, from: u64, to: u64) -> Option<Fingerprint> {
        if from == to {
            return None;
        }
        let over = self.remove(to);
        if let Some(value) = self.remove(from) {
            self.put(to, value);
        }
        over
    }

    /// Forgets everything but the counters.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.index.clear();
        self.newest = NONE;
        self.oldest = NONE;
    }

    fn drop_slot(&mut self, at: u32) {
        self.unlink(at);
        self.index.remove(&self.slots[at as usize].key);
        self.free.push(at);
    }

    fn unlink(&mut self, at: u32) {
        let Slot { newer, older, .. } = self.slots[at as usize];
        match newer {
            NONE => {
                if self.newest == at {
                    self.newest = older;
                }
            }
            n => self.slots[n as usize].older = older,
        }
        match older {
            NONE => {
                if self.oldest == at {
                    self.oldest = newer;
                }
            }
            o => self.slots[o as usize].newer = newer,
        }
        self.slots[at as usize].newer = NONE;
        self.slots[at as usize].older = NONE;
    }

    fn push(&mut self, at: u32) {
        self.slots[at as usize].older = self.newest;
        match self.newest {
            NONE => self.oldest = at,
            n => self.slots[n as usize].newer = at,
        }
        self.newest = at;
    }

    /// The table as bytes, oldest first: magic, version, record size, count, evictions, key, records, BLAKE3 of it all.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.index.len() * RECORD + DIGEST);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(RECORD as u32).to_le_bytes());
        out.extend_from_slice(&(self.index.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.evictions.to_le_bytes());
        out.extend_from_slice(&self.key.0);
        let mut at = self.oldest;
        while at != NONE {
            let slot = &self.slots[at as usize];
            let v = &slot.value;
            out.extend_from_slice(&slot.key.to_le_bytes());
            out.extend_from_slice(&v.size.to_le_bytes());
            out.extend_from_slice(&v.mtime_ns.to_le_bytes());
            out.extend_from_slice(&v.ino.to_le_bytes());
            out.extend_from_slice(&v.content_hash.to_le_bytes());
            for hash in v.sketch {
                out.extend_from_slice(&hash.to_le_bytes());
            }
            out.extend_from_slice(&v.entropy.to_le_bytes());
            out.extend_from_slice(&v.encrypted_like.to_le_bytes());
            out.extend_from_slice(&v.format.to_le_bytes());
            out.extend_from_slice(&v.flags.to_le_bytes());
            at = slot.newer;
        }
        let digest = blake3::hash(&out);
        out.extend_from_slice(digest.as_bytes());
        out
    }

    /// Replaces the content by what [`Baseline::to_bytes`] wrote; the capacity stays, so the oldest may leave.
    ///
    /// # Errors
    /// [`Refused`]; the table is then unchanged.
    pub fn load(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if bytes.len() < HEAD + DIGEST || &bytes[..8] != MAGIC {
            return Err(Refused::Corrupt);
        }
        let (body, digest) = bytes.split_at(bytes.len() - DIGEST);
        if blake3::hash(body).as_bytes() != digest {
            return Err(Refused::Corrupt);
        }
        let mut r = Reader(&body[8..]);
        let version = r.u32();
        let record = r.u32();
        if version != VERSION || record as usize != RECORD {
            return Err(Refused::Version(version));
        }
        let count = r.u64();
        let evictions = r.u64();
        let key = Key(r.take());
        if r.0.len() % RECORD != 0 || (r.0.len() / RECORD) as u64 != count {
            return Err(Refused::Corrupt);
        }
        self.clear();
        self.evictions = evictions;
        self.key = key;
        while !r.0.is_empty() {
            let key = r.u64();
            let mut value = Fingerprint {
                size: r.u64(),
                mtime_ns: r.u64() as i64,
                ino: r.u64(),
                content_hash: r.u64(),
                ..Fingerprint::default()
            };
            for hash in &mut value.sketch {
                *hash = r.u32();
            }
            value.entropy = f32::from_bits(r.u32());
            value.encrypted_like = f32::from_bits(r.u32());
            value.format = r.u16();
            value.flags = r.u16();
            self.put(key, value);
        }
        Ok(())
    }
}

/// Little-endian numbers off the front of a slice whose length was checked.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let (head, rest) = self.0.split_at(N.min(self.0.len()));
        out[..head.len()].copy_from_slice(head);
        self.0 = rest;
        out
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn print(size: u64) -> Fingerprint {
        Fingerprint {
            size,
            ..Fingerprint::default()
        }
    }

    #[test]
    fn the_oldest_leaves_and_is_counted() {
        let mut b = Baseline::new(3, Key([7; 16]));
        for key in 1..=3 {
            b.put(key, print(key));
        }
        assert!(b.get(1).is_some());
        b.put(4, print(4));
        assert!(b.peek(2).is_none());
        assert!(b.peek(1).is_some() && b.peek(3).is_some() && b.peek(4).is_some());
        assert_eq!(
            b.stats(),
            BaselineStats {
                entries: 3,
                capacity: 3,
                evictions: 1
            }
        );
    }

    #[test]
    fn a_rename_carries_the_fingerprint_and_returns_what_it_covered() {
        let mut b = Baseline::new(8, Key([7; 16]));
        b.put(1, print(10));
        b.put(2, print(20));
        assert_eq!(b.rename(1, 2).map(|x| x.size), Some(20));
        assert_eq!(b.peek(2).map(|x| x.size), Some(10));
        assert!(b.peek(1).is_none());
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let mut b = Baseline::new(8, Key([7; 16]));
        b.put(7, print(70));
        b.put(8, print(80));
        let bytes = b.to_bytes();
        let mut c = Baseline::new(8, Key([7; 16]));
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert_eq!(c.load(&bad), Err(Refused::Corrupt));
            assert!(c.load(&bytes[..i]).is_err());
        }
        assert_eq!(c.load(&bytes), Ok(()));
        assert_eq!(c.to_bytes(), bytes);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Baseline::new(4, Key([7; 16])).load(&bytes).is_err());
        }

        #[test]
        fn it_agrees_with_a_list(ops in proptest::collection::vec((0u8..3, 0u64..12, 0u64..12), 0..200)) {
            let mut table = Baseline::new(5, Key([7; 16]));
            let mut list: Vec<(u64, u64)> = Vec::new(); // oldest first
            for (n, (op, a, b)) in ops.into_iter().enumerate() {
                let n = n as u64;
                match op {
                    0 => {
                        if let Some(i) = list.iter().position(|x| x.0 == a) {
                            list.remove(i);
                        } else if list.len() == 5 {
                            list.remove(0);
                        }
                        list.push((a, n));
                        table.put(a, print(n));
                    }
                    1 => {
                        let had = list.iter().position(|x| x.0 == a).map(|i| list.remove(i).1);
                        prop_assert_eq!(table.remove(a).map(|x| x.size), had);
                    }
                    _ if a != b => {
                        let over = list.iter().position(|x| x.0 == b).map(|i| list.remove(i).1);
                        if let Some(i) = list.iter().position(|x| x.0 == a) {
                            let moved = list.remove(i);
                            list.push((b, moved.1));
                        }
                        prop_assert_eq!(table.rename(a, b).map(|x| x.size), over);
                    }
                    _ => {}
                }
                for (key, value) in &list {
                    prop_assert_eq!(table.peek(*key).map(|x| x.size), Some(*value));
                }
                prop_assert_eq!(table.stats().entries, list.len() as u64);
            }
            let mut again = Baseline::new(5, Key([7; 16]));
            prop_assert_eq!(again.load(&table.to_bytes()), Ok(()));
            prop_assert_eq!(again.to_bytes(), table.to_bytes());
        }
    }
}
