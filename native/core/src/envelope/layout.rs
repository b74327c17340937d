//! Where everything lies: limits, fixed fields, offsets.

use super::suite::{AwsLc, Suite, TAG_LEN};
use super::Refusal;

/// First eight bytes of either slot.
pub const MAGIC: [u8; 8] = *b"SHIELD\0\x01";
/// Bytes of a slot; slot A at 0, slot B right after it.
pub const SLOT_LEN: usize = 4096;
/// Where the sealed metadata begins.
pub const METADATA_AT: u64 = 2 * SLOT_LEN as u64;
/// Most bytes of padded metadata: a file with more attributes than this is not a file of a hospital.
pub const METADATA_MAX: u32 = 1 << 20;
/// Metadata is padded to a multiple of this, so that its length tells little of the name.
pub const METADATA_PAD: u32 = 256;
/// Smallest chunk, log2 of bytes.
pub const CHUNK_LOG2_MIN: u8 = 12;
/// Largest chunk, log2 of bytes.
pub const CHUNK_LOG2_MAX: u8 = 22;
/// Chunk that the writer uses: within 1 % of the cipher's best speed, 0.012 % larger than the plaintext.
pub const CHUNK_LOG2: u8 = 17;
/// Largest plaintext, bytes: offsets stay far inside an `i64`.
pub const PAYLOAD_MAX: u64 = 1 << 62;
/// The only suite: AES-256-GCM, HKDF-SHA-256, HMAC-SHA-256.
pub const SUITE: u8 = 1;
/// Bytes of the fixed fields that bind the keys: all but the commitment.
pub const BOUND_LEN: usize = 72;

/// The fields that never change, equal in both slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// log2 of the chunk's bytes.
    pub chunk_log2: u8,
    /// Bytes of padded metadata, without its tag.
    pub metadata_len: u32,
    /// Bytes of plaintext payload, all chunks together, without tags.
    pub payload_len: u64,
    /// Random name of this sealed file.
    pub file_id: [u8; 16],
    /// Random salt of the key schedule.
    pub salt: [u8; 32],
    /// What the data key commits to.
    pub commitment: [u8; 32],
}

impl Fixed {
    /// Bytes 0..72 of a slot.
    pub fn bound(&self) -> [u8; BOUND_LEN] {
        let mut out = [0; BOUND_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = SUITE;
        out[9] = self.chunk_log2;
        out[12..16].copy_from_slice(&self.metadata_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.payload_len.to_le_bytes());
        out[24..40].copy_from_slice(&self.file_id);
        out[40..72].copy_from_slice(&self.salt);
        out
    }

    /// Hash of the bound fields: part of every derivation and of every wrap.
    pub fn binding(&self) -> [u8; 32] {
        AwsLc::hash(&self.bound())
    }

    /// Bytes of plaintext in a full chunk.
    pub fn chunk_len(&self) -> u64 {
        1 << self.chunk_log2
    }

    /// Number of chunks: one, empty, for an empty payload.
    pub fn chunks(&self) -> u64 {
        self.payload_len.div_ceil(self.chunk_len()).max(1)
    }

    /// Where the first chunk begins.
    pub fn payload_at(&self) -> u64 {
        METADATA_AT + u64::from(self.metadata_len) + TAG_LEN as u64
    }

    /// Where chunk `index` begins.
    pub fn chunk_at(&self, index: u64) -> u64 {
        self.payload_at() + index * (self.chunk_len() + TAG_LEN as u64)
    }

    /// Plaintext bytes of chunk `index`, which must be below [`Fixed::chunks`].
    pub fn chunk_plain(&self, index: u64) -> u64 {
        (self.payload_len - (index << self.chunk_log2)).min(self.chunk_len())
    }

    /// Bytes of the whole sealed file.
    pub fn total(&self) -> u64 {
        self.payload_at() + self.payload_len + self.chunks() * TAG_LEN as u64
    }

    /// Refuses a file of another length than the header says.
    pub fn check_length(&self, file_len: u64) -> Result<(), Refusal> {
        match file_len.cmp(&self.total()) {
            std::cmp::Ordering::Less => Err(Refusal::Truncated),
            std::cmp::Ordering::Greater => Err(Refusal::Trailing),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }
}
