//! Dashboards and alerts name metrics that there are, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use tributary::telemetry::metrics::VOCABULARY;

#[test]
fn every_metric_they_name_is_in_the_vocabulary() {
    let known: BTreeSet<&str> = VOCABULARY.iter().map(|metric| metric.name).collect();
    for file in [
        "dashboards/grafana/tributary.json",
        "dashboards/prometheus/alerts.yml",
    ] {
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let named: BTreeSet<&str> = text
            .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
            .filter(|word| word.starts_with("tributary_"))
            .collect();
        assert!(named.len() > 5, "{file} names {named:?}");
        for name in named {
            let whole = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| name.strip_suffix(part))
                .unwrap_or(name);
            assert!(
                known.contains(whole) || known.contains(name),
                "{file} names `{name}`"
            );
        }
    }
}
