//! Checks of compressed streams: gzip, bzip2, xz, zstd, lz4, lzip, lzop, lzma, compress, zlib, snappy, lrzip.

use super::checksum::{adler32, crc32, xxh32_short};
use super::formats::{Check, Context};
use super::inflate::lz4_block;
use super::read::{be32, le16, le32, le64};

/// Where a gzip member's deflate data start.
fn gzip_body(head: &[u8]) -> Option<usize> {
    let bits = *head.get(3)?;
    if bits & 0xe0 != 0 {
        return None;
    }
    let mut at = 10usize;
    if bits & 4 != 0 {
        at += 2 + usize::from(le16(head, at)?);
    }
    for bit in [8, 16] {
        if bits & bit != 0 {
            at += memchr::memchr(0, head.get(at..)?)? + 1;
        }
    }
    if bits & 2 != 0 {
        at += 2;
    }
    Some(at)
}

/// Gzip: header, the first bytes decoded, and a length at the end that the size allows.
pub fn gzip(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let body = head.get(gzip_body(head)?..)?;
    let Some(decoded) = c.inflates(body, false) else {
        return Check::both(false);
    };
    let end = c.end();
    let length = u64::from(le32(end, end.len().checked_sub(4)?)?);
    let size = c.size();
    // one member: deflate grows by at most 5 bytes in 16 KiB, and shrinks at most 1032 times; several members, padding
    // and files beyond 4 GiB are beyond this check
    let fits = size >= 1 << 32
        || (length <= size.saturating_mul(1032) && length + length / 2000 + 64 + 4096 >= size);
    let whole = !decoded.ended || !c.samples.complete || decoded.length as u64 <= length;
    Some(Check {
        structure: fits && whole,
        tail: fits && whole,
        decoded: true,
        ..Check::default()
    })
}

/// Zlib: two header bytes that are a multiple of 31, and the first bytes decoded.
pub fn zlib(c: &Context<'_>) -> Option<Check> {
    let decoded = c.inflates(c.head(), true)?;
    (decoded.length > 0).then_some(Check {
        structure: true,
        tail: decoded.ended || !c.samples.complete,
        decoded: true,
        ..Check::default()
    })
}

const BLOCK: &[u8] = b"\x31\x41\x59\x26\x53\x59";
const LAST: u64 = 0x1772_4538_5090;

/// Bzip2: magic of the first block, and the end-of-stream magic at its bit offset in the last bytes.
pub fn bzip2(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if !head.get(3)?.is_ascii_digit() || head[3] == b'0' {
        return None;
    }
    let start = head.get(4..10)?;
    let first = start == BLOCK || start == &LAST.to_be_bytes()[2..];
    let end = c.end();
    let last = &end[end.len().saturating_sub(12)..];
    let word = last
        .iter()
        .fold(0u128, |word, b| word << 8 | u128::from(*b));
    // 48 bits of magic, 32 of checksum, up to 7 of padding
    let tail = (0..8).any(|pad| (word >> (32 + pad)) as u64 & 0xffff_ffff_ffff == LAST);
    Check::of(first && tail, tail)
}

/// Xz: checksums of the stream header, first block header, footer and index, as far as they lie in the samples.
pub fn xz(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let flags = head.get(6..8)?;
    let mut ok = crc32(flags) == le32(head, 8)?;
    let length = (usize::from(*head.get(12)?) + 1) * 4;
    if head[12] != 0 {
        if let Some(block) = head.get(12..12 + length) {
            ok &= crc32(&block[..length - 4]) == le32(block, length - 4)?;
        }
    }
    let mut end = c.end();
    while let Some(rest) = end.strip_suffix(b"\0\0\0\0") {
        end = rest; // stream padding
    }
    let padding = (c.end().len() - end.len()) as u64;
    let footer = end.get(end.len().checked_sub(12)?..)?;
    let mut tail = &footer[10..] == b"YZ"
        && &footer[8..10] == flags
        && crc32(&footer[4..10]) == le32(footer, 0)?;
    if tail {
        let index = (u64::from(le32(footer, 4)?) + 1) * 4;
        let at = c.size().checked_sub(padding + 12 + index);
        if let Some(index) = at.and_then(|at| usize::try_from(index).ok().and_then(|n| c.at(at, n)))
        {
            tail &=
                index[0] == 0 && crc32(&index[..index.len() - 4]) == le32(index, index.len() - 4)?;
        } else {
            tail &= at.is_some();
        }
    }
    Check::of(ok && tail, tail)
}

