//! One record of what happened to one name, and the hash of a name.

use shieldd_core::event::Kind;

/// Where a path lies in the arena.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) off: u32,
    pub(crate) len: u32,
    /// Length of the last name.
    pub(crate) name: u16,
}

impl Span {
    pub(crate) fn of(self, arena: &[u8]) -> &[u8] {
        &arena[self.off as usize..(self.off + self.len) as usize]
    }

    pub(crate) fn name_of(self, arena: &[u8]) -> &[u8] {
        let end = (self.off + self.len) as usize;
        &arena[end - self.name as usize..end]
    }
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rec {
    pub(crate) at_ns: u64,
    pub(crate) mono_ns: u64,
    pub(crate) path: Span,
    pub(crate) from: Span,
    /// Directory of the path (for directory events of a path in it), and of the old path.
    pub(crate) dir: i32,
    pub(crate) from_dir: i32,
    pub(crate) merged: u32,
    /// Records of different epochs never merge: a directory was renamed between them.
    pub(crate) epoch: u32,
    pub(crate) ops: u16,
    pub(crate) tree: u16,
    /// Process that did it, 0 where nobody knows.
    pub(crate) pid: i32,
    /// Its actor, 0 where nobody knows: records of different actors never merge.
    pub(crate) actor: u64,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// Its writer has not closed it: wait a little for that.
    pub(crate) held: bool,
    /// Made and removed, and nobody knows which was last: a look tells.
    pub(crate) unsure: bool,
}

impl Rec {
    /// A record of one operation, read at `at` (wall clock and monotonic, ns), by nobody known.
    #[inline]
    pub(crate) fn new(kind: Kind, tree: u16, dir: i32, path: Span, at: (u64, u64)) -> Rec {
        Rec {
            at_ns: at.0,
            mono_ns: at.1,
            path,
            from: Span::default(),
            dir,
            from_dir: super::dirs::NONE,
            merged: 1,
            epoch: 0,
            ops: 1 << kind as u16,
            tree,
            pid: 0,
            actor: 0,
            kind,
            flags: 0,
            held: false,
            unsure: false,
        }
    }

    pub(super) fn is_file(&self) -> bool {
        (self.kind as u8) <= Kind::Attrib as u8
    }
}

/// Hash of a name in a directory, seeded so that names cannot be chosen to collide.
#[inline]
pub(crate) fn hash(seed: u64, dir: i32, name: &[u8]) -> u32 {
    #[inline]
    fn mix(a: u64, b: u64) -> u64 {
        let wide = u128::from(a) * u128::from(b);
        (wide as u64) ^ ((wide >> 64) as u64)
    }
    let mut h = mix(
        seed ^ dir as u32 as u64,
        0x9e37_79b9_7f4a_7c15 ^ name.len() as u64,
    );
    let mut words = name.chunks_exact(8);
    for w in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(w);
        h = mix(h ^ u64::from_le_bytes(eight), 0xa076_1d64_78bd_642f ^ seed);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut last = 0u64;
        for (i, &b) in rest.iter().enumerate() {
            last |= u64::from(b) << (8 * i);
        }
        h = mix(h ^ last, 0xe703_7ed1_a0b4_28db ^ seed);
    }
    (h ^ (h >> 32)) as u32
}
