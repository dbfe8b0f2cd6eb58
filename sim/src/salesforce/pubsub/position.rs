//! Replay ids as the event bus shows them: ten bytes that clients keep and never look into.

use super::super::random::Random;

const LENGTH: usize = 10;

/// How positions in the log are spelled.
#[derive(Debug)]
pub(super) struct Positions {
    /// Laid over the bytes, so that they are no number any more.
    mask: [u8; LENGTH],
}

impl Positions {
    /// The usual spelling: eight bytes of number, the highest first, and two of nothing. `opaque` hides the number.
    pub fn new(seed: u64, opaque: bool) -> Self {
        let mut mask = [0; LENGTH];
        if opaque {
            let mut random = Random::new(seed, "positions");
            for byte in &mut mask {
                *byte = u8::try_from(random.between(1, 255)).unwrap_or(1);
            }
        }
        Self { mask }
    }

    pub fn encode(&self, replay_id: u64) -> Vec<u8> {
        replay_id
            .to_be_bytes()
            .into_iter()
            .chain([0, 0])
            .zip(self.mask)
            .map(|(byte, mask)| byte ^ mask)
            .collect()
    }

    /// The position behind these bytes; `None` if this org never spelled one so.
    pub fn decode(&self, bytes: &[u8]) -> Option<u64> {
        let bytes: [u8; LENGTH] = bytes.try_into().ok()?;
        let mut plain = [0; LENGTH];
        for (plain, (byte, mask)) in plain.iter_mut().zip(bytes.into_iter().zip(self.mask)) {
            *plain = byte ^ mask;
        }
        let (number, rest) = plain.split_first_chunk::<8>()?;
        (rest == [0, 0]).then(|| u64::from_be_bytes(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_number_and_two_bytes_of_nothing() {
        let positions = Positions::new(1, false);
        let bytes = positions.encode(1_104_717);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0x10, 0xdb, 0x4d, 0, 0]);
        assert_eq!(positions.decode(&bytes), Some(1_104_717));
        assert_eq!(positions.decode(&bytes[..9]), None);
        assert_eq!(positions.decode(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 1]), None);
        assert_eq!(positions.decode(&[]), None);
    }

    #[test]
    fn opaque_positions_are_read_by_their_own_org_only() {
        let (own, other) = (Positions::new(1, true), Positions::new(2, true));
        let bytes = own.encode(1_104_717);
        assert!(bytes.iter().take(5).all(|byte| *byte != 0), "{bytes:?}");
        assert_eq!(own.decode(&bytes), Some(1_104_717));
        assert_eq!(other.decode(&bytes), None);
    }
}
