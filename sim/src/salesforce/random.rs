//! Seeded randomness: the same seed gives the same ids, strides and tokens (SplitMix64).

/// A generator of repeatable numbers; nothing secret comes from it.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for one purpose of an org, independent of those for others.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut random = Self(seed ^ 0x9E37_79B9_7F4A_7C15);
        for byte in purpose.bytes() {
            random.0 = random.next() ^ u64::from(byte);
        }
        random
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let width = high.saturating_sub(low).saturating_add(1).max(1);
        low + self.next() % width
    }

    /// `length` characters of `alphabet`.
    pub fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length)
            .map(|_| {
                let index = self.next() % alphabet.len().max(1) as u64;
                usize::try_from(index)
                    .ok()
                    .and_then(|index| alphabet.get(index))
                    .map_or('0', |byte| char::from(*byte))
            })
            .collect()
    }

    /// A UUID-shaped text, as transaction keys are.
    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xFFFF,
            high & 0xFFFF,
            low >> 48,
            low & 0xFFFF_FFFF_FFFF
        )
    }
}

/// Digits and letters, the alphabet of record ids.
pub(crate) const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut a, mut b) = (Random::new(7, "x"), Random::new(7, "x"));
        assert_eq!(a.uuid(), b.uuid());
        assert_ne!(Random::new(7, "x").next(), Random::new(7, "y").next());
        assert_ne!(Random::new(7, "x").next(), Random::new(8, "x").next());
        assert!((0..100).all(|_| (3..=5).contains(&a.between(3, 5))));
    }
}
