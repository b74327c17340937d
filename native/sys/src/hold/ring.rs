//! Records of openers that were held, from the answerer to the daemon: one writer, one reader, nobody waits.
//!
//! A ring of words. A record is a head of [`HEAD`] bytes (little-endian fields, see [`Record`]) and the path, filled up
//! to a multiple of 8, and never wraps: what is left before the end is skipped by a record of kind 0. A record that has
//! no room is counted and dropped.

use std::sync::atomic::{AtomicU64, Ordering};

use super::control::{Control, Word};

/// Words of the ring: 1 MiB, about 8,000 records.
pub const WORDS: usize = 1 << 17;
/// Bytes of a record before its path.
pub const HEAD: usize = 80;
const BYTES: u64 = WORDS as u64 * 8;

/// What was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An open for writing.
    Open = 1,
    /// A truncation by path or descriptor.
    Truncate = 2,
    /// A write into a range of a large file.
    Range = 3,
    /// An actor whose verdict the daemon is asked for; its opener waits still.
    Ask = 4,
}

/// What became of the version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kept {
    /// None was needed: the open was refused.
    #[default]
    None = 0,
    /// It is in the vault.
    Yes = 1,
    /// Lost: the vault is full.
    Full = 2,
    /// Lost: it took too long or the vault hangs.
    Late = 3,
    /// Lost: the vault failed.
    Failed = 4,
    /// Lost: there is no vault for this file system.
    Absent = 5,
}

/// One record. Bytes: length u32, kind u8, kept u8, tree u16; then u64 each: at, actor, version (2), start; then u32
/// each: pid, tid, microseconds held, length of the path; size u64, verdict u8, undecoded u8, errno u16, 0 u32; path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What was held.
    pub kind: Kind,
    /// What became of the version.
    pub kept: Kept,
    /// Index of the tree; `u16::MAX` where it could not be told.
    pub tree: u16,
    /// `CLOCK_REALTIME` of the answer, ns.
    pub at_ns: u64,
    /// Actor behind it; 0 where it could not be told.
    pub actor: u64,
    /// Version in the vault.
    pub version: [u64; 2],
    /// Start of the process, clock ticks since boot.
    pub start_ticks: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// How long it was held, µs.
    pub held_us: u32,
    /// Size of the file, bytes.
    pub size: u64,
    /// [`super::verdicts::Verdict`] that was given.
    pub verdict: u8,
    /// Whether the access could not be decoded and was taken for a write.
    pub undecoded: bool,
    /// What the vault said, an `errno`.
    pub errno: u16,
    /// Relative to the tree, or whole where the tree could not be told.
    pub path: &'a [u8],
}

impl Record<'_> {
    fn head(&self, length: usize) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..4].copy_from_slice(&(length as u32).to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = self.kept as u8;
        out[6..8].copy_from_slice(&self.tree.to_le_bytes());
        let longs = [
            self.at_ns,
            self.actor,
            self.version[0],
            self.version[1],
            self.start_ticks,
        ];
        for (i, value) in longs.iter().enumerate() {
            out[8 + i * 8..16 + i * 8].copy_from_slice(&value.to_le_bytes());
        }
        let words = [self.pid, self.tid, self.held_us, self.path.len() as u32];
        for (i, value) in words.iter().enumerate() {
            out[48 + i * 4..52 + i * 4].copy_from_slice(&value.to_le_bytes());
        }
        out[64..72].copy_from_slice(&self.size.to_le_bytes());
        out[72] = self.verdict;
        out[73] = u8::from(self.undecoded);
        out[74..76].copy_from_slice(&self.errno.to_le_bytes());
        out
    }
}

fn put(ring: &[AtomicU64], at: u64, bytes: &[u8]) {
    for (i, chunk) in bytes.chunks(8).enumerate() {
        let mut eight = [0; 8];
        eight[..chunk.len()].copy_from_slice(chunk);
        let slot = (at / 8) as usize % WORDS + i;
        ring[slot].store(u64::from_le_bytes(eight), Ordering::Relaxed);
    }
}

