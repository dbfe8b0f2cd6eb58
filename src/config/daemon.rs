//! `[daemon]`: where the daemon keeps its files, and whose clock schedules go by.

use std::path::{Path, PathBuf};

use chrono_tz::Tz;

use crate::config::document::{Node, Report};
use crate::config::nearest::nearest;
use crate::config::problem::Problem;
use crate::config::reader::{Reader, shown};

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonConfig {
    /// `data_dir`: log, images, state and the SQLite store; a relative one starts at the config's root.
    pub data_dir: PathBuf,
    /// `time_zone` of schedules.
    pub time_zone: Tz,
}

impl DaemonConfig {
    pub(super) fn parse(tree: &Node, root: &Path, report: &Report) -> Self {
        let mut reader = Reader::open_section(tree, "daemon", report);
        let data_dir = reader.text("data_dir");
        let time_zone = reader.text("time_zone").and_then(|name| {
            let zone = name.value.parse::<Tz>().ok();
            if zone.is_none() {
                let near = nearest(
                    &name.value,
                    chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()),
                );
                let remedy = near.map_or_else(
                    || "write a name of the IANA list: \"UTC\", \"Europe/Berlin\"".to_owned(),
                    |near| format!("did you mean {near:?}?"),
                );
                report.add(
                    Problem::new(&name.spot, "no time zone", remedy).value(shown(&name.value)),
                );
            }
            zone
        });
        reader.close();
        Self {
            data_dir: root.join(data_dir.map_or_else(|| "data".to_owned(), |text| text.value)),
            time_zone: time_zone.unwrap_or(Tz::UTC),
        }
    }
}
