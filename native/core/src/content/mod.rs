//! Facts from the bytes of a file: at most three samples of 4 KiB, whatever its size.
//!
//! * [`statistics`]: entropy, chi-square, serial correlation, how encrypted it looks.
//! * [`sketch`]: what similarity of two versions is estimated from.
//! * [`formats`]: the table of formats; [`archive`], [`stream`], [`image`], [`media`], [`document`], [`clinical`],
//!   [`data`], [`program`], [`sealed`], [`text`] hold their checks.
//! * [`names`]: what the name alone says.
//!
//! Nothing here panics on any bytes; a property test holds that.

pub mod archive;
pub mod checksum;
pub mod clinical;
pub mod data;
pub mod document;
pub mod formats;
pub mod image;
pub mod inflate;
pub mod lzma;
pub mod media;
pub mod names;
pub mod program;
pub mod read;
pub mod sealed;
pub mod sketch;
pub mod statistics;
pub mod stream;
pub mod text;

use std::cell::{Cell, RefCell};

use crate::baseline::{marks, similarity, Fingerprint};
use crate::facts::{flags, Facts};
use crate::phi;
use formats::{Check, Class, Context, Id};
use sketch::Sketcher;
use statistics::{measure, Statistics};

/// Bytes of one sample.
pub const WINDOW: usize = 4096;
/// Longest text that is searched for the words of a ransom note, bytes.
const NOTE_BYTES: u64 = 64 * 1024;

/// Where the middle sample of a file of more than three windows starts: a power of two between a quarter and half of
/// its size, so that it stays where it is while the file grows a little.
pub fn middle_offset(size: u64) -> u64 {
    1 << (size / 2).max(WINDOW as u64).ilog2()
}

/// The samples of one file.
pub struct Samples<'a> {
    /// Size of the file, bytes.
    pub size: u64,
    /// First bytes: the whole file where it is no longer than three windows.
    pub head: &'a [u8],
    /// From [`middle_offset`]; empty where `head` is the whole file.
    pub middle: &'a [u8],
    /// Last bytes; empty where `head` is the whole file.
    pub tail: &'a [u8],
    /// Whether `head` is the whole file.
    pub complete: bool,
}

impl<'a> Samples<'a> {
    /// A small file, read whole. A file that shrank meanwhile is as long as what was read.
    pub fn whole(bytes: &'a [u8]) -> Self {
        Samples {
            size: bytes.len() as u64,
            head: bytes,
            middle: &[],
            tail: &[],
            complete: true,
        }
    }

    /// Three samples of a larger one.
    pub fn of_parts(head: &'a [u8], middle: &'a [u8], tail: &'a [u8], size: u64) -> Self {
        Samples {
            size,
            head,
            middle,
            tail,
            complete: false,
        }
    }

    /// Bytes that were read.
    pub fn bytes(&self) -> u64 {
        (self.head.len() + self.middle.len() + self.tail.len()) as u64
    }

    /// `length` bytes at an offset of the file, where a sample holds them.
    pub fn at(&self, offset: u64, length: usize) -> Option<&'a [u8]> {
        let within = |sample: &'a [u8], start: u64| {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            sample.get(from..from.checked_add(length)?)
        };
        if self.complete {
            return within(self.head, 0);
        }
        within(self.head, 0)
            .or_else(|| within(self.middle, middle_offset(self.size)))
            .or_else(|| within(self.tail, self.size.checked_sub(self.tail.len() as u64)?))
    }

    /// Head, middle and tail of at most [`WINDOW`] bytes; they overlap in a small file.
    fn windows(&self) -> [&'a [u8]; 3] {
        if !self.complete {
            return [self.head, self.middle, self.tail];
        }
        let n = self.head.len();
        if n <= WINDOW {
            return [self.head; 3];
        }
        let middle = (n - WINDOW) / 2;
        [
            &self.head[..WINDOW],
            &self.head[middle..middle + WINDOW],
            &self.head[n - WINDOW..],
        ]
    }
}

/// Puts what was known of a file into its facts.
pub fn remember(old: &Fingerprint, facts: &mut Facts) {
    facts.flags |= flags::KNOWN_BEFORE;
    facts.prev_size = old.size;
    facts.prev_format = old.format;
    facts.prev_entropy = old.entropy;
    facts.prev_encrypted_like = old.encrypted_like;
    facts.prev_content_hash = old.content_hash;
    if old.flags & marks::DECLARED != 0 {
        facts.flags |= flags::PREV_DECLARED;
    }
    if old.flags & marks::STRUCTURE_OK != 0 {
        facts.flags |= flags::PREV_STRUCTURE_OK;
    }
}

