//! The org's logs of updates and deletes: what changed in a window, by whole minutes (SOAP API Developer Guide, "Data
//! Replication"; REST API Developer Guide, "Get Updated", "Get Deleted").

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::Deserialize;

use crate::fault::{Fault, FaultKind};
use crate::http::answer::Answer;
use crate::http::encode::percent;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::runtime::clock::Clock;

use super::describe::Describer;
use super::rest::Rest;
use super::{soql, stamp};

/// How far beyond the present a log of updates is asked for, so that nothing changes behind the window's end before it is
/// answered.
const AHEAD: TimeDelta = TimeDelta::minutes(1);
/// A log runs behind while transactions are open; how long to wait for it before the caller is told.
const PATIENCE: Duration = Duration::from_mins(3);

/// Asks the logs.
pub struct Replication {
    rest: Arc<Rest>,
    describer: Arc<Describer>,
    clock: Arc<dyn Clock>,
}

/// Which log.
#[derive(Debug, Clone, Copy)]
enum Log {
    Updates,
    Deletes,
}

impl Log {
    const fn resource(self) -> &'static str {
        match self {
            Self::Updates => "updated",
            Self::Deletes => "deleted",
        }
    }

    /// The shortest window that the CRM takes, seconds ignored: its start is before its end, of deletes by "more than one
    /// minute".
    const fn shortest(self) -> TimeDelta {
        TimeDelta::minutes(match self {
            Self::Updates => 1,
            Self::Deletes => 2,
        })
    }

    /// To when it is asked for what happened until `to`. The log of updates has a record once, under its last change: one
    /// that changed again would be told after the window, so that one ends with the present.
    fn end(self, to: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Updates => to.max(now + AHEAD),
            Self::Deletes => to,
        }
    }
}

/// What is wanted of a log.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    log: Log,
    object: &'a ObjectName,
    from: DateTime<Utc>,
    /// Up to here everything has to be told.
    to: DateTime<Utc>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    ids: Vec<String>,
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
    Ids {
        ids: Vec<RecordId>,
        /// Up to here they are all.
        covered: DateTime<Utc>,
        /// The CRM's clock.
        at: Option<DateTime<Utc>>,
    },
    TooMany,
}

impl Replication {
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
    pub async fn deleted(
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
        let wanted = Wanted {
            log: Log::Deletes,
            object,
            from,
            to,
        };
        self.told(wanted, to).await
    }

