//! The log: one topic per object, behind one port.

pub mod memory;
pub mod port;