/// Fills the facts that the samples tell, compares with the version `before`, and returns the fingerprint of now.
///
/// `extension` is in lower case. `original` is the fingerprint of a file that this one may hold in compressed form
/// (the same path without the last extension): decoded content that shares its shingles proves it.
pub fn analyse(
    samples: &Samples<'_>,
    extension: &[u8],
    before: Option<&Fingerprint>,
    original: Option<&Fingerprint>,
    facts: &mut Facts,
) -> Fingerprint {
    let windows = samples.windows();
    let same = samples.complete && windows[0].len() == samples.head.len();
    let measured = if same {
        [
            measure(windows[0]),
            Statistics::default(),
            Statistics::default(),
        ]
    } else {
        windows.map(measure)
    };
    let statistics = if same {
        [&measured[0]; 3]
    } else {
        [&measured[0], &measured[1], &measured[2]]
    };
    facts.size = samples.size;
    numbers(&statistics, facts);
    let like = statistics.map(Statistics::encrypted_like);
    facts.encrypted_like = median(like);
    let is_text = |i: usize| text::is_text(windows[i], statistics[i]);
    let all_text = !samples.head.is_empty() && is_text(0) && (same || (is_text(1) && is_text(2)));
    let context = Context {
        samples,
        extension,
        encrypted_like: like,
        text: all_text,
        scratch: RefCell::new([0; inflate::DECODED]),
        decoded: Cell::new(0),
    };
    let (id, check) = identify(&context, statistics[0]);
    mark(id, &check, extension, facts);
    if context.text && formats::row(id as u16).class != Class::Encoding {
        facts.flags |= flags::TEXT;
    }
    patients(&context, &windows, same, id, facts);
    if facts.has(flags::TEXT) && samples.size <= NOTE_BYTES && names::note_text(samples.head) {
        facts.flags |= flags::NOTE_LIKE;
    }
    let mut sketcher = Sketcher::default();
    if samples.complete {
        sketcher.add(samples.head);
    } else {
        for window in windows {
            sketcher.add(window);
        }
    }
    facts.content_hash = content_hash(samples);
    let now = Fingerprint {
        size: samples.size,
        content_hash: facts.content_hash,
        sketch: sketcher.finish(),
        entropy: facts.mean_entropy(),
        encrypted_like: facts.encrypted_like,
        format: facts.format,
        flags: marks::LOOKED
            | if check.structure {
                marks::STRUCTURE_OK
            } else {
                0
            }
            | if check.declares { marks::DECLARED } else { 0 }
            | if context.text { marks::TEXT } else { 0 },
        ..Fingerprint::default()
    };
    if let Some(old) = before.filter(|old| old.flags & marks::LOOKED != 0) {
        facts.similarity = if old.content_hash == now.content_hash {
            1.0
        } else {
            similarity(&old.sketch, &now.sketch)
        };
    }
    if let Some(original) = original {
        let decoded = context.decoded.get();
        let proof = if decoded > 0 {
            sketch::shared(&context.scratch.borrow()[..decoded], &original.sketch)
        } else {
            0
        };
        if proof >= 2 && !check.declares {
            facts.flags |= flags::REPLACED;
        }
    }
    now
}

/// The middle one of three.
fn median(x: [f32; 3]) -> f32 {
    let low = x[0].min(x[1]);
    let high = x[0].max(x[1]);
    x[2].clamp(low, high)
}

