//! The listener: asks each table for its changes in turn, so often as the connection may.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::crm::port::{Heard, Listener, Lost, LostCause, Selection};
use crate::fault::{Fault, FaultKind};
use crate::model::name::ObjectName;
use crate::telemetry::metrics::{self, Metrics};

use super::canary::{Canaries, Contradiction};
use super::describe::Describer;
use super::links::Links;
use super::place::{Link, Way};
use super::poll::{Poll, Polled, doubted_since};
use super::read::Reader;
use super::rest::{Refused, Rest};

/// Tables that rest are asked up to so many times more seldom.
const MOST_IDLE: u32 = 4;
/// When a table that may not be read is asked again.
const REFUSED_WAIT: Duration = Duration::from_mins(5);
/// Dates of answers come in whole seconds, less a round trip.
const ROUNDING: Duration = Duration::from_secs(2);

/// What listening needs of its connection.
pub struct Desk {
    /// Calls.
    pub rest: Arc<Rest>,
    /// Descriptions.
    pub describer: Arc<Describer>,
    /// Reads by id.
    pub reader: Arc<Reader>,
    /// Where each table stands.
    pub links: Arc<Links>,
    /// The age of links.
    pub metrics: Metrics,
}

/// Listens to the tables that `desk.links` follow, now and later.
#[must_use]
pub fn listener(desk: Desk, selections: &[Selection]) -> Box<dyn Listener> {
    let every = desk.rest.settings().check_interval;
    let table = |selection: &Selection| {
        // Of a stored place nobody knows what became of the org since.
        let is_stored = desk.links.get(&selection.object).is_some();
        let check = Instant::now() + if is_stored { Duration::ZERO } else { every };
        let name = selection.object.clone();
        (name, Table::new(selection, check))
    };
    let tables = selections.iter().map(table).collect();
    Box::new(PollingListener {
        state: State::Idle(Box::new(Round {
            desk,
            tables,
            poll: None,
            unchecked: None,
            begun: false,
        })),
    })
}

/// One table's turn.
struct Table {
    selection: Selection,
    /// When it was last asked.
    asked: Instant,
    /// When its changes are asked for next.
    due: Instant,
    /// The wait between two questions, while nothing changes.
    every: Duration,
    /// It may not be read, which was said.
    refused: bool,
    /// When its canaries are read next, once the changes up to then are told.
    check: Instant,
    /// What its canaries were when they were contradicted for the first time.
    doubted: Option<Canaries>,
    /// When the first question of this life was sent, on the CRM's clock.
    first_sent: Option<DateTime<Utc>>,
}

impl Table {
    fn new(selection: &Selection, check: Instant) -> Self {
        Self {
            selection: selection.clone(),
            asked: Instant::now(),
            due: Instant::now(),
            every: Duration::ZERO,
            refused: false,
            check,
            doubted: None,
            first_sent: None,
        }
    }
}

/// The tables, turn by turn.
struct Round {
    desk: Desk,
    tables: BTreeMap<ObjectName, Table>,
    poll: Option<Poll>,
    /// A table whose canaries are to be read before anything else.
    unchecked: Option<ObjectName>,
    begun: bool,
}

impl Round {
    async fn next(&mut self) -> Result<Heard, Fault> {
        if !self.begun {
            // Where it stands is stored at once, so that the next life knows.
            self.begun = true;
            return Ok(self.heard(Vec::new()));
        }
        loop {
            if let Some(name) = self.unchecked.take()
                && let Some(heard) = self.check(&name).await?
            {
                return Ok(heard);
            }
            if self.poll.is_none() && self.wait_for_turn().await? {
                // Where a table's changes begin is stored at once.
                return Ok(self.heard(Vec::new()));
            }
            let Some(mut poll) = self.poll.take() else {
                continue;
            };
            let table = poll.table().clone();
            match poll.page(&self.desk.rest).await {
                Ok(polled) => {
                    if let Some(heard) = self.take(poll, polled) {
                        return Ok(heard);
                    }
                }
                Err(refused) => {
                    if let Some(heard) = self.refuse(&table, refused)? {
                        return Ok(heard);
                    }
                }
            }
        }
    }

