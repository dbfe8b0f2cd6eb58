//! What every target must do: one suite, run on each by `target_suite!`.

pub mod braking;
pub mod committing;
pub mod deciding;
pub mod expiring;
pub mod history;
pub mod leaving;
pub mod matching;
pub mod moving;
pub mod ordering;
pub mod plans;
pub mod reading;
pub mod recalling;
pub mod references;
pub mod repeating;
pub mod scheduling;
pub mod streams;
pub mod sweeping;
pub mod values;
pub mod waiting;
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
                a_batch_may_move_its_offset_back an_empty_batch_moves_the_offset a_dropped_apply_is_whole a_restart_sees_everything
                a_refused_batch_leaves_nothing_behind a_closed_target_says_so;
            braking: a_batch_takes_no_more_rows_than_it_may a_batch_empties_no_more_rows_than_it_may;
            ordering: lower_versions_are_skipped equal_versions_are_applied
                stale_rows_stay_stale_after_a_restart a_replay_changes_nothing
                a_deleted_record_keeps_its_version versions_are_per_table
                unchanged_rows_are_not_written;
            matching: the_crosswalk_comes_first identifiers_are_trimmed_and_case_blind_where_planned
                leading_zeros_and_inner_blanks_count empty_identifiers_match_nothing
                one_empty_identifier_of_several_is_enough without_identifiers_every_record_is_a_row
                a_batch_is_grouped_by_identifiers
                the_later_offset_writes_last identifiers_move_within_a_batch
                a_row_changes_hands_within_a_batch a_shared_row_goes_with_its_last_record
                two_connections_share_a_row identifiers_may_be_derived
                two_partitions_never_insert_twice two_thousand_rows_are_one_batch;
            deciding: several_candidates_wait_for_a_person a_later_write_asks_again
                exits_end_the_wait_for_a_person later_destinations_wait_for_the_decision
                a_decision_holds_ever_after a_record_gets_a_row_of_its_own an_ignored_record_gets_no_row
                an_undone_decision_asks_again a_decision_moves_a_record what_is_decided_may_wait_for_a_row
                nobody_is_bound_to_a_row_that_is_not_there;
            moving: a_move_changes_the_row_or_takes_another what_a_move_leaves_is_left_as_by_a_delete
                a_move_waits_for_what_it_lacks a_move_to_one_of_several_waits_for_a_person
                moves_see_each_other_in_a_batch a_look_at_identifiers_changes_nothing
                a_column_is_its_owners_where_that_holds_the_row a_column_that_waits_is_left_to_its_owner
                what_refers_to_a_row_that_was_left_is_told what_found_a_row_by_another_key_is_told;
            references: an_empty_reference_is_none a_reference_finds_its_row
                a_moved_child_refers_to_its_new_parent a_missing_parent_is_parked_and_released
                only_the_connection_asked_for_is_released a_release_is_limited_and_goes_on
                self_lookups_do_not_mind_the_order chains_are_released_from_any_end
                a_later_write_replaces_what_waits what_is_stale_is_not_filled
                an_absent_reference_leaves_all_as_it_is
                a_parent_that_left_is_missing_until_it_is_back a_kept_or_marked_parent_is_found
                a_kept_or_marked_row_goes_on_waiting of_several_the_lowest_or_none
                a_default_stands_in_for_a_missing_row skip_leaves_the_destination_alone a_sibling_is_the_row_of_this_record;
            waiting: a_rejected_reference_parks_the_change a_stored_row_stays_while_its_change_waits
                later_destinations_wait_with_it a_later_change_replaces_the_one_that_waits
                exits_clear_a_change_that_waits a_stale_change_is_not_released
                two_missing_rows_are_waited_for self_lookups_that_must_be_there
                nobody_joins_a_row_that_was_kept_out an_ambiguous_row_releases_nothing
                what_waits_too_long_expires a_repeat_does_not_renew_the_time_to_live;
            leaving: keep_leaves_the_row keep_leaves_the_row_at_a_filter_exit mark_says_so
                mark_says_so_at_a_filter_exit a_mark_without_a_source_time_has_the_batchs
                delete_takes_the_row_and_undelete_brings_it_back
                a_filter_exit_takes_the_row_and_a_return_brings_it_back a_delete_may_come_first
                a_shared_row_is_marked_with_its_last_record a_kept_record_holds_its_row
                what_refers_to_a_row_that_went_is_told what_found_a_shared_row_by_a_record_that_went_is_told
                what_refers_to_a_row_that_is_kept_or_marked_is_right;
            recalling: a_found_row_that_another_takes_away_is_missing a_merged_row_is_found_by_the_master_only
                a_found_row_is_missing_in_the_batch_that_takes_it a_second_row_of_a_record_id_is_found
                a_row_that_was_not_committed_is_not_found_later a_found_row_is_the_connections_own;
            expiring: what_expired_is_told_until_it_is_forgotten the_oldest_are_told_first
                only_what_was_told_is_forgotten a_released_change_can_be_forgotten
                changes_are_released_to_their_owner;
            repeating: a_filtered_record_is_known_before_it_is_stored
                a_filter_exit_ends_what_waits_for_good
                the_outranked_is_asked_for_before_it_is_passed;
            scheduling: scheduled_columns_wait_for_a_full_sync a_full_sync_that_was_not_met_is_made_up_for
                what_comes_to_a_row_writes_all_of_it scheduled_look_ups_wait_for_a_full_sync
                a_full_sync_that_was_kept_out_is_made_up_for;
            sweeping: who_holds_a_row_is_noted_until_it_is_met what_was_swept_is_struck_out_per_table
                a_sweep_spares_what_moved_on a_replay_that_ended_leaves_nothing_in_the_ledger;
            values: every_type_comes_back_as_it_went numbers_are_equal_by_value
                empty_and_null_are_two_things
                an_absent_cell_leaves_its_column insert_only_columns_are_written_once
                a_null_does_not_overwrite_where_values_are_kept
                writers_of_one_row_keep_to_their_cells a_value_of_another_type_is_refused
                texts_that_look_like_numbers_are_texts;
            reading: ensure_adds_and_drops_nothing a_column_of_another_type_is_refused
                prepare_may_be_called_again rows_come_newest_first_in_pages
                rows_are_filtered_by_columns a_row_shows_every_column
                a_record_is_traced_through_its_tables what_is_parked_is_counted_per_job;
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

        #[test]
        fn whatever_comes_the_last_changes_are_there() {
            $crate::target::suite::streams::whatever_comes_the_last_changes_are_there(|| $bench);
        }

        #[test]
        fn an_end_that_comes_again_changes_nothing() {
            $crate::target::suite::repeating::an_end_that_comes_again_changes_nothing(|| $bench);
        }
    };
}
pub(crate) use target_suite;
