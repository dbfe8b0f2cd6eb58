//! An org with data, a frozen clock, and a gRPC client that says exactly what a test wants it to say.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tributary_sim::salesforce::pubsub::eventbus::pub_sub_client::PubSubClient;
use tributary_sim::salesforce::pubsub::eventbus::{
    ConsumerEvent, FetchRequest, FetchResponse, ReplayPreset, SchemaRequest, TopicInfo,
    TopicRequest,
};
use tributary_sim::salesforce::{Running, SimOptions, start};

pub const ALL: &str = "/data/ChangeEvents";
pub const ACCOUNTS: &str = "/data/AccountChangeEvent";
/// Nothing here takes so long; a test that waits longer hangs.
const HANG: Duration = Duration::from_secs(20);

pub struct Sim {
    pub running: Running,
    pub token: String,
    pub http: reqwest::Client,
    _data: TempDir,
}

pub async fn sim() -> Sim {
    sim_with(|_| {}).await
}

pub async fn sim_with(change: impl FnOnce(&mut SimOptions)) -> Sim {
    let data = tempfile::tempdir().unwrap();
    for (name, rows) in [
        (
            "Account",
            "Id,Name,Type,ParentId,BillingStreet,BillingCity,BillingState,ShippingCity,Phone,Fax,AccountNumber,Website,\
             Sic,Industry,AnnualRevenue,NumberOfEmployees,Ownership,TickerSymbol,Description,Rating,Site,OwnerId\n",
        ),
        (
            "Contact",
            "Id,AccountId,FirstName,LastName,MailingCity,Birthdate,DoNotCall\n",
        ),
        (
            "Employee__c",
            "Id,Name,Grade__c,Active__c,Starts__c,Shift__c,Geo__Latitude__s,Geo__Longitude__s\n",
        ),
    ] {
        fs::write(data.path().join(format!("{name}.csv")), rows).unwrap();
    }
    fs::write(
        data.path().join("Employee__c.json"),
        json!({"fields": {
            "Grade__c": {"type": "double"}, "Active__c": {"type": "boolean"}, "Starts__c": {"type": "date"},
            "Shift__c": {"type": "time"}, "Geo__Latitude__s": {"type": "double"},
            "Geo__Longitude__s": {"type": "double"},
        }})
        .to_string(),
    )
    .unwrap();
    fs::write(
        data.path().join("Contact.json"),
        json!({"fields": {"Birthdate": {"type": "date"}, "DoNotCall": {"type": "boolean"}}})
            .to_string(),
    )
    .unwrap();
    fs::write(
        data.path().join("Account.json"),
        json!({"fields": {
            "AnnualRevenue": {"type": "currency"}, "NumberOfEmployees": {"type": "int"},
            "Description": {"type": "textarea"}, "ParentId": {"type": "reference"},
        }})
        .to_string(),
    )
    .unwrap();
    sim_at(data, change).await
}

/// An org of the files in a directory.
pub async fn sim_at(data: TempDir, change: impl FnOnce(&mut SimOptions)) -> Sim {
    let mut options = SimOptions {
        data: Some(data.path().to_owned()),
        ..SimOptions::default()
    };
    change(&mut options);
    let running = start(options).await.unwrap();
    running.org.clock.freeze();
    // Time is moved by days here, and nothing is called meanwhile.
    running
        .org
        .sessions
        .set_lifetime(chrono::TimeDelta::days(30));
    let token = running
        .org
        .sessions
        .issue(running.org.profile.run_as.clone());
    Sim {
        running,
        token,
        http: reqwest::Client::new(),
        _data: data,
    }
}

impl Sim {
    pub async fn client(&self) -> Client {
        let channel = Channel::from_shared(self.running.pubsub_url.clone())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut headers = BTreeMap::new();
        headers.insert("accesstoken", self.token.clone());
        headers.insert("instanceurl", self.running.url.clone());
        headers.insert("tenantid", self.running.org.profile.org_id.clone());
        Client {
            client: PubSubClient::new(channel),
            headers,
            schemas: BTreeMap::new(),
        }
    }

