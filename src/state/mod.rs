//! State: owners, positions, owed reads, holes, object life; behind one port.

pub mod port;
