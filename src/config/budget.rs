//! `budget` of a connection: what its calls may spend of the org's.

use std::num::NonZeroU32;

use crate::config::document::Report;
use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};

/// The table; what it does not say is the connector's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BudgetConfig {
    /// `reserve`: how many percent of a day's calls are kept back for repair.
    pub reserve: Option<u8>,
    /// `per_second`: calls a second.
    pub per_second: Option<NonZeroU32>,
    /// `at_once`: calls that run at one time.
    pub at_once: Option<NonZeroU32>,
}

impl BudgetConfig {
    pub(super) fn take(reader: &mut Reader<'_>) -> Self {
        let report = reader.report;
        let opened = reader
            .take("budget")
            .and_then(|node| Reader::open(node, report));
        let Some(mut reader) = opened else {
            return Self::default();
        };
        let config = Self {
            reserve: reserve(&mut reader, report),
            per_second: number(&mut reader, "per_second", 1..=1000),
            // Salesforce takes 25 long calls at one time, Dataverse 52 (REST API Developer Guide, "API Request Limits
            // and Allocations"; Power Apps developer guide, "Service protection API limits").
            at_once: number(&mut reader, "at_once", 1..=50),
        };
        reader.close();
        config
    }
}

fn reserve(reader: &mut Reader<'_>, report: &Report) -> Option<u8> {
    let text = reader.text("reserve")?;
    let percent = text.value.strip_suffix('%');
    let percent = percent.and_then(|percent| percent.trim().parse().ok());
    if let Some(percent) = percent.filter(|percent: &u8| *percent <= 90) {
        return Some(percent);
    }
    let what = "no part of a day's calls";
    let problem = Problem::new(&text.spot, what, "write \"0%\" to \"90%\": \"10%\"");
    report.add(problem.value(shown(&text.value)));
    None
}

fn number(
    reader: &mut Reader<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<i64>,
) -> Option<NonZeroU32> {
    let number = reader.integer(key, range)?;
    u32::try_from(number).ok().and_then(NonZeroU32::new)
}
