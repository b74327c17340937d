//! Facts from the bytes of a file.
//!
//! * [`formats`]: the table of formats, magic and extensions.
//! * [`names`]: what the name alone says.

pub mod formats;
pub mod names;

use crate::baseline::{marks, similarity, Fingerprint, SKETCH};
use crate::facts::{flags, Facts};

/// Bytes of one sample.
pub const WINDOW: usize = 4096;

/// Where the middle sample of a file of more than three windows starts.
pub fn middle_offset(size: u64) -> u64 {
    (size / 2) & !(WINDOW as u64 - 1)
}

/// The samples of one file.
pub struct Samples<'a> {
    /// Size of the file, bytes.
    pub size: u64,
    /// First bytes: the whole file where it is no longer than three windows.
    pub head: &'a [u8],
    /// From [`middle_offset`].
    pub middle: &'a [u8],
    /// Last bytes.
    pub tail: &'a [u8],
    /// Whether `head` is the whole file.
    pub complete: bool,
}

impl<'a> Samples<'a> {
    /// A small file, read whole.
    pub fn whole(bytes: &'a [u8], size: u64) -> Self {
        Samples {
            size,
            head: bytes,
            middle: &[],
            tail: &[],
            complete: bytes.len() as u64 == size,
        }
    }

    /// Three samples of a larger one.
    pub fn of_parts(head: &'a [u8], middle: &'a [u8], tail: &'a [u8], size: u64) -> Self {
        Samples {
            size,
            head,
            middle,
            tail,
            complete: false,
        }
    }

    /// Bytes that were read.
    pub fn bytes(&self) -> u64 {
        (self.head.len() + self.middle.len() + self.tail.len()) as u64
    }
}

/// Puts what was known of a file into its facts.
pub fn remember(old: &Fingerprint, facts: &mut Facts) {
    facts.flags |= flags::KNOWN_BEFORE;
    facts.prev_size = old.size;
    facts.prev_format = old.format;
    facts.prev_entropy = old.entropy;
    facts.prev_encrypted_like = old.encrypted_like;
    facts.prev_content_hash = old.content_hash;
    if old.flags & marks::DECLARED != 0 {
        facts.flags |= flags::PREV_DECLARED;
    }
    if old.flags & marks::STRUCTURE_OK != 0 {
        facts.flags |= flags::PREV_STRUCTURE_OK;
    }
}

/// Fills the facts that the samples tell, compares with `before`, and returns the fingerprint of now.
pub fn analyse(
    samples: &Samples<'_>,
    _path: &[u8],
    before: Option<&Fingerprint>,
    facts: &mut Facts,
) -> Fingerprint {
    let now = Fingerprint {
        size: samples.size,
        sketch: [u32::MAX; SKETCH],
        entropy: facts.mean_entropy(),
        encrypted_like: facts.encrypted_like,
        format: facts.format,
        ..Fingerprint::default()
    };
    if let Some(old) = before {
        facts.similarity = similarity(&old.sketch, &now.sketch);
    }
    now
}
