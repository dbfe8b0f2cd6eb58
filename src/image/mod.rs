//! Images: every record's selected fields, whole, with what a merge must know of them.

pub mod merge;
pub mod port;