    pub async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.running.url);
        let response = self.http.get(url).bearer_auth(&self.token).send().await;
        response.unwrap().json().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, String) {
        let url = format!("{}{path}", self.running.url);
        let response = self.http.post(url).json(&body).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    /// Plays scripts that must be taken.
    pub async fn script(&self, scripts: Value) {
        let (status, text) = self.post("/_sim/faults", scripts).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    }

    pub fn advance(&self, seconds: u64) {
        self.running.org.clock.advance(Duration::from_secs(seconds));
    }

    /// Commits one transaction of these operations and tells the records' ids.
    pub async fn commit(&self, ops: Value) -> Vec<String> {
        let body = json!({"transactions": [{"client": "test", "ops": ops}]});
        let (status, text) = self.post("/_sim/transactions", body).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let results = answer["transactions"][0]["results"].as_array().unwrap();
        results
            .iter()
            .map(|result| result["id"].as_str().expect(&text).to_owned())
            .collect()
    }

    pub async fn create(&self, object: &str, fields: Value) -> String {
        let op = json!([{"op": "create", "object": object, "fields": fields}]);
        self.commit(op).await.remove(0)
    }

    pub async fn update(&self, object: &str, id: &str, fields: Value) {
        self.commit(json!([{"op": "update", "object": object, "id": id, "fields": fields}]))
            .await;
    }

    /// Creates so many accounts, each in a transaction of its own.
    pub async fn accounts(&self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for number in 0..count {
            ids.push(
                self.create("Account", json!({"Name": format!("A{number}")}))
                    .await,
            );
        }
        ids
    }

    /// Waits until the open streams look like this.
    pub async fn until(&self, wanted: impl Fn(&[Value]) -> bool) {
        let mut changed = self.running.org.streaming.watch();
        let look = async {
            loop {
                changed.borrow_and_update();
                let shown = self.get("/_sim/pubsub").await;
                if wanted(shown["streams"].as_array().unwrap()) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(HANG, look).await.unwrap();
    }
}

pub struct Client {
    pub client: PubSubClient<Channel>,
    pub headers: BTreeMap<&'static str, String>,
    schemas: BTreeMap<String, Schema>,
}

/// An open subscription, both ways.
pub struct Stream {
    pub requests: mpsc::Sender<FetchRequest>,
    pub answers: Streaming<FetchResponse>,
}

pub fn fetch(topic: &str, preset: ReplayPreset, replay_id: &[u8], count: i32) -> FetchRequest {
    FetchRequest {
        topic_name: topic.to_owned(),
        replay_preset: preset.into(),
        replay_id: replay_id.to_vec(),
        num_requested: count,
        auth_refresh: String::new(),
    }
}

impl Client {
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata: &mut MetadataMap = request.metadata_mut();
        for (name, value) in &self.headers {
            metadata.insert(*name, MetadataValue::try_from(value).unwrap());
        }
        request
    }

    /// Opens a subscription by this first request.
    pub async fn open(&mut self, first: FetchRequest) -> Stream {
        self.try_open(first).await.unwrap()
    }

    pub async fn try_open(&mut self, first: FetchRequest) -> Result<Stream, Status> {
        let (requests, mut receiver) = mpsc::channel(8);
        requests.send(first).await.unwrap();
        let outgoing = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
        let request = self.request(outgoing);
        let answers = self.client.subscribe(request).await?.into_inner();
        Ok(Stream { requests, answers })
    }

    pub async fn latest(&mut self, topic: &str, count: i32) -> Stream {
        self.open(fetch(topic, ReplayPreset::Latest, &[], count))
            .await
    }

    pub async fn earliest(&mut self, topic: &str, count: i32) -> Stream {
        self.open(fetch(topic, ReplayPreset::Earliest, &[], count))
            .await
    }

    pub async fn after(&mut self, topic: &str, replay_id: &[u8], count: i32) -> Stream {
        self.open(fetch(topic, ReplayPreset::Custom, replay_id, count))
            .await
    }

    /// How a subscription by this first request ends.
    pub async fn refused(&mut self, first: FetchRequest) -> Status {
        match self.try_open(first).await {
            Ok(mut stream) => stream.error().await,
            Err(status) => status,
        }
    }

    pub async fn topic(&mut self, name: &str) -> Result<TopicInfo, Status> {
        let request = self.request(TopicRequest {
            topic_name: name.to_owned(),
        });
        self.client
            .get_topic(request)
            .await
            .map(tonic::Response::into_inner)
    }

    pub async fn schema_json(&mut self, id: &str) -> Result<String, Status> {
        let request = self.request(SchemaRequest {
            schema_id: id.to_owned(),
        });
        let info = self.client.get_schema(request).await?.into_inner();
        assert_eq!(info.schema_id, id);
        Ok(info.schema_json)
    }

    /// Reads an event's payload by the schema it names, as JSON; unions by what is in them.
    pub async fn decode(&mut self, event: &ConsumerEvent) -> Value {
        let event = event.event.as_ref().unwrap();
        if !self.schemas.contains_key(&event.schema_id) {
            let text = self.schema_json(&event.schema_id).await.unwrap();
            let schema = Schema::parse_str(&text).unwrap();
            self.schemas.insert(event.schema_id.clone(), schema);
        }
        let mut payload = event.payload.as_slice();
        let schema = &self.schemas[&event.schema_id];
        let reader = apache_avro::reader::datum::GenericDatumReader::builder(schema)
            .build()
            .unwrap();
        let value = reader.read_value(&mut payload).unwrap();
        assert!(payload.is_empty(), "bytes behind the datum");
        plain(&value)
    }
}

fn plain(value: &Avro) -> Value {
    match value {
        Avro::Record(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Avro::Array(values) => values.iter().map(plain).collect(),
        Avro::Union(_, value) => plain(value),
        Avro::Enum(_, symbol) => json!(symbol),
        Avro::String(text) => json!(text),
        Avro::Int(number) => json!(number),
        Avro::Long(number) => json!(number),
        Avro::Double(number) => json!(number),
        Avro::Boolean(value) => json!(value),
        Avro::Null => Value::Null,
        other => panic!("{other:?} has no place in a change event"),
    }
}

impl Stream {
    /// The next answer, which must come.
    pub async fn answer(&mut self) -> FetchResponse {
        let answer = tokio::time::timeout(HANG, self.answers.message()).await;
        answer
            .expect("no answer")
            .unwrap()
            .expect("the stream ended")
    }

    /// The next events, so many of them, in as many answers as they come in.
    pub async fn events(&mut self, count: usize) -> Vec<ConsumerEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.answer().await.events);
        }
        assert_eq!(events.len(), count);
        events
    }

    /// The error that ends the stream.
    pub async fn error(&mut self) -> Status {
        loop {
            let next = tokio::time::timeout(HANG, self.answers.message()).await;
            match next.expect("neither answer nor end") {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return status,
            }
        }
    }

    /// The end of the stream, which must come without an error.
    pub async fn end(&mut self) {
        let next = tokio::time::timeout(HANG, self.answers.message()).await;
        assert!(next.expect("no end").unwrap().is_none());
    }

    pub async fn more(&self, count: i32) {
        let request = fetch("", ReplayPreset::Latest, &[], count);
        self.requests.send(request).await.unwrap();
    }
}

/// A status by its code, and what follows `sfdc.platform.eventbus.grpc.` in its trailer.
pub fn told(status: &Status) -> (Code, String) {
    let code = status.metadata().get("error-code");
    let code = code.map_or("", |code| code.to_str().unwrap());
    let suffix = code.strip_prefix("sfdc.platform.eventbus.grpc.");
    (status.code(), suffix.unwrap_or(code).to_owned())
}
