//! One observation: the columns of [`crate::observation::FEATURES`], in order.

use super::decay::seconds;
use super::judge::{self, Judgement};
use super::{did, operations, Actor, Count as C};
use crate::content::formats;
use crate::event::{self, Event, Kind};
use crate::facts::{flags, Facts};
use crate::observation::{FEATURES, WIDTH};

/// What a row is made of.
pub struct View<'a> {
    /// The event.
    pub event: &'a Event,
    /// What is known of its file.
    pub facts: &'a Facts,
    /// Its actor, the event counted in.
    pub actor: &'a Actor,
    /// What it did.
    pub judgement: &'a Judgement,
    /// Known files destroyed in the tree.
    pub tree_destroyed_60s: f64,
    /// Known files destroyed anywhere.
    pub host_destroyed_60s: f64,
    /// Time of the event, ns.
    pub now_ns: u64,
}

/// Writes columns in order; the name is checked against the table in debug builds.
struct Cursor<'a> {
    row: &'a mut [f32],
    at: usize,
}

impl Cursor<'_> {
    fn put(&mut self, name: &str, value: f32) {
        let column = &FEATURES[self.at];
        debug_assert_eq!(column.name, name, "column {}", self.at);
        self.row[self.at] = if value.is_nan() {
            if column.unknown {
                -1.0
            } else {
                0.0
            }
        } else {
            value.clamp(column.min, column.max)
        };
        self.at += 1;
    }
    fn flag(&mut self, name: &str, value: bool) {
        self.put(name, f32::from(u8::from(value)));
    }
    /// Unknown is -1, whatever negative number stands for it.
    fn known(&mut self, name: &str, value: f32) {
        self.put(name, if value < 0.0 { -1.0 } else { value });
    }
}

fn log2_1p(x: f32) -> f32 {
    (1.0 + x).log2()
}

/// Fills `row`, which holds [`WIDTH`] numbers.
pub fn fill(row: &mut [f32], view: &View<'_>) {
    let mut c = Cursor { row, at: 0 };
    file(&mut c, view);
    operation(&mut c, view);
    actor(&mut c, &view.actor.counts);
    context(&mut c, view);
    debug_assert_eq!(c.at, WIDTH);
}

fn file(c: &mut Cursor<'_>, view: &View<'_>) {
    let f = view.facts;
    let known = f.has(flags::KNOWN_BEFORE);
    let looked = f.has(flags::LOOKED);
    let gone = view.event.kind == Kind::Delete as u8;
    let size = if gone { f.prev_size } else { f.size };
    c.put("size_log2", log2_1p(size as f32));
    c.put(
        "size_ratio",
        if known && !gone {
            log2_1p(f.size as f32) - log2_1p(f.prev_size as f32)
        } else {
            0.0
        },
    );
    c.known("entropy_head", f.entropy[0]);
    c.known("entropy_middle", f.entropy[1]);
    c.known("entropy_tail", f.entropy[2]);
    let now = f.mean_entropy();
    c.put(
        "entropy_change",
        if known && now >= 0.0 && f.prev_entropy >= 0.0 {
            now - f.prev_entropy
        } else {
            0.0
        },
    );
    c.known("chi_head", f.chi_square[0]);
    c.known("chi_middle", f.chi_square[1]);
    c.known("chi_tail", f.chi_square[2]);
    c.known("ascii", f.ascii);
    c.known("zero", f.zero);
    c.put("serial", f.serial);
    c.known("block_spread", f.block_spread);
    c.known("encrypted_like", f.encrypted_like);
    c.flag("magic_known", f.has(flags::MAGIC_KNOWN));
    c.flag("ext_known", f.has(flags::EXT_KNOWN));
    c.flag("magic_matches_ext", f.has(flags::MAGIC_MATCHES_EXT));
    c.flag("structure_ok", f.has(flags::STRUCTURE_OK));
    c.flag("tail_ok", f.has(flags::TAIL_OK));
    c.flag("declares_encryption", f.has(flags::DECLARES_ENCRYPTION));
    c.flag("known_before", known);
    c.known("similarity", if known { f.similarity } else { -1.0 });
    c.flag("type_lost", judge::type_lost(f));
    c.flag("type_changed", judge::type_changed(f));
    c.flag("ext_changed", f.has(flags::EXT_CHANGED));
    let runs = f.any(flags::EXECUTABLE | flags::SCRIPT);
    c.flag("executable", f.has(flags::EXECUTABLE));
    c.flag("script", f.has(flags::SCRIPT));
    c.flag("disguised", runs && formats::is_document(f.ext_format));
    let setuid = f.mode & 0o4000 != 0 && f.mode & 0o111 != 0;
    let setgid = f.mode & 0o2000 != 0 && f.mode & 0o010 != 0;
    c.flag("setuid", setuid || setgid);
    c.put("phi", phi_level(f));
    let reachable = f.has(flags::REACHABLE_BY_OTHERS);
    c.flag("exposed_read", reachable && f.mode & 0o004 != 0);
    c.flag("exposed_write", reachable && f.mode & 0o002 != 0);
    c.flag("note_like", f.has(flags::NOTE_LIKE));
    c.flag("unseen", f.has(flags::UNSEEN) && !looked);
}

