//! Files by descriptor.
