//! What a path says of a file: hashes, extension, temporary names, ransom notes.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::formats;
use super::read::find;
use crate::facts::{flags, Facts};

/// What makes the hashes of one installation its own, so that nobody can look for names that collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

/// SipHash-1-3 under `key` of a kind, a tree number and some bytes; never 0.
pub fn hash(key: &Key, kind: u8, tree: u16, parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&key.0);
    for part in parts {
        hasher.write(part);
    }
    hasher.write_u32(u32::from(kind) << 16 | u32::from(tree));
    hasher.finish().max(1)
}

/// What stands for a path of a tree in the facts.
pub fn path_hash(key: &Key, tree: u16, path: &[u8]) -> u64 {
    hash(key, b'p', tree, &[path])
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
pub fn fill(key: &Key, tree: u16, path: &[u8], from: Option<&[u8]>, facts: &mut Facts) {
    let (dir, base) = split(path);
    facts.path_hash = path_hash(key, tree, path);
    facts.dir_hash = hash(key, b'd', tree, &[dir]);
    facts.name_hash = hash(key, b'n', 0, &[base]);
    facts.stem_hash = hash(key, b's', tree, &[dir, b"/", stem(base)]);
    if let Some(from) = from {
        facts.from_hash = path_hash(key, tree, from);
        let old = split(from).1;
        if extension(old) != extension(base) {
            facts.flags |= flags::EXT_CHANGED;
        }
    }
    if temporary(base) {
        facts.flags |= flags::TEMPORARY;
    }
    if note_name(base) {
        facts.flags |= flags::NOTE_LIKE;
    }
    let mut lower = [0; 12];
    facts.ext_format = formats::by_extension(lower_extension(base, &mut lower)) as u16;
    if facts.ext_format != 0 {
        facts.flags |= flags::EXT_KNOWN;
    }
}

/// The last extension in lower case, in the room given; empty where there is none.
pub fn lower_extension<'a>(base: &[u8], room: &'a mut [u8; 12]) -> &'a [u8] {
    let ext = extension(base);
    for (to, from) in room.iter_mut().zip(ext) {
        *to = from.to_ascii_lowercase();
    }
    &room[..ext.len().min(12)]
}

/// The path without its last extension, where it has one: what a compressor was given.
pub fn without_extension(path: &[u8]) -> Option<&[u8]> {
    let base = split(path).1;
    let dot = extension_at(base)?;
    Some(&path[..path.len() - base.len() + dot])
}

/// Names that editors, downloads and copies use for what is not there yet or was there before.
fn temporary(base: &[u8]) -> bool {
    let ends = [
        &b"~"[..],
        b".tmp",
        b".temp",
        b".swp",
        b".swx",
        b".part",
        b".partial",
        b".crdownload",
        b".bak",
        b".filepart",
    ];
    ends.iter().any(|end| base.ends_with(end))
        || base.starts_with(b".~lock.")
        || base.starts_with(b"~$")
        || base.starts_with(b".#")
        || (base.starts_with(b"#") && base.ends_with(b"#"))
}

/// Names that ransom notes have.
fn note_name(base: &[u8]) -> bool {
    if base.len() > 96 || base.len() < 6 {
        return false;
    }
    let mut lower = [0u8; 96];
    for (to, from) in lower.iter_mut().zip(base) {
        *to = match from.to_ascii_lowercase() {
            b' ' | b'-' | b'.' => b'_',
            b => b,
        };
    }
    let name = &lower[..base.len()];
    let has = |what: &[u8]| find(name, what).is_some();
    let readable = [
        &b"_txt"[..],
        b"_html",
        b"_htm",
        b"_hta",
        b"_md",
        b"_rtf",
        b"_url",
    ]
    .iter()
    .any(|end| name.ends_with(end));
    if !readable {
        return false;
    }
    let verb = [
        &b"decrypt"[..],
        b"decypher",
        b"restore",
        b"recover",
        b"unlock",
        b"ransom",
    ]
    .iter()
    .any(|w| has(w));
    let noun = [
        &b"readme"[..],
        b"read_me",
        b"how_to",
        b"howto",
        b"how_do",
        b"instruction",
        b"your_",
        b"file",
        b"help",
        b"!!",
    ]
    .iter()
    .any(|w| has(w));
    (verb && noun)
        || name.starts_with(b"_readme_")
        || has(b"ransom")
        || has(b"!readme")
        || has(b"!!!")
}

/// Whether a short text speaks as ransom notes do: of locked files, and of a price or a hidden place.
pub fn note_text(text: &[u8]) -> bool {
    let mut lower = [0u8; 4096];
    let n = text.len().min(lower.len());
    for (to, from) in lower.iter_mut().zip(text) {
        *to = from.to_ascii_lowercase();
    }
    let text = &lower[..n];
    if find(text, b"crypt").is_none() {
        return false;
    }
    let any = |words: &[&[u8]]| words.iter().filter(|w| find(text, w).is_some()).count();
    let locked = any(&[
        b"your files",
        b"all files",
        b"your data",
        b"your network",
        b"your documents",
        b"been encrypted",
        b"are encrypted",
        b"were encrypted",
        b"files have been",
    ]);
    let price = any(&[
        b"bitcoin",
        b"btc",
        b"monero",
        b" xmr",
        b".onion",
        b"tor browser",
        b"decryptor",
        b"private key",
        b"payment",
        b"pay ",
        b"contact us",
        b"ransom",
        b"decryption tool",
        b"leak",
    ]);
    locked >= 1 && price >= 2
}
