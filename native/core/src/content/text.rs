//! Text: is it, and of which kind; encodings of other bytes that only look like it.

use super::formats::{by_extension, row, Check, Class, Context, Id};
use super::read::find;
use super::statistics::Statistics;
use crate::facts::flags;

/// Whether a sample is text: no control bytes, and what is beyond ASCII is UTF-8 (cut at the sample's edges) or, in a
/// small share, of an 8-bit code page.
pub fn is_text(bytes: &[u8], statistics: &Statistics) -> bool {
    if bytes.is_empty() {
        return true;
    }
    let length = statistics.length as u32;
    if statistics.controls() > length / 512 {
        return false;
    }
    let high = statistics.high();
    if high == 0 {
        return true;
    }
    // code pages of eight bits: a cipher's output of this length has control bytes, but for one in a million
    if length >= 128 || high * 10 <= length {
        return true;
    }
    let start = bytes
        .iter()
        .take(3)
        .take_while(|b| **b & 0xc0 == 0x80)
        .count();
    match std::str::from_utf8(&bytes[start..]) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && bytes.len() - start - error.valid_up_to() < 4,
    }
}

/// UTF-16 text: a byte order mark, and every second byte mostly zero.
pub fn is_utf16(head: &[u8]) -> bool {
    let at = match head.get(..2) {
        Some(b"\xff\xfe") => 1,
        Some(b"\xfe\xff") => 0,
        _ => return false,
    };
    let (mut zero, mut all) = (0usize, 0usize);
    for pair in head[2..].chunks_exact(2) {
        all += 1;
        zero += usize::from(pair[at] == 0);
    }
    zero * 10 >= all * 7
}

/// Letters of the sample when it is nothing but base64 or hexadecimal digits: such text holds other bytes.
///
/// Needs a few hundred bytes; a word list or a table of numbers has blanks or signs that these lack.
pub fn encoding(statistics: &Statistics) -> Option<Id> {
    if statistics.length < 256 {
        return None;
    }
    let c = |b: u8| u32::from(statistics.counts[usize::from(b)]);
    let count = |set: &[u8]| set.iter().map(|b| c(*b)).sum::<u32>();
    let range = |a: u8, b: u8| (a..=b).map(c).sum::<u32>();
    let digits = range(b'0', b'9');
    let (upper, lower) = (range(b'A', b'Z'), range(b'a', b'z'));
    let breaks = count(b"\r\n");
    let length = statistics.length as u32;
    if breaks * 16 > length {
        return None; // lines too short for a dump
    }
    if digits + range(b'a', b'f') + breaks == length
        || digits + range(b'A', b'F') + breaks == length
    {
        return (statistics.entropy > 3.5).then_some(Id::Hex);
    }
    let signs = count(b"+/=-_");
    if digits + upper + lower + signs + breaks == length
        && statistics.entropy > 5.5
        && digits * 16 > length
        && upper * 5 > length
    {
        return Some(Id::Base64);
    }
    // 85 or more signs, evenly used, no blanks: base85, base91, ASCII85
    let blanks = count(b" \t");
    (blanks * 512 < length && statistics.high() == 0 && statistics.entropy > 6.0)
        .then_some(Id::Base85)
}

/// PEM: plain text between the marks; private keys may be encrypted, which says nothing about patient files.
pub fn pem(c: &Context<'_>) -> Option<Check> {
    Check::both(c.text && find(c.end(), b"-----END ").is_some())
}

impl Context<'_> {
    /// Text, or text with the separators of HL7's framing.
    pub fn text_or_control(&self) -> bool {
        self.text || self.encrypted_like[0] < 0.1
    }
}

/// What kind of text it is. All samples are text.
pub fn kind(c: &Context<'_>) -> (Id, Check) {
    let head = c.head();
    let body = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    let named = by_extension(c.extension);
    let fine = Check {
        structure: true,
        tail: true,
        flags: flags::TEXT,
        ..Check::default()
    };
    if let Some(line) = body.strip_prefix(b"#!") {
        if line.trim_ascii_start().starts_with(b"/") {
            return (
                Id::Script,
                Check {
                    flags: flags::TEXT | flags::SCRIPT,
                    ..fine
                },
            );
        }
    }
    if body.starts_with(b"<?php") || starts_with_fold(body, b"@echo off") {
        return (
            Id::Script,
            Check {
                flags: flags::TEXT | flags::SCRIPT,
                ..fine
            },
        );
    }
    if matches!(body.first(), Some(b'{' | b'[')) {
        if let Some((id, check)) = json(c, body, fine) {
            return (id, check);
        }
    }
    if body.first() == Some(&b'<') {
        if let Some(found) = markup(c, body, fine) {
            return found;
        }
    }
    if body.starts_with(b"From ") || (named == Id::Mbox && find(body, b"\nSubject:").is_some()) {
        return (Id::Mbox, fine);
    }
    if named == Id::Script {
        return (
            Id::Script,
            Check {
                flags: flags::TEXT | flags::SCRIPT,
                ..fine
            },
        );
    }
    if named == Id::Csv || table(body) {
        return (Id::Csv, fine);
    }
    (Id::Text, fine)
}

