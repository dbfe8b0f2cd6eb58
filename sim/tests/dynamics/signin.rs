//! Sign-in: grants, proofs, refusals, lifetimes, and who may call the organization.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, EVE, TestOrg};

pub const CLIENT: &str = "c11e0000-0000-4000-8000-000000000001";
const SECRET: (&str, &str) = ("client_secret", "simulated-secret");
pub const ID: (&str, &str) = ("client_id", CLIENT);
const REDIRECT: &str = "https://app.example/callback";
const VERIFIER: &str = "0123456789012345678901234567890123456789abc-._~";

fn digest(verifier: &str) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(hash)
}

fn scope(org: &TestOrg) -> String {
    format!(
        "{}/user_impersonation offline_access openid",
        org.running.url
    )
}

/// The pairs that the authorize page sends on.
async fn authorize(org: &TestOrg, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let scope = scope(org);
    let mut query = vec![
        ID,
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        ("scope", &scope),
        ("state", "s1 &"),
    ];
    query.extend(more);
    let url = format!("{}/oauth2/v2.0/authorize", org.tenant());
    let answer = org
        .send(org.client.get(url).query(&query))
        .await
        .expect(302);
    let location = reqwest::Url::parse(answer.header("location")).unwrap();
    assert!(location.as_str().starts_with(REDIRECT));
    location.query_pairs().into_owned().collect()
}

fn value<'p>(pairs: &'p [(String, String)], key: &str) -> &'p str {
    pairs
        .iter()
        .find(|(name, _)| name == key)
        .map_or("", |(_, value)| value)
}

async fn code(org: &TestOrg) -> String {
    let challenge = digest(VERIFIER);
    let pairs = authorize(
        org,
        &[
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ],
    )
    .await;
    assert_eq!(value(&pairs, "state"), "s1 &");
    value(&pairs, "code").to_owned()
}

