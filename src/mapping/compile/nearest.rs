//! The nearest name to one that is not there.

/// The candidate that is nearest to `wanted`, if one is near: the same but for case, blanks and underscores, or a few
/// letters away.
pub(super) fn nearest<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = plain(wanted);
    let limit = wanted.len().div_ceil(3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> Vec<char> {
    let kept = name.chars().filter(|c| !matches!(c, '_' | ' ' | '-'));
    kept.flat_map(char::to_lowercase).collect()
}

/// Levenshtein's distance.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        let columns = ["first_name", "last_name", "email", "industry"];
        let find = |wanted| nearest(wanted, columns);
        assert_eq!(find("First Name"), Some("first_name"));
        assert_eq!(find("fristname"), Some("first_name"));
        assert_eq!(find("emial"), Some("email"));
        assert_eq!(find("industrie"), Some("industry"));
        assert_eq!(find("annual_revenue"), None);
        assert_eq!(find(""), None);
    }

    #[test]
    fn distances_are_levenshteins() {
        let between = |a: &str, b: &str| distance(&plain(a), &plain(b));
        assert_eq!(between("kitten", "sitting"), 3);
        assert_eq!(between("", "abc"), 3);
        assert_eq!(between("abc", ""), 3);
        assert_eq!(between("same", "same"), 0);
    }
}
