//! The table of formats.

/// Names of the formats, in the order of [`crate::facts::Facts::format`].
pub fn names() -> impl Iterator<Item = &'static str> {
    ["unknown"].into_iter()
}

/// Whether an index names a kind of content (not unknown, not a mere encoding).
pub fn is_kind(format: u16) -> bool {
    format != 0
}

/// Whether it may hold several files.
pub fn is_archive(_format: u16) -> bool {
    false
}

/// Whether people expect text, pictures or tables behind it, never a program.
pub fn is_document(_format: u16) -> bool {
    false
}

/// Whether two formats are readings of the same family.
pub fn same_family(a: u16, b: u16) -> bool {
    a == b
}
