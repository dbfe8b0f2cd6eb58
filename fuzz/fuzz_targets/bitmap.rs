//! Bitmaps of fields: what a naive reading finds, neither more nor less, and again when it is written anew.
#![no_main]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tributary::crm::salesforce::pubsub::fuzz::{EventSchema, expand};
use tributary_fuzz::schema;

static SCHEMA: LazyLock<EventSchema> = LazyLock::new(|| EventSchema::parse(&schema()).unwrap());

/// A field, and a part of it if only that is meant.
type Bit = (usize, Option<usize>);

fuzz_target!(|text: &str| {
    let texts: Vec<Cow<'_, str>> = text.lines().take(8).map(Cow::Borrowed).collect();
    let found = expand(&SCHEMA, &texts).ok();
    assert_eq!(found, naive(&texts));
    if let Some(found) = found {
        let texts: Vec<Cow<'_, str>> = written(&found).into_iter().map(Cow::Owned).collect();
        assert_eq!(expand(&SCHEMA, &texts).unwrap(), found);
    }
});

/// Asks for each bit that the schema has; none may be left.
fn naive(texts: &[Cow<'_, str>]) -> Option<Vec<Bit>> {
    let mut found = Vec::new();
    for text in texts {
        match text.split_once('-') {
            None => {
                let number = number(text)?;
                let fields = 1..SCHEMA.fields.len();
                let mask = (1 << SCHEMA.fields.len()) - 2;
                (number & !mask == 0).then_some(())?;
                found.extend(
                    fields
                        .filter(|at| number >> at & 1 == 1)
                        .map(|at| (at, None)),
                );
            }
            Some((field, text)) => {
                let field: usize = field.parse().ok()?;
                let parts = SCHEMA.fields.get(field).filter(|_| field > 0)?.parts.len();
                let number = number(text)?;
                (number >> parts == 0).then_some(())?;
                let bits = (0..parts).filter(|at| number >> at & 1 == 1);
                found.extend(bits.map(|at| (field, Some(at))));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

/// The number, as good as all ones if it has more than 128 bits: no schema here has as many.
fn number(text: &str) -> Option<u128> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))?;
    digits
        .chars()
        .all(|c| c.is_ascii_hexdigit())
        .then_some(())?;
    match digits.trim_start_matches('0') {
        "" => Some(0),
        digits if digits.len() > 32 => Some(u128::MAX),
        digits => u128::from_str_radix(digits, 16).ok(),
    }
}

fn written(bits: &[Bit]) -> Vec<String> {
    let mut numbers: BTreeMap<Option<usize>, u128> = BTreeMap::new();
    for (field, part) in bits {
        let (of, bit) = part.map_or((None, *field), |part| (Some(*field), part));
        *numbers.entry(of).or_default() |= 1 << bit;
    }
    let numbers = numbers.into_iter();
    let text = |(of, number): (Option<usize>, u128)| match of {
        None => format!("0x{number:X}"),
        Some(field) => format!("{field}-0x{number:x}"),
    };
    numbers.map(text).collect()
}
