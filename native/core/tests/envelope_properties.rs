//! Whatever bytes come, the parsers of the sealed file answer and do not panic; what they accept, they write again.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use shieldd_core::envelope::chunk::{open_metadata, seal_metadata, PayloadKey};
use shieldd_core::envelope::keys::{self, DataKey, FileKeys};
use shieldd_core::envelope::layout::{Fixed, MAGIC, SLOT_LEN};
use shieldd_core::envelope::metadata::{Extent, Metadata};
use shieldd_core::envelope::slot::{crc, Header, Recipient, Slot, State, CRC_AT};
use shieldd_core::envelope::Refusal;

fn fixed() -> impl Strategy<Value = Fixed> {
    (
        12..=22u8,
        1..=4096u32,
        0..1u64 << 40,
        any::<[u8; 16]>(),
        any::<[u8; 32]>(),
    )
        .prop_map(|(chunk_log2, pads, payload_len, file_id, salt)| Fixed {
            chunk_log2,
            metadata_len: pads * 256,
            payload_len,
            file_id,
            salt,
            commitment: [0; 32],
        })
}

fn recipient() -> impl Strategy<Value = Recipient> {
    (
        1..=255u8,
        any::<[u8; 16]>(),
        any::<u32>(),
        vec(any::<u8>(), 1..400),
    )
        .prop_map(|(kind, key_id, version, wrapped)| Recipient {
            kind,
            key_id,
            version,
            wrapped,
        })
}

prop_compose! {
    fn metadata()(
        name in vec(1..=255u8, 1..200).prop_map(|mut n| { n.iter_mut().filter(|b| **b == b'/' || **b == b'.').for_each(|b| *b = b'x'); n }),
        mode in 0..=0o7777u32, uid in any::<u32>(), gid in any::<u32>(),
        user in vec(any::<u8>(), 0..64), atime_ns in any::<i64>(), mtime_ns in any::<i64>(),
        gaps in vec((1..1u64 << 30, 1..1u64 << 30), 0..50), tail in 0..1u64 << 30,
        xattrs in btree_map(vec(1..=255u8, 1..40), vec(any::<u8>(), 0..300), 0..8),
        digest in any::<[u8; 32]>(), purpose in any::<u8>(), why in ".{0,200}", sealed_at_ns in any::<i64>(),
    ) -> Metadata {
        let mut extents = Vec::new();
        let mut end = 0;
        for (gap, len) in gaps {
            extents.push(Extent { at: end + gap, len });
            end += gap + len;
        }
        Metadata {
            name, mode, uid, gid, group: user.clone(), user, atime_ns, mtime_ns, size: end + tail, extents,
            xattrs: xattrs.into_iter().collect(), digest, purpose, why, sealed_at_ns, host_id: Vec::new(),
        }
    }
}

