//! What is told at once: a job that a brake or a lost field stopped, jobs and connections that failed, and that they go on.

use chrono::SecondsFormat;
use tokio::time::Instant;

use super::audience::NOBODY;
use super::{Watch, of_job};
use crate::fault::Fault;
use crate::flow::board::{FaultPicture, Life};
use crate::flow::connection::lost;
use crate::model::name::{ConnectionId, JobId};
use crate::notify::notice::{Event, Notice};
use crate::state::orders::Order;

const WELL: &str = "well";

impl Watch {
    /// Orders by which a job stands that nobody gave: those of brakes and of lost fields.
    pub(super) async fn look_at_orders(&mut self) -> Result<(), Fault> {
        for (connection, job, standing) in self.ground.state.all_standing().await? {
            let Some(told) = self.ground.audience.of_job(&connection, &job) else {
                continue;
            };
            let ears = told.failure.clone();
            let order = standing.order;
            let by_itself = order.braked.is_some() || order.by.as_deref() == Some(lost::BY);
            let after = if order.paused && by_itself {
                let since = order.since.unwrap_or_default();
                since.to_rfc3339_opts(SecondsFormat::Micros, true)
            } else {
                WELL.to_owned()
            };
            let subject = format!("order {connection}/{job}");
            if self.known.get(&subject) == Some(&after) {
                continue;
            }
            let before = self.stored(&subject).await?;
            let notice = match &before {
                Some(before) if *before == after => continue,
                None if after == WELL => {
                    // What was never stopped has no mark, and is not asked for again.
                    self.known.insert(subject, after);
                    continue;
                }
                _ if after == WELL => self.goes_on(&connection, &job),
                _ => self.stopped(&connection, &job, &order),
            };
            let to = self.addresses(&connection, &ears).await?;
            self.tell(&subject, before, &after, Some((&notice, to)))
                .await?;
        }
        Ok(())
    }

    fn goes_on(&self, connection: &ConnectionId, job: &JobId) -> Notice {
        of_job(
            Event::JobRecovered,
            "success",
            (connection, job),
            "goes on",
            self.now(),
        )
    }

    /// The reason of a brake quotes the newest refused record; a notice has the counts.
    fn stopped(&self, connection: &ConnectionId, job: &JobId, order: &Order) -> Notice {
        let id = (connection, job);
        let Some(seen) = &order.braked else {
            let what = "stopped, as a field is gone that it reads";
            let mut notice = of_job(Event::JobStopped, "lost_field", id, what, self.now());
            notice.say(order.reason.as_deref().unwrap_or_default());
            notice.say(&format!(
                "It applies nothing until: tributary job resume {connection}/{job}"
            ));
            return notice;
        };
        let what = "stopped by a brake";
        let mut notice = of_job(Event::JobStopped, "brake", id, what, self.now());
        let took = &seen.took;
        notice.say(&format!(
            "Run {} would do more than its brakes let pass. So far it deleted or marked {} rows, emptied a column in {} \
             and rejected {} records; nothing beyond that is applied.",
            seen.run, took.gone, took.emptied, took.rejected
        ));
        notice.say("Which brake, and why: tributary jobs");
        notice.say(&format!(
            "If it is right: tributary job resume {connection}/{job} --accept"
        ));
        notice
    }

    /// What the board says of connections and jobs.
    pub(super) async fn look_at_lives(&mut self) -> Result<(), Fault> {
        let picture = self.ground.board.picture();
        for (connection, shown) in picture.connections {
            let down = matches!(shown.state, Life::Revoked | Life::Failed);
            let streams = matches!(
                shown.state,
                Life::Streaming | Life::Snapshotting | Life::Repairing
            );
            let subject = format!("connection {connection}");
            let Some((before, after)) = self.turn(&subject, shown.state, down, streams).await?
            else {
                continue;
            };
            let notice = self.of_connection(&connection, &after, shown.fault.as_ref());
            let told = self.ground.audience.of_connection(&connection);
            let ears = told.map_or(NOBODY, |told| &told.failure).clone();
            let to = self.addresses(&connection, &ears).await?;
            self.tell(&subject, before, &after, Some((&notice, to)))
                .await?;
        }
        for (connection, jobs) in picture.jobs {
            for (job, shown) in jobs {
                let (failed, streams) =
                    (shown.state == Life::Failed, shown.state == Life::Streaming);
                let subject = format!("job {connection}/{job} {}", self.ground.owner);
                let Some((before, after)) =
                    self.turn(&subject, shown.state, failed, streams).await?
                else {
                    continue;
                };
                let notice = if after == WELL {
                    self.goes_on(&connection, &job)
                } else {
                    self.failed(&connection, &job, shown.fault.as_ref())
                };
                let told = self.ground.audience.of_job(&connection, &job);
                let ears = told.map_or(NOBODY, |told| &told.failure).clone();
                let to = self.addresses(&connection, &ears).await?;
                self.tell(&subject, before, &after, Some((&notice, to)))
                    .await?;
            }
        }
        Ok(())
    }

    /// The mark before and after, if it is to be moved. What does well again has to do so for a while.
    async fn turn(
        &mut self,
        subject: &str,
        life: Life,
        down: bool,
        well: bool,
    ) -> Result<Option<(Option<String>, String)>, Fault> {
        if !well {
            self.well_since.remove(subject);
        }
        let after = match (down, well) {
            (true, _) => life.label(),
            (_, true) => WELL,
            _ => return Ok(None),
        };
        if self.known.get(subject).is_some_and(|known| known == after) {
            return Ok(None);
        }
        let before = self.stored(subject).await?;
        if before.is_none() && well {
            self.known.insert(subject.to_owned(), after.to_owned());
            return Ok(None);
        }
        if before.as_deref() == Some(after) {
            return Ok(None);
        }
        if well {
            let since = self.well_since.entry(subject.to_owned());
            let since = since.or_insert_with(Instant::now);
            if since.elapsed() < self.ground.settled {
                return Ok(None);
            }
        }
        Ok(Some((before, after.to_owned())))
    }

    fn of_connection(
        &self,
        connection: &ConnectionId,
        after: &str,
        fault: Option<&FaultPicture>,
    ) -> Notice {
        let (event, outcome, what) = match after {
            WELL => (Event::ConnectionRecovered, "success", "streams again"),
            "revoked" => (
                Event::ConnectionDown,
                after,
                "the org refuses its credentials",
            ),
            _ => (Event::ConnectionDown, after, "failed"),
        };
        let title = format!("connection {connection}: {what}");
        let mut notice = Notice {
            connection: Some(connection.to_string()),
            ..Notice::new(event, outcome, &title, self.now())
        };
        if after != WELL {
            if let Some(fault) = fault {
                notice.say(&format!("{}: {}", fault.kind, fault.text));
            }
            notice.say("Nothing is read from it; its place is kept, and what is missed is read once it works again.");
        }
        notice
    }

    /// What the fault says may quote a row: its kind is told.
    fn failed(
        &self,
        connection: &ConnectionId,
        job: &JobId,
        fault: Option<&FaultPicture>,
    ) -> Notice {
        let mut notice = of_job(
            Event::JobFailed,
            "failed",
            (connection, job),
            "stands still after a fault",
            self.now(),
        );
        let kind = fault.map_or("unknown", |fault| fault.kind);
        notice.say(&format!("Kind of fault: {kind}"));
        notice.say("What it is: tributary jobs");
        notice
    }
}