    /// The ids that changed in `[from, to)` and some that changed about then or since, of an object whose changes no
    /// stamp tells; `None` for any other.
    ///
    /// # Errors
    /// As [`Replication::deleted`].
    pub async fn updated(
        &self,
        object: &ObjectName,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Option<Vec<RecordId>>, Fault> {
        let description = self.describer.get(object).await?;
        if description.change_stamp().is_some() {
            return Ok(None);
        }
        if !description.replicateable {
            return Err(Fault::new(
                FaultKind::PositionLost,
                format!("neither a stamp nor a log tells what of {object} changed"),
            ));
        }
        if from >= to {
            return Ok(Some(Vec::new()));
        }
        let now = self.rest.versions().await?.began()?;
        let wanted = Wanted {
            log: Log::Updates,
            object,
            from,
            to,
        };
        self.told(wanted, now).await.map(Some)
    }

    /// What a log tells, where the CRM's clock shows `now`: windows that hold too much are halved, and what is not covered
    /// yet is asked for later, from where the answer ended.
    async fn told(
        &self,
        wanted: Wanted<'_>,
        mut now: DateTime<Utc>,
    ) -> Result<Vec<RecordId>, Fault> {
        let (log, shortest) = (wanted.log, wanted.log.shortest());
        let mut found = Vec::new();
        // Windows still to ask, the earliest last.
        let mut windows = vec![widened(wanted.from, log.end(wanted.to, now), shortest)?];
        let mut waited = Duration::ZERO;
        while let Some((start, mut end)) = windows.pop() {
            if windows.is_empty() {
                end = end.max(whole_minute(log.end(wanted.to, now))?);
            }
            // The window was widened: nobody needs more than `to`.
            let needed = end.min(wanted.to);
            match self.ask(wanted, start, end).await? {
                Told::TooMany => {
                    let half = minute(start + (end - start) / 2)?;
                    if half - start < shortest || end - half < shortest {
                        return Err(too_many(wanted));
                    }
                    windows.push((half, end));
                    windows.push((start, half));
                }
                Told::Ids { ids, covered, at } => {
                    found.extend(ids);
                    now = now.max(at.unwrap_or(now));
                    if covered >= needed {
                        continue;
                    }
                    if waited >= PATIENCE {
                        return Err(behind(wanted, covered, needed));
                    }
                    let wait = until_covered(needed, at.unwrap_or(needed));
                    self.clock.sleep(wait).await;
                    waited += wait;
                    now += wait;
                    let rest = minute(covered)?.min(end - shortest).max(start);
                    windows.push((rest, end));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn ask(
        &self,
        wanted: Wanted<'_>,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Result<Told, Fault> {
        let object = wanted.object;
        let resource = wanted.log.resource();
        let name = soql::identifier(object.as_str())?;
        let time = |at: DateTime<Utc>| percent(&at.format("%Y-%m-%dT%H:%M:%S+00:00").to_string());
        let path = format!(
            "/sobjects/{name}/{resource}/?start={}&end={}",
            time(start),
            time(end)
        );
        let doing =
            |fault: Fault| fault.context(format_args!("asking what of {object} was {resource}"));
        let answer = match self.rest.get(&path).await {
            Ok(answer) => answer,
            Err(refused) if refused.is("EXCEEDED_ID_LIMIT") => return Ok(Told::TooMany),
            Err(refused) if refused.is("INVALID_REPLICATION_DATE") => {
                let what = format!("the log does not reach back to {}", stamp::render(start));
                let lost = Fault::new(FaultKind::PositionLost, what);
                return Err(doing(lost.source(refused.fault)));
            }
            Err(refused) => return Err(doing(refused.fault)),
        };
        Told::read(wanted, start, &answer).map_err(doing)
    }
}

impl Told {
    fn read(wanted: Wanted<'_>, start: DateTime<Utc>, answer: &Answer) -> Result<Self, Fault> {
        let unreadable = |what: &str| {
            Fault::new(
                FaultKind::Protocol,
                format!("the answer's {what} can't be read"),
            )
        };
        let told: Body = serde_json::from_slice(answer.body())
            .map_err(|error| unreadable("body").source(error))?;
        if let Some(earliest) = &told.earliest_date_available {
            let earliest =
                stamp::instant(earliest).ok_or_else(|| unreadable("earliestDateAvailable"))?;
            // A purged log is shorter than the fifteen days that it usually holds.
            if earliest > wanted.from && earliest > start {
                let what = format!(
                    "the log begins at {}, asked for {}",
                    stamp::render(earliest),
                    stamp::render(wanted.from)
                );
                return Err(Fault::new(FaultKind::PositionLost, what));
            }
        }
        let covered = told
            .latest_date_covered
            .as_deref()
            .and_then(stamp::instant)
            .ok_or_else(|| unreadable("latestDateCovered"))?;
        let deleted = told.deleted_records.iter().map(|deleted| &deleted.id);
        let ids = told
            .ids
            .iter()
            .chain(deleted)
            .map(|id| RecordId::salesforce(id))
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable("ids").source(error))?;
        Ok(Self::Ids {
            ids,
            covered,
            at: answer.date(),
        })
    }
}

fn too_many(wanted: Wanted<'_>) -> Fault {
    let (object, resource) = (wanted.object, wanted.log.resource());
    let what = format!("more of {object} was {resource} within minutes than the log tells");
    Fault::new(FaultKind::PositionLost, what)
}

fn behind(wanted: Wanted<'_>, covered: DateTime<Utc>, needed: DateTime<Utc>) -> Fault {
    let (object, resource) = (wanted.object, wanted.log.resource());
    let what = format!(
        "the log of what of {object} was {resource} reaches {}, asked for {}",
        stamp::render(covered),
        stamp::render(needed)
    );
    Fault::new(FaultKind::Unavailable, what).retry_after(Duration::from_mins(1))
}

/// Whole minutes around a window, as the CRM ignores seconds; long enough for it to be taken.
fn widened(
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    shortest: TimeDelta,
) -> Result<(DateTime<Utc>, DateTime<Utc>), Fault> {
    let (start, end) = (minute(from)?, whole_minute(to)?);
    // Backwards: the end may be the present already.
    Ok((start.min(end - shortest), end))
}

/// How long to wait before a log is asked again: what it covers is told in whole minutes, so the running one is
/// over first; after that, an open transaction holds it back.
fn until_covered(needed: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    let over = needed + TimeDelta::minutes(1) - TimeDelta::seconds(needed.timestamp() % 60);
    let left = (over - now).to_std().unwrap_or_default();
    left.clamp(Duration::from_secs(15), Duration::from_mins(1))
}

/// The end of the minute that holds an instant.
fn whole_minute(at: DateTime<Utc>) -> Result<DateTime<Utc>, Fault> {
    let floor = minute(at)?;
    Ok(if floor < at {
        floor + TimeDelta::minutes(1)
    } else {
        floor
    })
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
            let shortest = Log::Deletes.shortest();
            let (start, end) = widened(from, to, shortest).unwrap();
            prop_assert!(start <= from && end >= to);
            prop_assert!(end - to < TimeDelta::minutes(1));
            prop_assert!(end - start >= shortest);
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
