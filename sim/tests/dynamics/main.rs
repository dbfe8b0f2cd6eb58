//! The simulated Dynamics 365 organization as clients see it: one binary, a module per surface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, also in its helpers"
)]

mod assertions;
mod batch;
mod changes;
mod control;
mod data;
mod departures;
mod faults;
mod harness;
mod metadata;
mod privileges;
mod queries;
mod random;
mod receiver;
mod restart;
mod signin;
mod webhooks;
mod writes;
