//! Checks of archives: zip and its descendants, tar, 7z, rar, cpio, ar, rpm, cab.

use super::checksum::crc32;
use super::formats::{Check, Context, Id};
use super::read::{be16, find, le16, le32, le64, rfind};

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END64: &[u8] = b"PK\x06\x07";
/// Stored, deflate, deflate64, bzip2, LZMA, zstd (both numbers), XZ, AES (WinZip).
const METHODS: [u16; 9] = [0, 8, 9, 12, 14, 20, 93, 95, 99];

/// Zip: first local header, its data, the end record, and the directory as far as it lies in the samples.
pub fn zip(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let mut check = Check::default();
    let mut body = true;
    if head.starts_with(LOCAL) {
        let (version, bits, method) = (le16(head, 4)?, le16(head, 6)?, le16(head, 8)?);
        let (packed, name, extra) = (le32(head, 18)?, le16(head, 26)?, le16(head, 28)?);
        if version & 255 > 63 || !METHODS.contains(&method) {
            return None;
        }
        check.declares = bits & 1 != 0 || method == 99;
        let start = 30 + usize::from(name) + usize::from(extra);
        if let Some(data) = head.get(start..).filter(|d| !d.is_empty()) {
            if method == 8 && !check.declares {
                let known = bits & 8 == 0 && packed != 0 && packed != u32::MAX;
                let end = if known { packed as usize } else { data.len() };
                body = c.inflates(&data[..end.min(data.len())], false).is_some();
                check.decoded = body;
            }
        }
        check.refined = kind(head).or_else(|| kind(c.end()));
    }
    let end = c.end();
    let record = rfind(end, END).filter(|at| {
        le16(end, at + 20).is_some_and(|comment| at + 22 + usize::from(comment) == end.len())
    });
    let Some(at) = record else {
        return Some(check); // cut short, or its end lies in a longer comment: no structure
    };
    check.tail = true;
    let at_file = c.size() - (end.len() - at) as u64;
    let (length, offset) = (
        u64::from(le32(end, at + 12)?),
        u64::from(le32(end, at + 16)?),
    );
    let count = le16(end, at + 10)?;
    let long = at >= 20 && end[at - 20..].starts_with(END64);
    let fits =
        long || offset + length == at_file || (offset + length < at_file && count == u16::MAX);
    let directory = if long || count == 0 {
        true
    } else {
        match c.at(offset, 46) {
            Some(entry) if !entry.starts_with(CENTRAL) => false,
            _ => central(c, offset, at_file, &mut check),
        }
    };
    check.structure = body && fits && directory;
    Some(check)
}

/// Walks the directory's entries that lie in the samples; false where one is not an entry.
fn central(c: &Context<'_>, offset: u64, end: u64, check: &mut Check) -> bool {
    let mut at = offset;
    // a directory that starts before the tail sample: find the first entry within it
    if c.at(at, 46).is_none() {
        let tail = c.end();
        let Some(first) = find(tail, CENTRAL) else {
            return true; // its entries are longer than the sample
        };
        at = c.size() - tail.len() as u64 + first as u64;
    }
    for _ in 0..64 {
        if at >= end {
            return at == end;
        }
        let Some(entry) = c.at(at, 46) else {
            return true;
        };
        if !entry.starts_with(CENTRAL) {
            return false;
        }
        let field = |o| u64::from(le16(entry, o).unwrap_or(0));
        check.declares |= field(8) & 1 != 0 || field(10) == 99;
        at += 46 + field(28) + field(30) + field(32);
    }
    true
}