/// 0 none, 1 one identifier, 2 several, 3 a clinical format.
pub fn phi_level(f: &Facts) -> f32 {
    if f.any(flags::PHI_DICOM | flags::PHI_HL7 | flags::PHI_FHIR) {
        3.0
    } else if f.has(flags::PHI_SEVERAL) || f.phi_hits > 1 {
        2.0
    } else if f.has(flags::PHI_TEXT) {
        1.0
    } else {
        0.0
    }
}

fn operation(c: &mut Cursor<'_>, view: &View<'_>) {
    let ops = operations(view.event);
    c.flag("op_create", did(ops, Kind::Create));
    c.flag("op_write", did(ops, Kind::Write));
    c.flag("op_delete", did(ops, Kind::Delete));
    c.flag("op_rename", did(ops, Kind::Rename));
    c.flag("op_attrib", did(ops, Kind::Attrib));
    c.flag("op_read", did(ops, Kind::Read));
    c.flag("destroys", view.judgement.destroys);
    c.flag("replaces", view.judgement.replaces);
}

/// Every counted quantity of the actor part: name, count, time constant.
static COUNTED: &[(&str, C, usize)] = &[
    ("writes_1s", C::Writes, 0),
    ("writes_10s", C::Writes, 1),
    ("writes_60s", C::Writes, 2),
    ("creates_1s", C::Creates, 0),
    ("creates_10s", C::Creates, 1),
    ("creates_60s", C::Creates, 2),
    ("renames_1s", C::Renames, 0),
    ("renames_10s", C::Renames, 1),
    ("renames_60s", C::Renames, 2),
    ("deletes_1s", C::Deletes, 0),
    ("deletes_10s", C::Deletes, 1),
    ("deletes_60s", C::Deletes, 2),
    ("ext_changes_1s", C::ExtChanges, 0),
    ("ext_changes_10s", C::ExtChanges, 1),
    ("ext_changes_60s", C::ExtChanges, 2),
    ("entropy_rises_1s", C::EntropyRises, 0),
    ("entropy_rises_10s", C::EntropyRises, 1),
    ("entropy_rises_60s", C::EntropyRises, 2),
    ("directories_1s", C::Directories, 0),
    ("directories_10s", C::Directories, 1),
    ("directories_60s", C::Directories, 2),
    ("header_losses_1s", C::HeaderLosses, 0),
    ("header_losses_10s", C::HeaderLosses, 1),
    ("header_losses_60s", C::HeaderLosses, 2),
    ("same_notes_1s", C::SameNotes, 0),
    ("same_notes_10s", C::SameNotes, 1),
    ("same_notes_60s", C::SameNotes, 2),
    ("destroyed_1s", C::Destroyed, 0),
    ("destroyed_10s", C::Destroyed, 1),
    ("destroyed_60s", C::Destroyed, 2),
    ("encrypted_outputs_10s", C::EncryptedOutputs, 1),
    ("encrypted_outputs_60s", C::EncryptedOutputs, 2),
    ("replacements_60s", C::Replacements, 2),
    ("overwritten_10s", C::Overwritten, 1),
    ("overwritten_60s", C::Overwritten, 2),
    ("bad_pairs_10s", C::BadPairs, 1),
    ("bad_pairs_60s", C::BadPairs, 2),
    ("declared_encrypted_60s", C::DeclaredEncrypted, 2),
    ("unknown_outputs_60s", C::UnknownOutputs, 2),
    ("drops_60s", C::Drops, 2),
    ("reads_10s", C::Reads, 1),
    ("reads_60s", C::Reads, 2),
];

fn actor(c: &mut Cursor<'_>, counts: &super::decay::Counts<{ super::COUNTS }>) {
    for (name, which, tau) in COUNTED {
        c.put(name, counts.get(*which as usize, *tau) as f32);
    }
}

/// A share of two decayed counts over a minute; 0 where the whole is below half a file.
fn share(counts: &super::decay::Counts<{ super::COUNTS }>, part: C, whole: C) -> f32 {
    let whole = counts.get(whole as usize, 2);
    if whole < 0.5 {
        return 0.0;
    }
    (counts.get(part as usize, 2) / whole) as f32
}

fn context(c: &mut Cursor<'_>, view: &View<'_>) {
    let (event, counts) = (view.event, &view.actor.counts);
    c.put("destroyed_ratio", share(counts, C::Destroyed, C::Touched));
    c.put(
        "encrypted_ratio",
        share(counts, C::EncryptedOutputs, C::Outputs),
    );
    c.put(
        "unknown_ratio",
        share(counts, C::UnknownOutputs, C::Outputs),
    );
    let age = seconds(view.actor.first_ns, view.now_ns) as f32;
    c.put("actor_age", log2_1p(age));
    c.put("actor_events", log2_1p(view.actor.events as f32));
    c.flag("attributed", event.flags & event::flags::ATTRIBUTED != 0);
    c.put("tree_destroyed_60s", view.tree_destroyed_60s as f32);
    c.put("host_destroyed_60s", view.host_destroyed_60s as f32);
    c.flag("synthetic", event.flags & event::flags::SYNTHETIC != 0);
    c.put("merged", (event.merged.max(1) as f32).log2());
}
