//! A PostgreSQL server of the bench's own, on a Unix socket: synced to disk, with the settings that RESULTS.md names.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tributary::postgres::Settings;
use tributary::target::postgres::PostgresSettings;

/// Makes a cluster, tells its process when it answers, ends it when the input ends, and leaves nothing.
const SCRIPT: &str = r#"
set -eu
dir=$1 bin=$2 autovacuum=$3 more=$4
umask 077
cd "$dir"
"$bin/initdb" -D data -U postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync >initdb.log
"$bin/postgres" -D data -c listen_addresses= -c unix_socket_directories="$dir" -c max_connections=50 \
  -c fsync=on -c synchronous_commit=on -c full_page_writes=on -c shared_buffers=1GB -c max_wal_size=8GB \
  -c checkpoint_timeout=1h -c autovacuum=$autovacuum -c logging_collector=off $more >server.log 2>&1 &
pid=$!
until "$bin/pg_isready" -q -h "$dir"; do
  kill -0 "$pid" 2>/dev/null || { cat server.log >&2; exit 1; }
  sleep 0.05
done
echo "$pid"
cat >/dev/null
kill -INT "$pid"
wait "$pid" || true
cd /
rm -rf "$dir"
"#;

/// The running server; it ends with this process.
pub struct Server {
    pub pid: u32,
    dir: PathBuf,
    _script: Child,
}

impl Server {
    /// Tidied up by [`Server::vacuum`] alone.
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with("off")
    }

    /// With autovacuum, for work without pauses; panics as [`Server::start`].
    pub fn tended() -> Self {
        Self::start_with("on")
    }

    fn start_with(autovacuum: &str) -> Self {
        // On a disk: /tmp may be memory.
        let dir = tempfile::Builder::new()
            .prefix("tributary-bench-")
            .tempdir_in("/var/tmp")
            .unwrap()
            .keep();
        let mut script = as_nobody_special(&dir)
            .args(["sh", "-c", SCRIPT, "sh"])
            .arg(&dir)
            .arg(binaries())
            .arg(autovacuum)
            .arg(if tells_statements() {
                "-c shared_preload_libraries=pg_stat_statements -c pg_stat_statements.track_planning=on"
            } else {
                ""
            })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = script.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let pid = line.trim().parse();
        Self {
            pid: pid.unwrap_or_else(|_| panic!("PostgreSQL does not start: see {}", dir.display())),
            dir,
            _script: script,
        }
    }

    pub fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.dir.display())
    }

    /// Settings of a target with schemas of its own.
    pub fn target(&self, name: &str, writers: usize) -> PostgresSettings {
        target_at(self.url(), name, writers)
    }

    /// A connection of the bench's own.
    pub async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    /// Forgets what statements took so far, if that is counted.
    pub async fn forget_statements(&self) {
        if tells_statements() {
            let client = self.client().await;
            let sql = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT pg_stat_statements_reset()";
            client.batch_execute(sql).await.unwrap();
        }
    }

    /// Tells what each statement took since, longest first, as the server's time (not its CPU time).
    pub async fn tell_statements(&self, name: &str) {
        if !tells_statements() {
            return;
        }
        let sql = "SELECT calls, total_exec_time + total_plan_time, rows,
                left(regexp_replace(query, '\\s+', ' ', 'g'), 150)
            FROM pg_stat_statements ORDER BY 2 DESC LIMIT 60";
        for row in self.client().await.query(sql, &[]).await.unwrap() {
            super::report::line(serde_json::json!({
                "bench": name, "calls": row.get::<_, i64>(0), "ms": super::report::round(row.get(1)),
                "rows": row.get::<_, i64>(2), "statement": row.get::<_, String>(3),
            }));
        }
    }

    /// Tidies up between stretches, outside of what is timed; autovacuum is off.
    pub async fn vacuum(&self) {
        let client = self.client().await;
        client.batch_execute("VACUUM").await.unwrap();
    }
}

/// Whether `TRIBUTARY_BENCH_STATEMENTS=1` asks for the time of each statement, which costs a little itself.
fn tells_statements() -> bool {
    super::report::setting("TRIBUTARY_BENCH_STATEMENTS", 0) > 0
}

/// Settings of a target with schemas of its own, on a server of another process.
pub fn target_at(url: String, name: &str, writers: usize) -> PostgresSettings {
    PostgresSettings {
        writers,
        store: format!("{name}_store"),
        ledger: format!("{name}_ledger"),
        ..PostgresSettings::new(Settings {
            url,
            password: None,
            ssl_mode: None,
            ca_file: None,
            statement_timeout: Duration::from_secs(600),
        })
    }
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
        panic!("this bench needs PostgreSQL's server: apt-get install postgresql")
    })
}
