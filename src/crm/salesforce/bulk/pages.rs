//! Pages of a job's results read side by side: each stands at a place of its own, and their rows come in any order.
//!
//! Source: Bulk API 2.0 and Bulk API Developer Guide, "Get Parallel Results for a Query Job".

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::future::{join_all, select_all};
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind};
use crate::http::incoming::Incoming;
use crate::model::event::Row;

use super::super::rest::{Refused, Rest};
use super::super::row::Columns;
use super::csv::CsvPage;
use super::job;

/// Pages that come at one time.
const AT_ONCE: usize = 4;
/// The first API version that names pages.
const SINCE: u16 = 58;

/// What is not given of a job's pages: enough to go on in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// Pages that are known, in no order.
    parts: Vec<Part>,
    /// Where the list of pages goes on, if it does.
    more: Option<String>,
}

/// A page of which something is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    /// Where it begins; `None` is the beginning of the results.
    locator: Option<String>,
    /// Rows of it that were given.
    skip: u64,
}

/// A page on its way.
struct Open {
    part: Part,
    incoming: Incoming,
    csv: CsvPage,
    /// Rows that it has, if the org said so.
    count: Option<u64>,
}

/// Pages being read.
pub struct SideBySide {
    open: Vec<Open>,
    waiting: VecDeque<Part>,
    more: Option<String>,
    /// Whose turn it is to be looked at first.
    turn: usize,
}

/// Whether the org names the pages of jobs of this API version (`66.0`).
pub fn are_named(version: &str) -> bool {
    let major = version.split('.').next().unwrap_or_default();
    major.parse::<u16>().is_ok_and(|major| major >= SINCE)
}

/// Asks which pages a job's results have, from `more` on: a few a call.
///
/// # Errors
/// [`Refused`]; `Protocol` for a list that goes on nowhere.
pub async fn list(rest: &Rest, job: &str, more: Option<&str>) -> Result<Left, Refused> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pages {
        #[serde(default)]
        result_pages: Vec<Named>,
        next_records_url: Option<String>,
        done: bool,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        result_url: String,
    }
    let more = more.map_or_else(String::new, |more| format!("?locator={more}"));
    let answer = rest
        .get(&format!("/jobs/query/{job}/resultPages{more}"))
        .await?;
    let unreadable = |why: &str| {
        let what = format!("answer to {} {why}", answer.what());
        Fault::new(FaultKind::Protocol, what)
    };
    let pages: Pages = serde_json::from_slice(answer.body())
        .map_err(|error| unreadable("names no pages").source(error))?;
    let more = pages.next_records_url.as_deref().and_then(locator_of);
    if !pages.done && more.is_none() {
        return Err(unreadable("is not the last and names no next").into());
    }
    let parts = pages.result_pages.iter().map(|page| Part {
        locator: locator_of(&page.result_url),
        skip: 0,
    });
    Ok(Left {
        parts: parts.collect(),
        more: more.filter(|_| !pages.done),
    })
}

/// The locator of a link, as it stands there: the link itself is of a host and a form that may differ.
fn locator_of(link: &str) -> Option<String> {
    let (_, query) = link.split_once('?')?;
    let mut pairs = query.split('&');
    let locator = pairs.find_map(|pair| pair.strip_prefix("locator="))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte);
    (!locator.is_empty() && locator.bytes().all(plain)).then(|| locator.to_owned())
}

impl Left {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.more.is_none()
    }
}

impl From<Left> for SideBySide {
    fn from(left: Left) -> Self {
        Self {
            open: Vec::new(),
            waiting: left.parts.into(),
            more: left.more,
            turn: 0,
        }
    }
}

impl SideBySide {
    /// What is left once all rows that were read are given.
    pub fn left(&self) -> Left {
        let open = self.open.iter().map(|open| Part {
            skip: open.csv.rows.max(open.part.skip),
            ..open.part.clone()
        });
        Left {
            parts: open.chain(self.waiting.iter().cloned()).collect(),
            more: self.more.clone(),
        }
    }

