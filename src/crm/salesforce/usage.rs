//! What the org says of its calls: every answer tells how many the last 24 hours took, and how many they may take.
//!
//! Source: REST API Developer Guide, "Limit Info Header".

use crate::budget::Usage;
use crate::http::answer::Answer;

/// What is left of the rolling day, if the answer tells (`Sforce-Limit-Info: api-usage=18/5000`; an app's own share may
/// follow).
#[must_use]
pub fn told(answer: &Answer) -> Option<Usage> {
    parse(answer.header("Sforce-Limit-Info")?)
}

fn parse(header: &str) -> Option<Usage> {
    let usage = header
        .split([';', ','])
        .find_map(|part| part.trim().strip_prefix("api-usage="))?;
    let (used, limit) = usage.split_once('/')?;
    let (used, limit): (u64, u64) = (used.trim().parse().ok()?, limit.trim().parse().ok()?);
    Some(Usage {
        left: limit.saturating_sub(used),
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_and_nothing_guessed() {
        let left = |header| parse(header).map(|usage| (usage.left, usage.limit));
        assert_eq!(left("api-usage=10018/100000"), Some((89_982, 100_000)));
        let shared = "api-usage=18/5000; per-app-api-usage=17/250(appName=sample)";
        assert_eq!(left(shared), Some((4_982, 5_000)));
        let turned = "per-app-api-usage=17/250(appName=sample); api-usage=18/5000";
        assert_eq!(left(turned), Some((4_982, 5_000)));
        assert_eq!(left("api-usage=5001/5000"), Some((0, 5_000)));
        for other in ["", "api-usage=", "api-usage=1", "api-usage=a/b", "x=1/2"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
