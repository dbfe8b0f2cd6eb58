//! One connection with its prepared statements.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::Server;
use super::error::{OrderError, fault};
use crate::fault::Fault;

/// Statements kept prepared; more are made when jobs come and go, so the oldest are not worth telling apart.
const MAX_STATEMENTS: usize = 1_000;

/// A connection.
pub struct Session {
    number: u64,
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Server {
    /// Connects.
    ///
    /// # Errors
    /// As the server's answer says (`Credentials`, `Missing`, `Throttled` …), `Config` if its certificate is not
    /// trusted, `Unavailable` if it can't be reached.
    pub async fn session(&self) -> Result<Session, Fault> {
        let doing = || format!("connecting to {}", self.name);
        let mut config = self.config.clone();
        if let Some(source) = &self.password {
            let password = source().map_err(|fault| fault.context(doing()))?;
            config.password(password.expose());
        }
        let connected = Box::pin(config.connect(self.tls.connector())).await;
        let (client, connection) = connected.map_err(|error| fault(error).context(doing()))?;
        tokio::spawn(async move {
            // Whoever uses the client hears of the error.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        let timeout = self.statement_timeout.as_millis();
        // Every statement finds rows by their keys, by a plan that is made once and kept. What the planner believes
        // of a table when it is empty would make it read whole tables when that has grown.
        let settings = format!(
            "SET statement_timeout = {timeout}; SET idle_in_transaction_session_timeout = 60000;
             SET client_min_messages = warning; SET timezone = 'UTC'; SET jit = off;
             SET default_transaction_isolation = 'read committed';
             SET plan_cache_mode = force_generic_plan;
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
             SET enable_memoize = off"
        );
        client
            .batch_execute(&settings)
            .await
            .map_err(|error| fault(error).context(doing()))?;
        Ok(Session {
            number: self.sessions.fetch_add(1, Ordering::Relaxed) + 1,
            client,
            statements: HashMap::new(),
        })
    }
}

/// Values of a statement.
pub type Params<'a> = [&'a (dyn ToSql + Sync)];

impl Session {
    /// Which of the server's sessions it is, from 1.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The client itself.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// A statement, prepared once per connection.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn statement(&mut self, sql: &str) -> Result<Statement, OrderError> {
        if let Some(known) = self.statements.get(sql) {
            return Ok(known.clone());
        }
        let statement = self.client.prepare(sql).await?;
        if self.statements.len() >= MAX_STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs a statement that yields rows.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn query(&mut self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, OrderError> {
        let statement = self.statement(sql).await?;
        Ok(self.client.query(&statement, params).await?)
    }

    /// Runs a statement; how many rows it wrote.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn execute(&mut self, sql: &str, params: &Params<'_>) -> Result<u64, OrderError> {
        let statement = self.statement(sql).await?;
        Ok(self.client.execute(&statement, params).await?)
    }

    /// Runs statements without values.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn run(&self, sql: &str) -> Result<(), OrderError> {
        Ok(self.client.batch_execute(sql).await?)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::fault::FaultKind;
    use crate::postgres::{Settings, SslMode};

    #[tokio::test]
    async fn a_server_without_tls_is_named_and_nothing_is_sent_in_plain_text() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            // SSLRequest is eight bytes; `N` refuses (PostgreSQL documentation, "SSL Session Encryption").
            let mut request = [0; 8];
            peer.read_exact(&mut request).await.unwrap();
            peer.write_all(b"N").await.unwrap();
            let mut more = Vec::new();
            peer.read_to_end(&mut more).await.unwrap();
            more
        });
        let settings = Settings {
            url: format!("postgres://me@127.0.0.1:{port}/db"),
            password: None,
            ssl_mode: Some(SslMode::Require),
            ca_file: None,
            statement_timeout: Duration::ZERO,
        };
        let fault = Server::new(&settings).unwrap().session().await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Config, "{}", fault.report());
        assert!(
            fault.report().contains("does not speak TLS"),
            "{}",
            fault.report()
        );
        assert_eq!(server.await.unwrap(), Vec::<u8>::new());
    }
}
