//! Exact decimal numbers, as Decimal and Money columns hold them.

use std::cmp::Ordering;
use std::fmt;

/// `units` divided by ten to the power of `scale`.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    units: i128,
    scale: u32,
}

/// Digits after the point that a column may have.
const FINEST: u32 = 12;

impl Decimal {
    /// Reads a JSON number, exponent and all; `None` if it is none or has too many digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, mantissa),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty()
            || !whole
                .bytes()
                .chain(part.bytes())
                .all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let joined: i128 = format!("{whole}{part}").parse().ok()?;
        let scale = i32::try_from(part.len()).ok()? - exponent;
        let (units, scale) = match u32::try_from(scale) {
            Ok(scale) => (joined, scale),
            Err(_) => (joined.checked_mul(pow(scale.unsigned_abs())?)?, 0),
        };
        let units = if negative { -units } else { units };
        Some(Self { units, scale })
    }

    /// Rounds half away from zero to so many digits after the point.
    #[must_use]
    pub fn rounded(self, scale: u32) -> Option<Self> {
        let scale = scale.min(FINEST);
        if self.scale <= scale {
            let units = self.units.checked_mul(pow(scale - self.scale)?)?;
            return Some(Self { units, scale });
        }
        let Some(by) = pow(self.scale - scale) else {
            return Some(Self { units: 0, scale });
        };
        let half = by / 2 * self.units.signum();
        Some(Self {
            units: self.units.checked_add(half)? / by,
            scale,
        })
    }

    /// With thousands parted by commas, as a formatted value shows it.
    #[must_use]
    pub fn grouped(self) -> String {
        let text = self.to_string();
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text.as_str()),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let mut shown = String::from(sign);
        for (place, digit) in whole.chars().enumerate() {
            if place > 0 && (whole.len() - place).is_multiple_of(3) {
                shown.push(',');
            }
            shown.push(digit);
        }
        if !part.is_empty() {
            shown.push('.');
            shown.push_str(part);
        }
        shown
    }
}

fn pow(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scale == 0 {
            return write!(f, "{}", self.units);
        }
        let width = self.scale as usize;
        let digits = format!("{:0>1$}", self.units.unsigned_abs(), width + 1);
        let (whole, part) = digits.split_at(digits.len() - width);
        let sign = if self.units < 0 { "-" } else { "" };
        write!(f, "{sign}{whole}.{part}")
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        let same = |one: &Self| pow(scale - one.scale).and_then(|by| one.units.checked_mul(by));
        match (same(self), same(other)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // Too large for one scale: the whole parts differ.
            _ => {
                let whole = |one: &Self| one.units / pow(one.scale).unwrap_or(i128::MAX);
                whole(self).cmp(&whole(other))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn digits_survive() {
        for text in ["0", "-12.30", "922337203685477.5807", "0.0000000001"] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read("1.5e3").to_string(), "1500");
        assert_eq!(read("15e-1").to_string(), "1.5");
        assert!(Decimal::parse("1,5").is_none() && Decimal::parse("").is_none());
    }

    #[test]
    fn a_column_rounds_and_compares() {
        assert_eq!(read("2.345").rounded(2).unwrap().to_string(), "2.35");
        assert_eq!(read("-2.345").rounded(2).unwrap().to_string(), "-2.35");
        assert_eq!(read("7").rounded(4).unwrap().to_string(), "7.0000");
        assert!(read("1.10") == read("1.1") && read("-1") < read("0.5"));
        assert_eq!(read("-1234567.50").grouped(), "-1,234,567.50");
    }
}
