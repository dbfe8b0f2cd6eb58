//! A PostgreSQL server of the tests' own: made when the first test asks, gone when the process is.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::postgres::{Settings, SslMode};
use crate::secret::Secret;

/// How a start may go wrong without fault: another process takes the port between choosing and listening.
const ATTEMPTS: usize = 5;

/// Makes a CA and a certificate for `localhost`, and a cluster that logs users in over TCP by their passwords; says
/// `ready` when it answers; ends it when its input ends, and leaves nothing.
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
local all all trust
host all all 127.0.0.1/32 scram-sha-256
HBA
"$bin/postgres" -D data -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$dir" \
  -c fsync=off -c max_connections=300 -c shared_buffers=128MB -c ssl=on -c ssl_cert_file="$dir/server.crt" \
  -c ssl_key_file="$dir/server.key" -c deadlock_timeout=200ms -c logging_collector=off >server.log 2>&1 &
pid=$!
until "$bin/pg_isready" -q -h "$dir" -p "$port"; do
  kill -0 "$pid" 2>/dev/null || { cat server.log >&2; exit 1; }
  sleep 0.05
done
echo ready
cat >/dev/null
kill -INT "$pid"
wait "$pid" || true
cd /
rm -rf "$dir"
"#;

/// The running server.
pub struct TestServer {
    pub dir: PathBuf,
    pub port: u16,
    /// Holds the script's input open as long as this process lives.
    _script: Child,
}

/// The server of this process.
pub fn server() -> &'static TestServer {
    static SERVER: OnceLock<TestServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        for _ in 1..ATTEMPTS {
            if let Ok(server) = start() {
                return server;
            }
        }
        start().unwrap_or_else(|told| panic!("PostgreSQL does not start: {told}"))
    })
}

fn start() -> Result<TestServer, String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let dir = tempfile::Builder::new()
        .prefix("tributary-pg-")
        .tempdir_in("/tmp")
        .unwrap()
        .keep();
    let mut command = as_nobody_special(&dir);
    let mut script = command
        .args(["sh", "-c", SCRIPT, "sh"])
        .arg(&dir)
        .arg(binaries())
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    let output = script.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    if line.trim() == "ready" {
        return Ok(TestServer {
            dir,
            port,
            _script: script,
        });
    }
    Err(format!("see {}", dir.join("server.log").display()))
}

/// PostgreSQL refuses to run as root: then it is run as the user that its package made.
fn as_nobody_special(dir: &Path) -> Command {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !root {
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

impl TestServer {
    /// By the socket, as superuser.
    pub fn local(&self) -> Settings {
        Settings {
            url: format!(
                "host={} port={} user=postgres dbname=postgres",
                self.dir.display(),
                self.port
            ),
            password: None,
            ssl_mode: None,
            ca_file: None,
            statement_timeout: Duration::from_secs(60),
        }
    }

    /// By TCP, with a password.
    pub fn remote(
        &self,
        host: &str,
        user: &str,
        password: &'static str,
        mode: SslMode,
    ) -> Settings {
        Settings {
            url: format!("postgres://{user}@{host}:{}/postgres", self.port),
            password: Some(std::sync::Arc::new(move || Ok(Secret::new(password)))),
            ssl_mode: Some(mode),
            ca_file: Some(self.dir.join("ca.crt")),
            statement_timeout: Duration::from_secs(60),
        }
    }

    /// A client of the tests' own.
    pub async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) =
            tokio_postgres::connect(&self.local().url, tokio_postgres::NoTls)
                .await
                .unwrap();
        tokio::spawn(connection);
        client
    }
}
