//! The difference of a long text: what a naive writer tells comes out whole, and nothing whose hash is another.
#![no_main]

use aws_lc_rs::digest::{SHA256, digest};
use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::fuzz::text_diff;

fuzz_target!(|input: &str| {
    let Some((old, new)) = input.split_once('\0') else {
        return;
    };
    // The second half as a difference of its own.
    let _ = text_diff(old, new);
    let headed = format!("--- \n+++ {}\n{new}", hash(input));
    assert_eq!(text_diff(old, &headed), None);
    for end in ["\n", "\r\n", "\r"] {
        let [old, new] = [old, new].map(|text| text.replace('\r', ""));
        let (old, new): (Vec<&str>, Vec<&str>) =
            (old.split('\n').collect(), new.split('\n').collect());
        let diff = format!("--- \n+++ {}\n{}", hash(&new.join(end)), hunk(&old, &new));
        assert_eq!(
            text_diff(&old.join(end), &diff),
            Some(new.join(end)),
            "{diff}"
        );
    }
});

/// One hunk, of all lines between those that both begin and end with.
fn hunk(old: &[&str], new: &[&str]) -> String {
    let head = old
        .iter()
        .zip(new)
        .take_while(|(old, new)| old == new)
        .count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(|(old, new)| old == new)
        .count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let signed = |sign: char, lines: &[&str]| -> String {
        lines.iter().map(|line| format!("{sign}{line}\n")).collect()
    };
    let from = |lines: &[&str]| head + usize::from(!lines.is_empty());
    format!(
        "@@ -{},{} +{},{} @@\n{}{}",
        from(old),
        old.len(),
        from(new),
        new.len(),
        signed('-', old),
        signed('+', new)
    )
}

fn hash(text: &str) -> String {
    digest(&SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
