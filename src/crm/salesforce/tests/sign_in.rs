//! Sign-in: one at a time, once more after a dead session, and what its refusals mean.

use futures_util::future::join_all;

use crate::http::tests::server::Reply;

use super::org::{Org, account, below};
use super::*;

async fn org() -> Org {
    Org::start(|seen| async move {
        match below(&seen) {
            "/" => Reply::new(200, "{}"),
            _ => account(),
        }
    })
    .await
}

fn refused(error: &str, description: &str) -> Reply {
    let json = serde_json::json!({"error": error, "error_description": description});
    Reply::new(400, json.to_string())
}

#[tokio::test]
async fn says_which_org_it_is() {
    let org = org().await;
    let identity = org.connector().identify().await.unwrap();
    assert_eq!(identity.org_id, ORG);
    assert_eq!(identity.user_id, USER);
    assert_eq!(identity.instance_url, org.server.url);
}

#[tokio::test]
async fn many_callers_share_one_sign_in() {
    let org = org().await;
    let crm = org.connector();
    let objects: Vec<ObjectName> = (0..20).map(|n| ObjectName::new(format!("O{n}"))).collect();
    for described in join_all(objects.iter().map(|object| crm.describe(object))).await {
        described.unwrap();
    }
    assert_eq!(org.sign_ins(), 1);

    org.inner.end_sessions();
    let objects: Vec<ObjectName> = (0..20).map(|n| ObjectName::new(format!("P{n}"))).collect();
    for described in join_all(objects.iter().map(|object| crm.describe(object))).await {
        described.unwrap();
    }
    assert_eq!(
        org.sign_ins(),
        2,
        "one new token for all who met the dead one"
    );
}

#[tokio::test]
async fn a_dead_session_is_renewed_once_and_the_call_repeated() {
    let org = org().await;
    let crm = org.connector();
    crm.identify().await.unwrap();
    org.inner.end_sessions();
    crm.describe(&"Account".into()).await.unwrap();
    assert_eq!(org.sign_ins(), 2);
    assert_eq!(org.server.count("/Account/describe/"), 2);
}

#[tokio::test]
async fn a_token_that_is_never_taken_ends_in_a_fault() {
    let org = org().await;
    org.inner
        .kills
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let fault = org.connector().identify().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Credentials);
    assert!(fault.report().contains("INVALID_SESSION_ID"));
    assert_eq!(org.sign_ins(), 2);
}

#[tokio::test]
async fn those_who_waited_for_a_refused_sign_in_share_its_refusal() {
    let org = org().await;
    let crm = org.connector();
    for _ in 0..20 {
        let refusal = refused("invalid_client", "invalid client credentials");
        org.inner.refusals.lock().unwrap().push(refusal);
    }
    let objects: Vec<ObjectName> = (0..20).map(|n| ObjectName::new(format!("O{n}"))).collect();
    for described in join_all(objects.iter().map(|object| crm.describe(object))).await {
        let fault = described.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Credentials);
        assert!(fault.remedy_text().unwrap().contains("wait"), "{fault}");
        assert!(!fault.report().contains("sesame"));
    }
    assert_eq!(org.sign_ins(), 1);
    // Who comes later tries for himself.
    crm.describe(&"Account".into()).await.unwrap_err();
    assert_eq!(org.sign_ins(), 2);
}

#[tokio::test]
async fn passing_faults_pass() {
    let html = |status| Reply::new(status, "<html>down for maintenance</html>");
    for (reply, kind) in [
        (html(503), FaultKind::Unavailable),
        (html(502), FaultKind::Unavailable),
        (html(429).with("retry-after", "7"), FaultKind::Throttled),
        (
            Reply::new(200, r#"{"access_token":"00D!secret"#).cut(),
            FaultKind::Unavailable,
        ),
        (
            Reply::new(200, r#"{"access_token":"00D!secret"}"#),
            FaultKind::Protocol,
        ),
        (
            Reply::new(503, r#"{"error":"invalid_grant","error_description":"x"}"#),
            FaultKind::Unavailable,
        ),
    ] {
        let org = org().await;
        org.inner.refusals.lock().unwrap().push(reply.clone());
        let crm = org.connector();
        let fault = crm.identify().await.unwrap_err();
        assert_eq!(fault.kind(), kind, "{reply:?}");
        assert!(!fault.report().contains("00D!secret"), "{}", fault.report());
        assert!(!fault.report().contains("sesame"));
        crm.identify().await.unwrap();
    }
}

#[tokio::test]
async fn refusals_name_their_remedy() {
    for (error, description, kind, word) in [
        (
            "invalid_grant",
            "request not supported on this domain",
            FaultKind::Config,
            "https://<domain>.my.salesforce.com",
        ),
        (
            "invalid_grant",
            "no client credentials user enabled",
            FaultKind::Credentials,
            "Run-As user",
        ),
    ] {
        let org = org().await;
        org.inner
            .refusals
            .lock()
            .unwrap()
            .push(refused(error, description));
        let fault = org.connector().identify().await.unwrap_err();
        assert_eq!(fault.kind(), kind);
        assert!(fault.report().contains(word), "{}", fault.report());
        assert!(fault.report().contains(description));
    }
}

#[tokio::test]
async fn a_page_where_tokens_should_be_doubts_the_address() {
    let org = org().await;
    org.inner
        .refusals
        .lock()
        .unwrap()
        .push(Reply::new(404, "<html>no such page</html>"));
    let fault = org.connector().identify().await.unwrap_err();
    assert!(fault.report().contains("login_url"), "{}", fault.report());
}

#[tokio::test]
async fn an_instance_that_is_set_wins() {
    let org = org().await;
    let other = Org::start(|_| async { account() }).await;
    let crm = org.with(|settings| settings.instance_url = Some(format!("{}/", other.server.url)));
    // The other instance does not know the token: the call went there.
    crm.describe(&"Account".into()).await.unwrap_err();
    assert!(other.server.count("/Account/describe/") > 0);
    assert_eq!(org.server.count("/Account/describe/"), 0);
}

#[tokio::test]
async fn a_token_is_not_sent_to_a_plain_text_instance() {
    let reply = Reply::json(&serde_json::json!({
        "access_token": "00D!secret", "instance_url": "ftp://elsewhere.example",
        "id": format!("https://login.salesforce.com/id/{ORG}/{USER}")
    }));
    let org = org().await;
    org.inner.refusals.lock().unwrap().push(reply);
    let fault = org.connector().identify().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Config);
    assert!(fault.report().contains("ftp://elsewhere.example"));
}

#[tokio::test]
async fn the_secret_is_read_at_each_sign_in() {
    let org = org().await;
    let reads = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let crm = org.with(|settings| {
        settings.auth = Auth::ClientCredentials(Arc::new(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(crate::secret::Secret::new("sesame"))
        }));
    });
    crm.identify().await.unwrap();
    org.inner.end_sessions();
    crm.identify().await.unwrap();
    assert_eq!(reads.load(std::sync::atomic::Ordering::SeqCst), 2);
}
