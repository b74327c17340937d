//! A small LZMA decoder, for one purpose: 7-Zip compresses its headers, and whether a file in the archive is encrypted
//! stands in there. Decodes at most [`MOST`] bytes.
//!
//! Source: the LZMA specification of the LZMA SDK.

use super::archive::AES;
use super::read::find;

/// Most decoded bytes of a header.
const MOST: usize = 16 * 1024;

/// Whether a compressed 7z header (type 0x17), decoded, names the AES coder; `pack` gives packed bytes by offset and
/// length, where the samples hold them. False where it cannot be told.
pub fn header_names_aes<'a>(header: &[u8], pack: impl Fn(u64, usize) -> Option<&'a [u8]>) -> bool {
    decode(header, pack).is_some_and(|plain| find(&plain, AES).is_some())
}

/// Numbers of a 7z header, in order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let mut value = 0u64;
        let mut mask = 0x80u8;
        for i in 0..8 {
            if first & mask == 0 {
                return Some(value | u64::from(first & (mask - 1)) << (8 * i));
            }
            value |= u64::from(self.byte()?) << (8 * i);
            mask >>= 1;
        }
        Some(value)
    }
}

fn decode<'a>(header: &[u8], pack: impl Fn(u64, usize) -> Option<&'a [u8]>) -> Option<Vec<u8>> {
    let mut f = Fields(header);
    if f.byte()? != 0x17 || f.byte()? != 0x06 {
        return None;
    }
    let offset = f.number()?;
    if f.number()? != 1 || f.byte()? != 0x09 {
        return None;
    }
    let packed = usize::try_from(f.number()?).ok()?;
    let mut next = f.byte()?;
    if next == 0x0a {
        f.byte()?;
        f.0 = f.0.get(4..)?;
        next = f.byte()?;
    }
    if next != 0 || f.byte()? != 0x07 || f.byte()? != 0x0b || f.number()? != 1 || f.byte()? != 0 {
        return None;
    }
    if f.number()? != 1 || f.byte()? != 0x23 || f.0.get(..3)? != [3, 1, 1] {
        return None;
    }
    f.0 = &f.0[3..];
    if f.number()? != 5 {
        return None;
    }
    let properties = f.byte()?;
    f.0 = f.0.get(4..)?;
    if f.byte()? != 0x0c {
        return None;
    }
    let length = usize::try_from(f.number()?).ok()?.min(MOST);
    lzma(properties, pack(offset, packed)?, length)
}

const TOP: u32 = 1 << 24;

struct Coder<'a> {
    bytes: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl Coder<'_> {
    fn normalize(&mut self) -> Option<()> {
        if self.range < TOP {
            self.range <<= 8;
            self.code = self.code << 8 | u32::from(*self.bytes.get(self.at)?);
            self.at += 1;
        }
        Some(())
    }
    fn bit(&mut self, p: &mut u16) -> Option<usize> {
        let bound = (self.range >> 11) * u32::from(*p);
        let bit = if self.code < bound {
            *p += (2048 - *p) >> 5;
            self.range = bound;
            0
        } else {
            *p -= *p >> 5;
            self.range -= bound;
            self.code -= bound;
            1
        };
        self.normalize()?;
        Some(bit)
    }
    fn tree(&mut self, probabilities: &mut [u16], bits: u32) -> Option<usize> {
        let mut m = 1;
        for _ in 0..bits {
            m = m << 1 | self.bit(&mut probabilities[m])?;
        }
        Some(m - (1 << bits))
    }
    fn reverse(&mut self, probabilities: &mut [u16], bits: u32) -> Option<usize> {
        let (mut m, mut value) = (1, 0);
        for i in 0..bits {
            let bit = self.bit(&mut probabilities[m])?;
            m = m << 1 | bit;
            value |= bit << i;
        }
        Some(value)
    }
    fn direct(&mut self, bits: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..bits {
            self.range >>= 1;
            let bit = u32::from(self.code >= self.range);
            if bit == 1 {
                self.code -= self.range;
            }
            value = value << 1 | bit;
            self.normalize()?;
        }
        Some(value)
    }
}

const HALF: u16 = 1024;

struct Lengths {
    choice: [u16; 2],
    low: [[u16; 8]; 16],
    middle: [[u16; 8]; 16],
    high: [u16; 256],
}

