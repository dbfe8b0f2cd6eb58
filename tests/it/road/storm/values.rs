//! Values that break what is not exact: emoji, marks, digits beyond a float, days at both ends of the calendar.

use crate::dice::Dice;

/// None begins or ends with a blank: a CRM cuts it.
const PIECES: &[&str] = &[
    "Acme",
    "Zürich",
    "🦀",
    "👩‍👩‍👧‍👦",
    "O'Hara",
    "\"quoted, and; more\"",
    "back\\slash",
    "漢字",
    "עברית",
    "e\u{301}",
    "<b>&amp;</b>",
    "%20",
    "null",
    "1e5",
    "$5 each",
    "a,b;c",
    "--c",
];
const JOINTS: &[&str] = &[" ", "\n", "\t", "-", ""];

/// A text of at most so many UTF-16 units, the way both CRMs count; never empty.
pub fn text(dice: &mut Dice, longest: usize) -> String {
    let mut text = (*dice.pick(PIECES)).to_owned();
    for _ in 0..dice.below(6) {
        let longer = format!("{text}{}{}", dice.pick(JOINTS), dice.pick(PIECES));
        if longer.encode_utf16().count() > longest {
            break;
        }
        text = longer;
    }
    text
}

/// About so many bytes of text.
pub fn long_text(dice: &mut Dice, bytes: usize) -> String {
    let mut long = String::with_capacity(bytes + 100);
    while long.len() < bytes {
        long.push_str(&text(dice, 90));
        long.push('\n');
    }
    long.push('.');
    long
}

/// A decimal number with up to so many digits before and after the point.
pub fn digits(dice: &mut Dice, whole: usize, fraction: usize) -> String {
    let mut number = if dice.one_in(3) {
        "-".to_owned()
    } else {
        String::new()
    };
    number.push(char::from(b'1' + u8::try_from(dice.roll(9)).unwrap()));
    for _ in 0..dice.below(whole) {
        number.push(char::from(b'0' + u8::try_from(dice.roll(10)).unwrap()));
    }
    if fraction > 0 {
        number.push('.');
        for _ in 0..=dice.below(fraction) {
            number.push(char::from(b'0' + u8::try_from(dice.roll(10)).unwrap()));
        }
    }
    number
}

/// A day between the calendars' usual ends.
pub fn day(dice: &mut Dice) -> String {
    let year = *dice.pick(&[1753, 1900, 1969, 1970, 2000, 2024, 2026, 4000]);
    format!("{year}-{:02}-{:02}", 1 + dice.roll(12), 1 + dice.roll(28))
}

/// A whole second in UTC.
pub fn instant(dice: &mut Dice) -> String {
    format!(
        "{}T{:02}:{:02}:{:02}Z",
        day(dice),
        dice.roll(24),
        dice.roll(60),
        dice.roll(60)
    )
}
