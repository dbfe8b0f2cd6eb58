//! The daemon as a process of its own, which can be killed, asked and waited for.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value as Json;

use super::store::{STORE_PASSWORD, STORE_PASSWORD_IN};
use super::world::{LOOK, PATIENCE, SECRET};

/// A daemon's process.
pub struct Daemon {
    child: Child,
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    http: reqwest::Client,
}

impl Daemon {
    pub async fn start(config: &Path, http: &reqwest::Client) -> Self {
        let mut daemon = Self::spawn(config, http, &[("ACME_SECRET", SECRET)]);
        daemon.serving().await;
        daemon
    }

    /// Waits until the process tells where it serves.
    pub async fn serving(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.url.is_empty() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", self.tail());
            }
            assert!(
                Instant::now() < until,
                "the daemon does not start:\n{}",
                self.tail()
            );
            tokio::time::sleep(LOOK).await;
            self.url = self.told_address().unwrap_or_default();
        }
    }

    /// Starts the process and waits for nothing.
    pub fn spawn(config: &Path, http: &reqwest::Client, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
        command
            .args(["serve", "--log-json", "--config"])
            .arg(config)
            .env(STORE_PASSWORD_IN, STORE_PASSWORD)
            .envs(environment.iter().copied());
        Self::run(command, http)
    }

    /// Starts the daemon on a disk on which no file can grow past so many KiB.
    pub fn on_a_small_disk(config: &Path, http: &reqwest::Client, kib: u32) -> Self {
        // A file that would grow past the limit fails to be written, as on a full disk.
        let script =
            format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" serve --log-json --config \"$1\"");
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_tributary")])
            .arg(config)
            .env(STORE_PASSWORD_IN, STORE_PASSWORD)
            .env("ACME_SECRET", SECRET);
        Self::run(command, http)
    }

    fn run(mut command: Command, http: &reqwest::Client) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (stderr, kept) = (child.stderr.take().unwrap(), Arc::clone(&lines));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            url: String::new(),
            lines,
            reader: Some(reader),
            http: http.clone(),
        }
    }

    fn told_address(&self) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        let line = lines.iter().find(|line| line.contains("daemon started"))?;
        let told: Json = serde_json::from_str(line).ok()?;
        Some(format!("http://{}", told["address"].as_str()?))
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn health(&self) -> Json {
        let url = format!("{}/api/v1/health", self.url);
        self.http
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = self
            .http
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub async fn post(&self, path: &str, body: &Json) -> (u16, String) {
        let call = self.http.post(format!("{}{path}", self.url)).json(body);
        let answer = call.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Waits until the health page fulfils `holds`.
    pub async fn wait_for(&self, what: &str, holds: impl Fn(&Json) -> bool) -> Json {
        let until = Instant::now() + PATIENCE;
        loop {
            let health = self.health().await;
            if holds(&health) {
                return health;
            }
            assert!(
                Instant::now() < until,
                "{what} does not come: {health:#}\n{}",
                self.tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every object has been synced once.
    pub async fn synced(&self) {
        self.wait_for("the first sync", |health| {
            let objects = health["connections"]["acme"]["objects"].as_object();
            objects.is_some_and(|objects| {
                objects.len() == 3
                    && objects
                        .values()
                        .all(|object| !object["synced_at"].is_null())
            })
        })
        .await;
    }

    pub fn kill(mut self) {
        self.die();
    }

    /// `kill -9`, and the wait until it is gone with its locks.
    pub fn die(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let told = Command::new("bash")
            .args(["-c", &format!("kill -{name} \"$0\""), &pid])
            .status();
        assert!(told.unwrap().success());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let status = self.child.wait().unwrap();
        // Its last words are read when the pipe ends.
        self.reader.take().unwrap().join().unwrap();
        (status, self.tail())
    }

    /// Waits for a process that ends by itself.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        // Its last words are read when the pipe ends.
        self.reader.take().unwrap().join().unwrap();
        (status, self.tail())
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn tail(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, as a rule.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