async fn redeem(org: &TestOrg, code: &str, verifier: &str) -> Answer {
    let form = [
        ("grant_type", "authorization_code"),
        ID,
        SECRET,
        ("code", code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", verifier),
    ];
    org.token(&form).await
}

async fn refresh(org: &TestOrg, token: &str) -> Answer {
    org.token(&[
        ("grant_type", "refresh_token"),
        ID,
        SECRET,
        ("refresh_token", token),
    ])
    .await
}

#[track_caller]
pub fn refused(answer: &Answer, status: u16, error: &str, code: u64) {
    assert_eq!(answer.status.as_u16(), status, "{answer:?}");
    assert_eq!(answer.body["error"], error, "{answer:?}");
    assert_eq!(answer.body["error_codes"], json!([code]));
    let text = answer.body["error_description"].as_str().unwrap();
    assert!(
        text.starts_with(&format!("AADSTS{code}: "))
            && text.contains("Trace ID: ")
            && text.contains("Timestamp: ")
    );
    for member in ["timestamp", "trace_id", "correlation_id", "error_uri"] {
        assert!(answer.body[member].is_string(), "{member}");
    }
}

#[tokio::test]
async fn a_user_connects_with_pkce() {
    let org = TestOrg::start().await;
    let answer = redeem(&org, &code(&org).await, VERIFIER).await.expect(200);
    assert_eq!(answer.body["token_type"], "Bearer");
    assert_eq!(answer.body["expires_in"], 3599);
    assert!(answer.body["refresh_token"].is_string() && answer.body["id_token"].is_string());
    assert_eq!(
        answer.body["scope"],
        format!("{}/user_impersonation", org.running.url)
    );
    let token = answer.body["access_token"].as_str().unwrap();
    let who = org
        .send(
            org.client
                .get(format!("{}/api/data/v9.2/WhoAmI", org.running.url))
                .bearer_auth(token),
        )
        .await
        .expect(200);
    assert_eq!(who.body["UserId"], EVE, "the first person signs in");
    assert!(who.body["OrganizationId"].is_string() && who.body["BusinessUnitId"].is_string());
}

#[tokio::test]
async fn a_code_serves_once_and_ten_minutes() {
    let org = TestOrg::start().await;
    let first = code(&org).await;
    redeem(&org, &first, VERIFIER).await.expect(200);
    refused(
        &redeem(&org, &first, VERIFIER).await,
        400,
        "invalid_grant",
        54005,
    );
    refused(
        &redeem(&org, "nonsense", VERIFIER).await,
        400,
        "invalid_grant",
        70000,
    );
    let late = code(&org).await;
    org.control("time", json!({"advance_seconds": 600})).await;
    refused(
        &redeem(&org, &late, VERIFIER).await,
        400,
        "invalid_grant",
        70008,
    );
    let wrong = code(&org).await;
    refused(
        &redeem(
            &org,
            &wrong,
            "wrong-wrong-wrong-wrong-wrong-wrong-wrong-wrong",
        )
        .await,
        400,
        "invalid_grant",
        501_481,
    );
}

#[tokio::test]
async fn pkce_is_plain_without_a_method_and_answers_come_in_three_modes() {
    let org = TestOrg::start().await;
    let pairs = authorize(&org, &[("code_challenge", VERIFIER)]).await;
    redeem(&org, value(&pairs, "code"), VERIFIER)
        .await
        .expect(200);
    let url = format!("{}/oauth2/v2.0/authorize", org.tenant());
    let scope = scope(&org);
    let base = [
        ID,
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        ("scope", &scope),
    ];
    let fragment = org
        .send(
            org.client
                .get(&url)
                .query(&base)
                .query(&[("response_mode", "fragment")]),
        )
        .await
        .expect(302);
    assert!(fragment.header("location").contains("/callback#code="));
    let form = org
        .send(
            org.client
                .get(&url)
                .query(&base)
                .query(&[("response_mode", "form_post")]),
        )
        .await
        .expect(200);
    assert!(form.text.contains("method=\"POST\"") && form.text.contains("name=\"code\""));
    let unknown = org
        .send(
            org.client
                .get(&url)
                .query(&[("client_id", "x"), ("redirect_uri", REDIRECT)]),
        )
        .await
        .expect(400);
    assert!(
        unknown.text.contains("AADSTS700016"),
        "shown, never sent on"
    );
}

#[tokio::test]
async fn a_redirect_uri_must_be_registered_and_the_same_at_both_ends() {
    let org = TestOrg::with(|options| options.redirect_uri = vec![REDIRECT.to_owned()]).await;
    let url = format!("{}/oauth2/v2.0/authorize", org.tenant());
    let query = [
        ID,
        ("redirect_uri", "https://evil.example/"),
        ("response_type", "code"),
    ];
    let answer = org
        .send(org.client.get(url).query(&query))
        .await
        .expect(400);
    assert!(answer.text.contains("AADSTS50011"));
    let code = code(&org).await;
    let form = [
        ("grant_type", "authorization_code"),
        ID,
        SECRET,
        ("code", &code),
        ("redirect_uri", "https://evil.example/"),
        ("code_verifier", VERIFIER),
    ];
    refused(&org.token(&form).await, 400, "invalid_grant", 500_112);
}

#[tokio::test]
async fn refresh_tokens_rotate_and_the_old_one_lives_on() {
    let org = TestOrg::start().await;
    let first = redeem(&org, &code(&org).await, VERIFIER).await.body["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = refresh(&org, &first).await.expect(200).body["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(first, second);
    refresh(&org, &first).await.expect(200);
    org.control("time", json!({"advance_seconds": 90 * 86_400}))
        .await;
    refused(&refresh(&org, &second).await, 400, "invalid_grant", 700_082);
    refused(
        &refresh(&org, "nonsense").await,
        400,
        "invalid_grant",
        70000,
    );
}

#[tokio::test]
async fn refresh_tokens_die_by_revocation_and_those_of_pages_by_age() {
    let org = TestOrg::start().await;
    let token = redeem(&org, &code(&org).await, VERIFIER).await.body["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    org.control("entra", json!({"revoke": true})).await;
    refused(&refresh(&org, &token).await, 400, "invalid_grant", 50173);
    org.control("entra", json!({"spa": true})).await;
    let token = redeem(&org, &code(&org).await, VERIFIER).await.body["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    org.control("time", json!({"advance_seconds": 80_000}))
        .await;
    let next = refresh(&org, &token).await.expect(200).body["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    org.control("time", json!({"advance_seconds": 6400})).await;
    refused(&refresh(&org, &next).await, 400, "invalid_grant", 700_084);
}

#[tokio::test]
async fn a_given_refresh_token_is_there_from_the_start() {
    let org = TestOrg::with(|options| options.refresh_token = Some("given".to_owned())).await;
    refresh(&org, "given").await.expect(200);
}

#[tokio::test]
async fn consent_can_be_missing_and_given_by_an_administrator() {
    let org = TestOrg::with(|options| options.refresh_token = Some("given".to_owned())).await;
    org.control("entra", json!({"consent": false})).await;
    let answer = refresh(&org, "given").await;
    refused(&answer, 400, "invalid_grant", 65001);
    assert_eq!(answer.body["suberror"], "consent_required");
    let url = format!("{}/adminconsent", org.tenant());
    let query = [ID, ("state", "x"), ("redirect_uri", REDIRECT)];
    let answer = org
        .send(org.client.get(&url).query(&query))
        .await
        .expect(302);
    assert!(answer.header("location").contains("admin_consent=True"));
    refresh(&org, "given").await.expect(200);
    org.control(
        "faults",
        json!({"on": {"call": "adminconsent"}, "do": {"kind": "sign_in", "aadsts": 65001}}),
    )
    .await;
    let answer = org
        .send(org.client.get(&url).query(&query))
        .await
        .expect(302);
    assert!(
        answer
            .header("location")
            .contains("error=permission_denied")
    );
}

#[tokio::test]
async fn client_credentials_prove_themselves_and_name_one_resource() {
    let org = TestOrg::start().await;
    let grant = ("grant_type", "client_credentials");
    let scope = format!("{}/.default", org.running.url);
    let scope = ("scope", scope.as_str());
    let answer = org.token(&[grant, ID, SECRET, scope]).await.expect(200);
    assert!(answer.body.get("refresh_token").is_none());
    assert_eq!(answer.header("cache-control"), "no-store, no-cache");
    let basic = org
        .client
        .post(format!("{}/oauth2/v2.0/token", org.tenant()))
        .basic_auth(CLIENT, Some(SECRET.1))
        .form(&[grant, scope]);
    org.send(basic).await.expect(200);

    refused(
        &org.token(&[grant, ID, ("client_secret", "no"), scope])
            .await,
        401,
        "invalid_client",
        7_000_215,
    );
    refused(
        &org.token(&[grant, ("client_id", "no"), SECRET, scope])
            .await,
        400,
        "unauthorized_client",
        700_016,
    );
    refused(
        &org.token(&[
            grant,
            ID,
            SECRET,
            ("scope", "https://other.example/.default"),
        ])
        .await,
        400,
        "invalid_resource",
        500_011,
    );
    let two = format!("{} https://x/.default", scope.1);
    refused(
        &org.token(&[grant, ID, SECRET, ("scope", &two)]).await,
        400,
        "invalid_scope",
        70011,
    );
    // The hint's resource ends in a slash: with it, the scope names nothing.
    let slash = format!("{}//.default", org.running.url);
    refused(
        &org.token(&[grant, ID, SECRET, ("scope", &slash)]).await,
        400,
        "invalid_resource",
        500_011,
    );
    let url = |tenant: &str| format!("{}/{tenant}/oauth2/v2.0/token", org.running.url);
    let common = org
        .send(
            org.client
                .post(url("common"))
                .form(&[grant, ID, SECRET, scope]),
        )
        .await;
    refused(&common, 400, "invalid_request", 50059);
    let unknown = org
        .send(
            org.client
                .post(url("elsewhere"))
                .form(&[grant, ID, SECRET, scope]),
        )
        .await;
    refused(&unknown, 400, "invalid_request", 90002);
}

#[tokio::test]
async fn a_public_client_sends_no_secret() {
    let org = TestOrg::with(|options| options.public_client = true).await;
    let code = code(&org).await;
    let form = [
        ("grant_type", "authorization_code"),
        ID,
        ("code", &code),
        ("redirect_uri", REDIRECT),
        ("code_verifier", VERIFIER),
    ];
    let mut proven = form.to_vec();
    proven.push(SECRET);
    refused(&org.token(&proven).await, 401, "invalid_client", 700_025);
    org.token(&form).await.expect(200);
}

#[tokio::test]
async fn every_error_of_the_table_can_be_had() {
    let org = TestOrg::with(|options| options.refresh_token = Some("given".to_owned())).await;
    let table: &[(u16, &str, &[u64])] = &[
        (
            400,
            "invalid_grant",
            &[
                70000, 70008, 700_082, 700_084, 50173, 70043, 54005, 501_481, 65001, 50105, 50057,
                50196,
            ],
        ),
        (400, "interaction_required", &[50076, 50079, 53000, 53003]),
        (
            401,
            "invalid_client",
            &[70002, 7_000_215, 7_000_222, 700_027, 700_025],
        ),
        (400, "unauthorized_client", &[700_016, 700_011, 70001]),
        (400, "invalid_scope", &[70011, 28002]),
        (400, "invalid_resource", &[500_011, 50001]),
        (503, "temporarily_unavailable", &[90006, 50033]),
        (500, "server_error", &[90012]),
        (400, "invalid_request", &[90002, 50194]),
    ];
    for (status, error, codes) in table {
        for code in *codes {
            org.control(
                "faults",
                json!({"on": {"call": "token"}, "do": {"kind": "sign_in", "aadsts": code}}),
            )
            .await;
            refused(&refresh(&org, "given").await, *status, error, *code);
        }
    }
    refresh(&org, "given").await.expect(200);
}

#[tokio::test]
async fn without_a_token_the_hint_says_where_to_sign_in() {
    let mut org = TestOrg::start().await;
    let url = format!("{}/api/data/v9.2/WhoAmI", org.running.url);
    let answer = org.send(org.client.get(&url)).await.expect(401);
    let hint = format!(
        "Bearer authorization_uri={}/oauth2/authorize, resource_id={}/",
        org.tenant(),
        org.running.url
    );
    assert_eq!(answer.header("www-authenticate"), hint);
    org.send(org.client.get(&url).bearer_auth("nonsense"))
        .await
        .expect(401);
    org.get("WhoAmI").await.expect(200);
    org.control("time", json!({"advance_seconds": 3599})).await;
    org.get("WhoAmI").await.expect(401);
    org.control("entra", json!({"access_seconds": 5})).await;
    org.sign_in().await;
    org.get("WhoAmI").await.expect(200);
    org.control("entra", json!({"expire_access": true})).await;
    org.get("WhoAmI").await.expect(401);
}

#[tokio::test]
async fn an_application_needs_a_user_of_its_own() {
    let org = TestOrg::with(|options| options.no_application_user = true).await;
    let answer = org.get("WhoAmI").await.refused(403, "0x80072560");
    assert_eq!(
        answer.message(),
        "The user is not a member of the organization."
    );
}

#[tokio::test]
async fn the_directory_describes_itself_and_discovery_lists_the_organization() {
    let org = TestOrg::with(|options| options.refresh_token = Some("given".to_owned())).await;
    let answer = org
        .send(org.client.get(format!(
            "{}/v2.0/.well-known/openid-configuration",
            org.tenant()
        )))
        .await
        .expect(200);
    assert_eq!(
        answer.body["token_endpoint"],
        format!("{}/oauth2/v2.0/token", org.tenant())
    );
    let url = format!("{}/api/discovery/v2.0/Instances", org.running.url);
    org.send(org.client.get(&url).bearer_auth(&org.token))
        .await
        .expect(401);
    let scope = (
        "scope",
        "https://globaldisco.crm.dynamics.com/user_impersonation",
    );
    let form = [
        ("grant_type", "refresh_token"),
        ID,
        SECRET,
        ("refresh_token", "given"),
        scope,
    ];
    let token = org.token(&form).await.expect(200).body["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = org
        .send(org.client.get(&url).bearer_auth(&token))
        .await
        .expect(200);
    assert_eq!(answer.rows()[0]["ApiUrl"], *org.running.url);
    let crossed = org
        .send(org.request(Method::GET, "WhoAmI").headers(bearer(&token)))
        .await;
    crossed.expect(401);
}

fn bearer(token: &str) -> reqwest::header::HeaderMap {
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}
