//! Checks of pictures: PNG, JPEG, GIF, TIFF, BMP, JPEG 2000, JPEG XL, icons, PNM.

use super::checksum::crc32;
use super::formats::{Check, Context};
use super::read::{be16, be32, find, le16, le32, le64};

/// PNG: checksums of the chunks in the head, the first image data decoded, the end chunk.
pub fn png(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let mut at = 8usize;
    let mut check = Check {
        structure: true,
        ..Check::default()
    };
    if head.get(12..16) != Some(b"IHDR") || be32(head, 8)? != 13 {
        return Check::both(false);
    }
    while let Some(length) = be32(head, at) {
        let length = length as usize;
        let Some(kind) = head.get(at + 4..at + 8) else {
            break;
        };
        if !kind.iter().all(u8::is_ascii_alphabetic) || length > 0x7fff_ffff {
            check.structure = false;
            break;
        }
        if let Some(body) = head.get(at + 4..at + 8 + length) {
            check.structure &= be32(head, at + 8 + length).is_none_or(|sum| crc32(body) == sum);
        }
        if kind == b"IDAT" && !check.decoded {
            let data = &head[at + 8..head.len().min(at + 8 + length)];
            check.decoded = data.len() < 2 || c.inflates(data, true).is_some();
            check.structure &= check.decoded;
        }
        at = at.checked_add(12 + length)?;
    }
    check.tail = c.end().ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82");
    check.structure &= check.tail;
    Some(check)
}

/// JPEG: the chain of segments; after the scan began every 0xff must be followed by a stuffed zero or a marker; the end.
pub fn jpeg(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let mut at = 2usize;
    let mut scan = None;
    while let Some(pair) = head.get(at..at + 2) {
        if pair[0] != 0xff {
            return Check::both(false);
        }
        match pair[1] {
            0xff => {
                at += 1;
                continue;
            }
            0x01 | 0xd0..=0xd8 => {
                at += 2;
                continue;
            }
            0xd9 => break,
            0xc0..=0xfe => {}
            _ => return Check::both(false),
        }
        let Some(length) = be16(head, at + 2) else {
            break;
        };
        if length < 2 {
            return Check::both(false);
        }
        if pair[1] == 0xda {
            scan = Some(at + 2 + usize::from(length));
            break;
        }
        at += 2 + usize::from(length);
    }
    let mut ok = true;
    if let Some(start) = scan {
        ok = stuffed(head.get(start..).unwrap_or(&[]));
    }
    // long metadata may reach into the middle; only entropy-coded data are held to the rule
    if !c.samples.complete {
        let metadata = scan.is_none();
        ok &= metadata || stuffed(c.samples.middle);
        ok &= metadata || stuffed(c.samples.tail);
    }
    let end = c.end();
    let last = &end[end.len().saturating_sub(64)..];
    let tail = find(last, b"\xff\xd9").is_some();
    Check::of(ok && tail, tail)
}

/// At most one in four 0xff bytes may stand before what no JPEG has there (trailers of cameras are let pass).
fn stuffed(bytes: &[u8]) -> bool {
    let (mut all, mut bad) = (0u32, 0u32);
    for at in memchr::memchr_iter(0xff, bytes) {
        let Some(next) = bytes.get(at + 1) else {
            break;
        };
        all += 1;
        let fine = matches!(next, 0 | 0xff | 0xc0..=0xdf | 0xe0..=0xef | 0xfe);
        bad += u32::from(!fine);
    }
    bad * 4 <= all || bad < 3
}

/// GIF: screen and block chain in the head, the trailer.
pub fn gif(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let bits = *head.get(10)?;
    let mut at = 13
        + if bits & 0x80 != 0 {
            3usize << ((bits & 7) + 1)
        } else {
            0
        };
    let tail = c.end().ends_with(b";");
    let mut steps = 0;
    while let Some(kind) = head.get(at) {
        steps += 1;
        match kind {
            0x21 => at += 2,
            0x2c => {
                let bits = match head.get(at + 9) {
                    Some(bits) => *bits,
                    None => break,
                };
                at +=
                    10 + if bits & 0x80 != 0 {
                        3usize << ((bits & 7) + 1)
                    } else {
                        0
                    } + 1;
            }
            0x3b => break,
            _ => return Check::both(false),
        }
        while let Some(length) = head.get(at) {
            at += 1 + usize::from(*length);
            if *length == 0 {
                break;
            }
        }
        if steps > 10_000 {
            break;
        }
    }
    Check::of(tail && steps > 0, tail)
}

