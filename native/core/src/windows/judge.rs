//! Whether an event destroyed a known file, or replaced it by verified content.
//!
//! A known file is *destroyed* when its content was lost in place (type or similarity gone, nothing well-formed in its
//! stead) or when it was deleted and no new file of the same actor is a verified replacement. Creating and deleting
//! one's own short-lived files destroys nothing.

use super::outputs::{Output, Outputs, Quality};
use super::{did, operations};
use crate::content::formats;
use crate::event::{self, Event, Kind};
use crate::facts::{flags, Facts};

/// Entropy gained from which it counts as a rise, bits per byte.
pub const ENTROPY_RISE_BITS: f32 = 1.0;
/// From here on bytes look encrypted.
pub const ENCRYPTED_LIKE: f32 = 0.5;
/// From here on content is an edit of what was there.
pub const KEPT: f32 = 0.25;
/// A new file explains a removal for so long after its last write, ns.
pub const PARTNER_NS: u64 = 60_000_000_000;
/// A new file of like size explains a removal for so long, ns.
pub const LIKE_SIZE_NS: u64 = 5_000_000_000;
/// A file removed by its own maker so soon was never more than temporary, ns.
pub const OWN_NS: u64 = 30_000_000_000;
/// The same for files with temporary names, ns.
pub const OWN_TEMPORARY_NS: u64 = 600_000_000_000;

/// What an event did to a known file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// A known file was destroyed.
    pub destroys: bool,
    /// It was destroyed in place, not deleted.
    pub in_place: bool,
    /// It was deleted beside new content that is encrypted or of no known kind.
    pub bad_pair: bool,
    /// It lives on in verified content.
    pub replaces: bool,
}

/// Known before, and mean entropy rose by a bit or more.
pub fn entropy_rose(facts: &Facts) -> bool {
    let now = facts.mean_entropy();
    facts.has(flags::KNOWN_BEFORE | flags::LOOKED)
        && facts.prev_entropy >= 0.0
        && now - facts.prev_entropy >= ENTROPY_RISE_BITS
}

/// Was of a known format and is of none now.
pub fn type_lost(facts: &Facts) -> bool {
    facts.has(flags::KNOWN_BEFORE | flags::LOOKED)
        && formats::is_kind(facts.prev_format)
        && !formats::is_kind(facts.format)
}

/// Was of a known format and is of another one now.
pub fn type_changed(facts: &Facts) -> bool {
    facts.has(flags::KNOWN_BEFORE | flags::LOOKED)
        && formats::is_kind(facts.prev_format)
        && formats::is_kind(facts.format)
        && !formats::same_family(facts.prev_format, facts.format)
}

/// The content is of no known kind: no format at all, or an encoding of anything.
pub fn of_no_kind(facts: &Facts) -> bool {
    !formats::is_kind(facts.format) && !facts.has(flags::TEXT)
}

/// Looks encrypted by its bytes and parses as nothing, or declares encryption.
pub fn looks_encrypted(facts: &Facts) -> bool {
    facts.has(flags::DECLARES_ENCRYPTION)
        || (facts.encrypted_like >= ENCRYPTED_LIKE && !facts.has(flags::STRUCTURE_OK))
}

/// What the content is worth as a replacement.
pub fn quality(facts: &Facts) -> Quality {
    if !facts.has(flags::LOOKED) || facts.size == 0 {
        Quality::Unknown
    } else if looks_encrypted(facts) {
        Quality::Bad
    } else if facts.any(flags::STRUCTURE_OK | flags::REPLACED) || facts.has(flags::TEXT) {
        Quality::Verified
    } else {
        Quality::Bad
    }
}

/// How much of a new file the content of an old one takes at least, bytes: what cannot be compressed must be there.
fn claim(size: u64, entropy: f32) -> f64 {
    let dense = (f64::from(entropy.clamp(0.0, 8.0)) / 8.0).powi(4);
    size as f64 * dense / 20.0
}

/// Judges an event, and keeps the actor's new files up to date.
pub fn judge(
    outputs: &mut Outputs,
    event: &Event,
    facts: &Facts,
    quality: Quality,
    now_ns: u64,
) -> Judgement {
    let ops = operations(event);
    let known = facts.has(flags::KNOWN_BEFORE);
    if event.kind == Kind::Delete as u8 {
        let own = outputs.take(facts.path_hash);
        return if known {
            deleted(outputs, facts, own.map(|o| o.born_ns), now_ns)
        } else {
            Judgement::default()
        };
    }
    let touched = did(ops, Kind::Create) || did(ops, Kind::Write) || did(ops, Kind::Rename);
    if !touched {
        return Judgement::default();
    }
    let moved = if did(ops, Kind::Rename) && facts.from_hash != 0 {
        outputs.take(facts.from_hash)
    } else {
        None
    };
    let mine = moved.is_some() || outputs.at(facts.path_hash).is_some();
    let over = event.flags & event::flags::OVER != 0;
    let open = event.flags & event::flags::OPEN != 0;
    let in_the_making = !over
        && outputs
            .at(facts.path_hash)
            .or(moved.as_ref())
            .is_some_and(|o| o.unclosed);
    let judgement = if known
        && facts.has(flags::LOOKED)
        && !in_the_making
        && (!did(ops, Kind::Rename) || over || !mine)
    {
        in_place(outputs, event, facts)
    } else {
        Judgement::default()
    };
    if mine || !known || judgement.in_place {
        outputs.put(Output {
            path: facts.path_hash,
            stem: facts.stem_hash,
            content: facts.content_hash,
            size: facts.size,
            quality,
            archive: formats::is_archive(facts.format),
            claimed: moved.map_or(0.0, |o| o.claimed),
            born_ns: moved.map_or(now_ns, |o| o.born_ns),
            at_ns: now_ns,
            proved: facts.has(flags::REPLACED),
            unclosed: open && (in_the_making || !known),
        });
    }
    judgement
}

