//! What a path says of a file: hashes, extension, temporary names, ransom notes.

use crate::facts::{flags, Facts};

/// First eight bytes of the BLAKE3 digest of a kind, a tree number and some bytes; never 0.
pub fn hash(kind: u8, tree: u16, parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind, tree as u8, (tree >> 8) as u8]);
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 8];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(out).max(1)
}

/// Directory and base name of a path relative to the tree's root; the directory is empty at the root.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(i) => (&path[..i], &path[i + 1..]),
        None => (b"", path),
    }
}

/// Where the last extension of a base name starts (its dot): one to ten letters, digits, `-`, `_` with a letter among them.
fn extension_at(base: &[u8]) -> Option<usize> {
    let dot = base.iter().rposition(|b| *b == b'.')?;
    let ext = &base[dot + 1..];
    let fits = dot > 0
        && (1..=10).contains(&ext.len())
        && ext.iter().any(u8::is_ascii_alphabetic)
        && ext
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    fits.then_some(dot)
}

/// The last extension of a base name without its dot, empty where there is none.
pub fn extension(base: &[u8]) -> &[u8] {
    extension_at(base).map_or(b"", |dot| &base[dot + 1..])
}

/// The base name without its extensions and a trailing `~`.
pub fn stem(base: &[u8]) -> &[u8] {
    let mut base = base;
    while base.len() > 1 && base.ends_with(b"~") {
        base = &base[..base.len() - 1];
    }
    while let Some(dot) = extension_at(base) {
        base = &base[..dot];
    }
    base
}

/// Fills the hashes, and the flags that need the name alone.
pub fn fill(tree: u16, path: &[u8], from: Option<&[u8]>, facts: &mut Facts) {
    let (dir, base) = split(path);
    facts.path_hash = hash(b'p', tree, &[path]);
    facts.dir_hash = hash(b'd', tree, &[dir]);
    facts.name_hash = hash(b'n', 0, &[base]);
    facts.stem_hash = hash(b's', tree, &[dir, b"/", stem(base)]);
    if let Some(from) = from {
        facts.from_hash = hash(b'p', tree, &[from]);
        let old = split(from).1;
        if extension(old) != extension(base) {
            facts.flags |= flags::EXT_CHANGED;
        }
    }
}
