//! The out-of-the-box catalogue, table by table.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tributary::config::oob::CrmKind;
use tributary::config::oob::listing::{ListedJob, catalogue};

fn job(kind: CrmKind, id: &str) -> ListedJob {
    let jobs = catalogue(kind);
    jobs.into_iter().find(|job| job.id == id).unwrap()
}

/// What fills a column: the path, or the table of a mapping in JSON.
fn source(node: &Json) -> String {
    node.as_str()
        .map_or_else(|| node.to_string(), str::to_owned)
}

/// Every direct mapping as `Field,Object :: column,Y`, avatars too, in the file's order.
fn table(job: &ListedJob) -> Vec<String> {
    let mut rows = Vec::new();
    for label in &job.to {
        let to = &job.job["to"][label];
        let identifiers = &to["identifiers"];
        let is_identifier = |column: &str| match identifiers {
            Json::String(key) => key == "@person_key" && column == "email",
            list => list.as_array().unwrap().contains(&column.into()),
        };
        for (column, from) in to["map"].as_object().into_iter().flatten() {
            let flag = if is_identifier(column) { "Y" } else { "" };
            rows.push(format!("{},{label} :: {column},{flag}", source(from)));
        }
        for (column, from) in to["avatar"].as_object().into_iter().flatten() {
            assert!(!is_identifier(column));
            rows.push(format!("{},Avatar :: {column},", source(from)));
        }
    }
    rows
}

