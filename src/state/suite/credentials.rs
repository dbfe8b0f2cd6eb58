//! What the port of credentials promises.

use crate::model::name::ConnectionId;
use crate::state::credentials::{Credential, Credentials, PinnedOrg};
use crate::state::seal::Sealed;

fn sealed(text: &str) -> Option<Sealed> {
    Some(Sealed {
        key_id: "k1".to_owned(),
        bytes: text.as_bytes().to_vec(),
    })
}

fn org(id: &str) -> PinnedOrg {
    PinnedOrg {
        id: id.to_owned(),
        url: format!("https://{id}.example"),
    }
}

/// An org is pinned once; a credential is replaced by who saw the newest one.
pub(super) async fn conforms(one: &dyn Credentials, other: &dyn Credentials) {
    let (acme, beta) = (&ConnectionId::new("acme"), &ConnectionId::new("beta"));
    assert_eq!(one.org(acme).await.unwrap(), None);
    assert_eq!(one.pin_org(acme, &org("00D1")).await.unwrap(), org("00D1"));
    assert_eq!(
        other.pin_org(acme, &org("00D2")).await.unwrap(),
        org("00D1")
    );
    assert_eq!(other.org(acme).await.unwrap(), Some(org("00D1")));
    assert_eq!(one.org(beta).await.unwrap(), None);

    assert_eq!(one.credential(acme).await.unwrap(), Credential::default());
    assert!(!one.replace(acme, 3, sealed("lost")).await.unwrap());
    assert!(one.replace(acme, 0, sealed("first")).await.unwrap());
    // Made again as its reply was lost.
    assert!(one.replace(acme, 0, sealed("first")).await.unwrap());
    assert!(!other.replace(acme, 0, sealed("late")).await.unwrap());
    let (won, lost) = tokio::join!(
        one.replace(acme, 1, sealed("mine")),
        other.replace(acme, 1, sealed("theirs"))
    );
    assert!(won.unwrap() ^ lost.unwrap(), "two replaced one");
    let stored = other.credential(acme).await.unwrap();
    assert_eq!(stored.revision, 2);
    assert!(other.replace(acme, 2, None).await.unwrap());
    let removed = Credential {
        revision: 3,
        sealed: None,
    };
    assert_eq!(one.credential(acme).await.unwrap(), removed);
    assert!(one.replace(acme, 3, sealed("again")).await.unwrap());
    assert_eq!(one.credential(beta).await.unwrap(), Credential::default());
}

/// What [`conforms`] leaves is there when the store is opened again.
pub(super) async fn has_kept(credentials: &dyn Credentials) {
    let acme = &ConnectionId::new("acme");
    assert_eq!(credentials.org(acme).await.unwrap(), Some(org("00D1")));
    let stored = credentials.credential(acme).await.unwrap();
    assert_eq!(
        stored,
        Credential {
            revision: 4,
            sealed: sealed("again")
        }
    );
}
