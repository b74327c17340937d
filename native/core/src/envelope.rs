//! The sealed file, version 1.
