//! Facts from the bytes of a file.
