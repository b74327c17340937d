//! Content encrypted by known tools: OpenPGP, age, openssl, LUKS and others, CMS envelopes, shieldd's own.

use super::formats::{Check, Context, Id};
use super::read::find;

/// A header that stands for itself.
pub fn header(_: &Context<'_>) -> Option<Check> {
    Check::sealed(true)
}

/// One of shieldd's sealed files; its own reader verifies it.
pub fn shieldd(c: &Context<'_>) -> Option<Check> {
    Check::sealed(c.size() >= 8192)
}

/// OpenPGP message in ASCII armor.
pub fn armor(c: &Context<'_>) -> Option<Check> {
    let ok = find(c.end(), b"-----END PGP MESSAGE-----").is_some();
    Check::sealed(ok && c.text)
}

/// age: a recipient stanza and the header's MAC line.
pub fn age(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if head.starts_with(b"-----") {
        return Check::sealed(find(c.end(), b"-----END AGE ENCRYPTED FILE-----").is_some());
    }
    Check::sealed(find(head, b"\n--- ").is_some())
}

/// openssl enc: salt and whole blocks, or a stream cipher.
pub fn openssl(c: &Context<'_>) -> Option<Check> {
    if c.head().starts_with(b"U2F") && !c.text {
        return None;
    }
    Check::sealed(c.size() >= 16)
}

/// OID 1.2.840.113549.1.7.3, enveloped data.
const ENVELOPED: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03";
/// OID 1.2.840.113549.1.9.16.1.23, authenticated enveloped data.
const AUTHENTICATED: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x17";

/// DER: the outer sequence is as long as the file; a CMS envelope declares encryption.
pub fn der(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let start = &head[..head.len().min(32)];
    let declares = find(start, ENVELOPED).is_some() || find(start, AUTHENTICATED).is_some();
    let length = match head.get(1)? {
        0x80 => None,
        0x82 => Some(
            4 + head
                .get(2..4)?
                .iter()
                .fold(0u64, |n, b| n << 8 | u64::from(*b)),
        ),
        _ => Some(
            5 + head
                .get(2..5)?
                .iter()
                .fold(0u64, |n, b| n << 8 | u64::from(*b)),
        ),
    };
    let tail = length.is_none_or(|n| n == c.size());
    if !declares && !tail {
        return None;
    }
    if !declares && length.is_none() {
        return None;
    }
    Some(Check {
        structure: tail,
        tail,
        declares,
        ..Check::default()
    })
}

/// One OpenPGP packet header: tag, where its body starts, its length where it is known.
fn packet(bytes: &[u8], at: usize) -> Option<(u8, usize, Option<usize>)> {
    let first = *bytes.get(at)?;
    if first & 0x80 == 0 {
        return None;
    }
    if first & 0x40 != 0 {
        let tag = first & 0x3f;
        let a = usize::from(*bytes.get(at + 1)?);
        return match a {
            0..=191 => Some((tag, at + 2, Some(a))),
            192..=223 => {
                let b = usize::from(*bytes.get(at + 2)?);
                Some((tag, at + 3, Some(((a - 192) << 8) + b + 192)))
            }
            255 => {
                let n = super::read::be32(bytes, at + 2)?;
                Some((tag, at + 6, Some(n as usize)))
            }
            _ => Some((tag, at + 2, None)), // partial lengths
        };
    }
    let tag = first >> 2 & 15;
    match first & 3 {
        0 => Some((tag, at + 2, Some(usize::from(*bytes.get(at + 1)?)))),
        1 => Some((
            tag,
            at + 3,
            Some(usize::from(super::read::be16(bytes, at + 1)?)),
        )),
        2 => Some((
            tag,
            at + 5,
            Some(super::read::be32(bytes, at + 1)? as usize),
        )),
        _ => Some((tag, at + 1, None)),
    }
}

/// A binary OpenPGP message that begins with session key packets: encrypted. It has no magic number, so its packets
/// are walked: session keys (tags 1, 3) with their versions, then encrypted data (9, 18, 20).
pub fn openpgp(c: &Context<'_>) -> Option<(Id, Check)> {
    let head = c.head();
    if matches!(head.first()?, 0x98 | 0x99 | 0xc6) {
        let (tag, body, length) = packet(head, 0)?;
        let version = *head.get(body)?;
        let fits = (body + length?) as u64 <= c.size();
        // a public key: version, a time, an algorithm
        let key =
            tag == 6 && matches!(version, 3..=6) && matches!(head.get(body + 5)?, 1..=3 | 16..=28);
        return (key && fits)
            .then(|| Check::both(true))
            .flatten()
            .map(|check| (Id::PgpKey, check));
    }
    if !matches!(head.first()?, 0x84 | 0x85 | 0x8c | 0xc1 | 0xc3) {
        return None;
    }
    let mut at = 0;
    for _ in 0..64 {
        let (tag, body, length) = packet(head, at)?;
        let version = *head.get(body)?;
        match tag {
            1 if matches!(version, 2 | 3 | 6) => {}
            3 if matches!(version, 4..=6) => {}
            18 if at > 0 && matches!(version, 1 | 2) => {
                return Some((Id::Gpg, Check::sealed(true)?))
            }
            9 if at > 0 => return Some((Id::Gpg, Check::sealed(true)?)),
            20 if at > 0 && version == 1 => return Some((Id::Gpg, Check::sealed(true)?)),
            _ => return None,
        }
        at = body.checked_add(length?)?;
        if at >= head.len() {
            // many recipients: the packets so far were all session keys
            return c
                .size()
                .checked_sub(at as u64)
                .and(Some((Id::Gpg, Check::sealed(true)?)));
        }
    }
    Some((Id::Gpg, Check::sealed(true)?))
}