impl Control {
    /// Writes a record; false where there is no room. The answerer alone does.
    pub fn push(&self, record: &Record<'_>) -> bool {
        let length = (HEAD + record.path.len()).next_multiple_of(8);
        let (head, tail) = (self.get(Word::Head), self.get(Word::Tail));
        let to_end = BYTES - head % BYTES;
        let skip = if length as u64 > to_end { to_end } else { 0 };
        // a tail beyond the head is no tail of ours: nothing fits then
        if head.wrapping_sub(tail) > BYTES - (length as u64 + skip).min(BYTES) {
            self.count(Word::RecordsLost, 1);
            return false;
        }
        if skip > 0 {
            put(self.ring(), head, &(skip as u32).to_le_bytes());
        }
        let at = head + skip;
        put(self.ring(), at, &record.head(length));
        put(self.ring(), at + HEAD as u64, record.path);
        self.set(Word::Head, at + length as u64);
        self.count(Word::Records, 1);
        true
    }

    /// Takes whole records, at most about `limit` bytes of them. The daemon alone does, from one thread at a time.
    pub fn take(&self, limit: usize) -> Vec<u8> {
        let (head, mut tail) = (self.get(Word::Head), self.get(Word::Tail));
        let ring = self.ring();
        let mut out = Vec::new();
        while tail < head && out.len() < limit {
            let at = (tail / 8) as usize % WORDS;
            let first = ring[at].load(Ordering::Relaxed);
            let length = (first as u32 as usize).next_multiple_of(8);
            if length < 8 || length > (WORDS - at) * 8 || length as u64 > head - tail {
                tail = head; // not what we write: begin anew
                break;
            }
            if first >> 32 & 0xff != 0 {
                for slot in &ring[at..at + length / 8] {
                    out.extend_from_slice(&slot.load(Ordering::Relaxed).to_le_bytes());
                }
            }
            tail += length as u64;
        }
        self.set(Word::Tail, tail);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(path: &[u8], actor: u64) -> Record<'_> {
        Record {
            kind: Kind::Open,
            kept: Kept::Yes,
            tree: 3,
            at_ns: 5,
            actor,
            version: [7, 8],
            start_ticks: 9,
            pid: 10,
            tid: 11,
            held_us: 12,
            size: 13,
            verdict: 1,
            undecoded: true,
            errno: 0,
            path,
        }
    }

    #[test]
    fn records_come_out_as_they_went_in_round_after_round() {
        let control = Control::create().unwrap();
        let mut sent = 0u64;
        for round in 0..200usize {
            for i in 0..100usize {
                let path = vec![b'a'; (round * 37 + i * 91) % 4096];
                sent += 1;
                assert!(control.push(&record(&path, sent)));
                let got = control.take(usize::MAX);
                assert_eq!(got.len(), (HEAD + path.len()).next_multiple_of(8));
                assert_eq!(got[16..24], sent.to_le_bytes());
                assert_eq!(got[60..64], (path.len() as u32).to_le_bytes());
                assert_eq!(got[HEAD..HEAD + path.len()], path);
            }
        }
        assert_eq!(control.get(Word::Records), sent);
    }

    #[test]
    fn a_full_ring_loses_the_newest_and_counts() {
        let control = Control::create().unwrap();
        let kept = (0..)
            .take_while(|&i| control.push(&record(b"abc", i)))
            .count();
        assert_eq!(kept, BYTES as usize / 88);
        assert_eq!(control.get(Word::RecordsLost), 1);
        let first = control.take(1000);
        assert_eq!(first.len() % 88, 0);
        assert!(control.push(&record(b"abc", 0)));
        let rest = control.take(usize::MAX);
        assert_eq!((first.len() + rest.len()) / 88, kept + 1);
        assert!(control.take(usize::MAX).is_empty());
    }

    #[test]
    fn a_broken_ring_is_left_behind() {
        let control = Control::create().unwrap();
        control.push(&record(b"x", 1));
        control.ring()[0].store(u64::MAX, Ordering::Relaxed);
        assert!(control.take(usize::MAX).is_empty());
        assert!(control.push(&record(b"y", 2)));
        assert_eq!(control.take(usize::MAX).len(), 88);
    }
}