fn starts_with_fold(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes
        .get(..prefix.len())
        .is_some_and(|b| b.eq_ignore_ascii_case(prefix))
}

/// JSON: strings, brackets and values in order through the head, and a closing bracket at the end.
fn json(c: &Context<'_>, body: &[u8], fine: Check) -> Option<(Id, Check)> {
    if !tokens(body) {
        return None;
    }
    let end = c.end().trim_ascii_end();
    let tail = matches!(end.last(), Some(b'}' | b']'));
    let mut check = Check {
        structure: tail,
        tail,
        ..fine
    };
    let start = &body[..body.len().min(1024)];
    if find(start, b"\"resourceType\"").is_some() {
        if crate::phi::fhir_patient(body) {
            check.flags |= flags::PHI_FHIR;
        }
        return Some((Id::Fhir, check));
    }
    Some((Id::Json, check))
}

/// Whether bytes are JSON tokens as far as they reach; at least one string or number must stand there.
fn tokens(body: &[u8]) -> bool {
    let mut depth = 0u32;
    let mut at = 0;
    let mut values = 0u32;
    while let Some(b) = body.get(at) {
        match b {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if depth == 0 {
                    return false;
                }
                depth -= 1;
                if depth == 0 {
                    values += 1;
                }
            }
            b'"' => {
                at += 1;
                loop {
                    match memchr::memchr2(b'"', b'\\', body.get(at..).unwrap_or(&[])) {
                        None => return true,
                        Some(n) if body[at + n] == b'"' => {
                            at += n;
                            break;
                        }
                        Some(n) => at += n + 2,
                    }
                }
                values += 1;
            }
            b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' => values += 1,
            b't' | b'r' | b'u' | b'f' | b'a' | b'l' | b's' | b'n' | b'N' | b'I' | b'i' | b'y' => {}
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => return false,
        }
        at += 1;
    }
    values > 0
}

/// XML, HTML, CDA: a tag at the start, a closing one at the end.
fn markup(c: &Context<'_>, body: &[u8], fine: Check) -> Option<(Id, Check)> {
    let second = *body.get(1)?;
    if !(second.is_ascii_alphabetic() || matches!(second, b'?' | b'!' | b'/')) {
        return None;
    }
    let start = &body[..body.len().min(2048)];
    let tail = c.end().trim_ascii_end().ends_with(b">");
    let check = Check {
        structure: tail,
        tail,
        ..fine
    };
    let lower = start.to_ascii_lowercase();
    if find(&lower, b"<html").is_some() || find(&lower, b"<!doctype html").is_some() {
        return Some((
            Id::Html,
            Check {
                structure: true,
                ..check
            },
        ));
    }
    if find(start, b"ClinicalDocument").is_some() {
        let patient = find(body, b"patientRole").is_some() || find(body, b"recordTarget").is_some();
        let flags = if patient { flags::PHI_FHIR } else { 0 };
        return Some((
            Id::Cda,
            Check {
                flags: check.flags | flags,
                ..check
            },
        ));
    }
    if find(start, b"http://hl7.org/fhir").is_some() {
        let patient = find(body, b"<Patient").is_some();
        let flags = if patient { flags::PHI_FHIR } else { 0 };
        return Some((
            Id::Fhir,
            Check {
                flags: check.flags | flags,
                ..check
            },
        ));
    }
    let named = row(by_extension(c.extension) as u16).id == Id::Xml || start.starts_with(b"<?xml");
    (tail || named).then_some((Id::Xml, check))
}

/// At least three whole lines with the same number (one or more) of commas, semicolons, tabs or bars.
fn table(body: &[u8]) -> bool {
    'separators: for separator in *b",;\t|" {
        let mut lines = body.split(|b| *b == b'\n');
        let first = lines
            .next()
            .map_or(0, |l| l.iter().filter(|b| **b == separator).count());
        if first == 0 {
            continue;
        }
        let mut same = 1;
        for line in lines.take(4) {
            if line.is_empty() {
                break;
            }
            if line.iter().filter(|b| **b == separator).count() != first {
                if same < 4 {
                    continue 'separators;
                }
                break;
            }
            same += 1;
        }
        if same >= 3 {
            return true;
        }
    }
    false
}

/// Whether an extension promises text.
pub fn promises_text(id: Id) -> bool {
    row(id as u16).class == Class::Text
}
