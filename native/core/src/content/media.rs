//! Checks of sound and film: RIFF (wav, avi, webp), MP4 and its kin, MP3, Ogg, FLAC, Matroska.

use super::formats::{Check, Context, Id};
use super::read::{be32, be64, le32};

/// RIFF: its size is the file's, the first chunk's name is text.
pub fn riff(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if !head.starts_with(b"RIFF") && !head.starts_with(b"RF64") {
        return None;
    }
    let size = u64::from(le32(head, 4)?) + 8;
    let fits = size == c.size() || size + 1 == c.size() || head.starts_with(b"RF64") || size < 9;
    let name = head.get(12..16)?.iter().all(|b| (0x20..0x7f).contains(b));
    let refined = match head.get(8..12)? {
        b"WAVE" => Id::Wav,
        b"AVI " => Id::Avi,
        _ => Id::Webp,
    };
    Some(Check {
        structure: fits && name,
        tail: fits,
        refined: Some(refined),
        ..Check::default()
    })
}

/// MP4 and kin: the chain of boxes as far as the samples reach.
pub fn mp4(c: &Context<'_>) -> Option<Check> {
    let mut at = 0u64;
    for _ in 0..64 {
        if at == c.size() {
            return Check::both(true);
        }
        let Some(h) = c.at(at, 16).or_else(|| c.at(at, 8)) else {
            return Check::both(at > 8 && at < c.size());
        };
        if !h[4..8]
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b" -_".contains(b))
        {
            return Check::both(false);
        }
        let length = match be32(h, 0)? {
            0 => return Check::both(at > 0),
            1 => be64(h, 8)?,
            n => u64::from(n),
        };
        if length < 8 || at.checked_add(length)? > c.size() {
            return Check::both(false);
        }
        at += length;
    }
    Check::both(true)
}

/// MP3: an ID3 tag, or frames one after another.
pub fn mp3(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if head.starts_with(b"ID3") {
        let size = head.get(6..10)?;
        let ok = size.iter().all(|b| b & 0x80 == 0) && *head.get(3)? <= 4;
        return Check::both(ok);
    }
    let mut at = 0usize;
    let mut frames = 0;
    while let Some(h) = head.get(at..at + 4) {
        let rate = [
            0u32, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0,
        ][usize::from(h[2] >> 4)];
        let hertz = [44_100u32, 48_000, 32_000, 0][usize::from(h[2] >> 2 & 3)];
        if h[0] != 0xff || h[1] & 0xfe != 0xfa || rate == 0 || hertz == 0 {
            return if frames == 0 {
                None
            } else {
                Check::both(false)
            };
        }
        at += (144_000 * rate / hertz + u32::from(h[2] >> 1 & 1)) as usize;
        frames += 1;
    }
    if frames < 3 {
        return None;
    }
    Check::both(true)
}

/// Ogg: page header, the next page where it lies in the head.
pub fn ogg(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let segments = usize::from(*head.get(26)?);
    let length: usize = head
        .get(27..27 + segments)?
        .iter()
        .map(|b| usize::from(*b))
        .sum();
    let next = 27 + segments + length;
    let ok = head.get(next..next + 4).is_none_or(|m| m == b"OggS");
    Check::both(ok && *head.get(5)? & 2 != 0)
}

/// FLAC: the stream information block.
pub fn flac(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    Check::both(be32(head, 4)? & 0x7fff_ffff == 34 && head.get(8..10) != Some(&[0, 0]))
}

/// Matroska: the EBML header names its document type.
pub fn matroska(c: &Context<'_>) -> Option<Check> {
    let head = &c.head()[..c.head().len().min(128)];
    let named = [&b"matroska"[..], b"webm"]
        .iter()
        .any(|n| super::read::find(head, n).is_some());
    Check::both(named)
}
