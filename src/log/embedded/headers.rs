//! A record's headers as one blob: per header the name and the value, each after its length (`u32`, little-endian).

use crate::fault::{Fault, FaultKind};

/// The blob; none for no headers.
pub fn encode(headers: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut blob = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            // An entry's size is checked before: no part comes near four gigabytes.
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            blob.extend_from_slice(&length.to_le_bytes());
            blob.extend_from_slice(part);
        }
    }
    Some(blob)
}

/// The headers of a blob.
///
/// # Errors
/// `Corrupt` if the blob was not made by [`encode`].
pub fn decode(blob: Option<&[u8]>) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let mut rest = blob.unwrap_or_default();
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let name = part(&mut rest).ok_or_else(torn)?;
        let value = part(&mut rest).ok_or_else(torn)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| torn())?;
        headers.push((name, value.to_vec()));
    }
    Ok(headers)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

fn torn() -> Fault {
    Fault::new(
        FaultKind::Corrupt,
        "the headers of a stored record are torn",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_torn_ones_are_told() {
        let headers = vec![
            ("ce_id".to_owned(), b"Account/001/7".to_vec()),
            (String::new(), vec![]),
            ("bytes".to_owned(), vec![0, 255]),
        ];
        let blob = encode(&headers).unwrap();
        assert_eq!(decode(Some(&blob)).unwrap(), headers);
        assert_eq!(decode(None).unwrap(), vec![]);
        assert_eq!(encode(&[]), None);
        for cut in 1..4 {
            let torn = decode(Some(&blob[..blob.len() - cut])).unwrap_err();
            assert_eq!(torn.kind(), FaultKind::Corrupt);
        }
    }
}
