//! The simulated Salesforce org as clients see it: one binary, a module per surface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]

mod bulk;
mod collections;
mod composite;
mod describe;
mod events;
mod groups;
mod guard;
mod oauth;
mod org;
mod permissions;
mod query;
mod records;
mod replication;
mod restart;
mod signin;
mod time;
mod tooling;
mod upserts;
