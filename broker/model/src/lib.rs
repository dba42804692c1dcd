//! The broker's vocabulary.
