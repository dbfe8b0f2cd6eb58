//! Salesforce's merge table: which of an event and a row holds the truth, decided by commit stamps.
//!
//! C is an event's commit stamp in whole seconds. A is the instant as of which a read is true, cut to whole seconds
//! here: an event of C < A was committed before A, so the row holds it; one of C ≥ A may be newer than the row.
//! A record's events merge in stream order. The stream delivers at least once, so an event may come again, late:
//! what a newer event told is never undone by an older one.

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound, Utc};

use crate::image::merge::{Covered, Image, Life, MergeTable, Step, Verdict};
use crate::model::change::Op;
use crate::model::event::{Event, EventKind, Row};
use crate::model::name::FieldName;
use crate::model::value::Value;
use crate::model::version::Version;

use super::text_diff::TextDiff;

/// The table.
#[derive(Debug, Clone, Copy, Default)]
pub struct SalesforceTable;

impl MergeTable for SalesforceTable {
    fn event(&self, image: Option<Image>, event: &Event, carried: &BTreeSet<FieldName>) -> Step {
        let c = event.committed_at;
        if image.as_ref().is_some_and(|image| holds(image, c)) {
            return Step::dropped();
        }
        match event.kind {
            EventKind::Update => update(image, event, carried),
            EventKind::Create => live(image, event, carried, Op::Create),
            EventKind::Undelete => live(image, event, carried, Op::Undelete),
            EventKind::Delete => delete(image, c),
            // An object's gap has no record; ingest opens a hole for it.
            // Salesforce tells neither rows nor tombstones.
            EventKind::Gap
            | EventKind::ObjectGap(_)
            | EventKind::Row { .. }
            | EventKind::Tombstone { .. } => gap(image, c),
        }
    }

    fn row(&self, image: Option<Image>, row: &Row, as_of: DateTime<Utc>, covered: Covered) -> Step {
        let a = as_of.trunc_subsecs(0);
        if covered.is_some_and(|covered| a < covered.trunc_subsecs(0)) {
            return Step::read_again();
        }
        let mut image = image.unwrap_or_else(Image::partial);
        if image.dead.is_some_and(|dead| dead >= a) {
            return Step {
                owe: still_owed(&image, a),
                ..Step::dropped()
            };
        }
        if image.base.is_some_and(|base| a <= base) {
            return fill(image, row, a);
        }
        let was_live = image.life == Life::Live;
        let mut changed = Vec::new();
        for (field, value) in &row.fields {
            let newer = image
                .touched
                .get(field)
                .is_some_and(|touched| *touched >= a);
            if (!newer || !image.fields.contains_key(field)) && image.set(field, value) {
                changed.push(field.clone());
            }
        }
        image.life = Life::Live;
        image.base = Some(a);
        image.touched.retain(|_, touched| *touched >= a);
        let owe = answer(&mut image, a);
        let verdict = if was_live && changed.is_empty() {
            Verdict::Keep
        } else {
            Verdict::Publish(Op::Snapshot)
        };
        Step {
            image: Some(image),
            verdict,
            owe,
            changed,
        }
    }

    fn absent(&self, image: Option<Image>, as_of: DateTime<Utc>, covered: Covered) -> Step {
        let a = as_of.trunc_subsecs(0);
        if covered.is_some_and(|covered| a < covered.trunc_subsecs(0)) {
            return Step::read_again();
        }
        let mut image = image.unwrap_or_else(Image::partial);
        let seen_since = image.base.max(image.newest_touch());
        if image.life != Life::Dead && seen_since.is_some_and(|seen| seen >= a) {
            return Step::read_again();
        }
        // Also one that the topic has as alive though this side never knew it.
        let was_live = image.life == Life::Live
            || (image.life == Life::Partial && image.version > Version::default());
        bury(&mut image, a);
        let owe = answer(&mut image, a);
        let verdict = if was_live {
            Verdict::Publish(Op::Delete)
        } else {
            Verdict::Keep
        };
        Step {
            image: Some(image),
            verdict,
            owe,
            changed: Vec::new(),
        }
    }
}

/// Whether an image holds everything that was committed in second `c`, by a row or by a death of later. A death
/// counts, too: its read missed the record as of then, or its event came later in the stream. Else an event that
/// is delivered again would revive a record whose hard delete no event will ever tell.
fn holds(image: &Image, c: DateTime<Utc>) -> bool {
    image.base.max(image.dead).is_some_and(|since| c < since)
}

/// Whether a newer event than one of `c` told the field.
fn is_newer(image: &Image, field: &FieldName, c: DateTime<Utc>) -> bool {
    image.touched.get(field).is_some_and(|touched| *touched > c)
}

