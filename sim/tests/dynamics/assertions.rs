//! Client assertions: verified by the registered key, in all their claims.

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::TestOrg;
use crate::signin::{CLIENT, ID, refused};

/// A key pair made for this test, and the assertion it signs.
struct Signer {
    key: jsonwebtoken::EncodingKey,
    public: String,
}

impl Signer {
    fn new() -> Self {
        use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
        use aws_lc_rs::rsa::{KeyPair, KeySize};
        use aws_lc_rs::signature::KeyPair as _;
        use base64::engine::general_purpose::STANDARD;
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let pem = |label: &str, der: &[u8]| {
            let body = STANDARD.encode(der);
            let lines: Vec<_> = body
                .as_bytes()
                .chunks(64)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            format!(
                "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
                lines.join("\n")
            )
        };
        let key = jsonwebtoken::EncodingKey::from_rsa_pem(
            pem("PRIVATE KEY", private.as_ref()).as_bytes(),
        )
        .unwrap();
        Self {
            key,
            public: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(
            &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::PS256),
            claims,
            &self.key,
        )
        .unwrap()
    }
}

#[tokio::test]
async fn an_assertion_is_verified_by_the_registered_key() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client.pem");
    std::fs::write(&file, &signer.public).unwrap();
    let org = TestOrg::with(|options| options.client_certificate = Some(file)).await;
    let audience = format!("{}/oauth2/v2.0/token", org.tenant());
    let now = chrono::Utc::now().timestamp();
    let claims = json!({"aud": audience, "iss": CLIENT, "sub": CLIENT, "jti": "1", "nbf": now, "exp": now + 600});
    let scope = format!("{}/.default", org.running.url);
    let send = async |assertion: String| {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let form = [
            ("grant_type", "client_credentials"),
            ID,
            ("scope", &scope),
            ("client_assertion_type", kind),
            ("client_assertion", &assertion),
        ];
        org.token(&form).await
    };
    send(signer.sign(&claims)).await.expect(200);
    refused(
        &send(stranger.sign(&claims)).await,
        401,
        "invalid_client",
        700_027,
    );
    for (member, wrong) in [
        ("aud", json!("https://other")),
        ("iss", json!("x")),
        ("sub", json!("x")),
        ("exp", json!(now - 900)),
        ("jti", json!(null)),
    ] {
        let mut changed = claims.clone();
        changed[member] = wrong;
        refused(
            &send(signer.sign(&changed)).await,
            401,
            "invalid_client",
            700_027,
        );
    }
}
