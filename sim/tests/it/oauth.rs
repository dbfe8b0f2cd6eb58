//! Tokens, revocation and identity.

use reqwest::StatusCode;
use serde_json::Value;

use crate::org::TestOrg;

async fn token(
    org: &TestOrg,
    form: &[(&str, &str)],
    basic: Option<(&str, &str)>,
) -> (StatusCode, Value) {
    let mut request = org
        .client
        .post(format!("{}/services/oauth2/token", org.running.url))
        .form(form);
    if let Some((id, secret)) = basic {
        request = request.basic_auth(id, Some(secret));
    }
    let answer = org.send(request).await;
    (answer.status, answer.body)
}

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

#[tokio::test]
async fn client_credentials_come_in_the_body_or_by_basic() {
    let org = TestOrg::start().await;
    let id = ("client_id", "simulated-client");
    let secret = ("client_secret", "simulated-secret");
    let in_body = token(&org, &[GRANT, id, secret], None).await;
    let by_basic = token(&org, &[GRANT], Some((id.1, secret.1))).await;
    for (status, body) in [in_body, by_basic] {
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["token_type"], "Bearer");
        assert_eq!(body["instance_url"], *org.running.url);
        let issued_at = body["issued_at"].as_str().unwrap();
        assert_eq!(issued_at.len(), 13);
        let parts: Vec<_> = body["id"].as_str().unwrap().rsplit('/').collect();
        assert_eq!(
            parts[0],
            crate::org::ANN,
            "the first active user runs the flow"
        );
        assert_eq!(parts[1], org.running.org.profile.org_id);
        assert!(
            body["access_token"]
                .as_str()
                .unwrap()
                .starts_with(&parts[1][..15])
        );
        assert_eq!(body["signature"].as_str().unwrap().len(), 44);
        assert!(body.get("refresh_token").is_none());

        let request = org
            .client
            .get(format!("{}/services/data/v66.0/limits", org.running.url))
            .bearer_auth(body["access_token"].as_str().unwrap());
        assert_eq!(org.send(request).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn wrong_credentials_are_refused_as_an_object() {
    let org = TestOrg::start().await;
    let id = ("client_id", "simulated-client");
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[GRANT, id, ("client_secret", "no")], "invalid_client"),
        (
            &[GRANT, ("client_id", "no"), ("client_secret", "no")],
            "invalid_client_id",
        ),
        (&[("grant_type", "password"), id], "unsupported_grant_type"),
        (&[id], "invalid_request"),
        (&[GRANT], "invalid_client_id"),
    ];
    for (form, error) in cases {
        let (status, body) = token(&org, form, None).await;
        assert_eq!(
            (status, &body["error"]),
            (StatusCode::BAD_REQUEST, &Value::from(error))
        );
        assert!(body["error_description"].is_string());
    }
}

#[tokio::test]
async fn a_revoked_or_expired_token_is_dead_everywhere() {
    let org = TestOrg::start().await;
    let revoke = |token: &str| {
        org.client
            .post(format!("{}/services/oauth2/revoke", org.running.url))
            .form(&[("token", token)])
    };
    assert_eq!(org.get("limits").await.status, StatusCode::OK);
    assert_eq!(org.send(revoke(&org.token)).await.status, StatusCode::OK);
    let dead = org.get("limits").await;
    assert_eq!(
        (dead.status, dead.code()),
        (StatusCode::UNAUTHORIZED, "INVALID_SESSION_ID")
    );
    assert_eq!(dead.message(), "Session expired or invalid");
    let again = org.send(revoke(&org.token)).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    assert_eq!(again.body["error"], "invalid_token");
    let text = org
        .request(reqwest::Method::GET, "/services/oauth2/userinfo")
        .send()
        .await
        .unwrap();
    assert_eq!(text.status(), StatusCode::FORBIDDEN);
    assert_eq!(text.text().await.unwrap(), "Bad_OAuth_Token");
}

#[tokio::test]
async fn identity_tells_org_and_user() {
    let org = TestOrg::start().await;
    let profile = &org.running.org.profile;
    let info = org.get("/services/oauth2/userinfo").await;
    assert_eq!(info.body["organization_id"], *profile.org_id);
    assert_eq!(info.body["user_id"], *profile.run_as.id);
    let path = format!("/id/{}/{}", profile.org_id, profile.run_as.id);
    assert_eq!(org.get(&path).await.body["username"], "ann@acme.example");
    let wrong = format!("/id/00D000000000000AAA/{}", profile.run_as.id);
    assert_eq!(org.get(&wrong).await.status, StatusCode::FORBIDDEN);
    let missing = org
        .client
        .get(format!("{}{path}", org.running.url))
        .send()
        .await
        .unwrap();
    assert_eq!(missing.text().await.unwrap(), "Missing_OAuth_Token");
}
