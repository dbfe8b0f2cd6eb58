//! `tributary check --live`: what was found of log, target and orgs, for people.

use crate::app::live::{ConnectionLook, Looked};
use crate::crm::port::survey::{Changes, Finding, ObjectSurvey, Quota, Severity, Survey};

use super::output;

/// Prints all of it; what is broken last.
pub(super) fn print(looked: &Looked) {
    let log = &looked.log;
    let topics = match (log.right.len(), log.to_make.len()) {
        (right, 0) => format!("{right} topics are right"),
        (0, to_make) => format!("{to_make} topics are made at the start"),
        (right, to_make) => format!("{right} topics are right, {to_make} are made at the start"),
    };
    heading(&format!("log ({}): {topics}", log.engine), &log.findings);
    let target = &looked.target;
    let made = if target.made {
        "is there"
    } else if target.findings.is_empty() {
        "is made at the start"
    } else {
        "is not there"
    };
    heading(
        &format!("target ({}): {made}", target.engine),
        &target.findings,
    );
    for connection in &looked.connections {
        of_connection(connection);
    }
}

fn heading(line: &str, findings: &[Finding]) {
    output::print(line);
    for finding in findings {
        told("", finding);
    }
}

fn of_connection(look: &ConnectionLook) {
    let Some(survey) = &look.survey else {
        heading(
            &format!("connection {}: not signed in", look.connection),
            &look.findings,
        );
        return;
    };
    let org = &survey.identity;
    let user = survey.user_name.as_deref().unwrap_or("user");
    output::print(&format!(
        "connection {}: org {} at {}, {user} ({}), API {}",
        look.connection, org.org_id, org.instance_url, org.user_id, survey.api_version
    ));
    for quota in &survey.quotas {
        output::print(&format!("  {}", left(quota)));
    }
    objects(survey);
    let own = look.findings.iter().chain(&survey.findings);
    for finding in own {
        told("", finding);
    }
    for object in &survey.objects {
        for finding in &object.findings {
            told(&format!("{}: ", object.object), finding);
        }
    }
}

fn left(quota: &Quota) -> String {
    match quota.max {
        Some(max) => format!("{} of {max} {} left", quota.left, quota.name),
        None => format!("{} {} left", quota.left, quota.name),
    }
}

fn objects(survey: &Survey) {
    if survey.objects.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = survey.objects.iter().map(row).collect();
    let heads = ["OBJECT", "RECORDS", "FIRST SYNC", "CHANGES", "FIELDS"];
    output::table(&heads, &rows);
}

fn row(object: &ObjectSurvey) -> Vec<String> {
    let records = object
        .records
        .map_or_else(|| "–".to_owned(), |records| records.to_string());
    let sync = object.first_sync.map_or_else(
        || "–".to_owned(),
        |sync| format!("{} calls ({})", sync.calls, sync.by),
    );
    let missing = object
        .findings
        .iter()
        .filter(|finding| finding.field.is_some());
    let fields = match missing.count() {
        0 => object.fields.to_string(),
        missing => format!("{}, {missing} missing", object.fields),
    };
    let changes = match object.changes {
        _ if !object.exists => "–",
        Changes::Told => "told",
        Changes::NotSelected => "not selected",
        Changes::NeverTold => "never told",
        Changes::Unknown => "not known",
    };
    vec![
        object.object.to_string(),
        records,
        sync,
        changes.to_owned(),
        fields,
    ]
}

fn told(of: &str, finding: &Finding) {
    let severity = match finding.severity {
        Severity::Broken => "BROKEN",
        Severity::Warning => "warning",
    };
    output::print(&format!("  {severity}: {of}{}", finding.what));
    if let Some(remedy) = &finding.remedy {
        output::print(&format!("      → {remedy}"));
    }
}