fn numbers(statistics: &[&Statistics; 3], facts: &mut Facts) {
    let (mut printable, mut zero, mut length, mut serial) = (0u32, 0u32, 0usize, 0.0f32);
    let mut blocks: Option<(f32, f32)> = None;
    for (i, s) in statistics.iter().enumerate() {
        facts.entropy[i] = s.entropy;
        facts.chi_square[i] = (1.0 + s.chi_square).log10();
        printable += s.printable();
        zero += u32::from(s.counts[0]);
        length += s.length;
        serial += s.serial / 3.0;
        blocks = match (blocks, s.blocks) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
    let length = length.max(1) as f32;
    facts.ascii = printable as f32 / length;
    facts.zero = zero as f32 / length;
    facts.serial = serial;
    facts.block_spread = blocks.map_or(0.0, |(low, high)| high - low);
}

/// The format by content: a magic number and its check, OpenPGP packets, a tar of old, text or an encoding, or unknown.
fn identify(context: &Context<'_>, head: &Statistics) -> (Id, Check) {
    if context.head().is_empty() {
        return (Id::Unknown, Check::default());
    }
    if let Some(found) = formats::by_content(context) {
        return found;
    }
    if let Some(found) = sealed::openpgp(context) {
        return found;
    }
    if text::is_utf16(context.head()) {
        return (
            Id::Text,
            Check {
                structure: true,
                tail: true,
                flags: flags::TEXT,
                ..Check::default()
            },
        );
    }
    if !context.text {
        if context.extension == b"tar" {
            if let Some(check) = archive::tar(context) {
                return (Id::Tar, check);
            }
        }
        return (Id::Unknown, Check::default());
    }
    if let Some(id) = text::encoding(head) {
        return (id, Check::default());
    }
    text::kind(context)
}

fn mark(id: Id, check: &Check, extension: &[u8], facts: &mut Facts) {
    facts.format = id as u16;
    let set = [
        (formats::is_kind(facts.format), flags::MAGIC_KNOWN),
        (check.structure, flags::STRUCTURE_OK),
        (check.tail, flags::TAIL_OK),
        (check.declares, flags::DECLARES_ENCRYPTION),
        (check.decoded, flags::DECODED),
        (id == Id::Sealed, flags::SEALED),
    ];
    for (yes, flag) in set {
        if yes {
            facts.flags |= flag;
        }
    }
    facts.flags |= check.flags;
    let by_name = formats::by_extension(extension);
    facts.ext_format = by_name as u16;
    if by_name != Id::Unknown {
        facts.flags |= flags::EXT_KNOWN;
        if formats::is_kind(facts.format) && formats::same_family(facts.format, facts.ext_format) {
            facts.flags |= flags::MAGIC_MATCHES_EXT;
        }
    }
}

/// Identifiers in text, or in text that was decoded from a compressed stream.
fn patients(context: &Context<'_>, windows: &[&[u8]; 3], same: bool, id: Id, facts: &mut Facts) {
    let mut found = phi::Found::default();
    if facts.has(flags::TEXT) {
        if context.samples.complete {
            found.scan(context.samples.head);
        } else {
            for window in if same { &windows[..1] } else { &windows[..] } {
                found.scan(window);
            }
        }
    } else if context.decoded.get() > 0
        && matches!(
            formats::row(id as u16).class,
            Class::Stream | Class::Archive
        )
    {
        let scratch = context.scratch.borrow();
        let bytes = &scratch[..context.decoded.get()];
        if text::is_text(bytes, &measure(bytes)) {
            found.scan(bytes);
        }
    }
    facts.phi_hits = found.hits();
    if found.hits() > 0 {
        facts.flags |= flags::PHI_TEXT;
    }
    if found.several() {
        facts.flags |= flags::PHI_SEVERAL;
    }
}

/// First eight bytes of the BLAKE3 digest of size and samples; never 0.
fn content_hash(samples: &Samples<'_>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&samples.size.to_le_bytes());
    hasher.update(samples.head);
    hasher.update(samples.middle);
    hasher.update(samples.tail);
    let mut out = [0; 8];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(out).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn look(bytes: &[u8], extension: &[u8]) -> Facts {
        let mut facts = Facts::default();
        let samples = if bytes.len() <= 3 * WINDOW {
            Samples::whole(bytes)
        } else {
            let middle = middle_offset(bytes.len() as u64) as usize;
            Samples::of_parts(
                &bytes[..WINDOW],
                &bytes[middle..middle + WINDOW],
                &bytes[bytes.len() - WINDOW..],
                bytes.len() as u64,
            )
        };
        analyse(&samples, extension, None, None, &mut facts);
        facts
    }

    fn sane(facts: &Facts) {
        let finite = facts
            .entropy
            .iter()
            .chain(&facts.chi_square)
            .all(|x| x.is_finite());
        assert!(finite && (0.0..=1.0).contains(&facts.encrypted_like));
        assert!((0.0..=1.0).contains(&facts.ascii) && (0.0..=1.0).contains(&facts.zero));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            sane(&look(&bytes, b""));
        }

        #[test]
        fn no_bytes_behind_a_magic_number_panic(
            which in 0usize..200,
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>(), 0u8..16], 0..2000),
            extra in 0usize..20_000,
        ) {
            let all: Vec<_> = formats::FORMATS.iter().flat_map(|f| f.magic.iter().map(move |m| (f, m))).collect();
            let (format, (offset, magic)) = all[which % all.len()];
            let mut file = vec![0u8; *offset];
            file.extend_from_slice(magic);
            file.extend_from_slice(&bytes);
            file.resize(file.len() + extra, 7);
            let extension = format.extensions.first().map_or(&b""[..], |e| e.as_bytes());
            sane(&look(&file, extension));
        }

        #[test]
        fn no_text_panics(text in "[{}\\[\\]\",:<>/a-z0-9 |\n\r\\\\]{0,400}") {
            sane(&look(text.as_bytes(), b"json"));
            sane(&look(format!("{{\"a\":{text}").as_bytes(), b""));
            sane(&look(format!("MSH|^~\\&|{text}").as_bytes(), b"hl7"));
        }
    }
}
