//! Decodes the first bytes of a compressed stream, to see that it is one: deflate, LZ4 blocks.

use miniz_oxide::inflate::core::{decompress, inflate_flags, DecompressorOxide};
use miniz_oxide::inflate::TINFLStatus;

/// Most decoded bytes that are asked for.
pub const DECODED: usize = 4096;

/// What a decoder said of the first bytes of a stream.
pub struct Decoded {
    /// Decoded bytes in the buffer.
    pub length: usize,
    /// The stream ended within the sample.
    pub ended: bool,
}

/// Decodes a raw deflate stream's head into `out`; none where it is not one.
///
/// `complete` says that the stream must end within `bytes`.
pub fn deflate(bytes: &[u8], zlib: bool, out: &mut [u8; DECODED]) -> Option<Decoded> {
    let mut state = DecompressorOxide::new();
    let mut flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    if zlib {
        flags |= inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER;
    }
    let (status, _, length) = decompress(&mut state, bytes, &mut out[..], 0, flags);
    match status {
        TINFLStatus::Done => Some(Decoded {
            length,
            ended: true,
        }),
        TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => Some(Decoded {
            length,
            ended: false,
        }),
        _ => None,
    }
}

/// Whether the head of an LZ4 block is one: every offset reaches back no further than what was decoded.
///
/// `whole` says that `bytes` is the whole block.
pub fn lz4_block(bytes: &[u8], whole: bool) -> bool {
    let mut at = 0usize;
    let mut produced = 0usize;
    let length = |at: &mut usize, nibble: u8| -> Option<usize> {
        let mut n = usize::from(nibble);
        if nibble == 15 {
            loop {
                let b = *bytes.get(*at)?;
                *at += 1;
                n += usize::from(b);
                if b != 255 {
                    break;
                }
            }
        }
        Some(n)
    };
    while at < bytes.len() {
        let token = bytes[at];
        at += 1;
        let Some(literals) = length(&mut at, token >> 4) else {
            return !whole;
        };
        at += literals;
        produced += literals;
        if at == bytes.len() {
            return true; // the last sequence has literals only
        }
        if at + 2 > bytes.len() {
            return !whole;
        }
        let offset = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
        if offset == 0 || offset > produced {
            return false;
        }
        let Some(matched) = length(&mut at, token & 15) else {
            return !whole;
        };
        produced += matched + 4;
    }
    !whole || produced > 0
}
