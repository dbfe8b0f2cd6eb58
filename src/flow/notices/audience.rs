//! The audience: who is told of each connection and each job.

use std::collections::BTreeMap;

use crate::config::connection::ConnectionConfig;
use crate::config::job::Routine;
use crate::config::notify::{RecipientConfig, Wish};
use crate::model::name::{ConnectionId, JobId};
use crate::notify::port::Address;

/// Who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    jobs: BTreeMap<(ConnectionId, JobId), Told>,
    connections: BTreeMap<ConnectionId, Told>,
}

/// Who is told of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When it went wrong, and when it goes on.
    pub failure: Ears,
    /// When it went well.
    pub success: Ears,
}

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ears {
    /// These, or nobody.
    Named(Vec<Address>),
    /// The signed-in user of the connection.
    User,
}

/// Nobody.
pub(super) const NOBODY: &Ears = &Ears::Named(Vec::new());

impl Audience {
    /// The audience that the config names. A job's list stands above its connection's; where neither has one, the
    /// connection's user is told of failures, if mails can be sent.
    #[must_use]
    pub fn new(
        recipients: &BTreeMap<String, RecipientConfig>,
        has_mail: bool,
        connections: &BTreeMap<ConnectionId, ConnectionConfig>,
        routines: &BTreeMap<(ConnectionId, JobId), Routine>,
    ) -> Self {
        let silent = Wish::default();
        let told = |job: &Wish, connection: &Wish| {
            let failure = job.failure.as_ref().or(connection.failure.as_ref());
            let success = job.success.as_ref().or(connection.success.as_ref());
            let named = |names: &Vec<String>| Ears::Named(addresses(names, recipients));
            Told {
                failure: match failure {
                    Some(names) => named(names),
                    None if has_mail => Ears::User,
                    None => NOBODY.clone(),
                },
                success: success.map_or_else(|| NOBODY.clone(), named),
            }
        };
        let of = |id: &ConnectionId| {
            connections
                .get(id)
                .map_or(&silent, ConnectionConfig::notify)
        };
        Self {
            jobs: routines
                .iter()
                .map(|(key, routine)| (key.clone(), told(&routine.notify, of(&key.0))))
                .collect(),
            connections: connections
                .iter()
                .map(|(id, connection)| (id.clone(), told(&silent, connection.notify())))
                .collect(),
        }
    }

    /// Who is told of a job that went wrong.
    pub(super) fn of_job(&self, connection: &ConnectionId, job: &JobId) -> Option<&Told> {
        self.jobs.get(&(connection.clone(), job.clone()))
    }

    /// Who is told of a connection.
    pub(super) fn of_connection(&self, connection: &ConnectionId) -> Option<&Told> {
        self.connections.get(connection)
    }

    /// Whether the connection's user is told of anything.
    pub(super) fn asks_for_user(&self, connection: &ConnectionId) -> bool {
        let jobs = self.jobs.iter().filter(|((of, _), _)| of == connection);
        let all = jobs
            .map(|(_, told)| told)
            .chain(self.connections.get(connection));
        all.into_iter().any(|told| told.failure == Ears::User)
    }
}

/// The addresses of names, each once.
#[must_use]
pub fn addresses(names: &[String], recipients: &BTreeMap<String, RecipientConfig>) -> Vec<Address> {
    let mut all = Vec::new();
    for name in names {
        let Some(recipient) = recipients.get(name) else {
            continue;
        };
        let mails = recipient.mail.iter().cloned().map(Address::Mail);
        let hook = recipient.webhook.as_ref();
        let hook = hook.map(|_| Address::Webhook(name.clone()));
        for address in mails.chain(hook) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    all
}
