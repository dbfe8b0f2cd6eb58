//! `tributary job rematch`: which records are another row than they have, by the identifiers as they are now.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::fault::Fault;
use crate::http::encode::percent;
use crate::http::request::Method;

use super::daemon::Daemon;
use super::{jobs, output};

#[derive(Deserialize)]
struct Partition {
    partition: u32,
    start: u64,
    end: u64,
}

#[derive(Deserialize)]
struct Page {
    next: u64,
    read: u64,
    moves: Vec<Move>,
}

#[derive(Deserialize, Serialize)]
struct Move {
    record: String,
    table: String,
    from: String,
    to: String,
}

/// Asks the daemon page by page; exit code 3 for a dry run that finds something to move.
pub(super) async fn rematch(
    path: &Path,
    url: Option<&str>,
    job: &str,
    is_dry: bool,
    limit: usize,
    as_json: bool,
) -> Result<ExitCode, Fault> {
    let (connection, id) = super::jobs::named(job)?;
    let at = format!(
        "/api/v1/jobs/{}/{}/rematch",
        percent(connection),
        percent(id)
    );
    let daemon = Daemon::at(path, url)?;
    let partitions: Vec<Partition> = daemon.call(Method::Get, &at).await?;
    let bar = bar(&partitions, as_json);
    let (mut read, mut moves) = (0, BTreeMap::new());
    for Partition {
        partition,
        start,
        end,
    } in partitions
    {
        let mut from = start;
        while from < end {
            let body = json!({
                "partition": partition, "from": from, "until": end, "dry_run": is_dry, "by": jobs::who(),
            });
            let page: Page = daemon.post(&at, &body).await?;
            bar.inc(page.next - from);
            (read, from) = (read + page.read, page.next);
            for one in page.moves {
                moves.insert((one.record.clone(), one.table.clone()), one);
            }
        }
    }
    bar.finish_and_clear();
    let moves: Vec<Move> = moves.into_values().collect();
    if as_json {
        output::json(&json!({ "read": read, "dry_run": is_dry, "moves": moves }));
    } else {
        print(job, read, &moves, is_dry, limit);
    }
    let found = is_dry && !moves.is_empty();
    Ok(ExitCode::from(if found { 3 } else { 0 }))
}

fn bar(partitions: &[Partition], as_json: bool) -> ProgressBar {
    if as_json {
        return ProgressBar::hidden();
    }
    let size = partitions.iter().map(|one| one.end - one.start).sum();
    let bar = ProgressBar::new(size);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec}") {
        bar.set_style(style);
    }
    bar
}

fn print(job: &str, read: u64, moves: &[Move], is_dry: bool, limit: usize) {
    let lines: Vec<Vec<String>> = moves
        .iter()
        .take(limit)
        .map(|one| {
            let to = match one.to.as_str() {
                "another" => "another row that has its identifiers",
                "new" => "a row of its own",
                _ => "one of several: goes to review",
            };
            vec![
                one.record.clone(),
                one.table.clone(),
                one.from.clone(),
                to.to_owned(),
            ]
        })
        .collect();
    if !lines.is_empty() {
        output::table(
            &["RECORD", "TABLE", "ROW NOW", "BY ITS IDENTIFIERS"],
            &lines,
        );
    }
    let count = moves.len();
    output::print(&match (count, is_dry) {
        (0, _) => format!(
            "{read} changes read: every record of {job} is the row that its identifiers say"
        ),
        (_, true) => format!(
            "{read} changes read, {count} associations would change; without --dry-run they do"
        ),
        (_, false) => format!(
            "{read} changes read, {count} associations change: the records are published again and applied"
        ),
    });
}
