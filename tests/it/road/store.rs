//! The world's store: how the config names it, and its rows as SQL tells them, past the daemon's own code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::ValueRef;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::postgres::{ROLE, ROLE_PASSWORD, Server};

/// Where the daemon finds the password of the store.
pub const STORE_PASSWORD_IN: &str = "STORE_PASSWORD";
pub const STORE_PASSWORD: &str = ROLE_PASSWORD;

/// A row, columns by name.
pub type Row = BTreeMap<String, Json>;
/// A row with each cell as its text, numbers with all their digits.
pub type Texts = BTreeMap<String, Option<String>>;

pub enum Store {
    /// The default: a file in the data directory.
    Sqlite(PathBuf),
    /// A database on a server.
    Postgres {
        server: Arc<Server>,
        database: String,
    },
}

impl Store {
    /// SQLite, or what `TRIBUTARY_TEST_STORE` names. `name` is a world's own.
    pub async fn chosen(name: &str, data: &Path) -> Self {
        match std::env::var("TRIBUTARY_TEST_STORE").as_deref() {
            Ok("postgres") => Self::postgres(Server::shared(), name).await,
            Ok("sqlite") | Err(_) => Self::Sqlite(data.join("store.db")),
            Ok(other) => {
                panic!("TRIBUTARY_TEST_STORE is `{other}`, and neither postgres nor sqlite")
            }
        }
    }

    /// A database of its own on `server`.
    pub async fn postgres(server: Arc<Server>, name: &str) -> Self {
        server.make_database(name).await;
        Self::Postgres {
            server,
            database: name.to_owned(),
        }
    }

    /// Gives the daemon's role what replays need beyond the least (`docs/postgresql.md`).
    pub async fn let_schemas_be_made(&self) {
        if let Self::Postgres { server, database } = self {
            let grant = format!("GRANT CREATE ON DATABASE \"{database}\" TO {ROLE}");
            let client = server.client(database).await;
            client.batch_execute(&grant).await.unwrap();
        }
    }

    /// `[target]` of the config.
    pub fn section(&self) -> String {
        match self {
            Self::Sqlite(_) => String::new(),
            Self::Postgres { server, database } => format!(
                "[target]\nurl = \"{}\"\npassword = {{ env = \"{STORE_PASSWORD_IN}\" }}\nca_file = \"{}\"\n",
                server.url(database),
                server.authority().display()
            ),
        }
    }

    /// Changes rows past the daemon; `set` follows the table's name in an `UPDATE`.
    pub async fn tamper(&self, table: &str, set: &str) {
        match self {
            Self::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file).unwrap();
                connection.busy_timeout(Duration::from_secs(10)).unwrap();
                let sql = format!("UPDATE \"{table}\" {set}");
                assert_eq!(connection.execute(&sql, []).unwrap(), 1, "{sql}");
            }
            Self::Postgres { server, database } => {
                let client = server.client(database).await;
                let sql = format!("UPDATE store.\"{table}\" {set}");
                assert_eq!(client.execute(&sql, &[]).await.unwrap(), 1, "{sql}");
            }
        }
    }

    /// Adds a row past the daemon, held by a record `ghost` that nothing tells of, as the ledger would have it after
    /// applying a change as new as that of the record `like`.
    pub async fn plant(&self, table: &str, key: &str, like: &str, ghost: &str) {
        let gsid = uuid::Uuid::now_v7();
        let (of, crosswalk, uuid) = match self {
            Self::Sqlite(_) => (
                format!("\"{table}\""),
                "tributary_crosswalk",
                format!("'{gsid}'"),
            ),
            Self::Postgres { .. } => (
                format!("store.\"{table}\""),
                "tributary.crosswalk",
                format!("'{gsid}'::uuid"),
            ),
        };
        let sql = format!(
            "INSERT INTO {of} (gsid, created_date, modified_date, {key})
             SELECT {uuid}, created_date, modified_date, '{ghost}' FROM {of} WHERE {key} = '{like}';
             INSERT INTO {crosswalk} (connection, destination, record, object, gsid, version, gone)
             SELECT connection, destination, '{ghost}', object, {uuid}, version, gone FROM {crosswalk}
             WHERE destination = '{table}' AND record = '{like}'"
        );
        match self {
            Self::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file).unwrap();
                connection.busy_timeout(Duration::from_secs(10)).unwrap();
                connection.execute_batch(&sql).unwrap();
            }
            Self::Postgres { server, database } => {
                let client = server.client(database).await;
                client.batch_execute(&sql).await.unwrap();
            }
        }
    }

    /// All rows of a table; none while there is no such table.
    pub async fn rows(&self, table: &str) -> Vec<Row> {
        match self {
            Self::Sqlite(file) => sqlite_rows(file, table, |value| match value {
                ValueRef::Null => Json::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Real(number) => number.into(),
                other => text_of(other).into(),
            }),
            Self::Postgres { .. } => {
                let rows = self.postgres_rows(table).await;
                let rows = rows.iter().map(|row| serde_json::from_str(row).unwrap());
                rows.collect()
            }
        }
    }

    /// All rows of a table, each cell as its text; none while there is no such table.
    pub async fn texts(&self, table: &str) -> Vec<Texts> {
        match self {
            Self::Sqlite(file) => sqlite_rows(file, table, |value| match value {
                ValueRef::Null => None,
                ValueRef::Integer(number) => Some(number.to_string()),
                ValueRef::Real(number) => Some(number.to_string()),
                other => Some(text_of(other)),
            }),
            Self::Postgres { .. } => {
                let rows = self.postgres_rows(table).await;
                rows.iter().map(|row| json_texts(row)).collect()
            }
        }
    }

    async fn postgres_rows(&self, table: &str) -> Vec<String> {
        let Self::Postgres { server, database } = self else {
            return Vec::new();
        };
        let client = server.client(database).await;
        let sql = format!("SELECT to_jsonb(t)::text FROM store.\"{table}\" t");
        match client.query(&sql, &[]).await {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(error) => {
                let code = error.code().map(tokio_postgres::error::SqlState::code);
                assert_eq!(code, Some("42P01"), "{error}");
                Vec::new()
            }
        }
    }
}

/// The cells of a row that PostgreSQL shows as JSON.
fn json_texts(row: &str) -> Texts {
    let cells: BTreeMap<String, Box<RawValue>> = serde_json::from_str(row).unwrap();
    let text = |(name, cell): (String, Box<RawValue>)| {
        let text = match cell.get() {
            "null" => None,
            json if json.starts_with('"') => Some(serde_json::from_str(json).unwrap()),
            plain => Some(plain.to_owned()),
        };
        (name, text)
    };
    cells.into_iter().map(text).collect()
}

fn text_of(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("the store holds {other:?}"),
    }
}

fn sqlite_rows<T>(
    store: &Path,
    table: &str,
    cell: impl Fn(ValueRef<'_>) -> T,
) -> Vec<BTreeMap<String, T>> {
    if !store.exists() {
        return Vec::new();
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(store, flags).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    let Ok(mut statement) = connection.prepare(&format!("SELECT * FROM \"{table}\"")) else {
        return Vec::new();
    };
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let cells = names.iter().enumerate();
        let cells = cells.map(|(index, name)| (name.clone(), cell(row.get_ref(index).unwrap())));
        found.push(cells.collect());
    }
    found
}
