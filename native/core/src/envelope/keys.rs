//! From the data key to every other key, and the data key under a key-encryption key.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::layout::Fixed;
use super::slot::{Recipient, Slot, KIND_LOCAL};
use super::suite::{AwsLc, Suite, KEY_LEN, NONCE_LEN, TAG_LEN};
use super::Refusal;

/// Bytes of a wrapped secret beside the secret: salt and tag.
pub const WRAP_OVERHEAD: usize = 32 + TAG_LEN;
const SECRET_MAGIC: [u8; 8] = *b"SHLDWRP\x01";
const SECRET_HEAD: usize = 8 + 16 + 4;

/// The random key of one file; used only to derive. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey(pub [u8; KEY_LEN]);

/// What is derived from the data key and the fixed fields. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct FileKeys {
    /// HMAC key of the slots.
    pub header: [u8; KEY_LEN],
    /// AEAD key of the metadata.
    pub metadata: [u8; KEY_LEN],
    /// AEAD key of the payload.
    pub payload: [u8; KEY_LEN],
    /// What stands in the fixed fields when this is the file's key.
    pub commitment: [u8; KEY_LEN],
}

impl FileKeys {
    /// `PRK = HKDF-Extract(salt, DEK)`, each key `HKDF-Expand(PRK, "shield/1/NAME" || SHA-256(bytes 0..72), 32)`.
    /// The commitment inside `fixed` is not read.
    pub fn derive(key: &DataKey, fixed: &Fixed) -> FileKeys {
        let binding = fixed.binding();
        let mut keys = FileKeys {
            header: [0; 32],
            metadata: [0; 32],
            payload: [0; 32],
            commitment: [0; 32],
        };
        AwsLc::derive(
            &fixed.salt,
            &key.0,
            &mut [
                (&[b"shield/1/header", &binding], &mut keys.header),
                (&[b"shield/1/metadata", &binding], &mut keys.metadata),
                (&[b"shield/1/payload", &binding], &mut keys.payload),
                (&[b"shield/1/commitment", &binding], &mut keys.commitment),
            ],
        );
        keys
    }

    /// The keys of an existing file: the commitment is checked first, then the slot's MAC.
    pub fn check(key: &DataKey, slot: &Slot) -> Result<FileKeys, Refusal> {
        let keys = FileKeys::derive(key, &slot.fixed);
        if !AwsLc::same(&keys.commitment, &slot.fixed.commitment) {
            return Err(Refusal::Commitment);
        }
        if !slot.mac_holds(|body| AwsLc::mac(&keys.header, body), AwsLc::same) {
            return Err(Refusal::HeaderMac);
        }
        Ok(keys)
    }

    /// The slot as bytes, with its MAC.
    pub fn encode(&self, slot: &Slot) -> Result<[u8; super::layout::SLOT_LEN], Refusal> {
        slot.encode(|body| AwsLc::mac(&self.header, body))
    }
}

/// `key id || version`, as the wraps bind it.
fn named(key_id: &[u8; 16], version: u32) -> [u8; 20] {
    let mut out = [0; 20];
    out[..16].copy_from_slice(key_id);
    out[16..].copy_from_slice(&version.to_le_bytes());
    out
}

/// `salt || AES-256-GCM(HKDF(KEK, salt, label || context), nonce 0, secret)`: the key of every wrap is used once,
/// so a key-encryption key has no limit on the number of wraps that matters.
fn wrap_under(
    kek: &[u8; KEY_LEN],
    salt: [u8; 32],
    label: &[u8],
    context: &[&[u8]],
    secret: &[u8],
) -> Vec<u8> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let info: Vec<&[u8]> = std::iter::once(label)
        .chain(context.iter().copied())
        .collect();
    AwsLc::derive(&salt, kek, &mut [(&info, &mut key)]);
    let mut out = Vec::with_capacity(secret.len() + WRAP_OVERHEAD);
    out.extend_from_slice(&salt);
    out.extend_from_slice(secret);
    let tag = AwsLc::seal(&AwsLc::key(&key), [0; NONCE_LEN], &[], &mut out[32..]);
    out.extend_from_slice(&tag);
    out
}