/// Every derived mapping as `column,Object,pairs,on_multiple,on_none`.
fn derived(job: &ListedJob) -> Vec<String> {
    let mut rows = Vec::new();
    for label in &job.to {
        for (column, by) in job.job["to"][label]["derive"]
            .as_object()
            .into_iter()
            .flatten()
        {
            if by["sibling"].is_string() {
                continue;
            }
            let pairs = by["match"].as_object().unwrap().iter();
            let pairs: Vec<String> = pairs
                .map(|(column, path)| format!("{}->{column}", source(path)))
                .collect();
            rows.push(format!(
                "{column},{},{},{},{}",
                source(&by["from"]),
                pairs.join("; "),
                source(&by["on_multiple"]),
                source(&by["on_none"])
            ));
        }
    }
    rows
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

fn is_table(kind: CrmKind, id: &str, expected: &[&str]) {
    let expected = expected.iter().map(|row| (*row).to_owned()).collect();
    assert_eq!(sorted(table(&job(kind, id))), sorted(expected), "{id}");
}

fn is_derived(kind: CrmKind, id: &str, expected: &[&str]) {
    let expected = expected.iter().map(|row| (*row).to_owned()).collect();
    assert_eq!(sorted(derived(&job(kind, id))), sorted(expected), "{id}");
}

/// M1 to M3: labels of the product as CRM names and columns.
#[test]
fn tables_of_dynamics() {
    let dynamics = CrmKind::Dynamics;
    is_table(
        dynamics,
        "user_sync",
        &[
            "firstname,User :: first_name,",
            "lastname,User :: last_name,",
            "personalemailaddress,User :: email,",
            "domainname,User :: username,Y",
            "systemuserid,Avatar :: user_id,",
            // Status is `isdisabled`: Active is its negation.
            "{\"from\":\"isdisabled\",\"values\":{\"false\":true,\"true\":false}},Avatar :: active,",
        ],
    );
    is_table(
        dynamics,
        "company_sync",
        &[
            "accountid,Company :: external_account_id_{instance},Y",
            "name,Company :: name,",
            "industrycode@label,Company :: industry,",
            "numberofemployees,Company :: employees,",
        ],
    );
    is_table(
        dynamics,
        "company_person_sync",
        &[
            "firstname,Person :: first_name,",
            "lastname,Person :: last_name,",
            "emailaddress1,Person :: email,Y",
            "contactid,Company Person :: external_contact_id_{instance},",
            "parentcustomerid:account,Company Person :: external_account_id_{instance},",
        ],
    );
    // D1 by the manager's id: read literally everybody would be their own manager.
    is_derived(
        dynamics,
        "user_sync",
        &["manager,User,parentsystemuserid->@id,any,null"],
    );
    is_derived(dynamics, "company_sync", &[]);
    is_derived(
        dynamics,
        "company_person_sync",
        &[
            "company_id,Company,parentcustomerid:account->external_account_id_{instance},error,reject",
        ],
    );
}

/// M4 to M8, D3 to D8.
#[test]
fn tables_of_salesforce() {
    let salesforce = CrmKind::Salesforce;
    is_table(
        salesforce,
        "user_sync",
        &[
            "FirstName,User :: first_name,",
            "LastName,User :: last_name,",
            "Email,User :: email,",
            "TimeZoneSidKey,User :: time_zone,",
            "Username,User :: username,Y",
            "LocaleSidKey,User :: locale,",
            "Title,User :: user_title,",
            "Id,Avatar :: user_id,",
        ],
    );
    is_table(
        salesforce,
        "company_sync",
        &[
            "Id,Company :: salesforce_account_id,Y",
            "Name,Company :: name,",
            "NumberOfEmployees,Company :: employees,",
        ],
    );
    is_table(
        salesforce,
        "company_person_sync",
        &[
            "FirstName,Person :: first_name,",
            "LastName,Person :: last_name,",
            "Email,Person :: email,Y",
            "Id,Company Person :: external_contact_id,",
            "AccountId,Company Person :: external_account_id,",
        ],
    );
    is_table(
        salesforce,
        "currency_sync",
        &[
            "ConversionRate,Currency Coefficient :: conversion_rate,",
            "IsoCode,Currency Coefficient :: currency_code,Y",
            "IsCorporate,Currency Coefficient :: corporate_currency,",
        ],
    );
    is_table(
        salesforce,
        "cases_sync",
        &[
            "CaseNumber,Case :: external_id,Y",
            "Type,Case :: case_type,",
            "Description,Case :: case_description,",
            "Priority,Case :: case_priority,",
            "Subject,Case :: case_subject,",
            "Status,Case :: case_status,",
            "AccountId,Case :: source_org_id,",
            "LastModifiedDate,Case :: modified_date_at_source,",
            "Id,Case :: external_system_id,",
        ],
    );
    is_derived(
        salesforce,
        "user_sync",
        &["manager,User,ManagerId->@id,any,null"],
    );
    is_derived(salesforce, "company_sync", &[]);
    is_derived(
        salesforce,
        "company_person_sync",
        &[
            "company_id,Company,AccountId->salesforce_account_id,error,reject",
            "manager,Company Person,AccountId->external_account_id; ReportsToId->external_contact_id,any,null",
        ],
    );
    is_derived(
        salesforce,
        "cases_sync",
        &[
            "assignee_id,User,Owner.Email->email,error,null",
            "requester_id,Person,Contact.Email->email,error,null",
            "company_id,Company,Account.Name->name,error,null",
        ],
    );
}

/// Rows 52, 57 to 59, 61 to 65, 118 of the features: names, dependencies, no schedule, filters, chains.
#[test]
fn names_dependencies_and_filters() {
    let user = job(CrmKind::Salesforce, "user_sync");
    assert_eq!(
        user.job["where"],
        "UserType = 'Standard' AND IsActive = true"
    );
    assert_eq!(
        job(CrmKind::Dynamics, "user_sync").job["where"],
        "isdisabled = false"
    );
    let contact = job(CrmKind::Dynamics, "company_person_sync");
    assert_eq!(contact.job["where"], "emailaddress1 != null");
    for (kind, filtered) in [
        (CrmKind::Salesforce, vec!["user_sync"]),
        (CrmKind::Dynamics, vec!["company_person_sync", "user_sync"]),
    ] {
        let jobs = catalogue(kind);
        let has = |key: &str| -> Vec<&str> {
            let mut ids: Vec<&str> = jobs
                .iter()
                .filter(|job| !job.job[key].is_null())
                .map(|job| &*job.id)
                .collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(has("where"), filtered);
        assert_eq!(has("schedule"), Vec::<&str>::new());
        assert!(
            jobs.iter()
                .all(|job| job.name.ends_with(" Sync_{connection}")),
            "{jobs:?}"
        );
        let by_id: BTreeMap<&str, &ListedJob> = jobs.iter().map(|job| (&*job.id, job)).collect();
        assert_eq!(by_id["user_sync"].depends_on, Vec::<String>::new());
        assert_eq!(by_id["company_sync"].depends_on, ["user_sync"]);
        assert_eq!(by_id["company_person_sync"].depends_on, ["company_sync"]);
    }
    let conditions: BTreeMap<String, String> = catalogue(CrmKind::Salesforce)
        .into_iter()
        .filter_map(|job| Some((job.id, job.condition?)))
        .collect();
    assert_eq!(conditions["currency_sync"], "multi_currency");
    assert_eq!(conditions["company_teams_sync"], "company_teams");
    assert_eq!(conditions["opportunity_stage_sync"], "renewal_center");
    assert_eq!(conditions.len(), 7);
}
