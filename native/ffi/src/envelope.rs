//! Keys and sealed files.