fn unwrap_under(
    kek: &[u8; KEY_LEN],
    wrapped: &[u8],
    label: &[u8],
    context: &[&[u8]],
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    if wrapped.len() < WRAP_OVERHEAD {
        return Err(Refusal::Recipient);
    }
    let (salt, sealed) = wrapped.split_at(32);
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let info: Vec<&[u8]> = std::iter::once(label)
        .chain(context.iter().copied())
        .collect();
    AwsLc::derive(salt, kek, &mut [(&info, &mut key)]);
    let mut data = Zeroizing::new(sealed.to_vec());
    if !AwsLc::open(&AwsLc::key(&key), [0; NONCE_LEN], &[], &mut data) {
        return Err(Refusal::Recipient);
    }
    let len = data.len() - TAG_LEN;
    data.truncate(len);
    Ok(data)
}

/// The data key for a local key-encryption key, bound to the file by `binding`.
pub fn wrap(
    kek: &[u8; KEY_LEN],
    key_id: [u8; 16],
    version: u32,
    binding: &[u8; 32],
    key: &DataKey,
    salt: [u8; 32],
) -> Recipient {
    let context = named(&key_id, version);
    let wrapped = wrap_under(
        kek,
        salt,
        b"shield/1/wrap",
        &[binding, &[KIND_LOCAL], &context],
        &key.0,
    );
    Recipient {
        kind: KIND_LOCAL,
        key_id,
        version,
        wrapped,
    }
}

/// The data key back; [`Refusal::Recipient`] where the wrap is another key's, another file's, or damaged.
pub fn unwrap(
    kek: &[u8; KEY_LEN],
    recipient: &Recipient,
    binding: &[u8; 32],
) -> Result<DataKey, Refusal> {
    let context = named(&recipient.key_id, recipient.version);
    let plain = unwrap_under(
        kek,
        &recipient.wrapped,
        b"shield/1/wrap",
        &[binding, &[recipient.kind], &context],
    )?;
    plain
        .as_slice()
        .try_into()
        .map(DataKey)
        .map_err(|_| Refusal::Recipient)
}

/// A small secret under a key of the ring: magic, key id, version, wrap. `context` must be given again to unwrap.
pub fn wrap_secret(
    kek: &[u8; KEY_LEN],
    key_id: [u8; 16],
    version: u32,
    context: &[u8],
    secret: &[u8],
    salt: [u8; 32],
) -> Vec<u8> {
    let name = named(&key_id, version);
    let mut out = Vec::with_capacity(SECRET_HEAD + secret.len() + WRAP_OVERHEAD);
    out.extend_from_slice(&SECRET_MAGIC);
    out.extend_from_slice(&name);
    out.extend(wrap_under(
        kek,
        salt,
        b"shield/1/secret",
        &[&name, context],
        secret,
    ));
    out
}

/// Which key a wrapped secret asks for.
pub fn secret_key(wrapped: &[u8]) -> Result<([u8; 16], u32), Refusal> {
    if wrapped.len() < SECRET_HEAD + WRAP_OVERHEAD || wrapped[..8] != SECRET_MAGIC {
        return Err(Refusal::Recipient);
    }
    let key_id = wrapped[8..24].try_into().expect("16 bytes");
    Ok((
        key_id,
        u32::from_le_bytes(wrapped[24..28].try_into().expect("four bytes")),
    ))
}

/// The secret back.
pub fn unwrap_secret(
    kek: &[u8; KEY_LEN],
    context: &[u8],
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let (key_id, version) = secret_key(wrapped)?;
    unwrap_under(
        kek,
        &wrapped[SECRET_HEAD..],
        b"shield/1/secret",
        &[&named(&key_id, version), context],
    )
}
