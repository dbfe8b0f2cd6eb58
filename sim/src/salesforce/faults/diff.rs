//! Long text told by its difference: a unified diff under the hash of the whole new value.
//!
//! Source: Change Data Capture Developer Guide, "Sending Data Differences for Fields of Updated Records".

use aws_lc_rs::digest::{SHA256, digest};

/// Shorter values are always sent whole.
const SHORTEST: usize = 1000;
/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// Whether a change of this text may be told by a diff. Other line ends than `\n` are sent whole.
pub(super) fn may_differ(old: &str, new: &str) -> bool {
    [old, new]
        .iter()
        .all(|text| text.chars().count() >= SHORTEST && !text.contains('\r'))
}

/// The diff of two texts by line, in one hunk; `broken` puts a hash over it that fits nothing.
pub(super) fn unified(old: &str, new: &str, broken: bool) -> String {
    let (before, after): (Vec<_>, Vec<_>) = (old.split('\n').collect(), new.split('\n').collect());
    let shorter = before.len().min(after.len());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let head = before.iter().zip(&after).take_while(same).count();
    let tail = before
        .iter()
        .rev()
        .zip(after.iter().rev())
        .take_while(same)
        .count()
        .min(shorter - head);
    let from = head.saturating_sub(CONTEXT);
    let rest = tail.min(CONTEXT);
    let (old_end, new_end) = (before.len() - tail, after.len() - tail);
    let mut diff = format!(
        "--- \n+++ {}\n@@ -{},{} +{},{} @@",
        hash(new, broken),
        from + 1,
        old_end + rest - from,
        from + 1,
        new_end + rest - from,
    );
    let mut lines = |sign: char, lines: &[&str]| {
        for line in lines {
            diff.push('\n');
            diff.push(sign);
            diff.push_str(line);
        }
    };
    lines(' ', &before[from..head]);
    lines('-', &before[head..old_end]);
    lines('+', &after[head..new_end]);
    lines(' ', &after[new_end..new_end + rest]);
    diff
}

fn hash(text: &str, broken: bool) -> String {
    let salt = if broken { "\0" } else { "" };
    let digest = digest(&SHA256, format!("{text}{salt}").as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Applies a diff as a client does.
    fn applied(old: &str, diff: &str) -> String {
        let mut lines = diff.split('\n').skip(2);
        let ranges = lines.next().unwrap();
        let start: usize = ranges[4..].split(',').next().unwrap().parse().unwrap();
        let old: Vec<_> = old.split('\n').collect();
        let mut at = start - 1;
        let mut new: Vec<_> = old[..at].iter().map(|line| (*line).to_owned()).collect();
        for line in lines {
            let (sign, text) = line.split_at(1);
            if sign != "+" {
                assert_eq!(old[at], text);
                at += 1;
            }
            if sign != "-" {
                new.push(text.to_owned());
            }
        }
        new.extend(old[at..].iter().map(|line| (*line).to_owned()));
        new.join("\n")
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_the_old_text_to_the_new(
            old in prop::collection::vec("[ab]{0,2}", 1..9),
            new in prop::collection::vec("[ab]{0,2}", 1..9),
        ) {
            let (old, new) = (old.join("\n"), new.join("\n"));
            prop_assert_eq!(applied(&old, &unified(&old, &new, false)), new);
        }
    }

    #[test]
    fn a_diff_has_the_documented_form() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9";
        let hash = hash(new, false);
        assert_eq!(hash.len(), 64);
        assert_eq!(
            unified(old, new, false),
            format!("--- \n+++ {hash}\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8")
        );
        assert_ne!(unified(old, new, true), unified(old, new, false));
    }

    #[test]
    fn only_long_texts_with_plain_lines_differ() {
        let long = "x".repeat(1000);
        assert!(may_differ(&long, &long));
        assert!(!may_differ(&long, "short"));
        assert!(!may_differ(&format!("{long}\r\n"), &long));
    }
}
