//! Checks of databases, arrays and other stores.

use super::formats::{Check, Context};
use super::read::{be16, be32, find, le16, le32, le64};

/// SQLite: page size, page count against the file's size, the first page and the page in the middle are b-tree pages.
pub fn sqlite(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let page = match be16(head, 16)? {
        1 => 65536u64,
        n => u64::from(n),
    };
    if !page.is_power_of_two() || page < 512 {
        return Check::both(false);
    }
    let pages = u64::from(be32(head, 28)?);
    let current = be32(head, 24)? == be32(head, 92)?;
    let fits = !current || pages == 0 || pages * page == c.size();
    let whole = c.size() % page == 0;
    let first = matches!(head.get(100)?, 2 | 5 | 10 | 13);
    let fractions = head.get(21..24) == Some(&[64, 32, 32]);
    let mut ok = first && fractions && whole;
    if !c.samples.complete {
        let at = super::middle_offset(c.size());
        if at % page == 0 {
            // a b-tree page, an overflow page (page number first), a freelist page or an empty one
            let middle = c.samples.middle;
            let number = u64::from(be32(middle, 0)?);
            let btree =
                matches!(middle.first()?, 2 | 5 | 10 | 13) && be16(middle, 3)? as usize <= 4096;
            ok &= btree || number <= c.size() / page;
        }
        ok &= c.encrypted_like[2] < 0.5 || c.encrypted_like[1] < 0.5;
    }
    Check::of(ok && fits, whole && fits)
}

/// SQLite write-ahead log: version and page size.
pub fn sqlite_wal(c: &Context<'_>) -> Option<Check> {
    let page = u64::from(be32(c.head(), 8)?);
    let frames = c.size().checked_sub(32)?;
    Check::both(
        be32(c.head(), 4)? == 3_007_000 && page.is_power_of_two() && frames % (page + 24) == 0,
    )
}

/// SQLite rollback journal: sector and page size.
pub fn sqlite_journal(c: &Context<'_>) -> Option<Check> {
    let (sector, page) = (be32(c.head(), 20)?, be32(c.head(), 24)?);
    Check::both(sector.is_power_of_two() && page.is_power_of_two())
}

/// Parquet: magic at both ends, the footer's length; `PARE` declares an encrypted footer.
pub fn parquet(c: &Context<'_>) -> Option<Check> {
    let (head, end) = (c.head(), c.end());
    let at = end.len().checked_sub(8)?;
    let footer = u64::from(le32(end, at)?);
    let tail = end[at + 4..] == head[..4];
    if c.text {
        return None;
    }
    Some(Check {
        structure: tail && footer > 0 && footer + 12 <= c.size(),
        tail,
        declares: head.starts_with(b"PARE"),
        ..Check::default()
    })
}

/// HDF5: superblock version, sizes of offsets, end of file address.
pub fn hdf5(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let version = *head.get(8)?;
    let (offsets, end) = if version < 2 {
        (*head.get(13)?, le64(head, 40)?)
    } else {
        (*head.get(9)?, le64(head, 28)?)
    };
    Check::both(version <= 3 && offsets == 8 && end <= c.size())
}

/// NumPy: a header dictionary in text that gives the shape.
pub fn npy(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let length = if *head.get(6)? == 1 {
        usize::from(le16(head, 8)?)
    } else {
        le32(head, 8)? as usize
    };
    let start = if head[6] == 1 { 10 } else { 12 };
    let text = head.get(start..head.len().min(start + length))?;
    Check::both(find(text, b"'descr'").is_some() && find(text, b"'shape'").is_some())
}

/// Arrow: magic at both ends.
pub fn arrow(c: &Context<'_>) -> Option<Check> {
    Check::both(c.end().ends_with(b"ARROW1"))
}

/// pg_dump's custom format: version and sizes of integers.
pub fn pg_dump(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    Check::both(*head.get(5)? == 1 && *head.get(6)? <= 20 && matches!(head.get(8)?, 4 | 8))
}

/// Git pack: version; its first object's zlib data are decoded.
pub fn git_pack(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if !matches!(be32(head, 4)?, 2 | 3) {
        return None;
    }
    let mut at = 12;
    let kind = head.get(at)? >> 4 & 7;
    while head.get(at)? & 0x80 != 0 {
        at += 1;
    }
    at += 1;
    let decoded = kind > 4 || be32(head, 8)? == 0 || c.inflates(head.get(at..)?, true).is_some();
    Some(Check {
        structure: decoded,
        tail: decoded,
        decoded,
        ..Check::default()
    })
}

/// Git index and pack index: version, and the fan-out table ascends.
pub fn git_index(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if head.starts_with(b"DIRC") {
        return Check::both(
            matches!(be32(head, 4)?, 2..=4) && u64::from(be32(head, 8)?) * 62 <= c.size() + 62,
        );
    }
    let mut last = 0;
    for i in 0..256 {
        let n = be32(head, 8 + 4 * i)?;
        if n < last {
            return Check::both(false);
        }
        last = n;
    }
    Check::both(u64::from(last) * 28 + 1072 <= c.size() + 4)
}

/// Pickle: ends in its stop code.
pub fn pickle(c: &Context<'_>) -> Option<Check> {
    let tail = c.end().ends_with(b".");
    if !tail || c.encrypted_like[0] >= 0.5 {
        return None;
    }
    Check::both(c.plain() || c.head().get(2) == Some(&0x95))
}

/// Fonts: the table directory, or the size that WOFF gives.
pub fn font(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if head.starts_with(b"wOF") {
        return Check::both(u64::from(be32(head, 8)?) == c.size());
    }
    if head.starts_with(b"ttcf") {
        return Check::both(matches!(be16(head, 4)?, 1 | 2));
    }
    let tables = usize::from(be16(head, 4)?);
    if tables == 0 || tables > 64 {
        return None;
    }
    for i in 0..tables {
        let Some(entry) = head.get(12 + 16 * i..28 + 16 * i) else {
            break;
        };
        let end = u64::from(be32(entry, 8)?) + u64::from(be32(entry, 12)?);
        if end > c.size() || !entry[..4].iter().all(|b| (0x20..0x7f).contains(b)) {
            return None;
        }
    }
    Check::both(true)
}

/// Gettext catalogue: tables within the file.
pub fn gettext(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let little = head[0] == 0xde;
    let long = |at| {
        if little {
            le32(head, at)
        } else {
            be32(head, at)
        }
    };
    let (count, originals, translated) = (long(8)?, long(12)?, long(16)?);
    if long(4)? >> 16 > 1 {
        return Check::both(false);
    }
    let fits = |at: u32| u64::from(at) + u64::from(count) * 8 <= c.size();
    Check::both(fits(originals) && fits(translated))
}

/// Compiled terminal description: section sizes within the file.
pub fn terminfo(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let (names, bools, numbers, strings) = (
        le16(head, 2)?,
        le16(head, 4)?,
        le16(head, 6)?,
        le16(head, 8)?,
    );
    let wide = if head[0] == 0x1e { 4 } else { 2 };
    let least = 12
        + u64::from(names)
        + u64::from(bools)
        + wide * u64::from(numbers)
        + 2 * u64::from(strings);
    (names > 0 && bools < 64 && numbers < 64 && strings < 512 && least <= c.size() + 2).then_some(
        Check {
            structure: true,
            tail: true,
            ..Check::default()
        },
    )
}
