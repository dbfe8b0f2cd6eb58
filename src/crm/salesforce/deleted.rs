//! The delete log: what was deleted in a window (REST API Developer Guide, "Get Deleted").

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::http::encode::percent;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::runtime::clock::Clock;

use super::describe::Describer;
use super::rest::Rest;
use super::{soql, stamp};

/// The shortest window that the CRM takes: "more than one minute", seconds ignored.
const SHORTEST: TimeDelta = TimeDelta::minutes(2);
/// The log runs behind while transactions are open; how long to wait for it before the caller is told.
const PATIENCE: Duration = Duration::from_mins(3);

/// Asks the delete log.
pub struct Deletes {
    rest: Arc<Rest>,
    describer: Arc<Describer>,
    clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    #[serde(default)]
    deleted_records: Vec<Deleted>,
    earliest_date_available: Option<String>,
    latest_date_covered: Option<String>,
}

#[derive(Deserialize)]
struct Deleted {
    id: String,
}

enum Told {
    All(Vec<RecordId>),
    TooMany,
    /// The log does not reach the window's end yet.
    Behind {
        covered: DateTime<Utc>,
        now: DateTime<Utc>,
    },
}

impl Deletes {
    /// Asks through `rest`, waits by `clock`.
    pub fn new(rest: Arc<Rest>, describer: Arc<Describer>, clock: Arc<dyn Clock>) -> Self {
        Self {
            rest,
            describer,
            clock,
        }
    }

