//! The sealed file, version 1, as `shield-envelope(5)` specifies it: layout, keys, metadata, chunks.
//!
//! Pure: bytes in, bytes out; randomness is an argument, files belong to `shieldd_sys::seal`.
//!
//! Of the two designs that this format grew from it takes, part by part:
//! * *self-contained slots at 0 and 4096*, each with every fixed field: no single bad sector holds the only
//!   copy of the salt, and the first eight bytes of the file are its magic;
//! * *one key schedule bound to the fixed fields* (one extract, labelled expands over their hash) instead of
//!   associated data in every chunk: a changed length, suite or id changes every key;
//! * *MAC and CRC at fixed places of the slot*, the CRC over the whole block: torn and tampered are told apart
//!   without trusting a length field;
//! * *the plaintext's length among the fixed fields*: truncated and extended files are refused before a byte is
//!   decrypted;
//! * *small deterministic CBOR for the metadata*: names are bytes, and re-encoding is the canonical check.

pub mod chunk;
pub mod digest;
pub mod keys;
pub mod layout;
pub mod metadata;
pub mod refusal;
pub mod slot;
pub mod suite;

pub use refusal::Refusal;
