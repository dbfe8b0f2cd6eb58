//! The vocabulary: names, values, images, events, changes, schemas; no clock, no I/O, no async.

pub mod name;
pub mod position;
pub mod record_id;
pub mod version;
