//! Two daemons on one broker and one database: they share the work, and take it over from one another.
//!
//! These need a broker: `tests/run --kafka` runs them, one at a time.

mod pair;
mod rounds;
mod takeover;