    /// Waits until a followed table is to be asked; whether another one began to be followed first.
    async fn wait_for_turn(&mut self) -> Result<bool, Fault> {
        let followed: Vec<(ObjectName, Link)> = self
            .tables
            .keys()
            .filter_map(|name| Some((name.clone(), self.desk.links.get(name)?)))
            .collect();
        let due = |name: &ObjectName| self.tables.get(name).map(|table| table.due);
        let Some((name, link)) = followed.into_iter().min_by_key(|(name, _)| due(name)) else {
            self.desk.links.moved().await;
            return Ok(true);
        };
        if let Some(due) = due(&name) {
            tokio::select! {
                biased;
                () = self.desk.links.moved() => return Ok(true),
                () = self.desk.links.hastened() => {
                    self.hasten();
                    return Ok(false);
                }
                () = tokio::time::sleep_until(due) => {}
            }
        }
        let Some(table) = self.tables.get(&name) else {
            return Ok(false);
        };
        let incarnation = self.desk.links.incarnation();
        let lag = TimeDelta::from_std(self.desk.rest.settings().read_lag).unwrap_or_default();
        let doubted = doubted_since(link.sent, table.first_sent, lag);
        let (describer, selection) = (&self.desk.describer, &table.selection);
        let poll = Poll::new(describer, selection, link, incarnation, doubted).await;
        self.poll = Some(poll.map_err(|fault| listening(&name, fault))?);
        Ok(false)
    }

    /// A page was told.
    fn take(&mut self, poll: Poll, polled: Polled) -> Option<Heard> {
        let name = poll.table().clone();
        let told = poll.told;
        let Some(link) = polled.link else {
            self.poll = Some(poll);
            return Some(Heard {
                events: polled.events,
                ..Heard::default()
            });
        };
        self.schedule(&name, told);
        if let Some(table) = self.tables.get_mut(&name) {
            table.first_sent.get_or_insert(link.sent);
        }
        // It may have been lost meanwhile, to another life.
        self.desk.links.get(&name)?;
        let (link, lost) = self.compared(&name, link);
        self.desk.links.advance(&name, link);
        self.show(&name);
        let checks = |table: &Table| table.check <= Instant::now();
        self.unchecked = self
            .tables
            .get(&name)
            .is_some_and(checks)
            .then(|| name.clone());
        let mut heard = self.heard(polled.events);
        heard.lost.extend(lost);
        Some(heard)
    }

    fn heard(&self, events: Vec<crate::model::event::Event>) -> Heard {
        let settings = self.desk.rest.settings();
        let lag = TimeDelta::from_std(settings.read_lag).unwrap_or_default();
        Heard {
            events,
            position: Some(self.desk.links.position()),
            confirmed_at: self.desk.links.asked_since().map(|sent| sent - lag),
            lost: Vec::new(),
        }
    }

