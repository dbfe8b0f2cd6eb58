//! What the stream says, merged in its order.

use chrono::{DateTime, TimeDelta, Utc};

use crate::crm::port::{Heard, Lost, LostCause};
use crate::flow::road::{ObjectRoad, PARTITIONS};
use crate::image::merge::{Life, Verdict};
use crate::image::port::Mark;
use crate::log::port::partition_of;
use crate::model::change::Origin;
use crate::model::event::{Event, EventKind, GapCause};
use crate::model::record_id::RecordId;
use crate::state::port::{HoleCause, HoleScope, NewHole};
use crate::telemetry::metrics;

use super::Ingest;
use super::gathered::Gathered;
use super::redelivery::Judgement;
use super::step::Told;

impl Ingest {
    pub(super) fn hear(&mut self, heard: Heard, gathered: &mut Gathered) {
        gathered.heard = true;
        let objects = std::sync::Arc::clone(&self.objects);
        for event in &heard.events {
            // What no job selects is not merged.
            let is_first = match objects.get(&event.object) {
                Some(road) => self.hear_event(road, event, gathered),
                None => false,
            };
            if is_first {
                self.mark = Some(Mark {
                    position: event.position.clone(),
                    committed_at: event.committed_at,
                });
            }
            self.redelivery.passed(&event.position);
            self.confirmed_at = self.confirmed_at.max(event.committed_at);
        }
        for lost in &heard.lost {
            if lost.cause == LostCause::Restored {
                gathered.restored = gathered.restored.max(Some(lost.to));
            } else if objects.contains_key(&lost.object) {
                gathered.holes.push(self.hole_of_lost(lost));
            }
        }
        if let Some(position) = heard.position {
            self.position = Some(position);
        }
        if let Some(at) = heard.confirmed_at {
            self.redelivery.reached(at);
            self.confirmed_at = self.confirmed_at.max(at);
        }
    }

    /// Takes an event; whether it came for the first time in this life: one that comes again, out of its place,
    /// must not move the mark back.
    fn hear_event(&mut self, road: &ObjectRoad, event: &Event, gathered: &mut Gathered) -> bool {
        gathered.count(metrics::EVENTS, &event.object, 1);
        if let EventKind::ObjectGap(cause) = event.kind {
            gathered.holes.push(self.hole_of(event, cause));
            return true;
        }
        let mut is_first = false;
        for record in &event.records {
            let first = self.recent.is_first(event, record);
            is_first |= first;
            match self.judge(road, event, record, first) {
                Judgement::Fresh => self.merge(road, event, record, gathered),
                Judgement::Known => {
                    gathered.count(metrics::EVENTS_REPEATED, &event.object, 1);
                    // What its change lacks was owed, which may not have been written down.
                    if !(road.joins.is_empty() && road.late.is_empty())
                        && let Some(image) = gathered.image(&event.object, record)
                        && image.life == Life::Live
                        && (road.lacks_a_join(&image.fields) || road.lacks_a_formula(&image.fields))
                    {
                        gathered.owe(&event.object, record, event.committed_at);
                    }
                }
                Judgement::Unsure => {
                    gathered.count(metrics::EVENTS_REPEATED, &event.object, 1);
                    gathered.owe(&event.object, record, event.committed_at);
                }
            }
        }
        is_first
    }

    /// An object's gap: what its second may have committed is unknown, and the second lasts to its end.
    fn hole_of(&self, event: &Event, cause: GapCause) -> NewHole {
        NewHole {
            object: event.object.clone(),
            cause: match cause {
                GapCause::Overflow => HoleCause::Overflow,
                GapCause::Wildcard => HoleCause::Wildcard,
                GapCause::Undecodable => HoleCause::Undecodable,
            },
            scope: HoleScope::Object {
                to: event.committed_at + TimeDelta::seconds(1),
            },
            opened_at: self.road.clock.now(),
        }
    }

    /// A lost stream's hole: the object's next read of everything begins its stream anew. Of one that goes on from its
    /// place it is a window.
    fn hole_of_lost(&self, lost: &Lost) -> NewHole {
        tracing::warn!(
            connection = %self.road.connection, object = %lost.object, cause = ?lost.cause,
            "an object's stream does not tell everything: opening a hole"
        );
        NewHole {
            object: lost.object.clone(),
            cause: match lost.cause {
                LostCause::Expired => HoleCause::ExpiredPosition,
                LostCause::PermissionLost => HoleCause::PermissionLost,
                LostCause::NotCaptured => HoleCause::NotCaptured,
                LostCause::Restored => HoleCause::OrgRestored,
                LostCause::DeliveryLimit { .. } => HoleCause::DeliveryLimit,
            },
            scope: match lost.cause {
                LostCause::DeliveryLimit { since } => HoleScope::Window {
                    from: since.unwrap_or(self.confirmed_at),
                    to: lost.to,
                },
                _ => HoleScope::Object { to: lost.to },
            },
            opened_at: self.road.clock.now(),
        }
    }

    fn judge(
        &mut self,
        road: &ObjectRoad,
        event: &Event,
        record: &RecordId,
        first: bool,
    ) -> Judgement {
        if !self.redelivery.is_over() {
            let partition = partition_of(record.as_str().as_bytes(), PARTITIONS);
            let judgement = self.redelivery.judge(event, record, partition);
            // A change in the topic does not tell whether the read that it owed was written down.
            let owes = !event.kind.is_end() && self.read_more.contains(&road.key.object);
            match judgement {
                Judgement::Fresh => {}
                Judgement::Known if owes => return Judgement::Unsure,
                Judgement::Known | Judgement::Unsure => return judgement,
            }
        }
        if first {
            Judgement::Fresh
        } else {
            Judgement::Known
        }
    }

    fn merge(
        &mut self,
        road: &ObjectRoad,
        event: &Event,
        record: &RecordId,
        gathered: &mut Gathered,
    ) {
        let image = gathered.image(&event.object, record);
        // No event tells formulas: what the image lacks before it, it lacks after it.
        let lacks = match &image {
            Some(image) => road.lacks_a_formula(&image.fields),
            None => !road.late.is_empty(),
        };
        let step = self.road.crm.table().event(image, event, &road.carried);
        let wants = lacks || self.read_more.contains(&road.key.object);
        if step.verdict != Verdict::Drop && !event.kind.is_end() && wants {
            // Formulas may have moved with it; only a read tells them.
            gathered.owe(&event.object, record, event.committed_at);
        }
        let told = Told {
            origin: Origin::Stream,
            committed_at: Some(event.source_time()),
            event: Some(event),
            row: None,
        };
        self.take_step(road, record, step, &told, gathered);
    }

    /// Whether a read is as of after the stream's unbroken part began.
    pub(super) fn covered(&self, road: &ObjectRoad) -> Option<DateTime<Utc>> {
        self.covered.get(&road.key.object).copied()
    }
}