/// Which descendant of zip a sample's names speak of.
fn kind(bytes: &[u8]) -> Option<Id> {
    let has = |what: &[u8]| find(bytes, what).is_some();
    if has(b"word/") {
        Some(Id::Docx)
    } else if has(b"xl/")
        && (has(b"[Content_Types].xml") || has(b"xl/workbook") || has(b"xl/worksheets"))
    {
        Some(Id::Xlsx)
    } else if has(b"ppt/") {
        Some(Id::Pptx)
    } else if has(b"application/vnd.oasis.opendocument") {
        Some(Id::Odf)
    } else if has(b"application/epub+zip") {
        Some(Id::Epub)
    } else if has(b"META-INF/MANIFEST.MF") || has(b"AndroidManifest.xml") {
        Some(Id::Jar)
    } else {
        None
    }
}

/// Tar: checksum of the first header, of the next one where it lies in the samples, zero blocks at the end.
pub fn tar(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let size = tar_header(head.get(..512)?)?;
    let next = 512 + size.div_ceil(512) * 512;
    let second = match c.at(next, 512) {
        Some(block) => block.iter().all(|b| *b == 0) || tar_header(block).is_some(),
        None => next <= c.size() || c.size() < 512 + size,
    };
    let end = c.end();
    let zeros = end.len() >= 1024 && end[end.len() - 1024..].iter().all(|b| *b == 0);
    Check::of(second && zeros, zeros)
}

/// Size that a tar header gives; none where its checksum does not hold.
fn tar_header(block: &[u8]) -> Option<u64> {
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum::<u64>()
        - block[148..156].iter().map(|b| u64::from(*b)).sum::<u64>()
        + 8 * 32;
    if octal(&block[148..156])? != sum {
        return None;
    }
    if block[124] & 0x80 != 0 {
        return Some(
            block[128..136]
                .iter()
                .fold(0u64, |n, b| n << 8 | u64::from(*b))
                >> 1,
        );
    }
    octal(&block[124..136])
}

fn octal(field: &[u8]) -> Option<u64> {
    let mut n = 0u64;
    let mut digits = 0;
    for b in field {
        match b {
            b'0'..=b'7' => {
                n = n.checked_mul(8)? + u64::from(b - b'0');
                digits += 1;
            }
            b' ' if digits == 0 => {}
            _ => break,
        }
    }
    (digits > 0).then_some(n)
}

/// 7z: checksum of the start header, the next header within the file, its checksum where it lies in the samples; AES
/// among its coders, also in a header that is itself compressed.
pub fn seven_zip(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let start = head.get(12..32)?;
    let ok = crc32(start) == le32(head, 8)?;
    let (offset, length) = (le64(start, 0)?, le64(start, 8)?);
    let at = offset.checked_add(32)?;
    let tail = at.checked_add(length)? == c.size();
    if !ok {
        return Check::of(false, tail);
    }
    let mut check = Check {
        structure: tail,
        tail,
        ..Check::default()
    };
    if let Some(header) = usize::try_from(length).ok().and_then(|n| c.at(at, n)) {
        let whole = crc32(header) == le32(start, 16)?;
        check.structure &= whole && (length == 0 || matches!(header[0], 1 | 0x17));
        check.declares = find(header, AES).is_some();
        if header.first() == Some(&0x17) && !check.declares {
            check.declares = super::lzma::header_names_aes(header, |o, n| c.at(o + 32, n));
        }
    }
    Some(check)
}

/// Coder id of 7z's AES-256 + SHA-256.
pub const AES: &[u8] = b"\x06\xf1\x07\x01";

