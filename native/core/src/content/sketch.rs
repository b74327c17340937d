//! A content-anchored sketch: the smallest hashes of the samples' 8-byte shingles.
//!
//! Two versions of a file that share text share shingles wherever they moved to within the samples; a cipher leaves none.

use crate::baseline::SKETCH;

const SHINGLE: usize = 8;
/// 2^64 / golden ratio, odd.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Collects the [`SKETCH`] smallest distinct hashes, ascending; `u32::MAX` where there are fewer.
pub struct Sketcher {
    smallest: [u32; SKETCH],
}

impl Default for Sketcher {
    fn default() -> Self {
        Sketcher {
            smallest: [u32::MAX; SKETCH],
        }
    }
}

/// Upper half of the product with an odd constant, folded once.
fn hash(word: u64) -> u32 {
    let x = (word ^ (word >> 29)).wrapping_mul(MULTIPLIER);
    (x >> 32) as u32
}

impl Sketcher {
    /// Adds the shingles of one sample.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut limit = self.smallest[SKETCH - 1];
        for shingle in bytes.windows(SHINGLE) {
            let word = u64::from_le_bytes([
                shingle[0], shingle[1], shingle[2], shingle[3], shingle[4], shingle[5], shingle[6],
                shingle[7],
            ]);
            let h = hash(word);
            if h < limit {
                self.insert(h);
                limit = self.smallest[SKETCH - 1];
            }
        }
    }

    #[inline(never)]
    fn insert(&mut self, h: u32) {
        let at = self.smallest.partition_point(|x| *x < h);
        if self.smallest[at] == h {
            return;
        }
        self.smallest.copy_within(at..SKETCH - 1, at + 1);
        self.smallest[at] = h;
    }

    /// The sketch.
    pub fn finish(self) -> [u32; SKETCH] {
        self.smallest
    }
}

/// How many hashes of a sketch are hashes of these bytes' shingles.
pub fn shared(bytes: &[u8], sketch: &[u32; SKETCH]) -> usize {
    let mut seen = [false; SKETCH];
    let kept = sketch.partition_point(|h| *h != u32::MAX);
    let Some(limit) = sketch[..kept].last() else {
        return 0;
    };
    for shingle in bytes.windows(SHINGLE) {
        let mut word = [0; 8];
        word.copy_from_slice(shingle);
        let h = hash(u64::from_le_bytes(word));
        if h <= *limit {
            if let Ok(at) = sketch[..kept].binary_search(&h) {
                seen[at] = true;
            }
        }
    }
    seen.iter().filter(|x| **x).count()
}
