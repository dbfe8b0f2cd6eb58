//! An org with a little data, and a client of it.

use std::fs;
use std::path::Path;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tributary_sim::salesforce::{Running, SimOptions, start};

pub const ACME: &str = "001SIM000000001YBA";
pub const BETA: &str = "001SIM000000002YBA";
pub const ANN: &str = "005SIM000000001YBA";
pub const CARL: &str = "003SIM000000001YBA";

/// The id of an object's serial number, with its checksum.
pub fn id(prefix: &str, serial: usize) -> String {
    let bare = format!("{prefix}SIM{serial:09}");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
    let check = bare.as_bytes().chunks(5).map(|group| {
        let bits = (0..5).filter(|k| group[*k].is_ascii_uppercase());
        char::from(alphabet[bits.map(|k| 1 << k).sum::<usize>()])
    });
    format!("{bare}{}", check.collect::<String>())
}

pub struct TestOrg {
    pub running: Running,
    pub client: reqwest::Client,
    pub token: String,
    pub dir: TempDir,
}

/// An answer: status, headers, JSON (null if there is none).
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The code of a refused call.
    pub fn code(&self) -> &str {
        self.body[0]["errorCode"].as_str().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.body[0]["message"].as_str().unwrap_or_default()
    }
}

fn data(dir: &Path) {
    let user = id("005", 1);
    let (acme, beta) = (id("001", 1), id("001", 2));
    assert_eq!(
        (acme.as_str(), beta.as_str(), user.as_str()),
        (ACME, BETA, ANN)
    );
    fs::write(
        dir.join("User.csv"),
        format!(
            "Id,FirstName,LastName,Email,Username,IsActive\n\
             {user},Ann,Owner,ann@acme.example,ann@acme.example,true\n\
             {},Bob,Idle,bob@acme.example,bob@acme.example,false\n",
            id("005", 2)
        ),
    )
    .unwrap();
    fs::write(
        dir.join("Account.csv"),
        format!(
            "Id,Name,Industry,NumberOfEmployees,AnnualRevenue,BillingStreet,BillingCity,BillingCountry,ParentId,OwnerId,\
             Description,SystemModstamp,Score__c,Renewal__c,Geo__Latitude__s,Geo__Longitude__s\n\
             {acme},Acme,Energy,10,1000.5,\"1 Main St\",Springfield,USA,,{user},\"two\nlines\",2024-01-01T00:00:00.000+0000,1,2024-06-01,1.5,2.5\n\
             {beta},beta,,20,,,,,{acme},{user},,2024-01-02T00:00:00.000+0000,2,2024-07-01,,\n\
             {},Gamma,Finance,,5,,Bonn,Germany,{acme},,,2024-01-02T00:00:00.000+0000,,,,\n",
            id("001", 3)
        ),
    )
    .unwrap();
    fs::write(
        dir.join("Account.json"),
        json!({"fields": {"Score__c": {"type": "double", "calculated": true}}}).to_string(),
    )
    .unwrap();
    fs::write(
        dir.join("Contact.csv"),
        format!(
            "Id,Salutation,FirstName,LastName,Email,AccountId,MailingCity\n\
             {},Mr.,Carl,Caller,carl@acme.example,{acme},Springfield\n",
            id("003", 1)
        ),
    )
    .unwrap();
    fs::write(
        dir.join("Employee__c.csv"),
        "Name,Grade__c,Active__c\nEve,3,true\nFay,4,false\n",
    )
    .unwrap();
}

impl TestOrg {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut SimOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        data(dir.path());
        Self::at(dir, change).await
    }

    pub async fn at(dir: TempDir, change: impl FnOnce(&mut SimOptions)) -> Self {
        let mut options = SimOptions {
            data: Some(dir.path().to_owned()),
            ..SimOptions::default()
        };
        change(&mut options);
        let running = start(options).await.unwrap();
        let token = running
            .org
            .sessions
            .issue(running.org.profile.run_as.clone());
        Self {
            running,
            client: reqwest::Client::new(),
            token,
            dir,
        }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with('/') {
            format!("{}{path}", self.running.url)
        } else {
            format!("{}/services/data/v66.0/{path}", self.running.url)
        };
        self.client.request(method, url).bearer_auth(&self.token)
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            body,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(self.request(method, path).json(&body)).await
    }

    pub async fn query(&self, soql: &str) -> Answer {
        self.send(self.request(Method::GET, "query").query(&[("q", soql)]))
            .await
    }

    /// One field of every row of a query that must succeed.
    pub async fn column(&self, soql: &str, field: &str) -> Vec<Value> {
        let answer = self.query(soql).await;
        assert_eq!(answer.status, StatusCode::OK, "{soql}: {}", answer.body);
        let records = answer.body["records"].as_array().unwrap();
        records.iter().map(|record| record[field].clone()).collect()
    }

    /// Runs transactions by the control API and hands back its answer.
    pub async fn transact(&self, transactions: Value) -> Value {
        let body = json!({"transactions": transactions});
        let answer = self.call(Method::POST, "/_sim/transactions", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body["transactions"].clone()
    }
}
