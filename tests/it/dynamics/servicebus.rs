//! A change in the org reaches its row by the service bus alone: polls are an hour apart.

use super::*;

const ROUNDS: usize = 100;
/// The key of the simulated bus.
const KEY: &str = "c2ltdWxhdGVkLWtleQ==";

impl World {
    /// Has the org post changes of accounts to the queue as JSON.
    async fn post_to_queue(&self) {
        let endpoint = json!({
            "name": "changes", "contract": 2, "path": "changes", "solutionnamespace": "contoso", "connectionmode": 1,
            "namespaceaddress": "sb://contoso.servicebus.windows.net", "messageformat": 2,
            "authtype": 2, "saskeyname": "send", "saskey": KEY,
        });
        self.write(Method::POST, "serviceendpoints", Some(endpoint))
            .await;
        let endpoint = self
            .found("serviceendpoints?$select=name", "serviceendpointid")
            .await;
        for message in ["Create", "Update", "Delete"] {
            let filter = format!(
                "sdkmessageid/name%20eq%20'{message}'%20and%20primaryobjecttypecode%20eq%20'account'"
            );
            let path = format!(
                "sdkmessagefilters?$select=sdkmessagefilterid,_sdkmessageid_value&$filter={filter}"
            );
            let (id, of) = (
                self.found(&path, "sdkmessagefilterid").await,
                self.found(&path, "_sdkmessageid_value").await,
            );
            let step = json!({
                "name": message, "mode": 1, "stage": 40, "rank": 1, "supporteddeployment": 0, "asyncautodelete": true,
                "sdkmessageid@odata.bind": format!("/sdkmessages({of})"),
                "sdkmessagefilterid@odata.bind": format!("/sdkmessagefilters({id})"),
                "eventhandler_serviceendpoint@odata.bind": format!("/serviceendpoints({endpoint})"),
            });
            self.write(Method::POST, "sdkmessageprocessingsteps", Some(step))
                .await;
        }
    }

    /// A column of the first row that a query finds.
    async fn found(&self, path: &str, column: &str) -> String {
        let url = format!("{}/api/data/v9.2/{path}", self.org.url);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await;
        let answer: Json = answer.unwrap().json().await.unwrap();
        answer["value"][0][column].as_str().unwrap().to_owned()
    }

    /// A daemon that listens to the queue.
    async fn listening(&self, transport: &str) -> Daemon {
        let port = self.org.amqp.unwrap().port();
        let bus = format!(
            "servicebus_url = \"amqp://127.0.0.1:{port}\"\n\
             servicebus = {{ queue = \"changes\", key_name = \"listen\", key = {{ file = \"key\" }}, transport = \"{transport}\" }}"
        );
        std::fs::write(self.home.path().join("key"), KEY).unwrap();
        let file = self.configure("daily 03:00", "1h", &bus);
        Daemon::start(load(&file).unwrap()).await.unwrap()
    }

    /// How long it takes until an account's company has a name, or is not there.
    async fn arrives(&self, number: usize, name: Option<&str>) -> Duration {
        let began = Instant::now();
        while self.store_names().get(&guid(number)).map(String::as_str) != name {
            let waiting = format!("account {number} never becomes {name:?}");
            assert!(began.elapsed() < PATIENCE, "{waiting}");
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        began.elapsed()
    }

    /// Waits until health says that the bus is in a state; the text of its fault.
    async fn bus_is(&self, daemon: &Daemon, state: &str) -> String {
        let began = Instant::now();
        loop {
            let url = format!("http://{}/api/v1/health", daemon.address());
            let health = self.http.get(url).send().await.unwrap();
            let health: Json = health.json().await.unwrap();
            let bus = &health["connections"]["contoso"]["servicebus"];
            if bus["state"] == state {
                return bus["fault"]["text"].as_str().unwrap_or_default().to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "never {state}: {bus:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_reaches_its_row_by_the_service_bus() {
    for transport in ["tcp", "websocket"] {
        let world = World::of(60).await;
        world.post_to_queue().await;
        let daemon = world.listening(transport).await;
        world.bus_is(&daemon, "connected").await;
        world.settled(&daemon).await;
        let mut waits = Vec::new();
        for round in 0..ROUNDS {
            let number = 1000 + round;
            world.put(number, "born").await;
            waits.push(world.arrives(number, Some("born")).await);
            world.put(number, "changed").await;
            waits.push(world.arrives(number, Some("changed")).await);
        }
        // Nobody read them for a while: a read that misses them is believed at once.
        for number in 0..60 {
            world.delete(number).await;
            waits.push(world.arrives(number, None).await);
        }
        waits.sort_unstable();
        let (median, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
        println!(
            "commit in the org to row in the store by {transport}: median {median:?}, p99 {p99:?}"
        );
        assert!(p99 < Duration::from_secs(1), "{transport}: p99 {p99:?}");
        world.settled(&daemon).await;
        daemon.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_seen_in_health_and_costs_latency_alone() {
    let world = World::of(3).await;
    let policy = json!({"name": "listen", "key": "another", "rights": ["Listen"]});
    world.control("bus/policies", policy).await;
    let daemon = world.listening("websocket").await;
    let text = world.bus_is(&daemon, "refused").await;
    assert!(
        text.contains("policy `listen`") && text.contains("remedy"),
        "{text}"
    );
    assert!(!text.contains(KEY), "{text}");
    world.settled(&daemon).await;
    daemon.stop().await.unwrap();
}
