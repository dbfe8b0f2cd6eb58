//! What every running part needs: the clock, the stop signal, the owner of tasks, the wait between attempts.

pub mod backoff;
pub mod clock;
pub mod shutdown;
pub mod tasks;
