//! What is known of one file at one moment: the input that windows and observations need beside the event.
//!
//! The inspector fills it from a live file, a recorder stores it in a trace, the simulator invents it:
//! all three feed the same [`crate::windows`].

/// Bits of [`Facts::flags`].
pub mod flags {
    /// The content was read.
    pub const LOOKED: u64 = 1 << 0;
    /// It could not be read (gone, denied, not regular, over the time budget): "unknown" is a value of its own.
    pub const UNSEEN: u64 = 1 << 1;
    /// The head has a magic number of the format table.
    pub const MAGIC_KNOWN: u64 = 1 << 2;
    /// The extension is in the format table.
    pub const EXT_KNOWN: u64 = 1 << 3;
    /// Content and extension name the same format family.
    pub const MAGIC_MATCHES_EXT: u64 = 1 << 4;
    /// The container's own structure parses (zip directory, gzip frame, PNG chunks, PDF xref, DICOM tags …).
    pub const STRUCTURE_OK: u64 = 1 << 5;
    /// The tail is well-formed for the format.
    pub const TAIL_OK: u64 = 1 << 6;
    /// The container declares encryption (gpg, age, 7z AES, zip AES, openssl "Salted__", LUKS …).
    pub const DECLARES_ENCRYPTION: u64 = 1 << 7;
    /// ELF, PE, Mach-O or another native executable.
    pub const EXECUTABLE: u64 = 1 << 8;
    /// A script (shebang, or an interpreter's source by content).
    pub const SCRIPT: u64 = 1 << 9;
    /// DICOM with patient tags.
    pub const PHI_DICOM: u64 = 1 << 10;
    /// HL7 v2 with a PID segment.
    pub const PHI_HL7: u64 = 1 << 11;
    /// FHIR Patient resource.
    pub const PHI_FHIR: u64 = 1 << 12;
    /// Text with identifiers (SSN, RRN, MRN, card with Luhn).
    pub const PHI_TEXT: u64 = 1 << 13;
    /// A fingerprint from before is known; the `prev_*` fields and `similarity` hold.
    pub const KNOWN_BEFORE: u64 = 1 << 14;
    /// The extension differs from the one before (rename), or was appended.
    pub const EXT_CHANGED: u64 = 1 << 15;
    /// One of the daemon's canary files.
    pub const CANARY: u64 = 1 << 16;
    /// The name or text is that of a ransom note.
    pub const NOTE_LIKE: u64 = 1 << 17;
    /// A sealed file of shieldd.
    pub const SEALED: u64 = 1 << 18;
    /// This file's content (decoded where it is compressed) is that of a known file of the same stem:
    /// a verified replacement of it.
    pub const REPLACED: u64 = 1 << 19;
    /// A parent on the way from the root grants others search permission, or there is none between.
    pub const REACHABLE_BY_OTHERS: u64 = 1 << 20;
    /// The version before declared encryption.
    pub const PREV_DECLARED: u64 = 1 << 21;
    /// The name is that of a temporary or backup file (`x~`, `.x.swp`, `x.tmp`, `x.part` …).
    pub const TEMPORARY: u64 = 1 << 22;
    /// Less than half of the size is allocated: samples may lie in holes.
    pub const SPARSE: u64 = 1 << 23;
    /// The inode has other names.
    pub const HARDLINKED: u64 = 1 << 24;
    /// A sample of compressed content was decoded, not only its header read.
    pub const DECODED: u64 = 1 << 25;
    /// The content is plain text of one of the known kinds.
    pub const TEXT: u64 = 1 << 26;
    /// Text of identifiers in clear columns, or several kinds of them.
    pub const PHI_SEVERAL: u64 = 1 << 27;
    /// The version before was well-formed.
    pub const PREV_STRUCTURE_OK: u64 = 1 << 28;
}

/// Facts of one file. Ratios are 0..=1; a negative value means unknown. 152 bytes, no padding holes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// Bits of [`flags`].
    pub flags: u64,
    /// Size, bytes.
    pub size: u64,
    /// Size before, bytes.
    pub prev_size: u64,
    /// Hash of the base name.
    pub name_hash: u64,
    /// Hash of the directory.
    pub dir_hash: u64,
    /// Hash of the tree and the whole path (key of the fingerprint).
    pub path_hash: u64,
    /// Hash of the tree and the old path of a rename, 0 where none.
    pub from_hash: u64,
    /// Hash of directory and base name without its extensions: a file and what a tool made of it share it.
    pub stem_hash: u64,
    /// Hash of size and samples: equal for copies, 0 where unknown.
    pub content_hash: u64,
    /// The same, before; 0 where unknown.
    pub prev_content_hash: u64,
    /// Format by content: index into the format table, 0 unknown.
    pub format: u16,
    /// Format by extension.
    pub ext_format: u16,
    /// Format by content before.
    pub prev_format: u16,
    /// Identifiers found in text.
    pub phi_hits: u16,
    /// `st_mode`, 0 unknown.
    pub mode: u32,
    /// Shannon entropy of head, middle and tail sample, bits per byte (0..=8).
    pub entropy: [f32; 3],
    /// log10(1 + chi-square against uniform) of head, middle and tail sample.
    pub chi_square: [f32; 3],
    /// Mean entropy before, bits per byte.
    pub prev_entropy: f32,
    /// Share of printable ASCII in the samples.
    pub ascii: f32,
    /// Share of zero bytes in the samples.
    pub zero: f32,
    /// Serial correlation of the samples, -1..=1.
    pub serial: f32,
    /// Spread of entropy between blocks of the samples, bits.
    pub block_spread: f32,
    /// Content similarity with the version before, 0..=1, negative unknown.
    pub similarity: f32,
    /// How much it looks encrypted from the bytes alone, 0..=1.
    pub encrypted_like: f32,
    /// The same, before; negative unknown.
    pub prev_encrypted_like: f32,
    /// Zero.
    pub reserved: f32,
}

impl Default for Facts {
    /// Nothing known.
    fn default() -> Self {
        Facts {
            flags: 0,
            size: 0,
            prev_size: 0,
            name_hash: 0,
            dir_hash: 0,
            path_hash: 0,
            from_hash: 0,
            stem_hash: 0,
            content_hash: 0,
            prev_content_hash: 0,
            format: 0,
            ext_format: 0,
            prev_format: 0,
            phi_hits: 0,
            mode: 0,
            entropy: [-1.0; 3],
            chi_square: [-1.0; 3],
            prev_entropy: -1.0,
            ascii: -1.0,
            zero: -1.0,
            serial: 0.0,
            block_spread: -1.0,
            similarity: -1.0,
            encrypted_like: -1.0,
            prev_encrypted_like: -1.0,
            reserved: 0.0,
        }
    }
}

impl Facts {
    /// Whether all bits of `mask` are set.
    pub fn has(&self, mask: u64) -> bool {
        self.flags & mask == mask
    }

    /// Whether any bit of `mask` is set.
    pub fn any(&self, mask: u64) -> bool {
        self.flags & mask != 0
    }

    /// Mean entropy of the samples, negative where nothing was read.
    pub fn mean_entropy(&self) -> f32 {
        let known = self.entropy.iter().filter(|x| **x >= 0.0);
        let (sum, n) = known.fold((0.0f32, 0u32), |(s, n), x| (s + x, n + 1));
        if n == 0 {
            -1.0
        } else {
            sum / n as f32
        }
    }
}