    /// The ids deleted in `[from, to)`, and some of the minutes around it.
    ///
    /// # Errors
    /// `PositionLost` where the log does not reach back, keeps nothing of the object, or has too many ids for one
    /// answer; `Unavailable` while it does not reach `to`.
    pub async fn between(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        if from >= to {
            return Ok(Vec::new());
        }
        if !self.describer.get(object).await?.replicateable {
            return Err(Fault::new(
                FaultKind::PositionLost,
                format!("the CRM keeps no delete log of {object}"),
            ));
        }
        let mut found = Vec::new();
        // Windows still to ask, the earliest last.
        let mut windows = vec![widened(from, to)?];
        let mut waited = Duration::ZERO;
        while let Some((start, end)) = windows.pop() {
            // The window was widened: nobody needs more than `to`.
            let needed = end.min(to);
            match self.ask(object, from, start, end, needed).await? {
                Told::All(ids) => found.extend(ids),
                Told::TooMany => {
                    let half = minute(start + (end - start) / 2)?;
                    if half - start < SHORTEST || end - half < SHORTEST {
                        return Err(Fault::new(
                            FaultKind::PositionLost,
                            format!(
                                "more of {object} was deleted within minutes than the delete log tells"
                            ),
                        ));
                    }
                    windows.push((half, end));
                    windows.push((start, half));
                }
                Told::Behind { covered, now } => {
                    if waited >= PATIENCE {
                        return Err(Fault::new(
                            FaultKind::Unavailable,
                            format!(
                                "the delete log of {object} reaches {}, asked for {}",
                                stamp::render(covered),
                                stamp::render(needed)
                            ),
                        )
                        .retry_after(Duration::from_mins(1)));
                    }
                    let wait = until_covered(needed, now);
                    self.clock.sleep(wait).await;
                    waited += wait;
                    windows.push((start, end));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn ask(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        needed: DateTime<Utc>,
    ) -> Result<Told, Fault> {
        let name = soql::identifier(object.as_str())?;
        let time = |at: DateTime<Utc>| percent(&at.format("%Y-%m-%dT%H:%M:%S+00:00").to_string());
        let path = format!(
            "/sobjects/{name}/deleted/?start={}&end={}",
            time(start),
            time(end)
        );
        let doing =
            |fault: Fault| fault.context(format_args!("asking what of {object} was deleted"));
        let answer = match self.rest.get(&path).await {
            Ok(answer) => answer,
            Err(refused) if refused.is("EXCEEDED_ID_LIMIT") => return Ok(Told::TooMany),
            Err(refused) if refused.is("INVALID_REPLICATION_DATE") => {
                let what = format!(
                    "the delete log of {object} does not reach back to {}",
                    stamp::render(start)
                );
                return Err(Fault::new(FaultKind::PositionLost, what).source(refused.fault));
            }
            Err(refused) => return Err(doing(refused.fault)),
        };
        let unreadable = |what: &str| {
            doing(Fault::new(
                FaultKind::Protocol,
                format!("the answer's {what} can't be read"),
            ))
        };
        let log: Log = serde_json::from_slice(answer.body())
            .map_err(|error| unreadable("body").source(error))?;
        if let Some(earliest) = &log.earliest_date_available {
            let earliest =
                stamp::instant(earliest).ok_or_else(|| unreadable("earliestDateAvailable"))?;
            // A purged log is shorter than the fifteen days that it usually holds.
            if earliest > from && earliest > start {
                let what = format!(
                    "the delete log of {object} begins at {}, asked for {}",
                    stamp::render(earliest),
                    stamp::render(from)
                );
                return Err(Fault::new(FaultKind::PositionLost, what));
            }
        }
        let covered = log
            .latest_date_covered
            .as_deref()
            .and_then(stamp::instant)
            .ok_or_else(|| unreadable("latestDateCovered"))?;
        if covered < needed {
            let now = answer.date().unwrap_or(needed);
            return Ok(Told::Behind { covered, now });
        }
        let ids = log
            .deleted_records
            .iter()
            .map(|deleted| RecordId::salesforce(&deleted.id))
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable("ids").source(error))?;
        Ok(Told::All(ids))
    }
}

/// Whole minutes around a window, as the CRM ignores seconds; long enough for it to be taken.
fn widened(
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<(DateTime<Utc>, DateTime<Utc>), Fault> {
    let start = minute(from)?;
    let floor = minute(to)?;
    let end = if floor < to {
        floor + TimeDelta::minutes(1)
    } else {
        floor
    };
    // Backwards: the end may be the present already.
    Ok((start.min(end - SHORTEST), end))
}

/// How long to wait before the log is asked again: what it covers is told in whole minutes, so the running one is
/// over first; after that, an open transaction holds it back.
fn until_covered(needed: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    let over = needed + TimeDelta::minutes(1) - TimeDelta::seconds(needed.timestamp() % 60);
    let left = (over - now).to_std().unwrap_or_default();
    left.clamp(Duration::from_secs(15), Duration::from_mins(1))
}

fn minute(at: DateTime<Utc>) -> Result<DateTime<Utc>, Fault> {
    at.duration_trunc(TimeDelta::minutes(1)).map_err(|error| {
        Fault::new(FaultKind::Protocol, format!("{at} is no time to ask for")).source(error)
    })
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn windows_are_whole_minutes_around(from in 1_500_000_000_000_i64..1_900_000_000_000, length in 1_i64..10_000_000) {
            let from = Utc.timestamp_millis_opt(from).unwrap();
            let to = from + TimeDelta::milliseconds(length);
            let (start, end) = widened(from, to).unwrap();
            prop_assert!(start <= from && end >= to);
            prop_assert!(end - to < TimeDelta::minutes(1));
            prop_assert!(end - start >= SHORTEST);
            prop_assert_eq!(start.timestamp_millis() % 60_000, 0);
            prop_assert_eq!(end.timestamp_millis() % 60_000, 0);
        }
    }

    #[test]
    fn the_wait_ends_with_the_minute() {
        let at = |seconds: i64| {
            Utc.timestamp_opt(1_700_000_000 - 1_700_000_000 % 60 + seconds, 0)
                .unwrap()
        };
        assert_eq!(until_covered(at(10), at(12)), Duration::from_secs(48));
        assert_eq!(until_covered(at(10), at(300)), Duration::from_secs(15));
        assert_eq!(until_covered(at(900), at(12)), Duration::from_mins(1));
    }
}
