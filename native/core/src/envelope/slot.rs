//! One header slot, and the choice between the two.

use super::layout::*;
use super::Refusal;

/// Most recipients of a file.
pub const RECIPIENTS_MAX: usize = 8;
/// Most bytes of one wrapped data key (ML-KEM-768 + X25519 HPKE takes about 1,170).
pub const WRAPPED_MAX: usize = 1600;
/// Where the recipients begin.
const RECIPIENTS_AT: usize = 120;
/// Where the MAC begins; it covers all before it.
pub const MAC_AT: usize = 4060;
/// Where the CRC begins; it covers all before it.
pub const CRC_AT: usize = 4092;

/// Recipient kind of a key-encryption key of the local key ring.
pub const KIND_LOCAL: u8 = 1;

/// The data key, wrapped for one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// How it is wrapped; [`KIND_LOCAL`] is the only kind this code opens, others are carried along.
    pub kind: u8,
    /// Which key.
    pub key_id: [u8; 16],
    /// Which version of it.
    pub version: u32,
    /// The wrapped data key.
    pub wrapped: Vec<u8>,
}

/// One whole slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Fields that never change.
    pub fixed: Fixed,
    /// Counts re-wraps, from 1; the higher of two slots is in force.
    pub generation: u64,
    /// Who may open the file.
    pub recipients: Vec<Recipient>,
    /// HMAC over all before it.
    pub mac: [u8; 32],
}

/// What stands in a slot's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A slot whose CRC holds and that is as the page says.
    Whole(Box<Slot>),
    /// The magic, but the CRC does not hold: a write was cut off.
    Torn,
    /// No magic.
    Foreign,
    /// The CRC holds, yet the slot is not as the page says: written so on purpose.
    Malformed(Refusal),
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Refusal::Slot)?;
        self.0 = rest;
        Ok(*head)
    }
}

impl Slot {
    /// The bytes under the MAC.
    fn body(&self) -> Result<[u8; MAC_AT], Refusal> {
        let mut out = [0; MAC_AT];
        out[..BOUND_LEN].copy_from_slice(&self.fixed.bound());
        out[72..104].copy_from_slice(&self.fixed.commitment);
        out[104..112].copy_from_slice(&self.generation.to_le_bytes());
        out[112] = self.recipients.len() as u8;
        let mut at = RECIPIENTS_AT;
        for r in &self.recipients {
            let end = at + 23 + r.wrapped.len();
            let place = out.get_mut(at..end).ok_or(Refusal::Slot)?;
            place[0] = r.kind;
            place[1..17].copy_from_slice(&r.key_id);
            place[17..21].copy_from_slice(&r.version.to_le_bytes());
            place[21..23].copy_from_slice(&(r.wrapped.len() as u16).to_le_bytes());
            place[23..].copy_from_slice(&r.wrapped);
            at = end;
        }
        Ok(out)
    }

    /// The whole block, with its MAC made by `mac`.
    pub fn encode(&self, mac: impl FnOnce(&[u8]) -> [u8; 32]) -> Result<[u8; SLOT_LEN], Refusal> {
        if self.recipients.is_empty()
            || self.recipients.len() > RECIPIENTS_MAX
            || self
                .recipients
                .iter()
                .any(|r| r.kind == 0 || r.wrapped.is_empty() || r.wrapped.len() > WRAPPED_MAX)
            || self.generation == 0
        {
            return Err(Refusal::Slot);
        }
        let body = self.body()?;
        let mut out = [0; SLOT_LEN];
        out[..MAC_AT].copy_from_slice(&body);
        out[MAC_AT..CRC_AT].copy_from_slice(&mac(&body));
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        Ok(out)
    }

    /// Whether the MAC that `mac` makes is the one that stands in the slot.
    pub fn mac_holds(
        &self,
        mac: impl FnOnce(&[u8]) -> [u8; 32],
        same: impl FnOnce(&[u8], &[u8]) -> bool,
    ) -> bool {
        self.body().is_ok_and(|body| same(&mac(&body), &self.mac))
    }

    /// Reads what stands in a slot's place.
    pub fn parse(block: &[u8; SLOT_LEN]) -> State {
        if block[..8] != MAGIC {
            return State::Foreign;
        }
        let crc = u32::from_le_bytes(block[CRC_AT..].try_into().expect("four bytes"));
        if crc32c::crc32c(&block[..CRC_AT]) != crc {
            return State::Torn;
        }
        match Self::parse_whole(block) {
            Ok(slot) => State::Whole(Box::new(slot)),
            Err(refusal) => State::Malformed(refusal),
        }
    }

