//! Sealing and opening on disk.
