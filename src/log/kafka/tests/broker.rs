//! A real broker.