impl Lengths {
    fn new() -> Self {
        Lengths {
            choice: [HALF; 2],
            low: [[HALF; 8]; 16],
            middle: [[HALF; 8]; 16],
            high: [HALF; 256],
        }
    }
    fn decode(&mut self, rc: &mut Coder<'_>, position: usize) -> Option<usize> {
        if rc.bit(&mut self.choice[0])? == 0 {
            return rc.tree(&mut self.low[position], 3);
        }
        if rc.bit(&mut self.choice[1])? == 0 {
            return Some(8 + rc.tree(&mut self.middle[position], 3)?);
        }
        Some(16 + rc.tree(&mut self.high, 8)?)
    }
}

/// Decodes LZMA1 data of known length; what was decoded before an error or the end of the input is returned.
fn lzma(properties: u8, bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let (lc, rest) = (u32::from(properties % 9), properties / 9);
    let (lp, pb) = (u32::from(rest % 5), u32::from(rest / 5));
    if pb > 4 || lc + lp > 4 || bytes.len() < 5 || bytes[0] != 0 {
        return None;
    }
    let mut rc = Coder {
        bytes,
        at: 5,
        range: u32::MAX,
        code: u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]),
    };
    let mut out: Vec<u8> = Vec::with_capacity(length);
    let mut literals = vec![HALF; 0x300 << (lc + lp)];
    let mut is_match = [[HALF; 16]; 12];
    let mut is_rep = [HALF; 12];
    let mut rep_g = [[HALF; 12]; 3];
    let mut rep0_long = [[HALF; 16]; 12];
    let mut slots = [[HALF; 64]; 4];
    let mut special = [HALF; 128];
    let mut align = [HALF; 16];
    let (mut len, mut rep_len) = (Lengths::new(), Lengths::new());
    let mut reps = [0usize; 4];
    let mut state = 0usize;
    let mut step = |out: &mut Vec<u8>| -> Option<()> {
        let position = out.len() & ((1 << pb) - 1);
        if rc.bit(&mut is_match[state][position])? == 0 {
            let previous = usize::from(out.last().copied().unwrap_or(0));
            let context = ((out.len() & ((1 << lp) - 1)) << lc) + (previous >> (8 - lc));
            let table = &mut literals[0x300 * context..][..0x300];
            let mut symbol = 1usize;
            if state >= 7 {
                let mut matched = usize::from(*out.get(out.len().checked_sub(reps[0] + 1)?)?);
                while symbol < 0x100 {
                    let expected = matched >> 7 & 1;
                    matched <<= 1;
                    let bit = rc.bit(&mut table[((1 + expected) << 8) + symbol])?;
                    symbol = symbol << 1 | bit;
                    if bit != expected {
                        break;
                    }
                }
            }
            while symbol < 0x100 {
                symbol = symbol << 1 | rc.bit(&mut table[symbol])?;
            }
            out.push(symbol as u8);
            state = match state {
                0..=3 => 0,
                4..=9 => state - 3,
                _ => state - 6,
            };
            return Some(());
        }
        let mut copy;
        if rc.bit(&mut is_rep[state])? != 0 {
            if rc.bit(&mut rep_g[0][state])? == 0 {
                if rc.bit(&mut rep0_long[state][position])? == 0 {
                    state = if state < 7 { 9 } else { 11 };
                    let byte = *out.get(out.len().checked_sub(reps[0] + 1)?)?;
                    out.push(byte);
                    return Some(());
                }
            } else {
                let which = if rc.bit(&mut rep_g[1][state])? == 0 {
                    1
                } else {
                    2 + rc.bit(&mut rep_g[2][state])?
                };
                let distance = reps[which];
                reps.copy_within(0..which, 1);
                reps[0] = distance;
            }
            copy = rep_len.decode(&mut rc, position)?;
            state = if state < 7 { 8 } else { 11 };
        } else {
            reps.copy_within(0..3, 1);
            copy = len.decode(&mut rc, position)?;
            state = if state < 7 { 7 } else { 10 };
            let slot = rc.tree(&mut slots[copy.min(3)], 6)?;
            reps[0] = if slot < 4 {
                slot
            } else {
                let bits = (slot >> 1) as u32 - 1;
                let base = (2 | (slot & 1)) << bits;
                if slot < 14 {
                    base + rc.reverse(&mut special[base - slot..], bits)?
                } else {
                    base + ((rc.direct(bits - 4)? as usize) << 4) + rc.reverse(&mut align, 4)?
                }
            };
        }
        copy += 2;
        let from = out.len().checked_sub(reps[0] + 1)?;
        for i in 0..copy.min(length.saturating_sub(out.len())) {
            out.push(out[from + i]);
        }
        Some(())
    };
    while out.len() < length {
        if step(&mut out).is_none() {
            break;
        }
    }
    Some(out)
}
