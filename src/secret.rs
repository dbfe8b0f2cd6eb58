//! Secrets that can't be printed: a value that shows only when it is asked for by name.

use std::fmt;

/// A secret text. `Debug` and `Display` print `***`; the value is overwritten by nothing and logged nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value read from the environment or a file.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one call that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares with `given` in constant time.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), given.as_bytes())
            .is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert!(secret.matches("hunter2"));
        assert!(!secret.matches("hunter3"));
    }
}