    /// Opens pages until enough are on their way, or there are no more. A dropped wait opens them another time.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn fill(&mut self, rest: &Rest, job: &str) -> Result<(), Refused> {
        while self.open.len() < AT_ONCE {
            if self.waiting.is_empty()
                && let Some(more) = &self.more
            {
                let listed = list(rest, job, Some(more)).await?;
                self.waiting.extend(listed.parts);
                self.more = listed.more;
                continue;
            }
            let free = AT_ONCE - self.open.len();
            let next: Vec<Part> = self.waiting.iter().take(free).cloned().collect();
            if next.is_empty() {
                return Ok(());
            }
            let opening = next
                .iter()
                .map(|part| job::page(rest, job, part.locator.as_deref()));
            let opened = join_all(opening).await;
            for (part, incoming) in next.into_iter().zip(opened) {
                let incoming = incoming?;
                self.waiting.pop_front();
                let count = incoming.head().header("Sforce-NumberOfRecords");
                self.open.push(Open {
                    part,
                    count: count.and_then(|count| count.parse().ok()),
                    incoming,
                    csv: CsvPage::new(),
                });
            }
        }
        Ok(())
    }

    /// Takes the next piece of any page into `rows`; its length, `None` once all pages have ended. Cancel-safe.
    ///
    /// # Errors
    /// `Unavailable` for a page that is cut off or of another length than was said; `Protocol` for one that is no CSV.
    pub async fn piece(
        &mut self,
        columns: &Columns,
        rows: &mut Vec<Row>,
    ) -> Result<Option<usize>, Fault> {
        if self.open.is_empty() {
            return Ok(None);
        }
        let first = self.turn % self.open.len();
        // One page that is always quick holds up no other.
        self.open.rotate_left(first);
        let pieces = self
            .open
            .iter_mut()
            .map(|open| Box::pin(open.incoming.piece()));
        let (piece, index, _) = select_all(pieces).await;
        self.turn = index + 1;
        match piece? {
            Some(piece) => {
                let length = piece.len();
                if let Some(open) = self.open.get_mut(index) {
                    open.take(&piece, columns, rows)?;
                }
                Ok(Some(length))
            }
            None => {
                let ended = self.open.swap_remove(index);
                ended.end(columns, rows)?;
                Ok(Some(0))
            }
        }
    }
}

impl Open {
    fn take(&mut self, piece: &Bytes, columns: &Columns, rows: &mut Vec<Row>) -> Result<(), Fault> {
        // A page without rows may hold a line of prose in place of a heading.
        if self.count == Some(0) || piece.is_empty() {
            return Ok(());
        }
        self.csv.push(piece, columns, self.part.skip, rows)
    }

    fn end(mut self, columns: &Columns, rows: &mut Vec<Row>) -> Result<(), Fault> {
        self.csv.push(&[], columns, self.part.skip, rows)?;
        let told = self.csv.rows;
        if self.count.unwrap_or(told) != told || told < self.part.skip {
            let what = format!("a page of a job's results is of other length: {told} rows");
            return Err(Fault::new(FaultKind::Unavailable, what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_is_taken_from_a_link_of_any_form_and_nothing_else() {
        for link in [
            "/services/data/v66.0/jobs/query/750/results?locator=MTAw%3D",
            "https://acme.my.salesforce.com/x/results?maxRecords=5&locator=MTAw%3D",
            "services/results?locator=MTAw%3D&x=1",
        ] {
            assert_eq!(locator_of(link).as_deref(), Some("MTAw%3D"), "{link}");
        }
        for link in [
            "/results",
            "/results?locator=",
            "/results?locator=a/../b",
            "?locator=a b",
        ] {
            assert_eq!(locator_of(link), None, "{link}");
        }
    }

    #[test]
    fn pages_are_named_since_a_version() {
        assert!(are_named("66.0") && are_named("58.0"));
        assert!(!are_named("57.0") && !are_named(""));
    }
}
