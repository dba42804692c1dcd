//! The broker's rules, pure.
