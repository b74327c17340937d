//! Checks of clinical data: DICOM with and without preamble, NIfTI, NRRD, HL7 v2, EDF; patient tags.

use super::formats::{Check, Context, Id};
use super::read::{be16, be32, le16, le32, le64};
use crate::facts::flags;

/// DICOM, part 10: preamble, meta group, data set.
pub fn dicom(c: &Context<'_>) -> Option<Check> {
    Some(dataset(c, 132))
}

/// DICOM without preamble: a data set or meta group from the first byte.
pub fn dicom_bare(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let element = le16(head, 2)?;
    let explicit = head.get(4..6).is_some_and(is_vr);
    let length = le32(head, 4)?;
    if !(element <= 0x20 && (explicit || length <= 64)) {
        return None;
    }
    let check = dataset(c, 0);
    check.structure.then_some(Check {
        refined: Some(Id::DicomBare),
        ..check
    })
}

const LONG_VR: [&[u8]; 10] = [
    b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UT",
];
const VR: [&[u8]; 34] = [
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"OB",
    b"OD", b"OF", b"OL", b"OV", b"OW", b"PN", b"SH", b"SL", b"SQ", b"SS", b"ST", b"SV", b"TM",
    b"UC", b"UI", b"UL", b"UN", b"UR", b"US", b"UT", b"UV",
];

fn is_vr(bytes: &[u8]) -> bool {
    VR.contains(&bytes)
}

/// Walks a data set's elements through the head sample: tags ascend, lengths fit, pixel data reach the end.
fn dataset(c: &Context<'_>, start: usize) -> Check {
    let head = c.head();
    let mut at = start;
    let mut big = false;
    let mut explicit = true;
    let mut encapsulated = false;
    let mut deflated = false;
    let mut last = 0u32;
    let mut elements = 0u32;
    let mut check = Check::default();
    let mut meta_done = false;
    let mut pixels_fit = None;
    let mut consistent = true;
    let mut depth_skip = false;
    while let Some(h) = head.get(at..at + 8) {
        let group_le = u16::from_le_bytes([h[0], h[1]]);
        if !meta_done && group_le != 2 {
            // the meta group is always explicit little-endian; what follows is as the transfer syntax says
            meta_done = true;
            if deflated {
                break;
            }
            if !big {
                explicit = is_vr(&h[4..6]);
            }
        }
        let swap = big && meta_done;
        let short = |b: &[u8], o| if swap { be16(b, o) } else { le16(b, o) }.unwrap_or(0);
        let long = |b: &[u8], o| if swap { be32(b, o) } else { le32(b, o) }.unwrap_or(0);
        let tag = u32::from(short(h, 0)) << 16 | u32::from(short(h, 2));
        let item = tag >> 16 == 0xfffe;
        let (length, header) = if item {
            (long(h, 4), 8)
        } else if explicit || !meta_done {
            let vr = &h[4..6];
            if !is_vr(vr) {
                consistent = false;
                break;
            }
            if LONG_VR.contains(&vr) {
                let Some(l) = head.get(at + 8..at + 12) else {
                    break;
                };
                (long(l, 0), 12)
            } else {
                (u32::from(short(h, 6)), 8)
            }
        } else {
            (long(h, 4), 8)
        };
        if item {
            // inside a sequence of unknown length: items are stepped into, tags start anew
            depth_skip = true;
            at += 8;
            last = 0;
            continue;
        }
        if tag <= last && !depth_skip {
            consistent = false;
            break;
        }
        depth_skip = false;
        last = tag;
        elements += 1;
        let value = head.get(at + header..at + header + length as usize);
        match tag {
            0x0002_0010 => {
                let uid = value.unwrap_or(&[]);
                let uid = uid.strip_suffix(b"\0").unwrap_or(uid);
                big = uid == b"1.2.840.10008.1.2.2";
                deflated = uid == b"1.2.840.10008.1.2.1.99";
                explicit = uid != b"1.2.840.10008.1.2";
                encapsulated = uid.starts_with(b"1.2.840.10008.1.2.4")
                    || uid.starts_with(b"1.2.840.10008.1.2.5");
            }
            0x0010_0010 | 0x0010_0020 | 0x0010_0030 if filled(value) => {
                check.flags |= flags::PHI_DICOM;
            }
            0x7fe0_0010 => {
                let begin = (at + header) as u64;
                pixels_fit = Some(if length == u32::MAX {
                    encapsulated = true;
                    head.get(at + header..at + header + 4)
                        .is_none_or(|m| m == b"\xfe\xff\0\xe0")
                } else {
                    begin + u64::from(length) <= c.size()
                });
                break;
            }
            _ => {}
        }
        if length == u32::MAX {
            at += header; // a sequence of unknown length: step into it
            last = 0;
            depth_skip = true;
            continue;
        }
        let Some(next) = at
            .checked_add(header)
            .and_then(|n| n.checked_add(length as usize))
        else {
            consistent = false;
            break;
        };
        if next as u64 > c.size() {
            consistent = false;
            break;
        }
        at = next;
    }
    let end = c.end();
    check.tail = if encapsulated && pixels_fit.is_some() {
        // the sequence delimiter, behind it at most padding
        let last = &end[end.len().saturating_sub(256)..];
        super::read::find(last, b"\xfe\xff\xdd\xe0\0\0\0\0").is_some()
    } else {
        pixels_fit.unwrap_or(true)
    };
    // pixels that are not compressed never look encrypted
    let native = pixels_fit.is_some() && !encapsulated;
    let consistent = consistent && (!native || c.plain());
    check.structure = consistent && elements >= 4 && pixels_fit.unwrap_or(true) && check.tail;
    check
}

