//! `[store]`: what holds for all rows, whatever job writes them.

use crate::config::document::{Node, Report};
use crate::config::problem::{Located, Problem};
use crate::config::reader::{Reader, shown};

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `person_key`: the columns of Person that say who is who; what `"@person_key"` stands for.
    pub person_key: Vec<Located<String>>,
    /// `corporate_currency`: the currency of amounts without one.
    pub corporate_currency: Option<String>,
}

impl StoreConfig {
    pub(super) fn parse(tree: &Node, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "store", report);
        let spot = reader.spot_of("person_key");
        let mut person_key = reader
            .texts("person_key")
            .unwrap_or_else(|| vec![Located::new("email".to_owned(), spot.clone())]);
        if person_key.is_empty() {
            report.wrong(&spot, "no column", "write at least one: [\"email\"]");
            person_key.push(Located::new("email".to_owned(), spot));
        }
        let corporate_currency = reader.text("corporate_currency").filter(|code| {
            let good = code.value.len() == 3 && code.value.chars().all(|c| c.is_ascii_uppercase());
            if !good {
                let problem = Problem::new(
                    &code.spot,
                    "no currency",
                    "write its ISO 4217 code: \"USD\"",
                );
                report.add(problem.value(shown(&code.value)));
            }
            good
        });
        reader.close();
        Self {
            person_key,
            corporate_currency: corporate_currency.map(|code| code.value),
        }
    }
}
