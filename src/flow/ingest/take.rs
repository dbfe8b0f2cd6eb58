//! What reads say, merged; and images that are published again.

use chrono::{DateTime, SubsecRound, Utc};

use crate::flow::road::ObjectRoad;
use crate::image::merge::{Image, Life, Step, Verdict};
use crate::model::change::{Op, Origin};
use crate::model::event::Row;
use crate::model::name::ObjectName;
use crate::model::record_id::RecordId;
use crate::model::version::Version;
use crate::telemetry::metrics;

use super::gathered::Gathered;
use super::step::Told;
use super::{Ingest, Read, ReadOutcome};

/// What a read tells of one record.
struct Answer<'a> {
    record: &'a RecordId,
    row: Option<&'a Row>,
    step: Step,
    committed_at: Option<DateTime<Utc>>,
    /// It may settle what the record owes.
    settles: bool,
    /// It shows nothing that is not held already.
    is_held: bool,
}

/// What became of an answer.
#[derive(PartialEq, Eq)]
enum Taken {
    Published,
    Kept,
    /// It came too early to be believed.
    Again,
}

impl Ingest {
    pub(super) fn take_read(&mut self, read: Read, gathered: &mut Gathered) {
        let mut outcome = ReadOutcome::default();
        let objects = std::sync::Arc::clone(&self.objects);
        let Some(road) = objects.get(&read.object) else {
            gathered.reads.push((read.done, outcome));
            return;
        };
        let tells_all = read.origin == Origin::Snapshot && self.has_scheduled(&read.object);
        gathered.count(metrics::ROWS_READ, &read.object, read.rows.len() as u64);
        for row in &read.rows {
            let image = gathered.image(&read.object, &row.record);
            // A full sync meets every record; only those that owe something are worth a row of the ledger.
            let settles = read.by_id || image.as_ref().is_some_and(|image| image.needs.is_some());
            let table = self.road.crm.table();
            let held = image.as_ref().filter(|image| image.life == Life::Live);
            let held = held.map(|image| image.row.map(|mark| mark.version));
            let ahead = image.as_ref().filter(|_| tells_all);
            let ahead = ahead.filter(|image| image.is_ahead_of_syncs()).cloned();
            let step = if image.is_none() && read.by_id && self.may_have_died(&read) {
                Step::read_again()
            } else {
                table.row(image, row, read.as_of, self.covered(road))
            };
            let step = match ahead {
                Some(image) => tell_again(step, image),
                None => step,
            };
            let is_held = match (held, row.version) {
                (Some(Some(held)), Some(version)) => version <= held,
                (Some(None), None) => step.changed.is_empty(),
                _ => false,
            };
            let answer = Answer {
                record: &row.record,
                row: Some(row),
                step,
                committed_at: row.modified_at,
                settles,
                is_held,
            };
            self.take_answer(road, &read, answer, gathered, &mut outcome);
        }
        for record in &read.absent {
            let image = gathered.image(&read.object, record);
            let table = self.road.crm.table();
            let is_live = image.as_ref().is_some_and(|image| image.life == Life::Live);
            let step = table.absent(image, read.as_of, self.covered(road));
            let answer = Answer {
                record,
                row: None,
                step,
                committed_at: Some(read.as_of),
                settles: true,
                is_held: !is_live,
            };
            let taken = self.take_answer(road, &read, answer, gathered, &mut outcome);
            outcome.deleted += u64::from(taken == Taken::Published);
        }
        gathered.reads.push((read.done, outcome));
    }

    /// Whether a record without an image may have been told dead, to an earlier life, after what a read shows.
    fn may_have_died(&self, read: &Read) -> bool {
        let known = self.deaths_known.get(&read.object);
        known.is_some_and(|since| read.as_of < *since)
    }

