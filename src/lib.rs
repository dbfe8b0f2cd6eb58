//! Tributary keeps a customer-success store in step with its CRMs in real time.
//!
//! `ARCHITECTURE.md` is the map: floors, walls and invariants. Imports go down only.

pub mod admin;
pub mod app;
pub mod budget;
pub mod cli;
pub mod config;
pub mod control;
pub mod crm;
pub mod fault;
pub mod flow;
pub mod http;
pub mod image;
pub mod log;
pub mod mapping;
pub mod model;
pub mod notify;
pub mod postgres;
pub mod runtime;
pub mod schedule;
pub mod secret;
pub mod sqlite;
pub mod state;
pub mod target;
pub mod telemetry;
pub mod tls;
