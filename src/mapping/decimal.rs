//! Decimal numbers as text: brought to plain notation, compared by value, never through a float.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The most digits a number may have in plain notation: every double fits, from 5e-324 to 1.8e308.
pub const MAX_DIGITS: usize = 400;

/// Why a text is no number for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDecimal {
    /// Not digits with at most one point and exponent.
    #[error("not a number")]
    Syntax,
    /// More than [`MAX_DIGITS`] digits once written out.
    #[error("a number of more than {MAX_DIGITS} digits")]
    TooLong,
}

/// The number in plain decimal notation: no exponent, no `+`, no leading zeros, no `-0`, a digit on both sides of
/// a point. Digits after the point are kept as they came (`1.50` stays `1.50`).
///
/// # Errors
/// [`NotDecimal`].
pub fn plain(text: &str) -> Result<Cow<'_, str>, NotDecimal> {
    let (negative, body) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, Some(parse_power(power)?)),
        None => (body, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(NotDecimal::Syntax);
    }
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let zero = is_zero(whole) && is_zero(fraction);
    let is_plain = exponent.is_none()
        && !text.starts_with('+')
        && !(negative && zero)
        && (whole == "0" || (!whole.is_empty() && !whole.starts_with('0')))
        && !mantissa.ends_with('.');
    if is_plain {
        return if whole.len() + fraction.len() <= MAX_DIGITS {
            Ok(Cow::Borrowed(text))
        } else {
            Err(NotDecimal::TooLong)
        };
    }
    if zero && exponent.is_some() {
        return Ok(Cow::Borrowed("0"));
    }
    write_out(negative && !zero, whole, fraction, exponent.unwrap_or(0)).map(Cow::Owned)
}

/// A power past these bounds overflows any number but zero; saturating keeps this total.
fn parse_power(text: &str) -> Result<i64, NotDecimal> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotDecimal::Syntax);
    }
    const FAR: i64 = 1_000_000_000;
    let power = digits.parse::<i64>().map_or(FAR, |power| power.min(FAR));
    Ok(if text.starts_with('-') { -power } else { power })
}

/// Moves the point by `power` places and writes zeros where digits are missing.
fn write_out(
    negative: bool,
    whole: &str,
    fraction: &str,
    power: i64,
) -> Result<String, NotDecimal> {
    let digits = format!("{whole}{fraction}");
    let leading = digits.len() - digits.trim_start_matches('0').len();
    // Where the point stands, counted from the first digit that is not a leading zero.
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX) + power
        - i64::try_from(leading).unwrap_or(i64::MAX);
    let significant = &digits[leading..];
    let count = i64::try_from(significant.len()).unwrap_or(i64::MAX);
    let (before, after) = (point.max(1), (count - point).max(0));
    let fits = |digits: i64| usize::try_from(digits).is_ok_and(|digits| digits <= MAX_DIGITS);
    if !fits(before.saturating_add(after)) {
        return Err(NotDecimal::TooLong);
    }
    let at = |place: i64| usize::try_from(place).unwrap_or(0).min(significant.len());
    let zeros = |number: i64| "0".repeat(usize::try_from(number).unwrap_or(0));
    let mut out = String::with_capacity(usize::try_from(before + after).unwrap_or(0) + 2);
    if negative {
        out.push('-');
    }
    if point <= 0 {
        out.push('0');
    } else {
        out.push_str(&significant[..at(point)]);
        out.push_str(&zeros(point - count));
    }
    if after > 0 {
        out.push('.');
        out.push_str(&zeros(-point));
        out.push_str(&significant[at(point)..]);
    }
    Ok(out)
}

/// The order of two numbers in plain notation, by value.
#[must_use]
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (Parts::of(left), Parts::of(right));
    match (left.sign(), right.sign()) {
        (-1, -1) => right.size(&left),
        (1, 1) => left.size(&right),
        (left, right) => left.cmp(&right),
    }
}

struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (negative, body) = text
            .strip_prefix('-')
            .map_or((false, text), |body| (true, body));
        let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
        Self {
            negative,
            whole: whole.trim_start_matches('0'),
            fraction: fraction.trim_end_matches('0'),
        }
    }

    const fn sign(&self) -> i8 {
        match (
            self.whole.is_empty() && self.fraction.is_empty(),
            self.negative,
        ) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    /// The order without the sign.
    fn size(&self, other: &Self) -> Ordering {
        self.whole
            .len()
            .cmp(&other.whole.len())
            .then_with(|| self.whole.cmp(other.whole))
            .then_with(|| self.fraction.cmp(other.fraction))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_out() {
        for (text, expected) in [
            ("1054.0", "1054.0"),
            ("-1.50", "-1.50"),
            ("0", "0"),
            ("0.00", "0.00"),
            ("-0", "0"),
            ("-0.0", "0.0"),
            ("+5", "5"),
            ("007", "7"),
            ("00.5", "0.5"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("1.0E7", "10000000"),
            ("1.23456E3", "1234.56"),
            ("1.50e1", "15.0"),
            ("12e-1", "1.2"),
            ("1e-3", "0.001"),
            ("-120e-5", "-0.00120"),
            ("0.001e2", "0.1"),
            ("0e999999999999999999", "0"),
            ("1e+2", "100"),
            (
                "12345678901234567890.123456789",
                "12345678901234567890.123456789",
            ),
        ] {
            assert_eq!(plain(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "-", "+", ".", "abc", "1,000", "1 000", " 1", "1e", "1e+", "1e1.5", "--1", "0x1",
            "1.2.3", "٣", "NaN", "Infinity", "1_000", "e5",
        ] {
            assert_eq!(plain(text), Err(NotDecimal::Syntax), "{text}");
        }
    }

    #[test]
    fn length_is_bounded_without_writing_it_out_first() {
        let longest = "9".repeat(MAX_DIGITS);
        assert_eq!(plain(&longest).as_deref(), Ok(&*longest));
        for text in [
            format!("{longest}9"),
            format!("0.{longest}"),
            format!("0{longest}1"),
            "1e400".to_owned(),
            "1e-400".to_owned(),
            "1e99999999999999999999".to_owned(),
            "-1e-99999999999999999999".to_owned(),
        ] {
            assert_eq!(plain(&text), Err(NotDecimal::TooLong), "{text}");
        }
        for text in [
            "1.7976931348623157e308",
            "4.9406564584124654e-324",
            "5e-324",
        ] {
            assert!(plain(text).is_ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn order_is_that_of_the_values(a in -2000_i64..2000, b in -2000_i64..2000, pads in 0_usize..3) {
            // Thousandths, so that both sides of the point take part.
            let write = |n: i64, pad: usize| {
                let sign = if n < 0 { "-" } else { "" };
                format!("{sign}{}.{:03}{}", n.abs() / 1000, n.abs() % 1000, "0".repeat(pad))
            };
            prop_assert_eq!(compare(&write(a, pads), &write(b, 0)), a.cmp(&b));
            prop_assert_eq!(compare(&write(a, 0), &write(a, pads)), Ordering::Equal);
        }

        #[test]
        fn plain_keeps_the_value(whole in 0_u32..100_000, fraction in 0_u32..1000, power in -6_i32..7) {
            let text = format!("{whole}.{fraction:03}e{power}");
            let written = plain(&text).unwrap();
            prop_assert!(!written.contains(['e', 'E']));
            // Exact in integers: value × 10⁹.
            let scaled = (u128::from(whole) * 1000 + u128::from(fraction))
                * 10_u128.pow(u32::try_from(power + 6).unwrap());
            let (before, after) = written.split_once('.').unwrap_or((&written, ""));
            let read: u128 = format!("{before}{after:0<9}").parse().unwrap();
            prop_assert_eq!(read, scaled);
            prop_assert_eq!(plain(&written).unwrap(), written.clone());
        }
    }
}
