//! Events as the Pub/Sub API sends them: made by another Avro writer, over a server of our own.

mod decode;
mod events;
mod faults;
mod flow;
mod server;
