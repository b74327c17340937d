//! The observation: one row of float32 per event, the policy's only input.
//!
//! This table is the one source. Rust fills rows in its order, Python and the model's metadata read it
//! through the C ABI as JSON, the man page prints it, and a test holds them together.
//! Raw units; normalisation lives inside the model's graph.

/// Version of this table; a model made for another one is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// One column.
pub struct Feature {
    /// Stable name.
    pub name: &'static str,
    /// Part: `file`, `operation`, `actor`, `context`.
    pub part: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// Smallest value; -1 stands for "unknown" where `unknown` is set.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Whether -1 means that it could not be known.
    pub unknown: bool,
    /// What it says, for an admin.
    pub help: &'static str,
}

const fn f(
    name: &'static str,
    part: &'static str,
    unit: &'static str,
    min: f32,
    max: f32,
    unknown: bool,
    help: &'static str,
) -> Feature {
    Feature {
        name,
        part,
        unit,
        min,
        max,
        unknown,
        help,
    }
}

/// The columns, in order.
#[rustfmt::skip]
pub static FEATURES: &[Feature] = &[
    // file
    f("size_log2", "file", "log2(1 + bytes)", 0.0, 64.0, false, "size of the file"),
    f("size_ratio", "file", "log2 ratio", -32.0, 32.0, false, "growth against the size before; 0 when not known before"),
    f("entropy_head", "file", "bits/byte", -1.0, 8.0, true, "entropy of the first sample"),
    f("entropy_middle", "file", "bits/byte", -1.0, 8.0, true, "entropy of the middle sample"),
    f("entropy_tail", "file", "bits/byte", -1.0, 8.0, true, "entropy of the last sample"),
    f("entropy_change", "file", "bits/byte", -8.0, 8.0, false, "mean entropy now less before; 0 when not known before"),
    f("chi_head", "file", "log10(1 + chi-square)", -1.0, 8.0, true, "distance of the first sample from random bytes"),
    f("chi_middle", "file", "log10(1 + chi-square)", -1.0, 8.0, true, "distance of the middle sample from random bytes"),
    f("chi_tail", "file", "log10(1 + chi-square)", -1.0, 8.0, true, "distance of the last sample from random bytes"),
    f("ascii", "file", "ratio", -1.0, 1.0, true, "share of printable text"),
    f("zero", "file", "ratio", -1.0, 1.0, true, "share of zero bytes"),
    f("serial", "file", "correlation", -1.0, 1.0, false, "serial correlation of neighbouring bytes"),
    f("block_spread", "file", "bits/byte", -1.0, 8.0, true, "spread of entropy between blocks"),
    f("encrypted_like", "file", "ratio", -1.0, 1.0, true, "looks encrypted by its bytes"),
    f("magic_known", "file", "flag", 0.0, 1.0, false, "content is of a known format"),
    f("ext_known", "file", "flag", 0.0, 1.0, false, "extension is of a known format"),
    f("magic_matches_ext", "file", "flag", 0.0, 1.0, false, "content is what the extension says"),
    f("structure_ok", "file", "flag", 0.0, 1.0, false, "the container's structure parses"),
    f("tail_ok", "file", "flag", 0.0, 1.0, false, "the end of the file is well-formed"),
    f("declares_encryption", "file", "flag", 0.0, 1.0, false, "the container says that it is encrypted"),
    f("known_before", "file", "flag", 0.0, 1.0, false, "the file was known before this event"),
    f("similarity", "file", "ratio", -1.0, 1.0, true, "content kept from the version before"),
    f("type_lost", "file", "flag", 0.0, 1.0, false, "was of a known format and is of none now"),
    f("type_changed", "file", "flag", 0.0, 1.0, false, "is of another known format than before"),
    f("ext_changed", "file", "flag", 0.0, 1.0, false, "the extension was changed or one was added"),
    f("executable", "file", "flag", 0.0, 1.0, false, "a native executable"),
    f("script", "file", "flag", 0.0, 1.0, false, "a script"),
    f("disguised", "file", "flag", 0.0, 1.0, false, "an executable or script under a document's extension"),
    f("setuid", "file", "flag", 0.0, 1.0, false, "setuid or setgid and executable"),
    f("phi", "file", "level 0-3", 0.0, 3.0, false, "patient data: 1 one identifier, 2 several, 3 a clinical format"),
    f("exposed_read", "file", "flag", 0.0, 1.0, false, "everybody on the host may read it"),
    f("exposed_write", "file", "flag", 0.0, 1.0, false, "everybody on the host may write it"),
    f("note_like", "file", "flag", 0.0, 1.0, false, "name or text of a ransom note"),
    f("unseen", "file", "flag", 0.0, 1.0, false, "the content could not be looked at"),
    // operation
    f("op_create", "operation", "flag", 0.0, 1.0, false, "the file was made"),
    f("op_write", "operation", "flag", 0.0, 1.0, false, "the file was written"),
    f("op_delete", "operation", "flag", 0.0, 1.0, false, "the file was deleted"),
    f("op_rename", "operation", "flag", 0.0, 1.0, false, "the file was renamed"),
    f("op_attrib", "operation", "flag", 0.0, 1.0, false, "mode, owner or attributes changed"),
    f("op_read", "operation", "flag", 0.0, 1.0, false, "the file was opened for reading (sources that can tell)"),
    f("destroys", "operation", "flag", 0.0, 1.0, false, "this event destroyed a known file with no verified replacement"),
    f("replaces", "operation", "flag", 0.0, 1.0, false, "what this event removed or changed lives on in verified content"),
    // actor: exponentially decaying counts, time constants 1 s, 10 s, 60 s
    f("writes_1s", "actor", "decayed count", 0.0, 1e6, false, "files written, last second"),
    f("writes_10s", "actor", "decayed count", 0.0, 1e6, false, "files written, last ten seconds"),
    f("writes_60s", "actor", "decayed count", 0.0, 1e6, false, "files written, last minute"),
    f("creates_1s", "actor", "decayed count", 0.0, 1e6, false, "files made, last second"),
    f("creates_10s", "actor", "decayed count", 0.0, 1e6, false, "files made, last ten seconds"),
    f("creates_60s", "actor", "decayed count", 0.0, 1e6, false, "files made, last minute"),
    f("renames_1s", "actor", "decayed count", 0.0, 1e6, false, "files renamed, last second"),
    f("renames_10s", "actor", "decayed count", 0.0, 1e6, false, "files renamed, last ten seconds"),
    f("renames_60s", "actor", "decayed count", 0.0, 1e6, false, "files renamed, last minute"),
    f("deletes_1s", "actor", "decayed count", 0.0, 1e6, false, "files deleted, last second"),
    f("deletes_10s", "actor", "decayed count", 0.0, 1e6, false, "files deleted, last ten seconds"),
    f("deletes_60s", "actor", "decayed count", 0.0, 1e6, false, "files deleted, last minute"),
    f("ext_changes_1s", "actor", "decayed count", 0.0, 1e6, false, "extensions changed, last second"),
    f("ext_changes_10s", "actor", "decayed count", 0.0, 1e6, false, "extensions changed, last ten seconds"),
    f("ext_changes_60s", "actor", "decayed count", 0.0, 1e6, false, "extensions changed, last minute"),
    f("entropy_rises_1s", "actor", "decayed count", 0.0, 1e6, false, "files whose entropy rose by a bit or more, last second"),
    f("entropy_rises_10s", "actor", "decayed count", 0.0, 1e6, false, "files whose entropy rose, last ten seconds"),
    f("entropy_rises_60s", "actor", "decayed count", 0.0, 1e6, false, "files whose entropy rose, last minute"),
    f("directories_1s", "actor", "decayed count", 0.0, 1e6, false, "distinct directories touched, last second"),
    f("directories_10s", "actor", "decayed count", 0.0, 1e6, false, "distinct directories touched, last ten seconds"),
    f("directories_60s", "actor", "decayed count", 0.0, 1e6, false, "distinct directories touched, last minute"),
    f("header_losses_1s", "actor", "decayed count", 0.0, 1e6, false, "files that lost their format, last second"),
    f("header_losses_10s", "actor", "decayed count", 0.0, 1e6, false, "files that lost their format, last ten seconds"),
    f("header_losses_60s", "actor", "decayed count", 0.0, 1e6, false, "files that lost their format, last minute"),
    f("same_notes_1s", "actor", "decayed count", 0.0, 1e6, false, "new files of one name in several directories, last second"),
    f("same_notes_10s", "actor", "decayed count", 0.0, 1e6, false, "new files of one name in several directories, last ten seconds"),
    f("same_notes_60s", "actor", "decayed count", 0.0, 1e6, false, "new files of one name in several directories, last minute"),
    f("destroyed_1s", "actor", "decayed count", 0.0, 1e6, false, "known files destroyed with no verified replacement, last second"),
    f("destroyed_10s", "actor", "decayed count", 0.0, 1e6, false, "known files destroyed, last ten seconds"),
    f("destroyed_60s", "actor", "decayed count", 0.0, 1e6, false, "known files destroyed, last minute"),
    f("encrypted_outputs_10s", "actor", "decayed count", 0.0, 1e6, false, "new content that looks encrypted, last ten seconds"),
    f("encrypted_outputs_60s", "actor", "decayed count", 0.0, 1e6, false, "new content that looks encrypted, last minute"),
    f("replacements_60s", "actor", "decayed count", 0.0, 1e6, false, "files whose content lives on in a verified new file, last minute"),
    f("overwritten_10s", "actor", "decayed count", 0.0, 1e6, false, "known files whose content was lost in place, last ten seconds"),
    f("overwritten_60s", "actor", "decayed count", 0.0, 1e6, false, "known files whose content was lost in place, last minute"),
    f("bad_pairs_10s", "actor", "decayed count", 0.0, 1e6, false, "known files removed beside new content that is encrypted or of no known kind, last ten seconds"),
    f("bad_pairs_60s", "actor", "decayed count", 0.0, 1e6, false, "known files removed beside new content that is encrypted or of no known kind, last minute"),
    f("declared_encrypted_60s", "actor", "decayed count", 0.0, 1e6, false, "new content that declares its encryption, last minute"),
    f("unknown_outputs_60s", "actor", "decayed count", 0.0, 1e6, false, "new content of no known kind, last minute"),
    f("drops_60s", "actor", "decayed count", 0.0, 1e6, false, "new executables and scripts, last minute"),
    f("reads_10s", "actor", "decayed count", 0.0, 1e6, false, "files opened for reading, last ten seconds"),
    f("reads_60s", "actor", "decayed count", 0.0, 1e6, false, "files opened for reading, last minute"),
    // context
    f("destroyed_ratio", "context", "ratio", 0.0, 1.0, false, "share of destroyed among the files the actor changed or deleted, last minute"),
    f("encrypted_ratio", "context", "ratio", 0.0, 1.0, false, "share of encrypted-looking among the actor's outputs, last minute"),
    f("unknown_ratio", "context", "ratio", 0.0, 1.0, false, "share of no known kind among the actor's outputs, last minute"),
    f("actor_age", "context", "log2(1 + s)", 0.0, 32.0, false, "time since the actor's first event"),
    f("actor_events", "context", "log2(1 + n)", 0.0, 32.0, false, "events of the actor so far"),
    f("attributed", "context", "flag", 0.0, 1.0, false, "the actor is a process that the kernel named"),
    f("tree_destroyed_60s", "context", "decayed count", 0.0, 1e6, false, "known files destroyed in this tree by anybody, last minute"),
    f("host_destroyed_60s", "context", "decayed count", 0.0, 1e6, false, "known files destroyed in any guarded tree by anybody, last minute"),
    f("synthetic", "context", "flag", 0.0, 1.0, false, "found by a scan, order in time unknown"),
    f("merged", "context", "log2(n)", 0.0, 32.0, false, "kernel events merged into this one"),
];

