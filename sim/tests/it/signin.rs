//! The sign-in flows of users: web server with PKCE, JWT bearer, password, refresh with and without rotation.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::StatusCode;
use reqwest::header::LOCATION;
use serde_json::{Value, json};

use crate::org::{ANN, TestOrg};

const APP: [(&str, &str); 2] = [
    ("client_id", "simulated-client"),
    ("client_secret", "simulated-secret"),
];
const BACK: &str = "http://localhost:1717/callback";

async fn ask(org: &TestOrg, form: &[(&str, &str)]) -> (StatusCode, Value) {
    let url = format!("{}/services/oauth2/token", org.running.url);
    let answer = org.send(org.client.post(url).form(form)).await;
    (answer.status, answer.body)
}

async fn app(org: &TestOrg, form: &[(&str, &str)]) -> (StatusCode, Value) {
    ask(org, &[&APP, form].concat()).await
}

async fn granted(org: &TestOrg, form: &[(&str, &str)]) -> Value {
    let (status, body) = app(org, form).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(alive(org, &body["access_token"]).await);
    assert!(body["id"].as_str().unwrap().ends_with(ANN));
    body
}

async fn denied(org: &TestOrg, form: &[(&str, &str)], error: &str, description: &str) {
    let (status, body) = app(org, form).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let told = (&body["error"], &body["error_description"]);
    assert_eq!(told, (&json!(error), &json!(description)));
}

async fn alive(org: &TestOrg, token: &Value) -> bool {
    let url = format!("{}/services/data/v66.0/limits", org.running.url);
    let request = org.client.get(url).bearer_auth(token.as_str().unwrap());
    org.send(request).await.status == StatusCode::OK
}

/// Where the browser is sent back to: the answer's pairs.
async fn authorized(org: &TestOrg, asked: &[(&str, &str)]) -> Vec<(String, String)> {
    let browser = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let url = format!("{}/services/oauth2/authorize", org.running.url);
    let answer = browser.get(url).query(asked).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    let to = answer.headers()[LOCATION].to_str().unwrap();
    assert!(to.starts_with(BACK), "{to}");
    let to = reqwest::Url::parse(to).unwrap();
    to.query_pairs()
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

fn first_step<'a>(challenge: &'a str, scope: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("response_type", "code"),
        ("client_id", APP[0].1),
        ("redirect_uri", BACK),
        ("scope", scope),
        ("state", "a b&c"),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

async fn code(org: &TestOrg, challenge: &str, scope: &str) -> String {
    let pairs = authorized(org, &first_step(challenge, scope)).await;
    assert_eq!(pairs[1], ("state".to_owned(), "a b&c".to_owned()));
    assert_eq!(pairs[0].0, "code");
    pairs[0].1.clone()
}

fn second_step<'a>(code: &'a str, verifier: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", BACK),
        ("code_verifier", verifier),
    ]
}

#[tokio::test]
async fn a_code_is_redeemed_once_by_who_knows_the_verifier() {
    let org = TestOrg::start().await;
    let verifier = "v".repeat(64);
    let challenge = challenge(&verifier);
    let text = code(&org, &challenge, "api refresh_token").await;
    let answer = granted(&org, &second_step(&text, &verifier)).await;
    assert_eq!(answer["scope"], "api refresh_token");
    assert!(
        answer["refresh_token"]
            .as_str()
            .unwrap()
            .starts_with("5Aep8")
    );
    let expired = "expired authorization code";
    denied(
        &org,
        &second_step(&text, &verifier),
        "invalid_grant",
        expired,
    )
    .await;

    let text = code(&org, &challenge, "api").await;
    let answer = granted(&org, &second_step(&text, &verifier)).await;
    assert!(answer.get("refresh_token").is_none());

    let text = code(&org, &challenge, "api").await;
    denied(
        &org,
        &second_step(&text, &"w".repeat(64)),
        "invalid_request",
        "invalid code verifier",
    )
    .await;
    let text = code(&org, &challenge, "api").await;
    denied(
        &org,
        &second_step(&text, "")[..3],
        "invalid_grant",
        "missing code verifier",
    )
    .await;
    let text = code(&org, &challenge, "api").await;
    let mut elsewhere = second_step(&text, &verifier);
    elsewhere[2].1 = "http://localhost/other";
    denied(
        &org,
        &elsewhere,
        "redirect_uri_mismatch",
        "redirect_uri must match configuration",
    )
    .await;

    let text = code(&org, &challenge, "api").await;
    org.running
        .org
        .clock
        .advance(std::time::Duration::from_secs(601));
    denied(
        &org,
        &second_step(&text, &verifier),
        "invalid_grant",
        expired,
    )
    .await;
}

