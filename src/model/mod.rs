//! The vocabulary: names, values, images, events, changes, schemas; no clock, no I/O, no async.

pub mod change;
pub mod event;
pub mod field_map;
pub mod name;
pub mod policy;
pub mod position;
pub mod record_id;
pub mod schema;
pub mod stored;
pub mod value;
pub mod version;
pub mod waiting;