/// Zstandard: frame header, and the chain of blocks as far as it lies in the samples.
pub fn zstd(c: &Context<'_>) -> Option<Check> {
    let mut at = 0u64;
    // skippable frames stand before what pzstd and seekable writers make
    for _ in 0..4 {
        let head = c.at(at, 8)?;
        if head[1..4] != *b"\x2a\x4d\x18" || head[0] & 0xf0 != 0x50 {
            break;
        }
        at += 8 + u64::from(le32(head, 4)?);
        if at == c.size() {
            return Check::both(true);
        }
        if at > c.size() {
            return Check::both(false);
        }
    }
    let Some(head) = c.at(at, 6) else {
        return Check::both(at < c.size() && at > 8);
    };
    if head[..4] != *b"\x28\xb5\x2f\xfd" {
        return Check::both(false);
    }
    let descriptor = head[4];
    if descriptor & 8 != 0 {
        return Check::both(false);
    }
    let single = descriptor & 0x20 != 0;
    let content = match descriptor >> 6 {
        0 => u64::from(single),
        n => 1 << n,
    };
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    at += 5 + u64::from(!single) + dictionary + content;
    let sum = if descriptor & 4 != 0 { 4 } else { 0 };
    let mut walked = 0;
    loop {
        let Some(header) = c.at(at, 3) else {
            // beyond the head sample; the file must at least reach there
            return Check::of(walked > 0 && at < c.size(), walked > 0 && at < c.size());
        };
        let word = u64::from(header[0]) | u64::from(header[1]) << 8 | u64::from(header[2]) << 16;
        let (last, kind, size) = (word & 1 != 0, word >> 1 & 3, word >> 3);
        if kind == 3
            || size > 128 * 1024
            || (kind == 2 && (size < 2 || !literals(c, at + 3, size, walked == 0)))
        {
            return Check::both(false);
        }
        at += 3 + if kind == 1 { 1 } else { size };
        walked += 1;
        if last {
            at += sum;
            // another frame may follow
            let next = c.at(at, 4);
            let frame =
                next.is_some_and(|m| m[1..] == *b"\xb5\x2f\xfd" || m[1..] == *b"\x2a\x4d\x18");
            let ok = at == c.size() || frame || (next.is_none() && at < c.size());
            return Check::of(ok, ok);
        }
    }
}

/// Whether a compressed block's literals section fits into it.
fn literals(c: &Context<'_>, at: u64, block: u64, first: bool) -> bool {
    let Some(h) = c.at(at, 5) else {
        return true;
    };
    let word = u64::from(le32(h, 0).unwrap_or(0)) | u64::from(h[4]) << 32;
    let (kind, form) = (word & 3, word >> 2 & 3);
    if kind < 2 {
        let (length, used) = match form {
            0 | 2 => (word >> 3 & 0x1f, 1),
            1 => (word >> 4 & 0xfff, 2),
            _ => (word >> 4 & 0xf_ffff, 3),
        };
        return used + if kind == 1 { 1 } else { length } <= block && length <= 128 * 1024;
    }
    let (regenerated, packed, used) = match form {
        0 | 1 => (word >> 4 & 0x3ff, word >> 14 & 0x3ff, 3),
        2 => (word >> 4 & 0x3fff, word >> 18 & 0x3fff, 4),
        _ => (word >> 4 & 0x3_ffff, word >> 22 & 0x3_ffff, 5),
    };
    // the first block has no earlier table to lean on; what was compressed is shorter than what it was
    let table = kind == 2 || !first;
    table && regenerated <= 128 * 1024 && used + packed <= block && packed <= regenerated
}

/// LZ4 frame: checksum of the descriptor, head of the first block decoded, end mark.
pub fn lz4(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let end = c.end();
    if head.starts_with(b"\x02\x21\x4c\x18") {
        let size = u64::from(le32(head, 4)?);
        let block = head.get(8..)?;
        let whole = size as usize <= block.len();
        let ok = size + 8 <= c.size() && lz4_block(&block[..block.len().min(size as usize)], whole);
        return Check::both(ok);
    }
    let flag = *head.get(4)?;
    let long = if flag & 8 != 0 { 8 } else { 0 } + if flag & 1 != 0 { 4 } else { 0 };
    let sum = *head.get(6 + long)?;
    if flag >> 6 != 1 || flag & 2 != 0 || (xxh32_short(&head[4..6 + long]) >> 8) as u8 != sum {
        return Check::both(false);
    }
    let at = 7 + long;
    let size = le32(head, at)?;
    let mut ok = true;
    if size != 0 && size >> 31 == 0 {
        let block = &head[at + 4..];
        let whole = size as usize <= block.len();
        ok = size <= 4 << 20 && lz4_block(&block[..block.len().min(size as usize)], whole);
    }
    let back = if flag & 4 != 0 { 8 } else { 4 };
    let tail = end
        .len()
        .checked_sub(back)
        .is_some_and(|at| end[at..at + 4] == [0; 4]);
    Some(Check {
        structure: ok && tail,
        tail,
        decoded: ok,
        ..Check::default()
    })
}