    /// Takes one record's answer over and counts it. Whoever expects that the record changed is told of an answer by id
    /// what it means.
    fn take_answer(
        &mut self,
        road: &ObjectRoad,
        read: &Read,
        answer: Answer<'_>,
        gathered: &mut Gathered,
        outcome: &mut ReadOutcome,
    ) -> Taken {
        let (record, is_held) = (answer.record, answer.is_held);
        let owes = answer.step.owe.is_some();
        let taken = self.take_over(road, read, answer, gathered);
        outcome.published += u64::from(taken == Taken::Published);
        outcome.again += u64::from(taken == Taken::Again);
        if read.by_id && (owes || taken == Taken::Again) {
            outcome.owing.insert(record.clone());
        } else if read.by_id && is_held {
            outcome.unmoved.insert(record.clone());
        }
        taken
    }

    /// Takes one record's answer over, and settles what it answers.
    fn take_over(
        &mut self,
        road: &ObjectRoad,
        read: &Read,
        answer: Answer<'_>,
        gathered: &mut Gathered,
    ) -> Taken {
        if answer.step.verdict == Verdict::ReadAgain {
            if read.by_id {
                // A later read than this one is owed, whoever asked.
                gathered.owe(&read.object, answer.record, read.as_of.trunc_subsecs(0));
            }
            return Taken::Again;
        }
        if answer.step.verdict == Verdict::Restored {
            gathered.restored = gathered.restored.max(Some(read.as_of));
            return Taken::Again;
        }
        if answer.settles {
            gathered.settle(&read.object, answer.record, read.as_of);
        }
        let told = Told {
            origin: read.origin,
            committed_at: answer.committed_at,
            event: None,
            row: answer.row.map(|row| (row, read.as_of)),
        };
        let published = self.take_step(road, answer.record, answer.step, &told, gathered);
        if read.by_id
            && let Some(image) = gathered.image(&read.object, answer.record)
            && let Some(dead) = image.dead
            && image.life == Life::Live
            && dead >= read.as_of.trunc_subsecs(0)
            && !road.is_whole(&image.fields)
        {
            // The row was not newer than a death that the record came back from: it told nothing.
            gathered.owe(&read.object, answer.record, dead);
        }
        if published {
            Taken::Published
        } else {
            Taken::Kept
        }
    }

    /// Publishes images as they are under a new version: a job's ledger holds a later one than the topic's.
    pub(super) fn republish(
        &mut self,
        records: &[(ObjectName, RecordId)],
        gathered: &mut Gathered,
    ) -> ReadOutcome {
        let mut outcome = ReadOutcome::default();
        let objects = std::sync::Arc::clone(&self.objects);
        for (object, record) in records {
            gathered.republished.push((object.clone(), record.clone()));
            let Some(road) = objects.get(object) else {
                continue;
            };
            let Some((image, op)) = gathered.image(object, record).and_then(published) else {
                continue;
            };
            let told = Told {
                origin: Origin::Reconcile,
                committed_at: match op {
                    Op::Delete => image.dead,
                    _ => image.base,
                },
                event: None,
                row: None,
            };
            let step = Step {
                image: Some(image),
                verdict: Verdict::Publish(op),
                owe: None,
                changed: Vec::new(),
            };
            self.take_step(road, record, step, &told, gathered);
            outcome.published += 1;
        }
        outcome
    }
}

/// A row of a full sync that tells nothing new of a record is told all the same: the jobs that write columns by full
/// syncs alone have not written what other changes told since the last one.
fn tell_again(step: Step, held: Image) -> Step {
    let is_silent = matches!(step.verdict, Verdict::Drop | Verdict::Keep);
    let after = step.image.as_ref().unwrap_or(&held);
    if !is_silent || after.life != Life::Live {
        return step;
    }
    Step {
        image: step.image.or(Some(held)),
        verdict: Verdict::Publish(Op::Snapshot),
        ..step
    }
}

/// The image and what it is published as; `None` for one that never was.
fn published(image: Image) -> Option<(Image, Op)> {
    match image.life {
        Life::Live => Some((image, Op::Snapshot)),
        Life::Dead if image.version > Version::default() => Some((image, Op::Delete)),
        Life::Dead | Life::Partial => None,
    }
}