#[tokio::test]
async fn a_refused_authorization_comes_back_without_a_code() {
    let org = TestOrg::with(|options| options.auto_approve = false).await;
    let challenge = challenge("v");
    let pairs = authorized(&org, &first_step(&challenge, "api")).await;
    let error = ("error".to_owned(), "access_denied".to_owned());
    assert_eq!(pairs[0], error);
    assert_eq!(pairs[1].1, "end-user denied authorization");
    let mut plain = first_step(&challenge, "api");
    plain[6].1 = "plain";
    assert_eq!(authorized(&org, &plain).await[0].1, "invalid_request");
    let mut token = first_step(&challenge, "api");
    token[0].1 = "token";
    assert_eq!(
        authorized(&org, &token).await[0].1,
        "unsupported_response_type"
    );
    for (place, value) in [(1, "other"), (2, "nowhere")] {
        let mut wrong = first_step(&challenge, "api");
        wrong[place].1 = value;
        let url = format!("{}/services/oauth2/authorize", org.running.url);
        let answer = org.client.get(url).query(&wrong).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn an_app_may_do_without_its_secret() {
    let org = TestOrg::with(|options| {
        options.secret_optional = true;
        options.redirect_uri = Some(BACK.to_owned());
    })
    .await;
    let verifier = "v".repeat(43);
    let text = code(&org, &challenge(&verifier), "api refresh_token").await;
    let form = [&APP[..1], &second_step(&text, &verifier)].concat();
    let (status, answer) = ask(&org, &form).await;
    assert_eq!(status, StatusCode::OK);
    let refresh = answer["refresh_token"].as_str().unwrap();
    let form = [
        APP[0],
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh),
    ];
    assert_eq!(ask(&org, &form).await.0, StatusCode::OK);
    let form = [APP[0], ("grant_type", "client_credentials")];
    assert_eq!(ask(&org, &form).await.1["error"], "invalid_client");
}

fn refresh(token: &str) -> [(&str, &str); 2] {
    [("grant_type", "refresh_token"), ("refresh_token", token)]
}

#[tokio::test]
async fn a_refresh_token_lasts_until_it_is_revoked() {
    let org = TestOrg::with(|options| options.refresh_token = Some("5Aep8given".into())).await;
    let one = granted(&org, &refresh("5Aep8given")).await;
    let two = granted(&org, &refresh("5Aep8given")).await;
    assert!(one.get("refresh_token").is_none());
    assert_ne!(one["access_token"], two["access_token"]);
    let dead = "expired access/refresh token";
    denied(&org, &refresh("other"), "invalid_grant", dead).await;
    let revoke = org
        .client
        .post(format!("{}/services/oauth2/revoke", org.running.url))
        .form(&[("token", "5Aep8given")]);
    assert_eq!(org.send(revoke).await.status, StatusCode::OK);
    denied(&org, &refresh("5Aep8given"), "invalid_grant", dead).await;
    assert!(!alive(&org, &one["access_token"]).await);
    assert!(!alive(&org, &two["access_token"]).await);
}

#[tokio::test]
async fn rotation_kills_the_old_token_at_once() {
    let org = TestOrg::with(|options| {
        options.refresh_token = Some("5Aep8given".into());
        options.rotate_refresh_tokens = true;
    })
    .await;
    let first = granted(&org, &refresh("5Aep8given")).await;
    let next = first["refresh_token"].as_str().unwrap();
    let dead = "expired access/refresh token";
    denied(&org, &refresh("5Aep8given"), "invalid_grant", dead).await;
    let second = granted(&org, &refresh(next)).await;
    assert_ne!(second["refresh_token"], next);
    assert!(alive(&org, &first["access_token"]).await);
    let script = json!({"do": {"kind": "expire_refresh_tokens"}});
    org.call(reqwest::Method::POST, "/_sim/faults", script)
        .await;
    let last = second["refresh_token"].as_str().unwrap();
    denied(&org, &refresh(last), "invalid_grant", dead).await;
}

#[tokio::test]
async fn a_password_is_taken_where_one_is_set() {
    let org = TestOrg::with(|options| {
        options.user_name = Some("sync@acme.example".into());
        options.password = Some("pass+token".into());
    })
    .await;
    let login = |user, password| {
        [
            ("grant_type", "password"),
            ("username", user),
            ("password", password),
        ]
    };
    granted(&org, &login("sync@acme.example", "pass+token")).await;
    for (user, password) in [
        ("sync@acme.example", "pass"),
        ("ann@acme.example", "pass+token"),
    ] {
        denied(
            &org,
            &login(user, password),
            "invalid_grant",
            "authentication failure",
        )
        .await;
    }
    let info = org.get("/services/oauth2/userinfo").await;
    assert_eq!(info.body["preferred_username"], "sync@acme.example");
}

#[tokio::test]
async fn an_assertion_must_be_signed_meant_and_fresh() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/jwt");
    let org = TestOrg::with(|options| options.jwt_public_key = Some(keys.join("public.pem"))).await;
    let pem = std::fs::read(keys.join("private.pem")).unwrap();
    let key = EncodingKey::from_rsa_pem(&pem).unwrap();
    let now = org.running.org.clock.now().timestamp();
    let claims = |change: Value| {
        let mut claims = json!({"iss": APP[0].1, "sub": "ann@acme.example",
            "aud": "https://login.salesforce.com", "exp": now + 120});
        let claims_map = claims.as_object_mut().unwrap();
        claims_map.extend(change.as_object().unwrap().clone());
        claims
    };
    let signed = |claims: &Value| encode(&Header::new(Algorithm::RS256), claims, &key).unwrap();
    let ask_with = async |assertion: &str| {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion),
        ];
        ask(&org, &form).await
    };
    for sound in [
        json!({}),
        json!({"aud": "https://test.salesforce.com"}),
        json!({"aud": org.running.url}),
    ] {
        let (status, body) = ask_with(&signed(&claims(sound))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert!(body.get("refresh_token").is_none());
        assert!(alive(&org, &body["access_token"]).await);
    }
    for (change, error, description) in [
        (
            json!({"exp": now - 1}),
            "invalid_grant",
            "expired authorization code",
        ),
        (
            json!({"exp": now + 900}),
            "invalid_grant",
            "invalid assertion",
        ),
        (
            json!({"aud": "https://other.example"}),
            "invalid_grant",
            "audience is invalid",
        ),
        (
            json!({"sub": "bob@acme.example"}),
            "invalid_grant",
            "user hasn't approved this consumer",
        ),
        (
            json!({"iss": "other"}),
            "invalid_client_id",
            "client identifier invalid",
        ),
    ] {
        let (status, body) = ask_with(&signed(&claims(change))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(
            (&body["error"], &body["error_description"]),
            (&json!(error), &json!(description))
        );
    }
    let mut forged = signed(&claims(json!({})));
    forged.truncate(forged.len() - 8);
    assert_eq!(
        ask_with(&forged).await.1["error_description"],
        "invalid assertion"
    );
    let symmetric = EncodingKey::from_secret(&pem);
    let confused = encode(&Header::default(), &claims(json!({})), &symmetric).unwrap();
    assert_eq!(ask_with(&confused).await.1["error"], "invalid_grant");
}
