//! The world's store: how the config names it, and its rows as SQL tells them, past the daemon's own code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use crate::postgres::{ROLE_PASSWORD, Server};

/// Where the daemon finds the password of the store.
pub const STORE_PASSWORD_IN: &str = "STORE_PASSWORD";
pub const STORE_PASSWORD: &str = ROLE_PASSWORD;

/// A row, columns by name.
pub type Row = BTreeMap<String, Json>;

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

    /// All rows of a table; none while there is no such table.
    pub async fn rows(&self, table: &str) -> Vec<Row> {
        match self {
            Self::Sqlite(file) if !file.exists() => Vec::new(),
            Self::Sqlite(file) => sqlite_rows(file, table),
            Self::Postgres { server, database } => {
                let client = server.client(database).await;
                let sql = format!("SELECT to_jsonb(t)::text FROM store.\"{table}\" t");
                match client.query(&sql, &[]).await {
                    Ok(rows) => rows
                        .iter()
                        .map(|row| serde_json::from_str(row.get(0)).unwrap())
                        .collect(),
                    Err(error) => {
                        let code = error.code().map(tokio_postgres::error::SqlState::code);
                        assert_eq!(code, Some("42P01"), "{error}");
                        Vec::new()
                    }
                }
            }
        }
    }
}

fn sqlite_rows(store: &Path, table: &str) -> Vec<Row> {
    use rusqlite::types::ValueRef;
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
        let cells = names.iter().enumerate().map(|(index, name)| {
            let value = match row.get_ref(index).unwrap() {
                ValueRef::Null => Json::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Real(number) => number.into(),
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
                ValueRef::Blob(_) => panic!("{table}.{name} holds bytes"),
            };
            (name.clone(), value)
        });
        found.push(cells.collect());
    }
    found
}
