//! BLAKE3 of the payload, by chunks that any thread may hash in any order.

use std::collections::BTreeMap;

use blake3::hazmat::{
    merge_subtrees_non_root, merge_subtrees_root, ChainingValue, HasherExt, Mode,
};
use blake3::Hasher;

/// What one chunk contributes.
#[derive(Clone, Copy)]
pub enum Part {
    /// Chaining value of a chunk among several.
    Inner(ChainingValue),
    /// The digest itself: the payload has one chunk.
    Root([u8; 32]),
}

/// Hashes chunk `index` of `chunk_len` (a power of two, at least 1024) bytes; only the last may be short.
pub fn part(data: &[u8], index: u64, chunk_len: u64, only: bool) -> Part {
    if only {
        return Part::Root(*blake3::hash(data).as_bytes());
    }
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index * chunk_len).update(data);
    Part::Inner(hasher.finalize_non_root())
}

/// Folds the parts into the digest; parts that come early wait.
///
/// Memory: one value per level of the tree and per chunk that waits, not per chunk of the file.
#[derive(Default)]
pub struct Fold {
    root: Option<[u8; 32]>,
    stack: Vec<ChainingValue>,
    done: u64,
    waiting: BTreeMap<u64, ChainingValue>,
}

impl Fold {
    /// Takes the part of chunk `index`.
    pub fn add(&mut self, index: u64, part: Part) {
        match part {
            Part::Root(digest) => self.root = Some(digest),
            Part::Inner(value) if index == self.done => {
                self.push(value);
                while let Some(value) = self.waiting.remove(&self.done) {
                    self.push(value);
                }
            }
            Part::Inner(value) => {
                self.waiting.insert(index, value);
            }
        }
    }

    /// Merges lazily: the last pair must stay apart, for it may be the root.
    fn push(&mut self, value: ChainingValue) {
        while self.stack.len() > self.done.count_ones() as usize {
            self.merge();
        }
        self.stack.push(value);
        self.done += 1;
    }

    fn merge(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack
                .push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// The digest, once every chunk was added.
    pub fn finish(mut self) -> [u8; 32] {
        if let Some(digest) = self.root {
            return digest;
        }
        while self.stack.len() > 2 {
            self.merge();
        }
        match self.stack[..] {
            [left, right] => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
            _ => *blake3::hash(b"").as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_blake3_in_any_order() {
        let data: Vec<u8> = (0..70_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        for len in [
            0, 1, 4095, 4096, 4097, 8192, 12_288, 12_289, 32_768, 65_536, 65_537, 70_000,
        ] {
            let chunks = (len as u64).div_ceil(4096).max(1);
            for reverse in [false, true] {
                let mut fold = Fold::default();
                let order: Vec<u64> = if reverse {
                    (0..chunks).rev().collect()
                } else {
                    (0..chunks).collect()
                };
                for i in order {
                    let piece = &data[(i * 4096) as usize..len.min((i as usize + 1) * 4096)];
                    fold.add(i, part(piece, i, 4096, chunks == 1));
                }
                assert_eq!(
                    fold.finish(),
                    *blake3::hash(&data[..len]).as_bytes(),
                    "{len} bytes"
                );
            }
        }
    }
}
