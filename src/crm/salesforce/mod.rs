//! Salesforce: sign-in, reads, the CometD stream, and the rules by which they merge.

pub mod merge;
