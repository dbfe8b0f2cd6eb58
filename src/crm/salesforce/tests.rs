//! The connector against small servers that answer as Salesforce does.

mod by_id;
mod calls;
pub(super) mod org;
mod pages;
mod paths;
mod replication;
mod sign_in;
mod stream;
mod streaming;

use super::*;

use crate::fault::FaultKind;
use crate::model::name::FieldName;

/// The org and the user of every test.
const ORG: &str = "00DA0000006Vm9uMAC";
const USER: &str = "005A0000006Vm9uIAC";

fn selection(object: &str, fields: &[&str]) -> Selection {
    Selection {
        object: object.into(),
        fields: fields.iter().map(FieldName::new).collect(),
    }
}

fn id(number: usize) -> RecordId {
    RecordId::salesforce(&format!("001A{number:011}")).unwrap()
}
