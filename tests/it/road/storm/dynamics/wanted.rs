//! What the store must hold of the environment's rows, and the config that asks for it.

use std::collections::BTreeMap;

use crate::road::dataverse::{Dataverse, Members};
use crate::road::store::{Store, Texts};
use crate::road::storm::judge::{Form, Table, Wanted};

const COMPANY: Table<'_> = Table {
    name: "company",
    key: "dynamics_account_id",
    columns: &[
        ("name", Form::Text),
        ("industry", Form::Text),
        ("employees", Form::Number),
        ("annual_revenue", Form::Number),
        ("currency_iso_code", Form::Text),
        ("website", Form::Text),
        ("description", Form::Text),
        ("parent_company", Form::Text),
    ],
};
const PERSON: Table<'_> = Table {
    name: "person",
    key: "dynamics_contact_id",
    columns: &[
        ("first_name", Form::Text),
        ("last_name", Form::Text),
        ("name", Form::Text),
        ("email", Form::Text),
        ("born", Form::Text),
        ("credit", Form::Number),
        ("do_not_mail", Form::Truth),
        ("company_id", Form::Text),
    ],
};
const PLAN: Table<'_> = Table {
    name: "plan",
    key: "plan_id",
    columns: &[
        ("title", Form::Text),
        ("tier", Form::Text),
        ("price", Form::Number),
        ("ratio", Form::Number),
        ("score", Form::Number),
        ("serial", Form::Number),
        ("active", Form::Truth),
        ("starts", Form::Text),
        ("opened", Form::Instant),
        ("tags", Form::Text),
        ("notes", Form::Text),
        ("state", Form::Text),
        ("company_id", Form::Text),
        ("customer_type", Form::Text),
        ("person_id", Form::Text),
    ],
};

/// Files of the config, below its directory.
pub const CONFIG: &[(&str, &str)] = &[
    (
        "objects/person.toml",
        r#"
[fields]
dynamics_contact_id = { type = "string" }
born = { type = "date" }
credit = { type = "currency" }
do_not_mail = { type = "boolean" }
company_id = { type = "gsid", references = "Company" }
"#,
    ),
    (
        "objects/plan.toml",
        r#"
label = "Plan"
[fields]
plan_id = { type = "string" }
title = { type = "string" }
tier = { type = "picklist" }
price = { type = "currency" }
ratio = { type = "number" }
score = { type = "percentage" }
serial = { type = "number" }
active = { type = "boolean" }
starts = { type = "date" }
opened = { type = "datetime" }
tags = { type = "multi_select" }
notes = { type = "rich_text" }
state = { type = "picklist" }
customer_type = { type = "string" }
company_id = { type = "gsid", references = "Company" }
person_id = { type = "gsid", references = "Person" }
"#,
    ),
    (
        "jobs/contoso/company_sync.toml",
        r#"
source = "account"
on_delete = "delete"
brakes = { max_delete_percent = 100, max_null_percent = 100 }
[to.Company]
identifiers = ["dynamics_account_id"]
[to.Company.map]
dynamics_account_id = "accountid"
name = "name"
industry = "industrycode@label"
employees = "numberofemployees"
annual_revenue = "revenue"
currency_iso_code = "transactioncurrencyid.isocurrencycode"
website = "websiteurl"
description = "description"
[to.Company.derive]
parent_company = { from = "Company", match = { "@id" = "parentaccountid" }, on_none = "null" }
"#,
    ),
    (
        "jobs/contoso/person_sync.toml",
        r#"
source = "contact"
on_delete = "delete"
brakes = { max_delete_percent = 100, max_null_percent = 100 }
[to.Person]
identifiers = ["dynamics_contact_id"]
[to.Person.map]
dynamics_contact_id = "contactid"
first_name = "firstname"
last_name = "lastname"
name = "fullname"
email = "emailaddress1"
born = "birthdate"
credit = "creditlimit"
do_not_mail = "donotemail"
[to.Person.derive]
company_id = { from = "Company", match = { "@id" = "parentcustomerid:account" }, on_none = "null" }
"#,
    ),
    (
        "jobs/contoso/plan_sync.toml",
        r#"
source = "new_plan"
on_delete = "delete"
brakes = { max_delete_percent = 100, max_null_percent = 100 }
[to.Plan]
identifiers = ["plan_id"]
[to.Plan.map]
plan_id = "new_planid"
title = "new_title"
tier = "new_tier@label"
price = "new_price"
ratio = "new_ratio"
score = "new_score"
serial = "new_serial"
active = "new_active"
starts = "new_starts"
opened = "new_opened"
tags = "new_tags@label"
notes = "new_notes"
state = "statecode@label"
customer_type = "new_customerid@type"
[to.Plan.derive]
company_id = { from = "Company", match = { "@id" = "new_accountid" }, on_none = "null" }
person_id = { from = "Person", match = { "@id" = "new_customerid:contact" }, on_none = "null" }
"#,
    ),
];

