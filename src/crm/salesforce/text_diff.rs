//! Long text told by its difference: a unified diff under the SHA-256 of the whole new value (CDC Developer Guide,
//! "Change Events for Large Text Fields").
//!
//! Lines of a text may end in `\n`, `\r\n` or `\r`, and the hash counts them; what ends the lines of the diff itself
//! need not be what ends those of the text. So the few texts that a diff can mean are tried, and the hash decides.

use aws_lc_rs::digest::{SHA256, digest};

/// A difference to a text's former value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextDiff<'a> {
    hash: &'a str,
    hunks: &'a str,
}

/// A line without its end, and its end.
type Line<'a> = (&'a str, &'a str);

impl<'a> TextDiff<'a> {
    /// The difference that `text` is, if it is one.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("--- ")?;
        let rest = rest.trim_start_matches(['\r', '\n']).strip_prefix("+++ ")?;
        let (hash, hunks) = rest.split_at_checked(64)?;
        let is_hash = hash.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then(|| Self {
            hash,
            hunks: hunks.trim_start_matches(['\r', '\n']),
        })
    }

    /// The new value; `None` where `old` is not the value that it was made from.
    #[must_use]
    pub fn apply(&self, old: &str) -> Option<String> {
        // Told again: it is the new value already.
        if self.is_of(old) {
            return Some(old.to_owned());
        }
        let before = lines(old);
        let after = self.merge(&before)?;
        let own = before.iter().map(|(_, end)| *end);
        let usual = own.into_iter().find(|end| !end.is_empty());
        // A text of one line does not tell how it would end another.
        let ends = usual.map_or(vec!["\n", "\r\n", "\r"], |end| vec![end]);
        for end in ends {
            for of_diff in [true, false] {
                let text = joined(&after, end, of_diff);
                let bare = text
                    .strip_suffix("\r\n")
                    .or_else(|| text.strip_suffix(['\r', '\n']))
                    .unwrap_or(&text);
                let ended = format!("{bare}{end}");
                let found = [text.as_str(), bare, &ended];
                if let Some(found) = found.into_iter().find(|text| self.is_of(text)) {
                    return Some(found.to_owned());
                }
            }
        }
        None
    }

    fn is_of(&self, text: &str) -> bool {
        let digest = digest(&SHA256, text.as_bytes());
        let mut digits = self.hash.as_bytes().chunks_exact(2);
        digest.as_ref().iter().all(|byte| {
            let told = digits
                .next()
                .and_then(|pair| std::str::from_utf8(pair).ok());
            told.and_then(|pair| u8::from_str_radix(pair, 16).ok()) == Some(*byte)
        })
    }

    /// The lines after the change, each with whether the diff brought it.
    fn merge<'t>(&self, before: &[Line<'t>]) -> Option<Vec<(Line<'t>, bool)>>
    where
        'a: 't,
    {
        let mut after = Vec::with_capacity(before.len());
        let mut at = 0;
        let mut told = lines(self.hunks).into_iter();
        while let Some((head, _)) = told.next() {
            if head.is_empty() || head.starts_with('\\') {
                continue;
            }
            let hunk = Hunk::parse(head)?;
            let skipped = before.get(at..hunk.from)?;
            after.extend(skipped.iter().map(|line| (*line, false)));
            at = hunk.from;
            let (mut old_left, mut new_left) = (hunk.old, hunk.new);
            while old_left > 0 || new_left > 0 {
                let (line, end) = told.next()?;
                // A context line that is empty may have lost its blank.
                let mut signs = line.chars();
                let sign = signs.next().unwrap_or(' ');
                let content = signs.as_str();
                if sign == '\\' {
                    continue;
                }
                if sign != '+' {
                    let own = before.get(at).filter(|(own, _)| *own == content)?;
                    at += 1;
                    old_left = old_left.checked_sub(1)?;
                    if sign == ' ' {
                        new_left = new_left.checked_sub(1)?;
                        after.push((*own, false));
                    } else if sign != '-' {
                        return None;
                    }
                } else {
                    new_left = new_left.checked_sub(1)?;
                    after.push(((content, end), true));
                }
            }
        }
        after.extend(before.get(at..)?.iter().map(|line| (*line, false)));
        Some(after)
    }
}

/// `@@ -from,old +to,new @@`; a count of one may be left out.
struct Hunk {
    from: usize,
    old: usize,
    new: usize,
}

impl Hunk {
    fn parse(line: &str) -> Option<Self> {
        let ranges = line.strip_prefix("@@ -")?;
        let (ranges, _) = ranges.split_once(" @@")?;
        let (old, new) = ranges.split_once(" +")?;
        let range = |text: &str| -> Option<(usize, usize)> {
            let (from, count) = text.split_once(',').unwrap_or((text, "1"));
            Some((from.parse().ok()?, count.parse().ok()?))
        };
        let ((from, old), (_, new)) = (range(old)?, range(new)?);
        // Nothing old: what is new comes after that line.
        let from = if old == 0 { from } else { from.checked_sub(1)? };
        Some(Self { from, old, new })
    }
}

