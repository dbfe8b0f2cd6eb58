//! Random changes of a valid config: never a panic, and never a config that loads as another one in silence.

use proptest::prelude::*;

use super::{Fixture, SINGLE};

fn positions() -> impl Strategy<Value = (usize, usize, String)> {
    let length = SINGLE.len();
    (0..length, 0..12_usize, "[ -~\n]{0,6}")
}

/// `text` with `cut` bytes at `at` replaced.
fn changed(text: &str, at: usize, cut: usize, put: &str) -> String {
    let end = (at + cut).min(text.len());
    format!("{}{put}{}", &text[..at], &text[end..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_changed_text_loads_or_tells((at, cut, put) in positions()) {
        let text = changed(SINGLE, at, cut, &put);
        if let Err(problems) = super::load_single(&text, &[]) {
            prop_assert!(!problems.as_slice().is_empty());
            let lines = text.lines().count();
            for problem in problems.as_slice() {
                prop_assert!(problem.spot.line <= lines + 1, "{problem}");
                prop_assert!(!problem.to_string().contains('\n'), "{problem}");
            }
        }
    }

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let fixture = Fixture::new(&[]);
        std::fs::write(fixture.folder.path().join("all.toml"), bytes).unwrap();
        if let Err(problems) = fixture.load("all.toml", &[]) {
            prop_assert!(!problems.as_slice().is_empty());
        }
    }

    /// A key that is changed in one letter is another key: it must not be passed over.
    #[test]
    fn a_misspelt_key_never_loads(line in 0..SINGLE.lines().count(), letter in 0..30_usize, to in "[a-z]") {
        let mut lines: Vec<String> = SINGLE.lines().map(str::to_owned).collect();
        let Some((key, rest)) = lines[line].clone().split_once(" = ").map(|(k, r)| (k.to_owned(), r.to_owned())) else {
            return Ok(());
        };
        let letter = letter % key.len();
        prop_assume!(key.is_char_boundary(letter) && key[letter..=letter] != to);
        // `derive.csm` may become another gsid column of Company only by more than one letter.
        lines[line] = format!("{} = {rest}", changed(&key, letter, 1, &to));
        let outcome = super::load_single(&lines.join("\n"), &[]);
        prop_assert!(outcome.is_err(), "{} loads", lines[line]);
    }

    /// What loads after a value was changed is the changed value, not the default or the old one.
    #[test]
    fn what_loads_is_what_stands_there(host in "[a-z][a-z0-9]{0,20}", id in "[A-Za-z0-9]{1,30}", minutes in 1..10_000_u64) {
        let text = SINGLE
            .replace("acme.my.salesforce.com", &format!("{host}.my.salesforce.com"))
            .replace("3MVG9", &id)
            .replace("source = \"User\"\n", &format!("source = \"User\"\nparked_ttl = \"{minutes}m\"\n"));
        let config = super::load_single(&text, &[]).unwrap();
        let acme = config.connections["acme"].salesforce().unwrap();
        prop_assert_eq!(acme.login_url(), format!("https://{host}.my.salesforce.com"));
        let super::Auth::ClientCredentials { client_id, .. } = &acme.auth else {
            panic!("another flow");
        };
        prop_assert_eq!(client_id, &id);
        let user = config.jobs.iter().find(|job| job.id.as_str() == "user_sync").unwrap();
        prop_assert_eq!(user.parked_ttl.num_minutes() as u64, minutes);
    }
}