/// A row of the environment.
struct Row<'a>(&'a Members);

impl Row<'_> {
    fn text(&self, property: &str) -> Option<String> {
        match self.0.get(property)?.get() {
            "null" => None,
            json if json.starts_with('"') => Some(serde_json::from_str(json).unwrap()),
            plain => Some(plain.to_owned()),
        }
    }

    fn label(&self, property: &str) -> Option<String> {
        self.text(&format!(
            "{property}@OData.Community.Display.V1.FormattedValue"
        ))
    }

    /// The id of a look-up, if it points to such a table.
    fn id(&self, look_up: &str, table: &str) -> Option<String> {
        let to = self.table(look_up)?;
        let id = self.text(&format!("_{look_up}_value"))?;
        (to == table).then_some(id)
    }

    fn table(&self, look_up: &str) -> Option<String> {
        self.text(&format!(
            "_{look_up}_value@Microsoft.Dynamics.CRM.lookuplogicalname"
        ))
    }
}

/// Rows' GSIDs by the ids that the CRM gave.
struct Gsids(BTreeMap<String, String>);

impl Gsids {
    fn of(table: &Table<'_>, rows: &[Texts]) -> Self {
        let pairs = rows.iter().filter_map(|row| {
            let id = row[table.key].clone()?;
            Some((id, row["gsid"].clone()?))
        });
        Self(pairs.collect())
    }

    /// The row's, or what no row has.
    fn get(&self, id: Option<String>) -> Option<String> {
        let id = id?;
        let found = self.0.get(&id).cloned();
        Some(found.unwrap_or_else(|| format!("the row of {id}")))
    }
}

/// Where store and environment differ.
pub async fn differences(dataverse: &mut Dataverse, store: &Store) -> Vec<String> {
    let accounts = dataverse.rows("accounts").await;
    let contacts = dataverse.rows("contacts").await;
    let plans = dataverse.rows("new_planset").await;
    let companies = store.texts("company").await;
    let persons = store.texts("person").await;
    let company = Gsids::of(&COMPANY, &companies);
    let person = Gsids::of(&PERSON, &persons);
    let wanted = |rows: &[Members], key: &str, cells: &dyn Fn(&Row<'_>) -> Vec<Option<String>>| {
        let rows = rows.iter().map(Row);
        let pairs = rows.map(|row| (row.text(key).unwrap(), cells(&row)));
        pairs.collect::<Wanted>()
    };
    let accounts = wanted(&accounts, "accountid", &|row| {
        vec![
            row.text("name"),
            row.label("industrycode"),
            row.text("numberofemployees"),
            row.text("revenue"),
            // There is one currency, and the platform gives it to every row that is written.
            row.text("_transactioncurrencyid_value")
                .map(|_| "USD".to_owned()),
            row.text("websiteurl"),
            row.text("description"),
            company.get(row.text("_parentaccountid_value")),
        ]
    });
    let contacts = wanted(&contacts, "contactid", &|row| {
        vec![
            row.text("firstname"),
            row.text("lastname"),
            row.text("fullname"),
            row.text("emailaddress1"),
            row.text("birthdate"),
            row.text("creditlimit"),
            row.text("donotemail"),
            company.get(row.id("parentcustomerid", "account")),
        ]
    });
    let plans = wanted(&plans, "new_planid", &|row| {
        vec![
            row.text("new_title"),
            row.label("new_tier"),
            row.text("new_price"),
            row.text("new_ratio"),
            row.text("new_score"),
            row.text("new_serial"),
            row.text("new_active"),
            row.text("new_starts"),
            row.text("new_opened"),
            row.label("new_tags").map(|tags| tags.replace("; ", ";")),
            row.text("new_notes"),
            row.label("statecode"),
            company.get(row.text("_new_accountid_value")),
            row.table("new_customerid"),
            person.get(row.id("new_customerid", "contact")),
        ]
    });
    let mut found = COMPANY.differences(&accounts, &companies);
    found.extend(PERSON.differences(&contacts, &persons));
    found.extend(PLAN.differences(&plans, &store.texts("plan").await));
    found
}
