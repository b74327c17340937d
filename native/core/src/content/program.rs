//! Checks of programs: ELF, PE, Mach-O and Java classes, WebAssembly, Python bytecode.

use super::formats::{Check, Context, Id};
use super::read::{be16, be32, le16, le32, le64};
use crate::facts::flags;

fn runs(structure: bool, id: Option<Id>) -> Option<Check> {
    Some(Check {
        structure,
        tail: structure,
        refined: id,
        flags: flags::EXECUTABLE,
        ..Check::default()
    })
}

/// ELF: class, byte order, version, type; tables within the file.
pub fn elf(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let (class, order) = (*head.get(4)?, *head.get(5)?);
    let version = *head.get(6)?;
    let kind = if order == 1 {
        le16(head, 16)?
    } else {
        be16(head, 16)?
    };
    let ok = matches!(class, 1 | 2) && matches!(order, 1 | 2) && version == 1 && kind <= 4;
    let fits = if class == 2 && order == 1 {
        let sections = le64(head, 40)?;
        let size = u64::from(le16(head, 58)?) * u64::from(le16(head, 60)?);
        sections.checked_add(size)? <= c.size() && le64(head, 32)? <= c.size()
    } else {
        true
    };
    let plain = c.encrypted_like[0] < 0.5;
    runs(ok && fits && plain, None)
}

/// PE: the signature where the DOS header points; a bare DOS program is let pass as one.
pub fn pe(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let at = u64::from(le32(head, 60)?);
    let Some(mark) = c.at(at, 6) else {
        return if at < c.size() && at > 0 && c.size() > 12_288 && at % 4 == 0 && at < 1 << 16 {
            runs(false, None)
        } else {
            None
        };
    };
    if !mark.starts_with(b"PE\0\0") {
        return None;
    }
    let machine = le16(mark, 4)?;
    runs(
        matches!(
            machine,
            0x14c | 0x8664 | 0xaa64 | 0x1c0 | 0x1c4 | 0x200 | 0xebc | 0x5064
        ),
        None,
    )
}

/// Mach-O: processor and command sizes; `cafebabe` is a fat binary or a Java class.
pub fn macho(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    if head.starts_with(b"\xca\xfe\xba\xbe") {
        let second = be32(head, 4)?;
        let (minor, major) = (second >> 16, second & 0xffff);
        if (45..=80).contains(&major) && minor <= 3 || minor == 0xffff {
            return Some(Check {
                refined: Some(Id::Class),
                ..runs(be16(head, 8)? > 1, None)?
            });
        }
        return if second > 0 && second < 20 {
            runs(true, None)
        } else {
            None
        };
    }
    let little = head[0] != 0xfe;
    let long = |at| {
        if little {
            le32(head, at)
        } else {
            be32(head, at)
        }
    };
    let (kind, count, size) = (long(12)?, long(16)?, long(20)?);
    if kind == 0 || kind > 12 || count == 0 || u64::from(size) > c.size() || count > 10_000 {
        return None;
    }
    runs(true, None)
}

/// WebAssembly: the first section's number.
pub fn wasm(c: &Context<'_>) -> Option<Check> {
    runs(*c.head().get(8).unwrap_or(&0) <= 13, None)
}

/// Python bytecode: flags, and a marshalled code object.
pub fn pyc(c: &Context<'_>) -> Option<Check> {
    let head = c.head();
    let version = le16(head, 0)?;
    let bits = le32(head, 4)?;
    if !(3000..4000).contains(&version) || bits > 3 || head.get(16)? & 0x7f != b'c' {
        return None;
    }
    Some(Check {
        structure: true,
        tail: true,
        flags: flags::SCRIPT,
        ..Check::default()
    })
}
