//! What tests of every module that keeps data in PostgreSQL stand on: a server, and a line to it that can break.

pub mod obstacle;
pub mod proxy;
pub mod server;
