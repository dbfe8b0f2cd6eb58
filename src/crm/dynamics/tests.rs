//! The connector against small servers that answer as Dataverse does.

mod calls;
mod changes;
mod org;
mod reads;
mod restored;
mod sign_in;

use super::*;

use crate::model::name::FieldName;

fn selection(table: &str, fields: &[&str]) -> Selection {
    Selection {
        object: table.into(),
        fields: fields.iter().map(FieldName::new).collect(),
    }
}

fn guid(number: usize) -> String {
    format!("11111111-0000-4000-8000-{number:012x}")
}

fn id(number: usize) -> RecordId {
    RecordId::guid(&guid(number)).unwrap()
}
