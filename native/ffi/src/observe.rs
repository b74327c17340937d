//! Inspection, windows, observations.
