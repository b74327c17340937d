//! STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015): chunk `i` under nonce `i as 11 bytes big-endian || last`.
//!
//! The payload key belongs to one file and is used once, so no nonce can come twice.

use super::layout::Fixed;
use super::suite::{AwsLc, Suite, NONCE_LEN, TAG_LEN};
use super::Refusal;

/// The payload key, expanded.
pub struct PayloadKey {
    key: <AwsLc as Suite>::Key,
    last: u64,
}

fn nonce(index: u64, last: bool) -> [u8; NONCE_LEN] {
    let mut out = [0; NONCE_LEN];
    out[3..11].copy_from_slice(&index.to_be_bytes());
    out[11] = u8::from(last);
    out
}

impl PayloadKey {
    /// For the file with these fixed fields.
    pub fn new(key: &[u8; 32], fixed: &Fixed) -> PayloadKey {
        PayloadKey {
            key: AwsLc::key(key),
            last: fixed.chunks() - 1,
        }
    }

    /// Encrypts chunk `index` in place; the last [`TAG_LEN`] bytes of `chunk` receive the tag.
    pub fn seal(&self, index: u64, chunk: &mut [u8]) {
        let at = chunk.len() - TAG_LEN;
        let (data, tag) = chunk.split_at_mut(at);
        tag.copy_from_slice(&AwsLc::seal(
            &self.key,
            nonce(index, index == self.last),
            &[],
            data,
        ));
    }

    /// Decrypts chunk `index` in place; all but the last [`TAG_LEN`] bytes are plaintext then.
    pub fn open(&self, index: u64, chunk: &mut [u8]) -> Result<(), Refusal> {
        if AwsLc::open(&self.key, nonce(index, index == self.last), &[], chunk) {
            Ok(())
        } else {
            Err(Refusal::Chunk(index))
        }
    }
}

/// Encrypts padded metadata in place and appends its tag.
pub fn seal_metadata(key: &[u8; 32], padded: &mut Vec<u8>) {
    let tag = AwsLc::seal(&AwsLc::key(key), [0; NONCE_LEN], &[], padded);
    padded.extend_from_slice(&tag);
}

/// Decrypts sealed metadata in place and cuts its tag off.
pub fn open_metadata(key: &[u8; 32], sealed: &mut Vec<u8>) -> Result<(), Refusal> {
    if sealed.len() < TAG_LEN || !AwsLc::open(&AwsLc::key(key), [0; NONCE_LEN], &[], sealed) {
        return Err(Refusal::Metadata);
    }
    sealed.truncate(sealed.len() - TAG_LEN);
    Ok(())
}
