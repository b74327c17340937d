//! Bounded sampling of a file into facts.
