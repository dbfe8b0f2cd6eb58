//! Children by a field of their images: an index for each field that is asked by, over the images of its object alone.

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use crate::image::merge::Image;
use crate::model::name::{FieldName, ObjectKey};
use crate::model::record_id::RecordId;
use crate::sqlite::error::JobError;

use super::parse;

/// Makes the indexes of an object what is wanted.
pub(super) fn refer(
    transaction: &Transaction<'_>,
    object: &ObjectKey,
    references: &[FieldName],
) -> Result<(), JobError> {
    let wanted: BTreeMap<String, String> = references
        .iter()
        .map(|reference| (name_of(object, reference), index_on(object, reference)))
        .collect();
    let own = name_of(object, &FieldName::new(""));
    let there: Vec<String> = transaction
        .prepare("SELECT name FROM sqlite_master WHERE type = 'index' AND substr(name, 1, length(?1)) = ?1")?
        .query_map([&own], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for name in there.iter().filter(|name| !wanted.contains_key(*name)) {
        transaction.execute_batch(&format!("DROP INDEX {}", quoted(name, '"')))?;
    }
    for (name, on) in wanted.iter().filter(|(name, _)| !there.contains(name)) {
        let name = quoted(name, '"');
        transaction.execute_batch(&format!("CREATE INDEX {name} ON {on}"))?;
    }
    Ok(())
}

/// One page of children.
pub(super) fn page(
    transaction: &Transaction<'_>,
    object: &ObjectKey,
    reference: &FieldName,
    parent: &RecordId,
    after: Option<&RecordId>,
    limit: usize,
) -> Result<Vec<(RecordId, Image)>, JobError> {
    let mut statement = transaction.prepare_cached(&select(object, reference))?;
    let rows = statement.query_map(
        params![
            parent.as_str(),
            after.map_or("", RecordId::as_str),
            i64::try_from(limit).unwrap_or(i64::MAX)
        ],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
    )?;
    let mut images = Vec::new();
    for row in rows {
        let (record, json) = row?;
        let record = RecordId::stored(record);
        let image = parse(&record, &json)?;
        images.push((record, image));
    }
    Ok(images)
}

/// The names of an object's indexes begin alike; neither ids nor objects have blanks.
fn name_of(object: &ObjectKey, reference: &FieldName) -> String {
    let (connection, object) = (&object.connection, &object.object);
    format!("refer {connection} {object} {reference}")
}

fn index_on(object: &ObjectKey, reference: &FieldName) -> String {
    let (value, of) = (value_of(reference), of_object(object));
    format!("image ({value}, record) WHERE {of}")
}

/// The texts are the index's own, to the letter: else it would not serve. It is named, as the primary key has the order
/// of records too, and would be preferred.
fn select(object: &ObjectKey, reference: &FieldName) -> String {
    let (value, of) = (value_of(reference), of_object(object));
    let index = quoted(&name_of(object, reference), '"');
    format!(
        "SELECT record, image FROM image INDEXED BY {index}
         WHERE {of} AND {value} = ?1 AND record > ?2 ORDER BY record LIMIT ?3"
    )
}

fn value_of(reference: &FieldName) -> String {
    let path = format!("$.f.{}", quoted(reference.as_str(), '"'));
    format!("json_extract(image, {})", quoted(&path, '\''))
}

fn of_object(object: &ObjectKey) -> String {
    let connection = quoted(object.connection.as_str(), '\'');
    let object = quoted(object.object.as_str(), '\'');
    format!("connection = {connection} AND object = {object}")
}

/// A text between quotes, those in it doubled.
fn quoted(text: &str, quote: char) -> String {
    let doubled: String = [quote, quote].iter().collect();
    format!("{quote}{}{quote}", text.replace(quote, &doubled))
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::super::STEPS;
    use super::*;

    fn key(object: &str) -> ObjectKey {
        ObjectKey {
            connection: "acme".into(),
            object: object.into(),
        }
    }

    fn indexes(connection: &Connection) -> Vec<String> {
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_master WHERE name LIKE 'refer %' ORDER BY name")
            .unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }

    #[test]
    fn an_index_serves_each_question_and_goes_when_nobody_asks() {
        let mut connection = Connection::open_in_memory().unwrap();
        for step in STEPS {
            connection.execute_batch(step).unwrap();
        }
        let transaction = connection.transaction().unwrap();
        let (contact, typed) = (key("contact"), FieldName::new("parentcustomerid:account"));
        let both = [typed.clone(), FieldName::new("ownerid:systemuser")];
        refer(&transaction, &contact, &both).unwrap();
        refer(&transaction, &key("contact2"), &both[..1]).unwrap();
        refer(&transaction, &contact, &both).unwrap();
        let plan: String = transaction
            .query_row(
                &format!("EXPLAIN QUERY PLAN {}", select(&contact, &typed)),
                params!["a", "", 10],
                |row| row.get(3),
            )
            .unwrap();
        let index = "INDEX refer acme contact parentcustomerid:account (<expr>=? AND record>?)";
        assert!(plan.contains(index), "{plan}");
        refer(&transaction, &contact, &both[..1]).unwrap();
        transaction.commit().unwrap();
        assert_eq!(
            indexes(&connection),
            [
                "refer acme contact parentcustomerid:account",
                "refer acme contact2 parentcustomerid:account"
            ]
        );
    }
}
