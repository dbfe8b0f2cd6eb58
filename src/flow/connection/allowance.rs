//! What is left of the org's calls: shown while the connection is owned, asked for from time to time.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::Priority;
use crate::fault::Fault;
use crate::flow::road::Road;
use crate::runtime::shutdown::StopSignal;

/// How often it is shown.
const SHOW: Duration = Duration::from_secs(1);
/// How often the org is asked: what it tells is true of some minutes ago, and every answer says what is left of calls.
const LOOK: Duration = Duration::from_mins(15);
/// How often it is asked while work waits for its answer.
const LOOK_HELD: Duration = Duration::from_mins(5);

/// Shows the budget until the stop signal.
///
/// # Errors
/// None.
pub(super) async fn show(road: Road, stop: StopSignal) -> Result<(), Fault> {
    let Some(budget) = road.crm.budget().cloned() else {
        return Ok(());
    };
    while !stop.is_stopping() {
        let picture = budget.show();
        road.board
            .connection(&road.connection, |entry| entry.budget = Some(picture));
        stop.or(tokio::time::sleep(SHOW)).await.ok();
    }
    road.board
        .connection(&road.connection, |entry| entry.budget = None);
    Ok(())
}

/// Asks the org what is left until the stop signal: work that waits learns by it that it may go on.
///
/// # Errors
/// None: who can't be asked now is asked again.
pub(super) async fn look(road: Road, stop: StopSignal) -> Result<(), Fault> {
    let Some(budget) = road.crm.budget().map(Arc::clone) else {
        return Ok(());
    };
    while !stop.is_stopping() {
        let asked = Priority::Repair.scope(road.crm.look_at_limits());
        if let Ok(Err(fault)) = stop.or(asked).await {
            tracing::debug!(connection = %road.connection, error = %fault, "the org does not tell what is left");
        }
        let wait = if budget.holds(Priority::FullSync) {
            LOOK_HELD
        } else {
            LOOK
        };
        stop.or(tokio::time::sleep(wait)).await.ok();
    }
    Ok(())
}
