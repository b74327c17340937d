//! Why a sealed file was refused: one case per layer.

use std::fmt;

/// The layer that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither slot begins with the magic.
    Magic,
    /// A slot is whole (its CRC holds) but not as the page says.
    Slot,
    /// No slot is whole.
    Crc,
    /// The cipher suite, or a flag, is unknown.
    Suite,
    /// No recipient can be opened with the keys at hand.
    Recipient,
    /// The key is known, this version of it is not.
    Version(u32),
    /// The slot's MAC does not hold.
    HeaderMac,
    /// The data key does not commit to this file.
    Commitment,
    /// The metadata's tag does not hold, or it is not canonical.
    Metadata,
    /// This chunk's tag does not hold.
    Chunk(u64),
    /// The content's digest does not hold.
    Digest,
    /// The file is shorter than its header says.
    Truncated,
    /// The file is longer than its header says.
    Trailing,
}

impl Refusal {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::Magic => "envelope.magic",
            Refusal::Slot => "envelope.slot",
            Refusal::Crc => "envelope.crc",
            Refusal::Suite => "envelope.suite",
            Refusal::Recipient => "envelope.recipient",
            Refusal::Version(_) => "keys.version",
            Refusal::HeaderMac => "envelope.header-mac",
            Refusal::Commitment => "envelope.commitment",
            Refusal::Metadata => "envelope.metadata",
            Refusal::Chunk(_) => "envelope.chunk",
            Refusal::Digest => "envelope.chunk",
            Refusal::Truncated => "envelope.truncated",
            Refusal::Trailing => "envelope.trailing",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Magic => f.write_str("not a sealed file"),
            Refusal::Slot => f.write_str("header slot is malformed"),
            Refusal::Crc => f.write_str("no header slot is whole"),
            Refusal::Suite => f.write_str("unknown cipher suite"),
            Refusal::Recipient => f.write_str("no key of ours opens any of its recipients"),
            Refusal::Version(version) => write!(f, "key version {version} is not among our keys"),
            Refusal::HeaderMac => f.write_str("header was tampered with"),
            Refusal::Commitment => f.write_str("data key does not commit to this file"),
            Refusal::Metadata => f.write_str("sealed metadata was tampered with or is malformed"),
            Refusal::Chunk(index) => write!(f, "content was tampered with (chunk {index})"),
            Refusal::Digest => {
                f.write_str("content does not have the digest that was sealed with it")
            }
            Refusal::Truncated => f.write_str("sealed file is cut short"),
            Refusal::Trailing => f.write_str("bytes after the end of the sealed file"),
        }
    }
}

impl std::error::Error for Refusal {}