/// Lzip: version, dictionary, and the member's own size in the trailer.
pub fn lzip(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let dictionary = *head.get(5)?;
    let first = head.get(4) == Some(&1)
        && (12..=29).contains(&(dictionary & 31))
        && head.get(6) == Some(&0);
    let end = c.end();
    let at = end.len().checked_sub(20)?;
    let (data, member) = (le64(end, at + 4)?, le64(end, at + 12)?);
    let tail = member <= c.size() && member >= 26 && data / 8192 <= member;
    let single = member == c.size()
        || c.at(c.size() - member.min(c.size()), 4)
            .is_none_or(|m| m == b"LZIP");
    Check::of(first && tail && single, tail)
}

/// Lzop: checksum of the header, sizes of the first block, the zero word at the end.
pub fn lzop(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let version = u16::from_be_bytes([*head.get(9)?, *head.get(10)?]);
    let mut at = 9 + 6; // version, library version, version needed
    if version < 0x0940 {
        at = 9 + 4;
    }
    let bits_at = at + 1 + usize::from(version >= 0x0940);
    let bits = be32(head, bits_at)?;
    let mut end_of_header = bits_at + 4 + if bits & 0x800 != 0 { 4 } else { 0 } + 4 + 4;
    end_of_header += if version >= 0x0940 { 4 } else { 0 };
    let name = usize::from(*head.get(end_of_header)?);
    end_of_header += 1 + name;
    let covered = head.get(9..end_of_header)?;
    let sum = be32(head, end_of_header)?;
    let mine = if bits & 0x1000 != 0 {
        crc32(covered)
    } else {
        adler32(covered)
    };
    let plain = be32(head, end_of_header + 4)?;
    let packed = if plain == 0 {
        0
    } else {
        be32(head, end_of_header + 8)?
    };
    let tail = c.end().ends_with(&[0; 4]);
    Check::of(
        mine == sum && tail && packed <= plain && plain <= 64 << 20,
        tail,
    )
}

/// LZMA alone: a usual dictionary, a known or unknown length, the range coder's first byte.
pub fn lzma(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let dictionary = le32(head, 1)?;
    let length = le64(head, 5)?;
    let usual = dictionary.is_power_of_two() || (dictionary / 3).is_power_of_two();
    if !usual
        || dictionary < 4096
        || head.get(13) != Some(&0)
        || (length != u64::MAX && length > 1 << 40)
    {
        return None;
    }
    Check::both(length == u64::MAX || length.saturating_add(4096) >= c.size() / 2)
}

/// Compress: bits per code; the first codes are literals or within the growing table.
pub fn compress(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let bits = head.get(2)? & 31;
    if !(9..=16).contains(&bits) || head[2] & 0x60 != 0 {
        return None;
    }
    let mut next = 257u32;
    let data = head.get(3..)?;
    let mut at = 0usize;
    // nine bits a code until the table holds 512
    while next < 512 && at + 9 <= data.len() * 8 {
        let word = u32::from(data[at / 8]) | u32::from(*data.get(at / 8 + 1).unwrap_or(&0)) << 8;
        let code = word >> (at % 8) & 511;
        if code > next || (code == 256 && head[2] & 0x80 == 0) {
            return Check::both(false);
        }
        at += 9;
        next += 1;
    }
    Check::both(true)
}

/// Snappy frames: chunk types and lengths.
pub fn snappy(c: &Context<'_>) -> Option<Check> {
    let mut at = 0u64;
    for _ in 0..16 {
        let Some(h) = c.at(at, 4) else {
            return Check::both(at <= c.size() && at > 10);
        };
        let length = u64::from(h[1]) | u64::from(h[2]) << 8 | u64::from(h[3]) << 16;
        if !(h[0] < 2 || h[0] >= 0xfe || (0x80..0xfe).contains(&h[0])) || length > 1 << 17 {
            return Check::both(false);
        }
        at += 4 + length;
    }
    Check::both(at <= c.size())
}

/// Lrzip: version; the encryption byte.
pub fn lrzip(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if head.get(4) != Some(&0) || *head.get(5)? > 10 {
        return None;
    }
    Some(Check {
        structure: true,
        tail: true,
        declares: head.get(22) == Some(&1),
        ..Check::default()
    })
}
