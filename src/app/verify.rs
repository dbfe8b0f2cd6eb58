//! `verify`: a connection's objects compared with the store, beside the daemon.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::Priority;
use crate::config::Config;
use crate::crm::port::Crm;
use crate::fault::{Fault, FaultKind};
use crate::flow::connection::Selected;
use crate::flow::road::lacking;
use crate::flow::verify::{Verified, Verify};
use crate::image::sqlite::SqliteImages;
use crate::mapping::compile::Mapping;
use crate::model::name::{ConnectionId, ObjectKey, ObjectName};
use crate::runtime::clock::SystemClock;

use super::selection::selected;
use super::sign_in::Beside;

/// What is to be verified.
pub struct Wanted<'a> {
    /// The connection.
    pub connection: &'a str,
    /// One object of it; all that jobs select, if none is named.
    pub object: Option<&'a str>,
    /// So many records of each, by chance; all, if none is said.
    pub sample: Option<usize>,
    /// How many findings are told of each.
    pub limit: usize,
    /// How long a change may be on its way before a record that differs is looked at again.
    pub patience: Duration,
}

/// Compares objects one after the other.
///
/// # Errors
/// `Missing` for a connection or an object there is not; else as CRM, images or store say.
pub async fn verify(
    config: &Config,
    wanted: &Wanted<'_>,
) -> Result<Vec<(ObjectName, Verified)>, Fault> {
    let connection = ConnectionId::new(wanted.connection);
    let mappings = super::compile(config)?;
    let all = mappings.iter();
    let mine: Vec<_> = all
        .filter(|mapping| mapping.plan().connection == connection)
        .collect();
    let objects = selected(mine.iter().copied());
    if let Some(object) = wanted.object
        && !objects.contains_key(object)
    {
        let names: Vec<&str> = objects.keys().map(ObjectName::as_str).collect();
        let what = format!("no enabled job of {connection} selects {object}");
        return Err(Fault::new(FaultKind::Missing, what)
            .remedy(format!("name one of: {}", names.join(", "))));
    }
    let found = config.connections.get(&connection).ok_or_else(|| {
        Fault::new(FaultKind::Missing, format!("no connection {connection}"))
            .remedy(format!("add connections/{connection}.toml"))
    })?;
    let mut beside = Beside::open(config, &[found]).await;
    let verified = match beside.crms.remove(&connection) {
        Some(Ok(crm)) => {
            let all = objects_of(config, wanted, &*crm, &mine, objects);
            Priority::Verify.scope(all).await
        }
        Some(Err(fault)) => Err(fault),
        None => Err(Fault::new(FaultKind::Missing, "no connector")),
    };
    beside.close().await?;
    verified
}

async fn objects_of(
    config: &Config,
    wanted: &Wanted<'_>,
    crm: &dyn Crm,
    mine: &[&Arc<Mapping>],
    objects: Selected,
) -> Result<Vec<(ObjectName, Verified)>, Fault> {
    let images = SqliteImages::read_only(&config.daemon.data_dir);
    let store = super::beside::store(config)?;
    let mut told = Vec::new();
    for (object, fields) in objects {
        let is_wanted = wanted.object.is_none_or(|wanted| wanted == object.as_str());
        if !is_wanted {
            continue;
        }
        // What the user does not see any more, the daemon leaves alone too.
        let gone = lacking(&fields, &crm.describe(&object).await?);
        let jobs = mine
            .iter()
            .filter(|mapping| mapping.plan().source == object);
        let verify = Verify {
            crm,
            images: &images,
            store: &*store,
            clock: Arc::new(SystemClock),
            key: ObjectKey {
                connection: ConnectionId::new(wanted.connection),
                object: object.clone(),
            },
            fields: fields.difference(&gone).cloned().collect(),
            mappings: jobs.map(|mapping| Arc::clone(mapping)).collect(),
            patience: wanted.patience,
        };
        let verified = verify.run(wanted.sample, wanted.limit).await;
        let verified = verified.map_err(|fault| fault.context(format!("verifying {object}")))?;
        told.push((object, verified));
    }
    Ok(told)
}