    /// A table without tombstones is compared as a whole from time to time.
    fn compared(&self, name: &ObjectName, mut link: Link) -> (Link, Option<Lost>) {
        let every = self.desk.rest.settings().sweep_interval;
        let every = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX);
        let Way::Modified(since) = &mut link.way else {
            return (link, None);
        };
        if link.sent - since.compared < every {
            return (link, None);
        }
        since.compared = link.sent;
        let lost = Lost {
            object: name.clone(),
            cause: LostCause::NotCaptured,
            to: link.sent + TimeDelta::seconds(2),
        };
        (link, Some(lost))
    }

    /// Reads a table's newest rows again, whose changes are all told: one that is older than it was, or gone without a
    /// tombstone, and is so once more when every read shows what was told, proves that the place leads past changes.
    async fn check(&mut self, name: &ObjectName) -> Result<Option<Heard>, Fault> {
        let Some(link) = self.desk.links.get(name) else {
            return Ok(None);
        };
        let Some(table) = self.tables.get_mut(name) else {
            return Ok(None);
        };
        let settings = self.desk.rest.settings();
        table.check = Instant::now() + settings.check_interval;
        let doubted = table.doubted.take();
        let canaries = match &doubted {
            Some(doubted) => doubted.still_in(&link.canaries),
            None => link.canaries.clone(),
        };
        if canaries.is_empty() {
            return Ok(None);
        }
        let key_alone = Selection::from(name.as_str());
        let records = canaries.records();
        let read = self.desk.reader.by_ids(&key_alone, &records);
        let found = match read.await {
            Ok(found) => found,
            // The question for its changes says so.
            Err(fault) if matches!(fault.kind(), FaultKind::Permission | FaultKind::Missing) => {
                return Ok(None);
            }
            Err(fault) => return Err(listening(name, fault)),
        };
        let Some(contradiction) = canaries.contradicted(&found) else {
            return Ok(None);
        };
        if doubted.is_none() {
            table.doubted = Some(canaries);
            table.check = Instant::now() + settings.read_lag + ROUNDING;
            table.due = table.due.min(table.check);
            return Ok(None);
        }
        Ok(self.contradicted(name, &link, contradiction))
    }

    /// What a contradiction that stands means for a table.
    fn contradicted(
        &self,
        name: &ObjectName,
        link: &Link,
        contradiction: Contradiction,
    ) -> Option<Heard> {
        let lag = self.desk.rest.settings().read_lag + ROUNDING;
        let lag = TimeDelta::from_std(lag).unwrap_or_default();
        let (cause, to) = match contradiction {
            Contradiction::Older { as_of } => (LostCause::Restored, as_of + lag),
            Contradiction::Missing { records, as_of } => {
                self.desk.links.forget(name, &records);
                if matches!(link.way, Way::Modified(_)) {
                    // It tells no deletes.
                    return None;
                }
                (LostCause::NotCaptured, as_of + lag)
            }
        };
        tracing::warn!(
            connection = %self.desk.rest.settings().connection, object = %name, ?cause,
            "rows that were told are older or gone without a word: a part of the changes was not told"
        );
        let mut heard = self.heard(Vec::new());
        heard.lost.push(Lost {
            object: name.clone(),
            cause,
            to,
        });
        Some(heard)
    }

    /// A question was refused: the table's place is lost, or the table, or the stream is over.
    fn refuse(&mut self, name: &ObjectName, refused: Refused) -> Result<Option<Heard>, Fault> {
        let cause = match refused.fault.kind() {
            _ if refused.is_expired() || refused.is_not_tracked() => LostCause::Expired,
            FaultKind::Permission | FaultKind::Missing => LostCause::PermissionLost,
            _ => return Err(listening(name, refused.fault)),
        };
        let Some(table) = self.tables.get_mut(name) else {
            return Ok(None);
        };
        tracing::warn!(
            connection = %self.desk.rest.settings().connection, object = %name, error = %refused.fault,
            "a table's changes are not told any more"
        );
        if cause == LostCause::Expired {
            // The same error comes when the table's definition changed.
            self.desk.describer.forget(name);
            self.desk.links.lose(name);
        } else {
            table.due = Instant::now() + REFUSED_WAIT;
            if std::mem::replace(&mut table.refused, true) {
                return Ok(None);
            }
        }
        let mut heard = self.heard(Vec::new());
        heard.lost.push(Lost {
            object: name.clone(),
            cause,
            to: refused.at,
        });
        Ok(Some(heard))
    }

    /// When the table is asked next: soon if it lives, later if it rests, never above what a day may take.
    fn schedule(&mut self, name: &ObjectName, told: bool) {
        let settings = self.desk.rest.settings();
        let least = self.least();
        let most = (settings.poll_interval * MOST_IDLE).max(least);
        let Some(table) = self.tables.get_mut(name) else {
            return;
        };
        table.refused = false;
        table.every = if told {
            least
        } else {
            (table.every * 3 / 2).clamp(least, most)
        };
        table.asked = Instant::now();
        table.due = table.asked + table.every;
    }

    /// The shortest time between two questions for one table.
    fn least(&self) -> Duration {
        let budgeted = self.desk.rest.pace().shortest_poll(self.tables.len());
        self.desk.rest.settings().poll_interval.max(budgeted)
    }

    /// Tables of which something is said to have happened are asked as soon as they may, and no sooner. One that may
    /// not be read waits its time.
    fn hasten(&mut self) {
        let least = self.least();
        for name in self.desk.links.take_hastened() {
            if let Some(table) = self.tables.get_mut(&name).filter(|table| !table.refused) {
                table.every = least;
                table.due = table.due.min(table.asked + least);
            }
        }
    }

    fn show(&self, name: &ObjectName) {
        let Some(link) = self.desk.links.get(name) else {
            return;
        };
        let labels = [
            ("connection", self.desk.rest.settings().connection.as_str()),
            ("object", name.as_str()),
        ];
        let gauge = self.desk.metrics.gauge(metrics::DELTA_LINK_AT, &labels);
        gauge.set(seconds(link.sent));
    }
}

fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp() as f64
}

fn listening(table: &ObjectName, fault: Fault) -> Fault {
    fault.context(format_args!("asking for the changes of {table}"))
}

type Wait = Pin<Box<dyn Future<Output = (Box<Round>, Result<Heard, Fault>)> + Send>>;

/// The round, or the wait that owns it.
enum State {
    Idle(Box<Round>),
    Waiting(Wait),
    Over,
}

struct PollingListener {
    state: State,
}

#[async_trait]
impl Listener for PollingListener {
    async fn next(&mut self) -> Result<Heard, Fault> {
        // The wait is kept until it is over, whoever waits for it: an answer in flight is never dropped.
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Idle(mut round) => State::Waiting(Box::pin(async move {
                let heard = round.next().await;
                (round, heard)
            })),
            other => other,
        };
        let State::Waiting(wait) = &mut self.state else {
            return Err(Fault::new(FaultKind::Protocol, "the stream is over"));
        };
        let (round, heard) = wait.await;
        self.state = if heard.is_ok() {
            State::Idle(round)
        } else {
            State::Over
        };
        heard
    }

    async fn stop(self: Box<Self>) {}
}

#[cfg(test)]
mod tests {
    use crate::crm::dynamics::Dynamics;
    use crate::crm::dynamics::settings::{DynamicsSettings, Proof};
    use crate::runtime::clock::SystemClock;
    use crate::secret::Secret;

    use super::*;

    const LEAST: Duration = Duration::from_secs(15);

    /// A table that rests, in a round that asks nobody.
    fn resting(daily_requests: Option<u32>) -> (Round, ObjectName) {
        let secret = Proof::Secret(Arc::new(|| Ok(Secret::new("s"))));
        let org = "https://contoso.crm.dynamics.com";
        let mut settings = DynamicsSettings::new("contoso".into(), org, "0000", secret);
        settings.daily_requests = daily_requests;
        let crm = Dynamics::new(settings, Metrics::none(), Arc::new(SystemClock)).unwrap();
        let name = ObjectName::new("account");
        let mut round = Round {
            desk: Desk {
                rest: Arc::clone(&crm.rest),
                describer: Arc::clone(&crm.describer),
                reader: Arc::clone(&crm.reader),
                links: Arc::clone(&crm.links),
                metrics: Metrics::none(),
            },
            tables: [(
                name.clone(),
                Table::new(&Selection::from("account"), Instant::now()),
            )]
            .into(),
            poll: None,
            unchecked: None,
            begun: true,
        };
        for _ in 0..10 {
            round.schedule(&name, false);
        }
        (round, name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hastened_table_is_asked_as_soon_as_it_may_and_no_sooner() {
        let (mut round, name) = resting(None);
        let asked = round.tables[&name].asked;
        assert_eq!(round.tables[&name].due, asked + LEAST * MOST_IDLE);
        for seconds in [1, 20] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            round.desk.links.hasten(&name);
            round.desk.links.hastened().await;
            round.hasten();
            assert_eq!(round.tables[&name].due, asked + LEAST);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn haste_spends_no_more_than_a_day_has() {
        let (mut round, name) = resting(Some(1000));
        let asked = round.tables[&name].asked;
        round.desk.links.hasten(&name);
        round.hasten();
        // Six tenths of a thousand questions a day.
        assert_eq!(round.tables[&name].due, asked + Duration::from_secs(144));
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_may_not_be_read_is_not_hastened() {
        let (mut round, name) = resting(None);
        if let Some(table) = round.tables.get_mut(&name) {
            table.refused = true;
        }
        let due = round.tables[&name].due;
        round.desk.links.hasten(&name);
        round.hasten();
        assert_eq!(round.tables[&name].due, due);
    }
}
