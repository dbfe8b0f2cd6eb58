//! An organization with a little data, and a plain client of it.

use std::fs;
use std::path::Path;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tributary_sim::dynamics::{Running, SimOptions, start};

pub const EXAMPLE: &str = "aaaaaaaa-0000-4000-8000-000000000001";
pub const OTHER: &str = "aaaaaaaa-0000-4000-8000-000000000002";
pub const THIRD: &str = "aaaaaaaa-0000-4000-8000-000000000003";
pub const ADA: &str = "cccccccc-0000-4000-8000-000000000001";
pub const BOB: &str = "cccccccc-0000-4000-8000-000000000002";
pub const EVE: &str = "dddddddd-0000-4000-8000-000000000001";
pub const PLAN: &str = "eeeeeeee-0000-4000-8000-000000000001";

pub struct TestOrg {
    pub running: Running,
    pub client: reqwest::Client,
    pub token: String,
    pub dir: TempDir,
}

/// An answer: status, headers, text, JSON (null if it is none).
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    pub fn rows(&self) -> &[Value] {
        self.body["value"]
            .as_array()
            .unwrap_or_else(|| panic!("{self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn link(&self, name: &str) -> Option<&str> {
        self.body[format!("@odata.{name}")].as_str()
    }

    /// The status, or the whole answer in the message.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }

    /// A refusal's status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, code),
            "{self:?}"
        );
        self
    }
}

fn data(dir: &Path) {
    let accounts = format!(
        "accountid,name,accountnumber,industrycode,revenue,numberofemployees,primarycontactid,createdon\n\
         {EXAMPLE},Example Ltd,A-1,1,1234567890123456.78,10,{ADA},2026-01-05T10:11:12Z\n\
         {OTHER},O'Brien & Sons,A-2,6,,20,,\n\
         {THIRD},100%_real,A-3,,5.5,,,\n"
    );
    fs::write(dir.join("account.csv"), accounts).unwrap();
    let keys = json!({"keys": {"accountnumber_key": ["accountnumber"]}});
    fs::write(dir.join("account.json"), keys.to_string()).unwrap();
    let contacts = format!(
        "contactid,firstname,lastname,emailaddress1,parentcustomerid,birthdate\n\
         {ADA},Ada,Example,ada@example.com,account:{EXAMPLE},1990-02-03\n\
         {BOB},Bob,Other,,contact:{ADA},\n"
    );
    fs::write(dir.join("contact.csv"), contacts).unwrap();
    let users = format!(
        "systemuserid,firstname,lastname,internalemailaddress,domainname,accessmode,isdisabled\n\
         {EVE},Eve,User,eve@simulated.example,eve@simulated.example,0,false\n"
    );
    fs::write(dir.join("systemuser.csv"), users).unwrap();
    // A table that the code has never seen.
    let plans = format!(
        "new_planid,new_name,new_seats,new_price,new_active,new_start,new_signed,new_account,new_zip,new_tags\n\
         {PLAN},Gold,5,12.345,true,2026-01-01,2026-01-02T03:04:05Z,{EXAMPLE},01234,\"1,3\"\n\
         ,Silver,,,false,,,{OTHER},99999,\n"
    );
    fs::write(dir.join("new_plan.csv"), plans).unwrap();
    let definition = json!({
        "set": "new_planset", "name": "new_name", "tracked": false,
        "columns": {
            "new_tags": "MultiSelectPicklist(1=Red,2=Green,3=Blue)",
            "new_account": {"type": "Lookup(account)", "navigation": "new_Account", "back": "new_account_plans"},
            "new_secret": "String(10) secured"
        }
    });
    fs::write(dir.join("new_plan.json"), definition.to_string()).unwrap();
}

impl TestOrg {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With other options; the data is there all the same.
    pub async fn with(change: impl FnOnce(&mut SimOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        data(dir.path());
        let mut options = SimOptions {
            data: Some(dir.path().to_owned()),
            ..SimOptions::default()
        };
        change(&mut options);
        let running = start(options).await.unwrap();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let mut org = Self {
            running,
            client,
            token: String::new(),
            dir,
        };
        org.sign_in().await;
        org
    }

    /// Takes a new token by client credentials.
    pub async fn sign_in(&mut self) {
        let scope = format!("{}/.default", self.running.url);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", "c11e0000-0000-4000-8000-000000000001"),
            ("client_secret", "simulated-secret"),
            ("scope", scope.as_str()),
        ];
        let answer = self.token(&form).await;
        self.token = answer.body["access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
    }

    pub fn tenant(&self) -> String {
        format!("{}/7e0a0000-0000-4000-8000-000000000001", self.running.url)
    }

    pub async fn token(&self, form: &[(&str, &str)]) -> Answer {
        let url = format!("{}/oauth2/v2.0/token", self.tenant());
        self.send(self.client.post(url).form(form)).await
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer {
            status,
            headers,
            text,
            body,
        }
    }

    /// A call with the usual headers; a path, or a whole URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match path.starts_with("http") {
            true => path.to_owned(),
            false => format!("{}/api/data/v9.2/{path}", self.running.url),
        };
        self.client
            .request(method, url)
            .bearer_auth(&self.token)
            .header("accept", "application/json")
            .header("odata-version", "4.0")
            .header("odata-maxversion", "4.0")
            .header("if-none-match", "null")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn prefer(&self, path: &str, prefer: &str) -> Answer {
        self.send(self.request(Method::GET, path).header("prefer", prefer))
            .await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    /// PATCH of a row that must be there.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(
            self.request(Method::PATCH, path)
                .header("if-match", "*")
                .json(&body),
        )
        .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates a row and hands back its id.
    pub async fn create(&self, set: &str, body: Value) -> String {
        let answer = self.post(set, body).await.expect(204);
        let url = answer.header("odata-entityid");
        url[url.len() - 37..url.len() - 1].to_owned()
    }

    /// A call of the control API.
    pub async fn control(&self, path: &str, body: Value) {
        let url = format!("{}/_sim/{path}", self.running.url);
        let answer = self.send(self.client.post(url).json(&body)).await;
        assert!(answer.status.is_success(), "{answer:?}");
    }

    pub async fn look(&self, path: &str) -> Value {
        self.send(self.client.get(format!("{}/_sim/{path}", self.running.url)))
            .await
            .body
    }
}
