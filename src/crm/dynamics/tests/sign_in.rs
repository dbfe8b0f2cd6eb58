//! Sign-in: where, with what, one at a time, and what its refusals mean.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;

use crate::http::tests::server::Reply;
use crate::secret::Secret;

use super::super::settings::Proof;
use super::org::{ORG, Org, USER, page, refused};
use super::*;

async fn org() -> Org {
    Org::start(|seen| async move { page(&seen, &[], None, None) }).await
}

#[tokio::test]
async fn says_which_org_it_is() {
    let org = org().await;
    let identity = org.connector().identify().await.unwrap();
    assert_eq!(identity.org_id, ORG);
    assert_eq!(identity.user_id, USER);
    assert_eq!(identity.instance_url, org.server.url);
    let forms = org.inner.forms.lock().unwrap().clone();
    assert_eq!(forms[0]["grant_type"], "client_credentials");
    assert_eq!(forms[0]["client_id"], "app-1");
    assert_eq!(forms[0]["client_secret"], "sesame");
    assert_eq!(forms[0]["scope"], format!("{}/.default", org.server.url));
}

#[tokio::test]
async fn says_at_which_address_its_user_is_told_of_failures() {
    for (email, expected) in [
        (
            serde_json::json!("ann@acme.example"),
            Some("ann@acme.example"),
        ),
        (serde_json::Value::Null, None),
    ] {
        let org = Org::start(move |seen| {
            let email = email.clone();
            async move {
                assert_eq!(seen.query["$select"], "internalemailaddress");
                assert!(seen.path.ends_with(&format!("/systemusers({USER})")));
                Reply::json(&serde_json::json!({
                    "@odata.context": "x", "systemuserid": USER, "internalemailaddress": email
                }))
            }
        })
        .await;
        let told = org.connector().user_email().await.unwrap();
        assert_eq!(told.as_deref(), expected);
    }
}

#[tokio::test]
async fn many_callers_share_one_sign_in_and_one_renewal() {
    let org = org().await;
    let crm = org.connector();
    for expected in [1, 2] {
        for identity in join_all((0..20).map(|_| crm.identify())).await {
            identity.unwrap();
        }
        assert_eq!(org.sign_ins(), expected);
        org.inner.end_sessions();
    }
}

#[tokio::test]
async fn refusals_name_the_remedy_and_never_the_secret() {
    for (status, error, codes, kind, word) in [
        (
            401,
            "invalid_client",
            7_000_222,
            FaultKind::Credentials,
            "expired",
        ),
        (
            400,
            "unauthorized_client",
            700_016,
            FaultKind::Credentials,
            "tenant",
        ),
        (400, "invalid_resource", 500_011, FaultKind::Config, "`org`"),
        (
            400,
            "temporarily_unavailable",
            90006,
            FaultKind::Unavailable,
            "",
        ),
    ] {
        let org = org().await;
        let body = serde_json::json!({
            "error": error, "error_codes": [codes], "trace_id": "trace-7", "correlation_id": "c-9",
            "error_description": format!("AADSTS{codes}: no.\r\nTrace ID: x")
        });
        let refusal = Reply::new(status, body.to_string());
        org.inner.refusals.lock().unwrap().push(refusal);
        let fault = org.connector().identify().await.unwrap_err();
        let report = fault.report();
        assert_eq!(fault.kind(), kind, "{report}");
        assert!(
            report.contains(word) && report.contains("trace-7"),
            "{report}"
        );
        assert!(
            report.contains("contoso") && !report.contains("sesame"),
            "{report}"
        );
    }
}

#[tokio::test]
async fn a_secret_goes_to_no_unknown_host() {
    let org = org().await;
    let crm = org.with(|settings| settings.authority_url = None);
    // The challenge names Microsoft's host, which is not reached here; nothing else was asked.
    let fault = crm.identify().await.unwrap_err();
    assert_ne!(fault.kind(), FaultKind::Protocol, "{}", fault.report());
    assert_eq!(org.sign_ins(), 0);
}

/// A certificate, of which only the bytes matter, and the private key beside it.
fn certificate() -> String {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let key: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let block = |label: &str, bytes: &[u8]| {
        let text = STANDARD.encode(bytes);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
    };
    block("CERTIFICATE", b"a certificate") + &block("PRIVATE KEY", key.as_ref())
}

#[tokio::test]
async fn a_certificate_signs_in_place_of_a_secret() {
    let org = org().await;
    let pem = certificate();
    let crm = org.with(|settings| {
        settings.proof = Proof::Certificate(Arc::new(move || Ok(Secret::new(pem.clone()))));
    });
    crm.identify().await.unwrap();
    let forms = org.inner.forms.lock().unwrap().clone();
    assert!(!forms[0].contains_key("client_secret"));
    assert!(forms[0]["client_assertion_type"].ends_with("jwt-bearer"));
    let parts: Vec<&str> = forms[0]["client_assertion"].split('.').collect();
    let json = |part: &str| -> serde_json::Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let (header, claims) = (json(parts[0]), json(parts[1]));
    assert_eq!(header["alg"], "RS256");
    assert_eq!(header["x5t#S256"].as_str().unwrap().len(), 43);
    assert_eq!(
        (&claims["iss"], &claims["sub"]),
        (&"app-1".into(), &"app-1".into())
    );
    assert!(
        claims["aud"]
            .as_str()
            .unwrap()
            .ends_with("/oauth2/v2.0/token")
    );
    assert!(claims["exp"].as_i64().unwrap() > claims["nbf"].as_i64().unwrap());
}

#[tokio::test]
async fn a_file_that_holds_no_key_is_refused_without_showing_it() {
    let org = org().await;
    for pem in [
        "hunter2",
        "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\nhunter2",
    ] {
        let crm = org.with(|settings| {
            settings.proof = Proof::Certificate(Arc::new(move || Ok(Secret::new(pem))));
        });
        let fault = crm.identify().await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Credentials);
        assert!(!format!("{fault:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn an_app_without_a_user_in_the_org_is_told_what_to_make() {
    let org = Org::start(|_| async {
        refused(
            403,
            "0x80072560",
            "The user is not a member of the organization.",
        )
    })
    .await;
    let crm = org.connector();
    let mut pages = crm
        .read_all(&selection("account", &["name"]), None)
        .await
        .unwrap();
    let fault = pages.next().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Permission);
    assert!(
        fault.report().contains("application user"),
        "{}",
        fault.report()
    );
}