/// Lines that ended nothing before, and end something now, end as the others do.
fn joined(lines: &[(Line<'_>, bool)], usual: &str, of_diff: bool) -> String {
    let mut text = String::new();
    for (index, ((content, end), is_new)) in lines.iter().enumerate() {
        text.push_str(content);
        let is_last = index + 1 == lines.len();
        let own = !end.is_empty() && (of_diff || !is_new);
        if own {
            text.push_str(end);
        } else if !is_last {
            text.push_str(usual);
        }
    }
    text
}

/// Lines and what ends each; the last ends in nothing.
fn lines(text: &str) -> Vec<Line<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        let (line, tail) = rest.split_at(at);
        let end = if tail.starts_with("\r\n") { 2 } else { 1 };
        let (end, tail) = tail.split_at(end);
        found.push((line, end));
        rest = tail;
    }
    found.push((rest, ""));
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn hash(text: &str) -> String {
        let digest = digest(&SHA256, text.as_bytes());
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// What a diff makes of `old`.
    fn applied(old: &str, new: &str, hunks: &str) -> Option<String> {
        let diff = format!("--- \n+++ {}\n{hunks}", hash(new));
        TextDiff::parse(&diff).unwrap().apply(old)
    }

    #[test]
    fn diffs_are_known_by_their_hash() {
        let hash = hash("x");
        assert!(TextDiff::parse(&format!("--- \n+++ {hash}\n@@ -1 +1 @@\n-a\n+b")).is_some());
        assert!(TextDiff::parse(&format!("--- \r\n+++ {hash}")).is_some());
        for text in ["", "--- ", "--- \n+++ short", "--- a\n+++ b", "-- "] {
            assert!(TextDiff::parse(text).is_none(), "{text:?}");
        }
        assert!(TextDiff::parse(&format!("--- \n+++ {}", "ü".repeat(40))).is_none());
    }

    #[test]
    fn a_line_is_changed_added_and_removed() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9";
        for (new, hunks) in [
            (
                "1\n2\n3\n4\nfive\n6\n7\n8\n9",
                "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8",
            ),
            ("0\n1\n2\n3\n4\n5\n6\n7\n8\n9", "@@ -0,0 +1 @@\n+0\n"),
            ("1\n2\n3\n4\n5\n6\n7\n8", "@@ -8,2 +8 @@\n 8\n-9"),
            (
                "1\n3\n4\n5\n6\n7\n8\n9\nten",
                "@@ -2 +1,0 @@\n-2\n@@ -9 +8,2 @@\n 9\n+ten",
            ),
        ] {
            assert_eq!(applied(old, new, hunks).as_deref(), Some(new), "{hunks:?}");
        }
    }

    #[test]
    fn line_ends_are_the_texts_own() {
        for (old, new, hunks) in [
            (
                "a\r\nb\r\nc",
                "a\r\nB\r\nc",
                "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c",
            ),
            (
                "a\r\nb\r\nc",
                "a\r\nB\r\nc",
                "@@ -1,3 +1,3 @@\r\n a\r\n-b\r\n+B\r\n c",
            ),
            ("a\rb\rc", "a\rB\rc", "@@ -2 +2 @@\n-b\n+B"),
            ("a\nb", "a\nb\nc\n", "@@ -2 +2,2 @@\n b\n+c"),
            (
                "a\nb\n",
                "a\nB",
                "@@ -1,2 +1,2 @@\n a\n-b\n+B\n\\ No newline at end of file",
            ),
        ] {
            assert_eq!(
                applied(old, new, hunks).as_deref(),
                Some(new),
                "{old:?} {hunks:?}"
            );
        }
    }

    #[test]
    fn what_it_was_not_made_from_is_told() {
        let hunks = "@@ -1,2 +1,2 @@\n a\n-b\n+B";
        assert_eq!(applied("a\nb", "a\nB", hunks).as_deref(), Some("a\nB"));
        assert_eq!(
            applied("a\nB", "a\nB", hunks).as_deref(),
            Some("a\nB"),
            "told again"
        );
        for other in ["", "a", "a\nc", "x\nb"] {
            assert_eq!(applied(other, "a\nB", hunks), None, "{other:?}");
        }
        assert_eq!(
            applied("a\nb\nmore", "a\nB", hunks),
            None,
            "the hash is another"
        );
        for broken in [
            "",
            "@@",
            "@@ -1 +1 @@",
            "@@ -9 +9 @@\n-a\n+b",
            "@@ -0 +1 @@\n-a\n+b",
            "nonsense",
        ] {
            assert_eq!(applied("a\nb", "a\nB", broken), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_changed_comes_out(
            head in proptest::collection::vec("[ab ]{0,3}", 0..5), old in proptest::collection::vec("[ab+-]{0,3}", 0..4),
            new in proptest::collection::vec("[ab+-]{0,3}", 0..4), tail in proptest::collection::vec("[ab ]{0,3}", 0..5),
            end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let text = |middle: &[String]| {
                let lines: Vec<&str> = head.iter().chain(middle).chain(&tail).map(String::as_str).collect();
                lines.join(end)
            };
            let (before, after) = (text(&old), text(&new));
            let signed = |sign: char, lines: &[String]| -> String {
                lines.iter().map(|line| format!("{sign}{line}\n")).collect()
            };
            let from = head.len() + usize::from(!old.is_empty());
            let hunks = format!("@@ -{from},{} +1,{} @@\n{}{}", old.len(), new.len(), signed('-', &old), signed('+', &new));
            // A text without any line has one that is empty, which this way of counting does not know.
            if !(head.is_empty() && tail.is_empty()) && before != after {
                prop_assert_eq!(applied(&before, &after, &hunks), Some(after));
            }
        }

        #[test]
        fn nothing_makes_it_panic(old in any::<String>(), hunks in "(@@ -[0-9],[0-9] \\+[0-9],[0-9] @@\n)?([ +-][ab]?\r?\n?){0,6}") {
            applied(&old, "x", &hunks);
        }
    }
}
