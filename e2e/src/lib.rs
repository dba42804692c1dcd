//! What runs the built programs from outside.