/// Number of columns.
pub const WIDTH: usize = 94;

/// Actions of the policy, in the order of its logits.
pub static ACTIONS: [&str; 5] = ["allow", "alert", "seal", "quarantine", "contain"];

/// The whole schema as JSON: `{"version", "features": [{"name", "part", "unit", "min", "max", "unknown", "help"}],
/// "actions", "formats"}`. Names and texts are plain ASCII without quotes (a test holds that), so nothing is escaped.
pub fn schema_json() -> String {
    let mut out = format!("{{\"version\":{SCHEMA_VERSION},\"features\":[");
    for (i, x) in FEATURES.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&format!(
            "{{\"name\":\"{}\",\"part\":\"{}\",\"unit\":\"{}\",\"min\":{:?},\"max\":{:?},\"unknown\":{},\"help\":\"{}\"}}",
            x.name, x.part, x.unit, x.min, x.max, x.unknown, x.help
        ));
    }
    out.push_str("],\"actions\":[");
    push_names(&mut out, ACTIONS.iter().copied());
    out.push_str("],\"formats\":[");
    push_names(&mut out, crate::content::formats::names());
    out.push_str("]}");
    out
}

fn push_names(out: &mut String, names: impl Iterator<Item = &'static str>) {
    for (i, name) in names.enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push('"');
        out.push_str(name);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_and_names_hold() {
        assert_eq!(FEATURES.len(), WIDTH);
        let mut names: Vec<_> = FEATURES.iter().map(|x| x.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WIDTH);
    }

    #[test]
    fn texts_need_no_escaping() {
        for x in FEATURES {
            for text in [x.name, x.part, x.unit, x.help] {
                assert!(
                    text.bytes()
                        .all(|b| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\'),
                    "{text}"
                );
            }
        }
        for name in crate::content::formats::names() {
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
                "{name}"
            );
        }
    }
}
