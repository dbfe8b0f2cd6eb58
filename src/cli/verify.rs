//! `tributary verify`: whether the CRM, the images and the store agree.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::app;
use crate::app::verify::Wanted;
use crate::fault::Fault;
use crate::flow::verify::{Finding, How, Verified};
use crate::model::name::ObjectName;

use super::args::VerifyOptions;
use super::output;

/// Prints what was found, per object; exit code 3 if something differs.
pub(super) async fn verify(
    path: &Path,
    options: &VerifyOptions,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let config = app::load(path)?;
    let wanted = Wanted {
        connection: &options.connection,
        object: options.object.as_deref(),
        sample: options.sample,
        limit: options.limit,
        patience: Duration::from_secs(options.wait),
    };
    let told = app::verify::verify(&config, &wanted).await?;
    if as_json {
        let objects: serde_json::Map<String, Json> = told
            .iter()
            .map(|(object, verified)| (object.to_string(), json!(verified)))
            .collect();
        output::json(&json!({ "connection": options.connection, "objects": objects }));
    } else {
        print(&told);
    }
    let agrees = told.iter().all(|(_, verified)| verified.agrees());
    Ok(ExitCode::from(if agrees { 0 } else { 3 }))
}

fn print(told: &[(ObjectName, Verified)]) {
    let heads = [
        "Object",
        "Compared",
        "Equal",
        "Different",
        "Missing",
        "Extra",
        "Fields",
    ];
    let line = |(object, verified): &(ObjectName, Verified)| {
        let fields = verified.fields.iter();
        let fields: Vec<String> = fields
            .map(|(field, count)| format!("{field} ({count})"))
            .collect();
        vec![
            object.to_string(),
            verified.compared.to_string(),
            verified.equal.to_string(),
            verified.different.to_string(),
            verified.missing.to_string(),
            verified.extra.to_string(),
            fields.join(", "),
        ]
    };
    output::table(&heads, &told.iter().map(line).collect::<Vec<_>>());
    for (object, verified) in told {
        for Finding {
            record,
            how,
            fields,
        } in &verified.found
        {
            let how = match how {
                How::Different => format!("differs in {}", fields.join(", ")),
                How::Missing => format!("is missing: {}", fields.join(", ")),
                How::Extra => format!("is gone in the CRM, and still there: {}", fields.join(", ")),
            };
            output::print(&format!("{object} {record} {how}"));
        }
    }
}