/// A known file was written, or replaced by a rename.
fn in_place(outputs: &mut Outputs, event: &Event, facts: &Facts) -> Judgement {
    let lost = lost_in_place(event, facts);
    let copied = lost
        && outputs
            .of_content(facts.prev_content_hash, facts.path_hash)
            .is_some();
    let other = facts.similarity >= 0.0 && facts.similarity < KEPT;
    Judgement {
        destroys: lost && !copied,
        in_place: lost && !copied,
        bad_pair: false,
        replaces: copied || (!lost && other && facts.has(flags::STRUCTURE_OK)),
    }
}

fn lost_in_place(event: &Event, facts: &Facts) -> bool {
    let declared = facts.has(flags::DECLARES_ENCRYPTION);
    let was_declared = facts.has(flags::PREV_DECLARED);
    let encrypted = facts.encrypted_like >= ENCRYPTED_LIKE;
    let kept = facts.similarity >= KEPT;
    if facts.prev_size == 0 {
        return false;
    }
    if declared {
        return !was_declared;
    }
    if facts.size == 0 {
        return event.flags & event::flags::OPEN == 0;
    }
    if type_lost(facts) {
        return event.flags & event::flags::OPEN == 0 || encrypted;
    }
    let was_encrypted = facts.prev_encrypted_like >= ENCRYPTED_LIKE;
    if encrypted && !was_encrypted && !kept && !formats::is_dense(facts.format) {
        return facts.similarity >= 0.0;
    }
    if event.flags & event::flags::OPEN != 0 {
        return false;
    }
    let misnamed = facts.has(flags::EXT_KNOWN) && !facts.has(flags::MAGIC_MATCHES_EXT);
    if type_changed(facts) && misnamed && !kept {
        return true; // well-formed, but nothing of what its name says
    }
    if facts.has(flags::STRUCTURE_OK) {
        return false;
    }
    let cut = facts.size < facts.prev_size / 10 * 9;
    facts.has(flags::PREV_STRUCTURE_OK) && (!kept || cut)
}

/// A known file was deleted.
fn deleted(outputs: &mut Outputs, facts: &Facts, born_ns: Option<u64>, now_ns: u64) -> Judgement {
    let replaced = Judgement {
        replaces: true,
        ..Judgement::default()
    };
    let bad = Judgement {
        destroys: true,
        bad_pair: true,
        ..Judgement::default()
    };
    if facts.prev_size == 0 {
        return Judgement::default();
    }
    let need = claim(facts.prev_size, facts.prev_entropy);
    let fresh = |o: &Output| now_ns.saturating_sub(o.at_ns) <= PARTNER_NS;
    let room = |o: &Output| o.size as f64 + 256.0 - o.claimed >= need;
    if let Some(o) = outputs.of_content(facts.prev_content_hash, facts.path_hash) {
        o.at_ns = now_ns;
        return replaced;
    }
    if let Some(o) = outputs
        .of_stem(facts.stem_hash, facts.path_hash)
        .filter(|o| fresh(o))
    {
        match o.quality {
            Quality::Verified if o.proved || room(o) => {
                o.claimed += need;
                o.at_ns = now_ns;
                return replaced;
            }
            Quality::Bad => return bad,
            Quality::Verified | Quality::Unknown => {}
        }
    }
    if let Some(o) =
        outputs.archives(|o| o.archive && o.quality == Quality::Verified && fresh(o) && room(o))
    {
        o.claimed += need;
        o.at_ns = now_ns;
        return replaced;
    }
    let like = |o: &Output| {
        o.size >= facts.prev_size / 4 * 3
            && o.size <= facts.prev_size.saturating_add(facts.prev_size / 4 + 4096)
    };
    let pair = outputs.recent(|o| {
        o.quality == Quality::Bad
            && o.claimed == 0.0
            && like(o)
            && now_ns.saturating_sub(o.at_ns) <= LIKE_SIZE_NS
    });
    if let Some(o) = pair {
        o.claimed = need.max(1.0);
        return bad;
    }
    let horizon = if facts.has(flags::TEMPORARY) {
        OWN_TEMPORARY_NS
    } else {
        OWN_NS
    };
    let own = born_ns.is_some_and(|born| now_ns.saturating_sub(born) <= horizon);
    Judgement {
        destroys: !own,
        ..Judgement::default()
    }
}
