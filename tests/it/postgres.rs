//! A PostgreSQL server of the tests' own, which can be killed and started again; gone when its owner is.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

/// The role that daemons log in as.
pub const ROLE: &str = "tributary";
pub const ROLE_PASSWORD: &str = "the-store's-password";
/// A start goes wrong without fault if another process takes the port between choosing and listening.
const ATTEMPTS: usize = 5;

/// Makes a CA, a certificate for `localhost`, and a cluster that takes encrypted connections with passwords over TCP;
/// says `ready` when it answers, obeys `kill` and `start`, and leaves nothing when its input ends.
const SCRIPT: &str = r#"
set -eu
dir=$1 bin=$2 port=$3
umask 077
cd "$dir"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=Tributary test CA" -keyout ca.key -out ca.crt 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout server.key -out server.csr 2>/dev/null
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt 2>/dev/null
"$bin/initdb" -D data -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync >initdb.log
cat > data/pg_hba.conf <<HBA
local all postgres trust
hostssl all all 127.0.0.1/32 scram-sha-256
HBA
start() {
  # After a kill the shared memory is free when the last process has seen that its parent is gone.
  left=100
  while :; do
    "$bin/postgres" -D data -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$dir" \
      -c fsync=off -c max_connections=300 -c shared_buffers=128MB -c ssl=on -c ssl_cert_file="$dir/server.crt" \
      -c ssl_key_file="$dir/server.key" -c deadlock_timeout=200ms -c logging_collector=off >>server.log 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
      if "$bin/pg_isready" -q -h "$dir" -p "$port"; then echo ready; return; fi
      sleep 0.05
    done
    left=$((left - 1))
    [ "$left" -gt 0 ] || exit 1
    sleep 0.1
  done
}
start
while read -r order; do
  case $order in
    kill) kill -KILL "$pid"; { wait "$pid"; } 2>/dev/null || true; echo killed ;;
    start) start ;;
  esac
done
kill -INT "$pid" 2>/dev/null || true
wait "$pid" || true
cd /
rm -rf "$dir"
"#;

/// A server.
pub struct Server {
    dir: PathBuf,
    port: u16,
    script: Mutex<Script>,
}

struct Script {
    process: Child,
    told: BufReader<ChildStdout>,
}

impl Server {
    /// The one that all tests share who let it live.
    pub fn shared() -> Arc<Self> {
        static SERVER: OnceLock<Arc<Server>> = OnceLock::new();
        Arc::clone(SERVER.get_or_init(Self::start))
    }

    /// A new one.
    pub fn start() -> Arc<Self> {
        for _ in 0..ATTEMPTS {
            let dir = tempfile::Builder::new()
                .prefix("tributary-pg-")
                .tempdir_in("/tmp");
            let dir = dir.unwrap().keep();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let server = Self {
                script: Mutex::new(run(&dir, port)),
                dir,
                port,
            };
            if server.hears("ready") {
                return Arc::new(server);
            }
        }
        panic!("PostgreSQL does not start; its words are in /tmp/tributary-pg-*/server.log");
    }

    /// `kill -9`, as a crash of its machine is to whoever talks to it.
    pub fn kill(&self) {
        self.order("kill");
        assert!(self.hears("killed"));
    }

    /// Starts it again on what it left.
    pub fn start_again(&self) {
        self.order("start");
        assert!(self.hears("ready"), "PostgreSQL does not come back");
    }

    fn order(&self, order: &str) {
        let mut script = self.script.lock().unwrap();
        let input = script.process.stdin.as_mut().unwrap();
        writeln!(input, "{order}").unwrap();
    }

    fn hears(&self, word: &str) -> bool {
        let mut line = String::new();
        let mut script = self.script.lock().unwrap();
        script.told.read_line(&mut line).unwrap();
        line.trim() == word
    }

    /// What a daemon's config has for a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@localhost:{}/{database}", self.port)
    }

    /// Who signed the server's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A superuser's connection, by the socket.
    pub async fn client(&self, database: &str) -> tokio_postgres::Client {
        self.reach(database).await.unwrap()
    }

    /// The same, of a server that may be away.
    pub async fn reach(
        &self,
        database: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let target = format!(
            "host={} port={} user=postgres dbname={database}",
            self.dir.display(),
            self.port
        );
        let connected = tokio_postgres::connect(&target, tokio_postgres::NoTls).await;
        let (client, connection) = connected?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A role and a database as `docs/postgresql.md` asks for them.
    pub async fn make_database(&self, name: &str) {
        let admin = self.client("postgres").await;
        let password = ROLE_PASSWORD.replace('\'', "''");
        let role = format!(
            "DO $$ BEGIN
                PERFORM pg_advisory_xact_lock(1);
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
                    CREATE ROLE {ROLE} LOGIN PASSWORD '{password}';
                END IF;
             END $$"
        );
        admin.batch_execute(&role).await.unwrap();
        let database = format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'");
        admin.batch_execute(&database).await.unwrap();
        let rights = format!(
            "REVOKE ALL ON DATABASE \"{name}\" FROM PUBLIC; GRANT CONNECT ON DATABASE \"{name}\" TO {ROLE}"
        );
        admin.batch_execute(&rights).await.unwrap();
        let schemas = format!(
            "CREATE SCHEMA store AUTHORIZATION {ROLE}; CREATE SCHEMA tributary AUTHORIZATION {ROLE};
             CREATE SCHEMA tributary_state AUTHORIZATION {ROLE}"
        );
        let inside = self.client(name).await;
        inside.batch_execute(&schemas).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let script = self.script.get_mut().unwrap();
        drop(script.process.stdin.take());
        script.process.wait().ok();
    }
}

fn run(dir: &Path, port: u16) -> Script {
    let mut process = as_nobody_special(dir)
        .args(["sh", "-c", SCRIPT, "sh"])
        .arg(dir)
        .arg(binaries())
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(process.stdout.take().unwrap());
    Script { process, told }
}

/// PostgreSQL refuses to run as root: then it is run as the user that its package made.
fn as_nobody_special(dir: &Path) -> Command {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !is_root {
        return Command::new("env");
    }
    let given = Command::new("chown").arg("postgres").arg(dir).status();
    assert!(
        given.unwrap().success(),
        "there is no user `postgres`: install the package postgresql"
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command
}

/// Where the newest installed version lies.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let found = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").is_file())
        .max();
    found.unwrap_or_else(|| {
        panic!("these tests need PostgreSQL's server: `apt-get install postgresql`, or run tests/run, which does")
    })
}
