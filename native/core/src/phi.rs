//! Evidence of patient data.
