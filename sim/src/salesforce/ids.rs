//! Record ids: 15 case-sensitive characters, and three more that survive a case-blind reader.

const CHECKSUM: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// The 18-character form of an id, or `None` if the text is no id or its checksum is wrong.
pub(crate) fn normalise(id: &str) -> Option<String> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    match id.len() {
        15 => Some(with_checksum(id)),
        18 => {
            let full = with_checksum(id.get(..15)?);
            full.eq_ignore_ascii_case(id).then_some(full)
        }
        _ => None,
    }
}

/// Whether the text has an id's form: 15 characters, or 18 with a valid checksum.
pub(crate) fn is_id(id: &str) -> bool {
    normalise(id).is_some()
}

/// An id's 15 characters with their checksum (bit k of a group of five is set where its letter is upper-case).
pub(crate) fn with_checksum(id: &str) -> String {
    let mut full = id.to_owned();
    for group in id.as_bytes().chunks(5) {
        let index = group
            .iter()
            .enumerate()
            .filter(|(_, byte)| byte.is_ascii_uppercase())
            .fold(0_usize, |bits, (place, _)| bits | 1 << place);
        full.push(CHECKSUM.get(index).map_or('A', |byte| char::from(*byte)));
    }
    full
}

/// The `serial`-th id of an object, in 18 characters.
pub(crate) fn nth(prefix: &str, serial: u64) -> String {
    const DIGITS: &[u8] = super::random::BASE62;
    let mut rest = serial;
    let mut tail = [b'0'; 9];
    for place in tail.iter_mut().rev() {
        let digit = usize::try_from(rest % 62).unwrap_or_default();
        *place = DIGITS.get(digit).copied().unwrap_or(b'0');
        rest /= 62;
    }
    with_checksum(&format!("{prefix}SIM{}", String::from_utf8_lossy(&tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_salesforces() {
        assert_eq!(with_checksum("000000000000000"), "000000000000000AAA");
        assert_eq!(with_checksum("001ABCDEfghijKL"), "001ABCDEfghijKLYHY");
        assert_eq!(
            normalise("001ABCDEfghijKL").as_deref(),
            Some("001ABCDEfghijKLYHY")
        );
    }

    #[test]
    fn an_id_is_15_characters_or_18_with_their_checksum() {
        let id = nth("a00", 12_345);
        assert_eq!(normalise(&id), Some(id.clone()));
        assert_eq!(normalise(&id[..15]), Some(id.clone()));
        assert_eq!(normalise(&id[..16]), None);
        let wrong = if id.ends_with('A') { "B" } else { "A" };
        assert_eq!(normalise(&format!("{}{wrong}", &id[..17])), None);
        assert_eq!(normalise("001*"), None);
        assert_eq!(normalise(""), None);
    }

    #[test]
    fn serials_give_ordered_ids() {
        assert!(nth("001", 61) < nth("001", 62));
        assert!(nth("001", 9) < nth("001", 10));
    }
}
