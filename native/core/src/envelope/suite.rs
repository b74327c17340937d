//! The primitives of suite 1 behind one trait, so that the library can change without the format.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_256_GCM};
use aws_lc_rs::{constant_time, digest, hkdf, hmac};

/// Bytes of every key, digest and MAC here.
pub const KEY_LEN: usize = 32;
/// Bytes of an AEAD tag.
pub const TAG_LEN: usize = 16;
/// Bytes of an AEAD nonce.
pub const NONCE_LEN: usize = 12;

/// What a suite must offer. All functions are deterministic.
pub trait Suite {
    /// An expanded AEAD key; wiped by the library when dropped.
    type Key: Send + Sync;
    /// Expands `key`.
    fn key(key: &[u8; KEY_LEN]) -> Self::Key;
    /// Encrypts `data` in place, returns the tag.
    fn seal(key: &Self::Key, nonce: [u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> [u8; TAG_LEN];
    /// Decrypts `data` (ciphertext, then tag) in place; `false`: the tag does not hold and `data` is worthless.
    #[must_use]
    fn open(key: &Self::Key, nonce: [u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> bool;
    /// HKDF: one extract, one expand into each `(info, out)`.
    fn derive(salt: &[u8], secret: &[u8], outputs: &mut [(&[&[u8]], &mut [u8; KEY_LEN])]);
    /// HMAC of `data`.
    fn mac(key: &[u8; KEY_LEN], data: &[u8]) -> [u8; KEY_LEN];
    /// Hash of `data`.
    fn hash(data: &[u8]) -> [u8; KEY_LEN];
    /// Compares in constant time.
    fn same(a: &[u8], b: &[u8]) -> bool;
}

/// AES-256-GCM, HKDF-SHA-256, HMAC-SHA-256, SHA-256 by AWS-LC.
pub struct AwsLc;

struct Len;

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

impl Suite for AwsLc {
    type Key = LessSafeKey;

    fn key(key: &[u8; KEY_LEN]) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are an AES-256 key"))
    }

    fn seal(
        key: &LessSafeKey,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data)
            .expect("a chunk is far below the limit of AES-GCM");
        tag.as_ref()
            .try_into()
            .expect("an AES-GCM tag has 16 bytes")
    }

    fn open(key: &LessSafeKey, nonce: [u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> bool {
        key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), data)
            .is_ok()
    }

    fn derive(salt: &[u8], secret: &[u8], outputs: &mut [(&[&[u8]], &mut [u8; KEY_LEN])]) {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
        for (info, out) in outputs {
            prk.expand(info, Len)
                .and_then(|okm| okm.fill(*out))
                .expect("32 bytes are within HKDF's limit");
        }
    }

    fn mac(key: &[u8; KEY_LEN], data: &[u8]) -> [u8; KEY_LEN] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }

    fn hash(data: &[u8]) -> [u8; KEY_LEN] {
        digest::digest(&digest::SHA256, data)
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes")
    }

    fn same(a: &[u8], b: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(a, b).is_ok()
    }
}

/// Runs each primitive on a published answer.
///
/// Sources: the GCM specification, test case 16; RFC 5869, test case 1; RFC 4231, test case 2; FIPS 180-4, "abc".
///
/// Returns the name of the first primitive that failed.
pub fn self_test<S: Suite>() -> Result<(), &'static str> {
    let key = S::key(&hex(
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
    ));
    let nonce: [u8; NONCE_LEN] = hex("cafebabefacedbaddecaf888");
    let aad: [u8; 20] = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let plain: [u8; 60] = hex(concat!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    ));
    let cipher: [u8; 76] = hex(concat!(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b"
    ));
    let mut data = plain;
    let tag = S::seal(&key, nonce, &aad, &mut data);
    if data[..] != cipher[..60] || tag[..] != cipher[60..] {
        return Err("aead seal");
    }
    let mut data = cipher;
    if !S::open(&key, nonce, &aad, &mut data) || data[..60] != plain[..] {
        return Err("aead open");
    }
    let mut data = cipher;
    data[75] ^= 1;
    if S::open(&key, nonce, &aad, &mut data) {
        return Err("aead accepts a wrong tag");
    }
    let mut okm = [0; KEY_LEN];
    let info: [u8; 10] = hex("f0f1f2f3f4f5f6f7f8f9");
    S::derive(
        &hex::<13>("000102030405060708090a0b0c"),
        &[0x0b; 22],
        &mut [(&[&info[..4], &info[4..]], &mut okm)],
    );
    if okm != hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf") {
        return Err("hkdf");
    }
    let mut jefe = [0; KEY_LEN];
    jefe[..4].copy_from_slice(b"Jefe");
    let answer: [u8; KEY_LEN] =
        hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    if S::mac(&jefe, b"what do ya want for nothing?") != answer {
        return Err("hmac");
    }
    if S::hash(b"abc") != hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") {
        return Err("hash");
    }
    Ok(())
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(self_test::<AwsLc>(), Ok(()));
    }
}
