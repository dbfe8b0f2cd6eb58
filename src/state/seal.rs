//! Secrets at rest: AES-256-GCM under an operator's key, bound to whom they belong to.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::fault::{Fault, FaultKind};
use crate::model::name::ConnectionId;
use crate::secret::Secret;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// A secret as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key opens it.
    pub key_id: String,
    /// Nonce, ciphertext, tag.
    pub bytes: Vec<u8>,
}

/// The keys: the newest one seals, each opens what it sealed.
pub struct Keyring {
    keys: Vec<Key>,
}

struct Key {
    id: String,
    key: RandomizedNonceKey,
}

impl Keyring {
    /// Each key is 32 random bytes in base64.
    ///
    /// # Errors
    /// `Credentials` for another text; what it is is not shown.
    pub fn new(current: &Secret, old: &[Secret]) -> Result<Self, Fault> {
        let keys = std::iter::once(current)
            .chain(old)
            .map(Key::new)
            .collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    /// Seals a secret of a connection.
    ///
    /// # Errors
    /// `Corrupt` if the machine's randomness fails.
    pub fn seal(&self, connection: &ConnectionId, secret: &Secret) -> Result<Sealed, Fault> {
        let failed = || Fault::new(FaultKind::Corrupt, "sealing a secret failed");
        let newest = self.keys.first().ok_or_else(failed)?;
        let mut text = secret.expose().as_bytes().to_vec();
        let nonce = newest
            .key
            .seal_in_place_append_tag(bound_to(connection), &mut text)
            .map_err(|_| failed())?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut text);
        Ok(Sealed {
            key_id: newest.id.clone(),
            bytes,
        })
    }

    /// Opens what was sealed for the same connection.
    ///
    /// # Errors
    /// `Credentials` if its key is not here, `Corrupt` if it was changed or belongs to another connection.
    pub fn open(&self, connection: &ConnectionId, sealed: &Sealed) -> Result<Secret, Fault> {
        let key = self.keys.iter().find(|key| key.id == sealed.key_id).ok_or_else(|| {
            let what = format!(
                "the stored authorisation of connection {connection} is sealed with key {}, which the config does not name",
                sealed.key_id
            );
            Fault::new(FaultKind::Credentials, what).remedy(format!(
                "add that key to `[state] old_keys`, or authorise again: `tributary auth {connection}`"
            ))
        })?;
        let corrupt = || {
            let what = format!(
                "the stored authorisation of connection {connection} was changed, or is another's"
            );
            Fault::new(FaultKind::Corrupt, what)
                .remedy(format!("authorise again: `tributary auth {connection}`"))
        };
        let (nonce, text) = sealed
            .bytes
            .split_at_checked(NONCE_BYTES)
            .ok_or_else(corrupt)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| corrupt())?;
        let mut text = text.to_vec();
        let opened = key
            .key
            .open_in_place(nonce, bound_to(connection), &mut text)
            .map_err(|_| corrupt())?;
        let opened = std::str::from_utf8(opened).map_err(|_| corrupt())?;
        Ok(Secret::new(opened))
    }

    /// Whether the newest key sealed it.
    #[must_use]
    pub fn is_newest(&self, sealed: &Sealed) -> bool {
        self.keys.first().is_some_and(|key| key.id == sealed.key_id)
    }
}

fn bound_to(connection: &ConnectionId) -> Aad<Vec<u8>> {
    Aad::from(format!("tributary/credential/1/{connection}").into_bytes())
}

impl Key {
    fn new(text: &Secret) -> Result<Self, Fault> {
        let refused = || {
            Fault::new(
                FaultKind::Credentials,
                "a key of `[state]` is not 32 bytes in base64",
            )
            .remedy("make one with `openssl rand -base64 32`")
        };
        let bytes = STANDARD
            .decode(text.expose().trim())
            .map_err(|_| refused())?;
        if bytes.len() != KEY_BYTES {
            return Err(refused());
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| refused())?;
        let mut named = b"tributary key id ".to_vec();
        named.extend_from_slice(&bytes);
        let digest = digest::digest(&digest::SHA256, &named);
        let id = digest
            .as_ref()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { id, key })
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_tuple("Keyring").field(&ids).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Secret {
        Secret::new(STANDARD.encode([byte; 32]))
    }

    fn ring(current: u8, old: &[u8]) -> Keyring {
        let old: Vec<Secret> = old.iter().copied().map(key).collect();
        Keyring::new(&key(current), &old).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_for_its_connection_only_and_only_unchanged() {
        let (ring, acme) = (ring(1, &[]), ConnectionId::new("acme"));
        let sealed = ring.seal(&acme, &Secret::new("5Aep8")).unwrap();
        assert_eq!(ring.open(&acme, &sealed).unwrap().expose(), "5Aep8");
        assert!(!sealed.bytes.windows(5).any(|part| part == b"5Aep8"));
        let other = ring.open(&ConnectionId::new("beta"), &sealed).unwrap_err();
        assert_eq!(other.kind(), FaultKind::Corrupt);
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(ring.open(&acme, &changed).is_err(), "{at}");
            changed.bytes.truncate(at);
            assert!(ring.open(&acme, &changed).is_err(), "{at}");
        }
        let again = ring.seal(&acme, &Secret::new("5Aep8")).unwrap();
        assert_ne!(again.bytes, sealed.bytes, "a nonce came twice");
    }

    #[test]
    fn an_old_key_opens_and_the_newest_seals() {
        let acme = ConnectionId::new("acme");
        let sealed = ring(1, &[]).seal(&acme, &Secret::new("5Aep8")).unwrap();
        let rotated = ring(2, &[1]);
        assert_eq!(rotated.open(&acme, &sealed).unwrap().expose(), "5Aep8");
        assert!(!rotated.is_newest(&sealed));
        let fresh = rotated.seal(&acme, &Secret::new("5Aep8")).unwrap();
        assert!(rotated.is_newest(&fresh) && fresh.key_id != sealed.key_id);
        let fault = ring(2, &[]).open(&acme, &sealed).unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Credentials);
        assert!(fault.report().contains("old_keys"), "{}", fault.report());
    }

    #[test]
    fn a_key_is_32_bytes_and_never_shown() {
        for text in [
            "",
            "hunter2",
            "aHVudGVyMg==",
            &STANDARD.encode([1; 31]),
            &STANDARD.encode([1; 33]),
        ] {
            let fault = Keyring::new(&Secret::new(text), &[]).unwrap_err();
            assert_eq!(fault.kind(), FaultKind::Credentials);
            assert!(
                text.is_empty() || !fault.report().contains(text),
                "{}",
                fault.report()
            );
        }
        let shown = format!("{:?}", ring(1, &[2]));
        assert!(
            !shown.contains(key(1).expose()) && !shown.contains("[1, 1"),
            "{shown}"
        );
    }
}
