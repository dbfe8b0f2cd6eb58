//! What the targets know beforehand, as a daemon does after an object's first event: a describe and a schema.

use serde_json::json;

/// The object.
pub const OBJECT: &str = "Contact";

/// The describe of an object with a field of each kind.
#[must_use]
pub fn describe() -> String {
    let field = |(name, kind): (&str, &str)| {
        let compound = matches!(name, "FirstName" | "LastName").then_some("Name");
        json!({"name": name, "label": name, "type": kind, "compoundFieldName": compound})
    };
    let fields = [
        ("Id", "id"),
        ("Name", "string"),
        ("FirstName", "string"),
        ("LastName", "string"),
        ("AccountId", "reference"),
        ("Email", "email"),
        ("HasLeft__c", "boolean"),
        ("Score__c", "double"),
        ("Visits__c", "int"),
        ("Tags__c", "multipicklist"),
        ("Notes__c", "textarea"),
        ("Birthdate", "date"),
        ("Met__c", "datetime"),
    ];
    json!({"name": OBJECT, "label": OBJECT, "fields": fields.map(field)}).to_string()
}

/// The schema of its events.
#[must_use]
pub fn schema() -> String {
    let texts = json!({"type": "array", "items": "string"});
    let kinds = [
        "CREATE",
        "UPDATE",
        "DELETE",
        "UNDELETE",
        "GAP_UPDATE",
        "GAP_OVERFLOW",
    ];
    let header = json!({"type": "record", "name": "ChangeEventHeader", "fields": [
        {"name": "entityName", "type": "string"}, {"name": "recordIds", "type": texts},
        {"name": "changeType", "type": {"type": "enum", "name": "ChangeType", "symbols": kinds}},
        {"name": "changeOrigin", "type": "string"}, {"name": "transactionKey", "type": "string"},
        {"name": "sequenceNumber", "type": "int"}, {"name": "commitTimestamp", "type": "long"},
        {"name": "commitNumber", "type": "long"}, {"name": "commitUser", "type": "string"},
        {"name": "nulledFields", "type": texts}, {"name": "diffFields", "type": texts},
        {"name": "changedFields", "type": texts},
    ]});
    let name = json!({"type": "record", "name": "Switchable_PersonName", "fields": [
        optional("Salutation", "string"), optional("FirstName", "string"), optional("LastName", "string"),
    ]});
    let fields = [
        json!({"name": "ChangeEventHeader", "type": header}),
        json!({"name": "Name", "type": ["null", "string", name], "default": null}),
        optional("AccountId", "string"),
        optional("Email", "string"),
        optional("HasLeft__c", "boolean"),
        optional("Score__c", "double"),
        optional("Visits__c", "int"),
        optional("Tags__c", "string"),
        optional("Notes__c", "string"),
        optional("Birthdate", "long"),
        optional("Met__c", "long"),
    ];
    json!({"type": "record", "name": "ContactChangeEvent", "namespace": "com.sforce.eventbus", "fields": fields})
        .to_string()
}

fn optional(name: &str, kind: &str) -> serde_json::Value {
    json!({"name": name, "type": ["null", kind], "default": null})
}