    fn parse_whole(block: &[u8; SLOT_LEN]) -> Result<Slot, Refusal> {
        let mut r = Reader(&block[8..MAC_AT]);
        let [suite, chunk_log2] = r.take()?;
        let flags = u16::from_le_bytes(r.take()?);
        if suite != SUITE || flags != 0 {
            return Err(Refusal::Suite);
        }
        let metadata_len = u32::from_le_bytes(r.take()?);
        let payload_len = u64::from_le_bytes(r.take()?);
        let fixed = Fixed {
            chunk_log2,
            metadata_len,
            payload_len,
            file_id: r.take()?,
            salt: r.take()?,
            commitment: r.take()?,
        };
        if !(CHUNK_LOG2_MIN..=CHUNK_LOG2_MAX).contains(&chunk_log2) || payload_len > PAYLOAD_MAX {
            return Err(Refusal::Slot);
        }
        if metadata_len == 0 || metadata_len > METADATA_MAX || metadata_len % METADATA_PAD != 0 {
            return Err(Refusal::Metadata);
        }
        let generation = u64::from_le_bytes(r.take()?);
        let [count, zeros @ ..] = r.take::<8>()?;
        if generation == 0 || count == 0 || usize::from(count) > RECIPIENTS_MAX || zeros != [0; 7] {
            return Err(Refusal::Slot);
        }
        let mut recipients = Vec::with_capacity(count.into());
        for _ in 0..count {
            let [kind] = r.take()?;
            let (key_id, version) = (r.take()?, u32::from_le_bytes(r.take()?));
            let len = usize::from(u16::from_le_bytes(r.take()?));
            if kind == 0 || len == 0 || len > WRAPPED_MAX || len > r.0.len() {
                return Err(Refusal::Slot);
            }
            let (wrapped, rest) = r.0.split_at(len);
            r.0 = rest;
            recipients.push(Recipient {
                kind,
                key_id,
                version,
                wrapped: wrapped.to_vec(),
            });
        }
        if r.0.iter().any(|&b| b != 0) {
            return Err(Refusal::Slot);
        }
        let mac = block[MAC_AT..CRC_AT].try_into().expect("32 bytes");
        Ok(Slot {
            fixed,
            generation,
            recipients,
            mac,
        })
    }
}

/// Which of the two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At offset 0.
    A,
    /// At offset 4096.
    B,
}

impl Place {
    /// Offset in the file.
    pub fn offset(self) -> u64 {
        match self {
            Place::A => 0,
            Place::B => SLOT_LEN as u64,
        }
    }

    /// The other one.
    pub fn other(self) -> Place {
        match self {
            Place::A => Place::B,
            Place::B => Place::A,
        }
    }
}

/// The slot in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// It.
    pub slot: Slot,
    /// Where it stands.
    pub place: Place,
    /// The other slot, where it is whole as well.
    pub other: Option<Slot>,
}

impl Header {
    /// Chooses between the two slots: the whole one of the highest generation.
    ///
    /// A slot whose CRC holds but that is malformed, or that disagrees with the other, refuses the file: a crash
    /// cannot leave that behind. The chosen slot's MAC is checked later, with the key, and never falls back.
    pub fn read(blocks: &[u8; 2 * SLOT_LEN]) -> Result<Header, Refusal> {
        let half = |at: usize| Slot::parse(blocks[at..at + SLOT_LEN].try_into().expect("a block"));
        match (half(0), half(SLOT_LEN)) {
            (State::Foreign, State::Foreign) => Err(Refusal::Magic),
            (State::Malformed(refusal), _) | (_, State::Malformed(refusal)) => Err(refusal),
            (State::Whole(a), State::Whole(b)) => {
                if a.fixed != b.fixed || a.generation == b.generation {
                    return Err(Refusal::Slot);
                }
                let (slot, other, place) = if a.generation > b.generation {
                    (*a, *b, Place::A)
                } else {
                    (*b, *a, Place::B)
                };
                Ok(Header {
                    slot,
                    place,
                    other: Some(other),
                })
            }
            (State::Whole(slot), _) => Ok(Header {
                slot: *slot,
                place: Place::A,
                other: None,
            }),
            (_, State::Whole(slot)) => Ok(Header {
                slot: *slot,
                place: Place::B,
                other: None,
            }),
            _ => Err(Refusal::Crc),
        }
    }
}

/// CRC-32C, as the slots have it.
pub fn crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}
