//! Connectors: the port that every CRM fills, and a folder per CRM.

pub mod dynamics;
pub mod port;
pub mod salesforce;
