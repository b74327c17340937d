//! Checks of documents: PDF, RTF, OLE2 (old Office), PostScript.

use super::formats::{Check, Context};
use super::read::{find, le16, le32, rfind};

/// PDF: the end mark, the offset it gives, what stands there, and whether the trailer names an encryption.
pub fn pdf(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if !head.get(5)?.is_ascii_digit() {
        return Check::both(false);
    }
    let end = c.end();
    let last = &end[end.len().saturating_sub(1024)..];
    let tail = find(last, b"%%EOF").is_some();
    let declares = encrypts(head) || encrypts(end);
    let offset = rfind(end, b"startxref").and_then(|at| number(&end[at + 9..]));
    let structure = match offset {
        Some(at) if at < c.size() => c.at(at, 4).is_none_or(|mark| {
            mark == b"xref" || mark[0].is_ascii_digit() || mark[0].is_ascii_whitespace()
        }),
        _ => false,
    };
    // objects begin in the head: the text between header and first object is short
    let object = find(head, b" obj").is_some();
    Some(Check {
        structure: structure && tail && object,
        tail,
        declares,
        ..Check::default()
    })
}

/// A trailer's or cross-reference stream's `/Encrypt` entry: followed by a reference or a dictionary.
fn encrypts(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"/Encrypt").any(|at| {
        let next = bytes[at + 8..].trim_ascii_start();
        next.first()
            .is_some_and(|b| b.is_ascii_digit() || *b == b'<')
    })
}

fn number(bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.trim_ascii_start();
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

/// RTF: braces to the end.
pub fn rtf(c: &Context<'_>) -> Option<Check> {
    let end = c.end();
    let end = &end[..end
        .iter()
        .rposition(|b| !b.is_ascii_whitespace() && *b != 0)?
        + 1];
    let tail = end.ends_with(b"}");
    Check::of(tail && c.plain(), tail)
}

/// "EncryptedPackage" and "EncryptionInfo" in UTF-16: streams of an encrypted Office document.
const PACKAGE: &[u8] = b"E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e";
const INFO: &[u8] = b"E\0n\0c\0r\0y\0p\0t\0i\0o\0n\0I\0n\0f\0o";

/// OLE2: byte order, sector size, first sectors within the file; encryption by stream names or by the first bytes of a
/// Word or Excel stream.
pub fn ole2(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let (major, order, shift) = (le16(head, 26)?, le16(head, 28)?, le16(head, 30)?);
    let sector = match (major, shift) {
        (3, 9) => 512u64,
        (4, 12) => 4096,
        _ => return Check::both(false),
    };
    let directory = u64::from(le32(head, 48)?);
    let tables = u64::from(le32(head, 44)?);
    let sectors = c.size().saturating_sub(512) / sector + 1;
    let mut ok = order == 0xfffe && directory < sectors && tables <= sectors && tables > 0;
    let mut declares = false;
    // the directory's first entry is the root's, in UTF-16
    if let Some(entries) = c.at((directory + 1) * sector, 512) {
        ok &= entries.starts_with(b"R\0o\0o\0t\0") || entries.starts_with(b"R\0\0\0");
        declares |= find(entries, PACKAGE).is_some() || find(entries, INFO).is_some();
    }
    for sample in [head, c.samples.middle, c.samples.tail] {
        declares |= find(sample, PACKAGE).is_some();
    }
    if let Some(first) = c.at(sector.max(512), 512) {
        let word = first.starts_with(b"\xec\xa5") && first[11] & 1 != 0;
        let excel = first.starts_with(b"\x09\x08") && file_pass(first);
        declares |= word || excel;
    }
    Some(Check {
        structure: ok,
        tail: c.size() % 512 == 0,
        declares,
        ..Check::default()
    })
}

/// Whether a workbook stream's first records hold a FilePass.
fn file_pass(bytes: &[u8]) -> bool {
    let mut at = 0usize;
    while let (Some(kind), Some(length)) = (le16(bytes, at), le16(bytes, at + 2)) {
        if kind == 0x2f {
            return true;
        }
        at += 4 + usize::from(length);
    }
    false
}

/// PostScript: plain text, or its end mark.
pub fn postscript(c: &Context<'_>) -> Option<Check> {
    let tail = c.text || find(c.end(), b"%%EOF").is_some();
    Check::of(tail && c.encrypted_like[0] < 0.5, tail)
}