/// Rar 4 and 5: checksum of the first header; passwords as the headers declare them; the end block.
pub fn rar(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let end = c.end();
    if head.get(6) == Some(&0) {
        let block = head.get(7..)?;
        let (sum, bits, length) = (le16(block, 0)?, le16(block, 3)?, le16(block, 5)?);
        let body = block.get(2..usize::from(length))?;
        let ok = block.get(2) == Some(&0x73) && crc32(body) as u16 == sum;
        let file = block.get(usize::from(length)..)?;
        let locked = bits & 0x80 != 0
            || (file.get(2) == Some(&0x74) && le16(file, 3).is_some_and(|b| b & 4 != 0));
        let tail = locked || end.ends_with(b"\xc4\x3d\x7b\0\x40\x07\0");
        return Some(Check {
            structure: ok && tail,
            tail,
            declares: locked,
            ..Check::default()
        });
    }
    if head.get(6..8) != Some(b"\x01\0") {
        return None;
    }
    let block = head.get(8..)?;
    let (length, used) = vint(block.get(4..)?)?;
    let body = block.get(4..4 + used + usize::try_from(length).ok()?)?;
    let ok = crc32(body) == le32(block, 0)?;
    let (kind, _) = vint(&body[used..])?;
    // an encrypted file's header carries an extra record of type 1; its salt makes any search guesswork, so the
    // record is looked for where the first file header is
    let next = block.get(4 + body.len()..).unwrap_or(&[]);
    let locked = kind == 4 || rar5_locked(next).unwrap_or(false);
    let tail = kind == 4 || end.ends_with(b"\x1d\x77\x56\x51\x03\x05\x04\0");
    Some(Check {
        structure: ok && tail,
        tail,
        declares: locked,
        ..Check::default()
    })
}

fn rar5_locked(block: &[u8]) -> Option<bool> {
    let (length, used) = vint(block.get(4..)?)?;
    let body = block.get(4 + used..4 + used + usize::try_from(length).ok()?)?;
    let (kind, a) = vint(body)?;
    let (bits, b) = vint(&body[a..])?;
    if kind != 2 || bits & 1 == 0 {
        return Some(false);
    }
    let (extra, _) = vint(&body[a + b..])?;
    let from = body.len().checked_sub(usize::try_from(extra).ok()?)?;
    let mut area = &body[from..];
    while !area.is_empty() {
        let (size, used) = vint(area)?;
        let size = usize::try_from(size).ok()?;
        let record = area.get(used..used + size)?;
        if vint(record)?.0 == 1 {
            return Some(true);
        }
        area = &area[used + size..];
    }
    Some(false)
}

/// RAR 5's variable-length integer: value and bytes used.
fn vint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, b) in bytes.iter().take(9).enumerate() {
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Cpio, new and old ASCII: digits in the header, the trailer's name at the end.
pub fn cpio(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let fields = if head.get(5) == Some(&b'7') {
        head.get(6..76)?.iter().all(|b| (b'0'..=b'7').contains(b))
    } else {
        head.get(6..110)?.iter().all(u8::is_ascii_hexdigit)
    };
    let tail = find(c.end(), b"TRAILER!!!").is_some();
    Check::of(fields && tail, tail)
}

/// Ar and deb: headers as far as the samples reach.
pub fn ar(c: &Context<'_>) -> Option<Check> {
    let mut at = 8u64;
    let mut members = 0;
    while let Some(header) = c.at(at, 60) {
        if &header[58..] != b"`\n" {
            return Check::both(false);
        }
        let digits = header[48..58].trim_ascii();
        let size: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        at = at.checked_add(60)?.checked_add(size)?;
        at += at & 1;
        members += 1;
        if members > 32 {
            return Check::both(true);
        }
    }
    let whole = at == c.size() || at == c.size() + 1;
    Check::of(
        whole || (members > 0 && at < c.size()),
        whole || at < c.size(),
    )
}

/// Rpm: lead and signature header.
pub fn rpm(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    Check::both(head.get(96..100) == Some(b"\x8e\xad\xe8\x01") && be16(head, 6)? <= 1)
}

/// Cab: size that the header gives.
pub fn cab(c: &Context<'_>) -> Option<Check> {
    let size = u64::from(le32(c.head(), 8)?);
    let first = u64::from(le32(c.head(), 16)?);
    Check::both(size <= c.size() && first < size && le32(c.head(), 4)? == 0)
}

/// Java module: a zip behind four bytes; its end record.
pub fn jmod(c: &Context<'_>) -> Option<Check> {
    let end = c.end();
    let tail = rfind(end, END).is_some_and(|at| at + 22 <= end.len());
    Check::of(tail, tail)
}
