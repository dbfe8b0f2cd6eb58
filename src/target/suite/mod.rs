//! What every target must do: one suite, run on each by `target_suite!`.

pub mod committing;
pub mod ordering;
pub mod plans;
pub mod world;

use std::sync::Arc;

use async_trait::async_trait;

use crate::target::port::Target;

/// An engine to be tried, empty at first.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The target as it is open now.
    fn target(&self) -> Arc<dyn Target>;

    /// Ends the engine and opens it again on what it stored.
    async fn reopen(&mut self);
}

/// Makes a test of every function of the suite for the bench that the expression (a future) yields.
macro_rules! target_suite {
    ($bench:expr) => {
        $crate::target::suite::target_suite!(@ $bench;
            committing: rows_and_offset_are_committed_together a_new_reader_starts_at_zero
                readers_and_partitions_have_their_own_offsets a_zombie_writes_nothing
                an_offset_that_was_passed_is_fenced an_unassigned_partition_is_fenced
                a_rejected_row_keeps_the_batch_out a_probe_does_not_move_the_offset
                an_empty_batch_moves_the_offset a_dropped_apply_is_whole a_restart_sees_everything
                a_refused_batch_leaves_nothing_behind a_closed_target_says_so;
            ordering: lower_versions_are_skipped equal_versions_are_applied
                stale_rows_stay_stale_after_a_restart a_replay_changes_nothing
                a_deleted_record_keeps_its_version versions_are_per_table
                unchanged_rows_are_not_written;
        );
    };
    (@ $bench:expr; $($module:ident: $($name:ident)*;)*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                let mut bench = $bench.await;
                $crate::target::suite::$module::$name(&mut bench).await;
            }
        )*)*
    };
}
pub(crate) use target_suite;
