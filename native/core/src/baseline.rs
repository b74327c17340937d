//! What each file was when it was last seen.