proptest! {
    #[test]
    fn slots_come_back(fixed in fixed(), generation in 1..=u64::MAX, recipients in vec(recipient(), 1..=8), key: [u8; 32]) {
        let keys = FileKeys::derive(&DataKey(key), &fixed);
        let fixed = Fixed { commitment: keys.commitment, ..fixed };
        let slot = Slot { fixed, generation, recipients, mac: [0; 32] };
        let block = keys.encode(&slot).unwrap();
        let State::Whole(read) = Slot::parse(&block) else { panic!("not whole") };
        prop_assert_eq!(&Slot { mac: read.mac, ..slot }, read.as_ref());
        prop_assert!(FileKeys::check(&DataKey(key), &read).is_ok());
        let mut other = key;
        other[0] ^= 1;
        prop_assert_eq!(FileKeys::check(&DataKey(other), &read).err(), Some(Refusal::Commitment));
    }

    #[test]
    fn any_slot_with_a_right_crc_is_answered(mut bytes in vec(any::<u8>(), SLOT_LEN), zeros in 0..SLOT_LEN) {
        bytes[zeros..].fill(0);
        bytes[..8].copy_from_slice(&MAGIC);
        let sum = crc(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&sum.to_le_bytes());
        let block: [u8; SLOT_LEN] = bytes.try_into().unwrap();
        if let State::Whole(slot) = Slot::parse(&block) {
            let again = slot.encode(|_| slot.mac).unwrap();
            prop_assert_eq!(&again[..], &block[..]);
        }
    }

    #[test]
    fn one_changed_byte_is_torn(fixed in fixed(), at in 8..SLOT_LEN, change in 1..=255u8) {
        let slot = Slot { fixed, generation: 1, mac: [0; 32],
            recipients: vec![Recipient { kind: 1, key_id: [0; 16], version: 0, wrapped: vec![1] }] };
        let mut block = slot.encode(|_| [7; 32]).unwrap();
        block[at] ^= change;
        prop_assert_eq!(Slot::parse(&block), State::Torn);
    }

    #[test]
    fn any_two_blocks_are_answered(bytes in vec(any::<u8>(), 2 * SLOT_LEN)) {
        prop_assert_eq!(Header::read(&bytes.try_into().unwrap()), Err(Refusal::Magic));
    }

    #[test]
    fn metadata_comes_back(metadata in metadata(), other: [u8; 32]) {
        let padded = metadata.encode().unwrap();
        prop_assert_eq!(padded.len() % 256, 0);
        prop_assert_eq!(&Metadata::decode(&padded).unwrap(), &metadata);
        let placeholder = Metadata { digest: other, ..metadata };
        prop_assert_eq!(placeholder.encode().unwrap().len(), padded.len());
    }

    #[test]
    fn what_is_accepted_as_metadata_is_canonical(metadata in metadata(), at: prop::sample::Index, change in 1..=255u8) {
        let mut padded = metadata.encode().unwrap();
        let at = at.index(padded.len());
        padded[at] ^= change;
        if let Ok(read) = Metadata::decode(&padded) {
            prop_assert_eq!(read.encode().unwrap(), padded);
        }
    }

    #[test]
    fn any_metadata_is_answered(bytes in vec(any::<u8>(), 0..2000)) {
        if let Ok(read) = Metadata::decode(&bytes) {
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn chunks_open_only_in_their_place(payload_len in 0..200_000u64, key: [u8; 32], data in vec(any::<u8>(), 0..500)) {
        let fixed = Fixed { chunk_log2: 12, metadata_len: 256, payload_len, file_id: [0; 16], salt: [0; 32], commitment: [0; 32] };
        let payload = PayloadKey::new(&key, &fixed);
        let last = fixed.chunks() - 1;
        let mut chunk = [&data[..], &[0; 16]].concat();
        payload.seal(last, &mut chunk);
        prop_assert_eq!(payload.open(last + 1, &mut chunk.clone()), Err(Refusal::Chunk(last + 1)));
        if last > 0 {
            prop_assert_eq!(payload.open(last - 1, &mut chunk.clone()), Err(Refusal::Chunk(last - 1)));
        }
        prop_assert_eq!(payload.open(last, &mut chunk), Ok(()));
        prop_assert_eq!(&chunk[..data.len()], &data[..]);
    }

    #[test]
    fn secrets_come_back_only_in_their_context(kek: [u8; 32], secret in vec(any::<u8>(), 0..200), context in vec(any::<u8>(), 0..40)) {
        let wrapped = keys::wrap_secret(&kek, [3; 16], 9, &context, &secret, [5; 32]);
        prop_assert_eq!(keys::secret_key(&wrapped), Ok(([3; 16], 9)));
        prop_assert_eq!(keys::unwrap_secret(&kek, &context, &wrapped).unwrap().to_vec(), secret);
        let other = [&context[..], b"x"].concat();
        prop_assert!(keys::unwrap_secret(&kek, &other, &wrapped).is_err());
    }

    #[test]
    fn any_wrapped_secret_is_answered(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(keys::unwrap_secret(&[0; 32], b"", &bytes).is_err());
    }

    #[test]
    fn lengths_add_up(fixed in fixed()) {
        let plain: u64 = if fixed.chunks() < 10_000 { (0..fixed.chunks()).map(|i| fixed.chunk_plain(i)).sum() } else { fixed.payload_len };
        prop_assert_eq!(plain, fixed.payload_len);
        prop_assert_eq!(fixed.chunk_at(fixed.chunks() - 1) + fixed.chunk_plain(fixed.chunks() - 1) + 16, fixed.total());
        prop_assert_eq!(fixed.check_length(fixed.total() - 1), Err(Refusal::Truncated));
        prop_assert_eq!(fixed.check_length(fixed.total() + 1), Err(Refusal::Trailing));
    }
}

#[test]
fn metadata_opens_only_under_its_key() {
    let mut sealed = vec![7; 256];
    seal_metadata(&[1; 32], &mut sealed);
    assert_eq!(
        open_metadata(&[2; 32], &mut sealed.clone()),
        Err(Refusal::Metadata)
    );
    assert_eq!(open_metadata(&[1; 32], &mut sealed), Ok(()));
    assert_eq!(sealed, vec![7; 256]);
}