/// An update tells the fields that changed, null for "now empty". A long text may be told by its difference: where
/// the image has not the text that it was made from, the event tells too little.
fn update(image: Option<Image>, event: &Event, carried: &BTreeSet<FieldName>) -> Step {
    let c = event.committed_at;
    let mut image = image.unwrap_or_else(Image::partial);
    let mut told = Vec::with_capacity(event.fields.len());
    let mut carried = carried.iter().peekable();
    let mut near = 0;
    for (field, value) in &event.fields {
        // Both have the order of the names.
        while carried.next_if(|own| *own < field).is_some() {}
        if carried.peek() != Some(&field) {
            continue;
        }
        let touched = image.touched.get_near(field, &mut near);
        if touched.is_some_and(|touched| *touched > c) {
            continue;
        }
        let value = match value.as_text().and_then(TextDiff::parse) {
            None => value.clone(),
            Some(diff) => match image.fields.get(field).and_then(Value::as_text) {
                Some(old) => match diff.apply(old) {
                    Some(new) => Value::text(new),
                    None => return gap(Some(image), c),
                },
                None => return gap(Some(image), c),
            },
        };
        told.push((field, value));
    }
    let changed: Vec<FieldName> = told.iter().map(|(field, _)| (*field).clone()).collect();
    image.touched.merge(changed.iter().map(|field| (field, c)));
    image.fields.merge(told);
    let known = image.life == Life::Live;
    if known && changed.is_empty() {
        // Only fields that nobody selected changed; what the CRM derives from them may have, too.
        return Step {
            verdict: Verdict::Keep,
            ..Step::dropped()
        };
    }
    Step {
        image: Some(image),
        verdict: if known {
            Verdict::Publish(Op::Update)
        } else {
            Verdict::Keep
        },
        owe: (!known).then_some(c),
        changed,
    }
}

/// A create or an undelete tells every field that is not empty.
fn live(image: Option<Image>, event: &Event, carried: &BTreeSet<FieldName>, op: Op) -> Step {
    let c = event.committed_at;
    let mut image = image.unwrap_or_else(Image::partial);
    let mut changed = Vec::new();
    let told: Vec<&FieldName> = carried
        .iter()
        .filter(|field| !is_newer(&image, field, c))
        .collect();
    if told.is_empty() && image.life == Life::Live {
        return Step::dropped();
    }
    for field in told {
        let value = event.fields.get(field).unwrap_or(&Value::Null);
        if image.set(field, value) {
            changed.push(field.clone());
        }
        image.touched.insert(field.clone(), c);
    }
    image.life = Life::Live;
    Step {
        image: Some(image),
        verdict: Verdict::Publish(op),
        owe: None,
        changed,
    }
}

fn delete(image: Option<Image>, c: DateTime<Utc>) -> Step {
    let mut image = image.unwrap_or_else(Image::partial);
    if image.newest_touch().is_some_and(|seen| seen > c) {
        return Step::dropped();
    }
    let was_live = image.life == Life::Live;
    bury(&mut image, c);
    if image.needs.is_some_and(|needs| needs <= c) {
        image.needs = None;
    }
    let verdict = if was_live {
        Verdict::Publish(Op::Delete)
    } else {
        Verdict::Keep
    };
    Step {
        image: Some(image),
        verdict,
        owe: None,
        changed: Vec::new(),
    }
}

fn gap(image: Option<Image>, c: DateTime<Utc>) -> Step {
    let mut image = image.unwrap_or_else(Image::partial);
    image.needs = image.needs.max(Some(c));
    let owe = image.needs;
    Step {
        image: Some(image),
        verdict: Verdict::Keep,
        owe,
        changed: Vec::new(),
    }
}

/// A row no newer than the one that the image holds can only tell fields that the image lacks.
fn fill(mut image: Image, row: &Row, a: DateTime<Utc>) -> Step {
    let mut changed = Vec::new();
    for (field, value) in &row.fields {
        if !image.fields.contains_key(field) {
            image.set(field, value);
            changed.push(field.clone());
        }
    }
    let owe = still_owed(&image, a);
    if changed.is_empty() {
        return Step {
            owe,
            ..Step::dropped()
        };
    }
    let verdict = if image.life == Life::Live {
        Verdict::Publish(Op::Snapshot)
    } else {
        Verdict::Keep
    };
    Step {
        image: Some(image),
        verdict,
        owe,
        changed,
    }
}

fn bury(image: &mut Image, at: DateTime<Utc>) {
    image.life = Life::Dead;
    image.dead = image.dead.max(Some(at));
    image.touched.clear();
}

fn still_owed(image: &Image, a: DateTime<Utc>) -> Option<DateTime<Utc>> {
    image.needs.filter(|needs| a <= *needs)
}

/// A read later than what the image needs answers it.
fn answer(image: &mut Image, a: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let owed = still_owed(image, a);
    if owed.is_none() {
        image.needs = None;
    }
    owed
}

#[cfg(test)]
mod diffs;
#[cfg(test)]
mod tests;