/// A patient tag says something: not empty, not blanks, not the usual words of de-identification.
fn filled(value: Option<&[u8]>) -> bool {
    let Some(value) = value else {
        return false;
    };
    let value = value.strip_suffix(b"\0").unwrap_or(value).trim_ascii();
    let upper = value.to_ascii_uppercase();
    let blank = [
        &b"ANON"[..],
        b"ANONYMOUS",
        b"ANONYMIZED",
        b"ANONYMISED",
        b"NONE",
        b"UNKNOWN",
        b"REMOVED",
        b"DEIDENTIFIED",
        b"DE-IDENTIFIED",
        b"X",
        b"XXX",
        b"00000000",
        b"19000101",
        b"0",
    ];
    !value.is_empty() && !blank.contains(&upper.as_slice()) && !upper.starts_with(b"ANON^")
}

/// NIfTI 1 and 2: header size, dimensions, and the file's size that they give.
pub fn nifti(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let size = le32(head, 0)?;
    let swapped = be32(head, 0)?;
    if head
        .get(4..8)
        .is_some_and(|m| m == b"n+2\0" || m == b"ni2\0")
    {
        let ok = size == 540 || swapped == 540;
        let dimensions = if size == 540 {
            le64(head, 16)?
        } else {
            super::read::be64(head, 16)?
        };
        return Check::both(ok && (1..=7).contains(&dimensions));
    }
    let little = size == 348;
    if !little && swapped != 348 {
        return None;
    }
    let short = |at| {
        if little {
            le16(head, at)
        } else {
            be16(head, at)
        }
    };
    let dimensions = short(40)?;
    if !(1..=7).contains(&dimensions) {
        return Check::both(false);
    }
    let mut voxels = 1u64;
    for i in 1..=dimensions {
        voxels = voxels.checked_mul(u64::from(short(40 + 2 * usize::from(i))?))?;
    }
    let bits = u64::from(short(72)?);
    let offset = f32::from_bits(if little {
        le32(head, 108)?
    } else {
        be32(head, 108)?
    });
    let single = head.get(344..348) == Some(b"n+1\0");
    let data = voxels.checked_mul(bits)?.div_ceil(8);
    let fits = !single || (offset >= 348.0 && c.size() == data.checked_add(offset as u64)?);
    Check::both(fits && (bits % 8 == 0 || bits == 1) && c.plain())
}

/// NRRD: a text header that ends in an empty line, or is the file.
pub fn nrrd(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let end = super::read::find(head, b"\n\n").unwrap_or(head.len().min(512));
    let text = head[..end]
        .iter()
        .all(|b| (0x20..0x7f).contains(b) || matches!(b, b'\n' | b'\r' | b'\t'));
    let named = super::read::find(&head[..end], b"type:").is_some();
    Check::both(text && named)
}

/// HL7 v2: every line of the head is a segment; PID with an identifier or a name is patient data.
pub fn hl7(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let start = usize::from(head.first() == Some(&0x0b));
    let body = &head[start..];
    let mut segments = 0;
    let mut found = 0;
    let mut lines = body.split(|b| matches!(b, b'\r' | b'\n')).peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() || line == b"\x1c" {
            continue;
        }
        let cut = lines.peek().is_none();
        let name = line.get(..3)?;
        let named = name[0].is_ascii_uppercase()
            && name
                .iter()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if !(named && (line.len() == 3 || line[3] == b'|')) {
            if cut {
                break;
            }
            return Check::both(false);
        }
        segments += 1;
        if name == b"PID" {
            let mut fields = line.split(|b| *b == b'|');
            let said = |field: Option<&[u8]>| {
                field.is_some_and(|f| f.iter().any(u8::is_ascii_alphanumeric))
            };
            found |= i32::from(said(fields.nth(3)));
            found |= i32::from(said(fields.nth(1)));
        }
    }
    let ok = segments > 0 && c.text_or_control();
    Some(Check {
        structure: ok,
        tail: ok,
        flags: if found != 0 { flags::PHI_HL7 } else { 0 },
        ..Check::default()
    })
}

/// EDF and BDF: digits in the header, its own length.
pub fn edf(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let signals: u64 = number(head.get(252..256)?)?;
    let length: u64 = number(head.get(184..192)?)?;
    Check::both(length == 256 + signals * 256 && length <= c.size())
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field.trim_ascii()).ok()?.parse().ok()
}