/// TIFF: the first directory within the file, its tags ascending where it lies in the samples.
pub fn tiff(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let little = head.first() == Some(&b'I');
    let short = |b: &[u8], at| if little { le16(b, at) } else { be16(b, at) };
    let long = |b: &[u8], at| if little { le32(b, at) } else { be32(b, at) };
    let big = short(head, 2)? == 43;
    let offset = if big {
        if little {
            le64(head, 8)?
        } else {
            super::read::be64(head, 8)?
        }
    } else {
        u64::from(long(head, 4)?)
    };
    let (count_size, entry) = if big { (8usize, 20u64) } else { (2, 12) };
    if offset < 8 || offset + count_size as u64 > c.size() {
        return Check::both(false);
    }
    let Some(count) = c.at(offset, count_size) else {
        // its directory is out of reach: at least no sample may look encrypted under an uncompressed header
        return Check::both(true);
    };
    let count = u64::from(short(count, 0)?);
    if count == 0 || count > 512 || offset + count_size as u64 + count * entry > c.size() {
        return Check::both(false);
    }
    let mut last = 0u16;
    for i in 0..count {
        let Some(tag) = c.at(offset + count_size as u64 + i * entry, 4) else {
            break;
        };
        let (tag, kind) = (short(tag, 0)?, short(tag, 2)?);
        if tag < last || kind == 0 || kind > 18 {
            return Check::both(false);
        }
        last = tag;
    }
    Check::both(true)
}

/// BMP: sizes of file and header.
pub fn bmp(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let (size, offset, dib) = (le32(head, 2)?, le32(head, 10)?, le32(head, 14)?);
    if !matches!(dib, 12 | 40 | 52 | 56 | 64 | 108 | 124) || le32(head, 6)? != 0 {
        return None;
    }
    let fits = u64::from(size) == c.size() || size == 0;
    Check::both(fits && u64::from(offset) < c.size() && c.plain())
}

/// JPEG 2000 file: the chain of boxes in the head, the codestream's end.
pub fn jp2(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let codestream = find(head, b"\xff\x4f\xff\x51").is_some();
    let tail = c.end().ends_with(b"\xff\xd9");
    Check::of(
        head.get(16..20) == Some(b"ftyp") && (codestream || head.len() < 4096) && tail,
        tail,
    )
}

/// JPEG 2000 codestream: its size segment, and the end marker.
pub fn j2k(c: &Context<'_>) -> Option<Check> {
    let tail = c.end().ends_with(b"\xff\xd9");
    Check::of(codestream(c.head()) && tail, tail)
}

/// Whether a JPEG 2000 codestream starts here: SIZ with sizes that agree, then known markers.
pub fn codestream(bytes: &[u8]) -> bool {
    let length = be16(bytes, 4).unwrap_or(0);
    let (x, y) = (be32(bytes, 8).unwrap_or(0), be32(bytes, 12).unwrap_or(0));
    let components = be16(bytes, 40).unwrap_or(0);
    x > 0
        && y > 0
        && usize::from(length) == 38 + 3 * usize::from(components)
        && bytes
            .get(4 + usize::from(length)..6 + usize::from(length))
            .is_none_or(|m| m[0] == 0xff && (0x50..=0x64).contains(&m[1]))
}

/// JPEG XL: container boxes, or a bare codestream, which has nothing cheap to check.
pub fn jxl(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if head.starts_with(b"\xff\x0a") {
        return (c.extension == b"jxl").then(|| Check {
            structure: true,
            tail: true,
            ..Check::default()
        });
    }
    Check::both(head.get(16..20) == Some(b"ftyp"))
}

/// Icon: entries within the file.
pub fn ico(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let count = le16(head, 4)?;
    if count == 0 || count > 64 {
        return None;
    }
    for i in 0..usize::from(count) {
        let (size, offset) = (le32(head, 14 + 16 * i)?, le32(head, 18 + 16 * i)?);
        if head.get(9 + 16 * i)? != &0 || u64::from(size) + u64::from(offset) > c.size() {
            return None;
        }
    }
    Check::both(true)
}

/// Portable any-map: numbers after the magic, and a size that they give.
pub fn pnm(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let kind = head[1];
    let mut numbers = [0u64; 3];
    let mut at = 2;
    if kind == b'7' {
        return Check::both(find(head, b"ENDHDR\n").is_some());
    }
    let wanted = if matches!(kind, b'1' | b'4') { 2 } else { 3 };
    for number in numbers.iter_mut().take(wanted) {
        loop {
            match head.get(at)? {
                b'#' => at += memchr::memchr(b'\n', &head[at..])? + 1,
                b if b.is_ascii_whitespace() => at += 1,
                _ => break,
            }
        }
        let mut digits = 0;
        while let Some(b) = head.get(at).filter(|b| b.is_ascii_digit()) {
            *number = number.checked_mul(10)?.checked_add(u64::from(b - b'0'))?;
            at += 1;
            digits += 1;
        }
        if digits == 0 || *number == 0 {
            return None;
        }
    }
    let pixels = numbers[0].checked_mul(numbers[1])?;
    let depth = if numbers[2] > 255 { 2 } else { 1 };
    let data = match kind {
        b'4' => numbers[0].div_ceil(8).checked_mul(numbers[1])?,
        b'5' => pixels.checked_mul(depth)?,
        b'6' => pixels.checked_mul(3 * depth)?,
        _ => return Check::both(c.plain()),
    };
    Check::both(c.size() == data + at as u64 + 1)
}
