//! An event's payload as the Pub/Sub API sends it: a bare Avro datum in which every field is there, with bitmaps of
//! those that changed.

use std::borrow::Cow;

use super::super::decode::cell::{Cell, Cells};
use super::super::decode::{Header, Names, Objects, Payload, Unclear};
use super::super::stamp;
use super::super::text_diff::TextDiff;
use super::bitmap::expand;
use super::datum::{Datum, Malformed};
use super::schema::EventSchema;

/// Reads a payload.
///
/// The body of an object that nobody listens to is left alone.
///
/// # Errors
/// [`Malformed`] for one whose header can't be read; what else is wrong is in [`Payload::unclear`].
pub fn read<'a>(
    schema: &'a EventSchema,
    bytes: &'a [u8],
    objects: &Objects,
) -> Result<Payload<'a>, Malformed> {
    let mut datum = Datum::new(schema, bytes);
    let (header, bitmaps) = header(schema, &mut datum)?;
    let mut payload = Payload {
        header,
        ..Payload::default()
    };
    let entity = payload.header.entity.as_deref();
    if entity.is_some_and(|entity| !objects.has(entity)) {
        return Ok(payload);
    }
    match body(schema, datum, &bitmaps, &mut payload.header) {
        Ok(cells) => payload.body = Some(cells),
        Err(unclear) => payload.unclear = Some(unclear),
    }
    Ok(payload)
}

/// `changedFields`, `nulledFields` and `diffFields` as they come.
#[derive(Default)]
struct Bitmaps<'a> {
    changed: Vec<Cow<'a, str>>,
    nulled: Vec<Cow<'a, str>>,
    differing: Vec<Cow<'a, str>>,
}

fn header<'a>(
    schema: &'a EventSchema,
    datum: &mut Datum<'a>,
) -> Result<(Header<'a>, Bitmaps<'a>), Malformed> {
    let node = schema.fields.first().map(|field| field.node);
    let Cell::Parts(cells) = datum.cell(node.ok_or(Malformed::Type)?)? else {
        return Err(Malformed::Type);
    };
    let mut header = Header::default();
    let mut bitmaps = Bitmaps::default();
    for (name, cell) in cells.0 {
        match &*name {
            "entityName" => header.entity = text(&cell),
            "recordIds" => header.records = texts(cell),
            "changeType" => header.change = text(&cell),
            "changeOrigin" => header.origin = text(&cell),
            "transactionKey" => header.key = text(&cell),
            "commitUser" => header.user = text(&cell),
            "sequenceNumber" => header.sequence = whole(&cell),
            "commitTimestamp" => header.committed_at = whole(&cell).and_then(stamp::from_millis),
            "changedFields" => bitmaps.changed = texts(cell).unwrap_or_default(),
            "nulledFields" => bitmaps.nulled = texts(cell).unwrap_or_default(),
            "diffFields" => bitmaps.differing = texts(cell).unwrap_or_default(),
            _ => {}
        }
    }
    Ok((header, bitmaps))
}

/// The fields, without those that are empty and did not change: the datum has them all.
fn body<'a>(
    schema: &'a EventSchema,
    mut datum: Datum<'a>,
    bitmaps: &Bitmaps<'a>,
    header: &mut Header<'a>,
) -> Result<Cells<'a>, Unclear> {
    let is_update = header.change.as_deref() == Some("UPDATE");
    let misfit = |misfit: super::bitmap::Misfit| Unclear::Malformed(misfit.to_string().into());
    let mut changed = expand(schema, &bitmaps.changed).map_err(misfit)?;
    // What is told to be empty has changed; its value says to what.
    let nulled = expand(schema, &bitmaps.nulled).map_err(misfit)?;
    changed.extend(&nulled);
    changed.sort_unstable();
    changed.dedup();
    let differing = expand(schema, &bitmaps.differing).map_err(misfit)?;

    let malformed = |malformed: Malformed| Unclear::Malformed(malformed.to_string().into());
    let mut cells = Vec::new();
    for (index, field) in schema.fields.iter().enumerate().skip(1) {
        let mut cell = datum.cell(field.node).map_err(malformed)?;
        if !is_update {
            leave_out_empty(&mut cell);
        }
        let is_changed = is_update && changed.binary_search_by_key(&index, |(at, _)| *at).is_ok();
        if is_changed || !is_empty(Some(&cell), None) {
            cells.push((Cow::Borrowed(field.name.as_str()), cell));
        }
    }
    datum.end().map_err(malformed)?;
    let cells = Cells(cells);
    let is_diff =
        |(field, part): &(usize, Option<usize>)| match cells.get(&schema.fields[*field].name) {
            Some(Cell::Text(text)) => part.is_none() && TextDiff::parse(text).is_some(),
            _ => false,
        };
    header.differs = !differing.iter().all(is_diff);
    for (field, part) in nulled {
        let name = &schema.fields[field].name;
        if !is_empty(cells.get(name), part) {
            let text = format!("`{name}` is told to be empty, and has a value");
            return Err(Unclear::Malformed(text.into()));
        }
    }
    if is_update {
        let names = changed.into_iter().map(|(field, part)| {
            let field = &schema.fields[field];
            Cow::Borrowed(match part {
                Some(part) => field.parts[part].as_str(),
                None => field.name.as_str(),
            })
        });
        header.changed = Names::Listed(names.collect());
    }
    Ok(cells)
}

/// Takes empty parts out of a compound field: a create tells only what is not empty.
fn leave_out_empty(cell: &mut Cell<'_>) {
    if let Cell::Parts(parts) = cell {
        parts.0.retain(|(_, part)| *part != Cell::Null);
        if parts.0.is_empty() {
            *cell = Cell::Null;
        }
    }
}

/// Whether a field, or a part of it by its index, is empty.
fn is_empty(cell: Option<&Cell<'_>>, part: Option<usize>) -> bool {
    match (cell, part) {
        (None | Some(Cell::Null), _) => true,
        (Some(Cell::Parts(parts)), Some(part)) => {
            let part = parts.0.get(part);
            part.is_none_or(|(_, cell)| *cell == Cell::Null)
        }
        (Some(Cell::Parts(parts)), None) => parts.0.iter().all(|(_, cell)| *cell == Cell::Null),
        _ => false,
    }
}

fn text<'a>(cell: &Cell<'a>) -> Option<Cow<'a, str>> {
    match cell {
        Cell::Text(text) => Some(Cow::Borrowed(*text)),
        _ => None,
    }
}

fn texts(cell: Cell<'_>) -> Option<Vec<Cow<'_, str>>> {
    match cell {
        Cell::List(cells) => cells.iter().map(text).collect(),
        _ => None,
    }
}

const fn whole(cell: &Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Whole(number) => Some(*number),
        _ => None,
    }
}
