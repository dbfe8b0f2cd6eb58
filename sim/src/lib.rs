//! Strict simulators of the CRMs that Tributary listens to: they speak the wire with their own types.

pub mod dynamics;
pub mod salesforce;
