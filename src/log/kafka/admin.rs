//! Topics on the broker: made with their settings, and checked against them.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::fault::{fate, refused};
use crate::log::kafka::settings::{KafkaSettings, MAX_MESSAGE_BYTES};
use crate::log::kafka::topic_id::topic_id;
use crate::log::port::{Policy, TopicSpec};
use crate::log::topic::check_same;

/// How long the broker may take to answer.
const WAIT: Duration = Duration::from_secs(15);
/// How long a new topic may take to be known.
const KNOWN: Duration = Duration::from_secs(30);

pub(super) type Admin = AdminClient<super::Quiet>;

/// Makes the topic if it is not there, checks it, and answers with its id.
pub(super) async fn ensure(
    admin: &std::sync::Arc<Admin>,
    settings: &KafkaSettings,
    spec: &TopicSpec,
) -> Result<String, Fault> {
    let doing = format!("making topic `{}`", spec.name);
    let replication = TopicReplication::Fixed(settings.replication);
    let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
    let wanted = properties(spec.policy);
    let mut topic = NewTopic::new(&spec.name, partitions, replication);
    for (name, value) in &wanted {
        topic = topic.set(name, value);
    }
    let options = AdminOptions::new()
        .operation_timeout(Some(WAIT))
        .request_timeout(Some(WAIT));
    let made = admin
        .create_topics([&topic], &options)
        .await
        .map_err(|error| refused(&doing, error))?;
    for outcome in made {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                let (kind, remedy) = fate(code);
                let fault = Fault::new(kind, format!("{doing}: {code}"));
                return Err(match remedy {
                    Some(remedy) => fault.remedy(remedy),
                    None => fault,
                });
            }
        }
    }
    let id = known_id(admin, &spec.name).await?;
    let found = describe(
        admin,
        &spec.name,
        settings.checks_lag.then_some(spec.policy),
    )
    .await?;
    check_same(&found, spec)?;
    Ok(id)
}

/// A topic that was just made takes a moment to be known everywhere.
async fn known_id(admin: &std::sync::Arc<Admin>, name: &str) -> Result<String, Fault> {
    let until = tokio::time::Instant::now() + KNOWN;
    loop {
        let (asked, topic) = (std::sync::Arc::clone(admin), name.to_owned());
        let found = tokio::task::spawn_blocking(move || topic_id(&asked, &topic, WAIT))
            .await
            .map_err(|error| {
                Fault::new(FaultKind::Stopping, "asking the broker").source(error)
            })??;
        match found {
            Some(id) => return Ok(id),
            None if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            None => {
                return Err(Fault::new(
                    FaultKind::Unavailable,
                    format!("topic `{name}` was made and the broker does not know it yet"),
                ));
            }
        }
    }
}

/// The settings that the road needs.
fn properties(policy: Policy) -> Vec<(&'static str, String)> {
    let mut properties = vec![("max.message.bytes", MAX_MESSAGE_BYTES.to_string())];
    match policy {
        Policy::Compact {
            min_lag,
            delete_retention,
        } => properties.extend([
            ("cleanup.policy", "compact".to_owned()),
            ("min.compaction.lag.ms", min_lag.as_millis().to_string()),
            (
                "delete.retention.ms",
                delete_retention.as_millis().to_string(),
            ),
        ]),
        Policy::Delete { retention } => properties.extend([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention.as_millis().to_string()),
        ]),
    }
    properties
}

/// The topic as the broker has it. Where `take` is given, its times stand in for those found that are longer: they
/// lose nothing.
pub(super) async fn describe(
    admin: &Admin,
    name: &str,
    take: Option<Policy>,
) -> Result<TopicSpec, Fault> {
    let doing = format!("checking topic `{name}`");
    let options = AdminOptions::new().request_timeout(Some(WAIT));
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(name)], &options)
        .await
        .map_err(|error| refused(&doing, error))?;
    let mut found: HashMap<String, String> = HashMap::new();
    for resource in described {
        let resource = resource.map_err(|code| {
            let (kind, _) = fate(code);
            Fault::new(kind, format!("{doing}: {code}"))
        })?;
        for entry in resource.entries {
            if let Some(value) = entry.value {
                found.insert(entry.name, value);
            }
        }
    }
    let metadata = admin
        .inner()
        .fetch_metadata(Some(name), WAIT)
        .map_err(|error| refused(&doing, error))?;
    let partitions = metadata
        .topics()
        .iter()
        .find(|topic| topic.name() == name)
        .map_or(0, |topic| topic.partitions().len());
    check_size(name, &found)?;
    Ok(TopicSpec {
        name: name.to_owned(),
        partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
        policy: policy(name, &found, take)?,
    })
}

fn check_size(name: &str, found: &HashMap<String, String>) -> Result<(), Fault> {
    let bytes: usize = found
        .get("max.message.bytes")
        .and_then(|value| value.parse().ok())
        .unwrap_or(usize::MAX);
    if bytes >= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Config,
        format!("topic `{name}` has max.message.bytes = {bytes}, {MAX_MESSAGE_BYTES} are needed"),
    )
    .remedy("set it with kafka-configs"))
}

fn policy(
    name: &str,
    found: &HashMap<String, String>,
    take: Option<Policy>,
) -> Result<Policy, Fault> {
    let millis = |property: &str| {
        let value = found
            .get(property)
            .and_then(|value| value.parse::<i64>().ok());
        // -1 is for ever.
        value.map(|value| u64::try_from(value).map_or(Duration::MAX, Duration::from_millis))
    };
    let at_least = |found: Duration, wanted: Duration| if found > wanted { wanted } else { found };
    let cleanup = found.get("cleanup.policy").map_or("", String::as_str);
    match cleanup {
        "compact" => {
            let min_lag = millis("min.compaction.lag.ms").unwrap_or_default();
            let delete_retention = millis("delete.retention.ms").unwrap_or_default();
            Ok(match take {
                Some(Policy::Compact {
                    min_lag: lag,
                    delete_retention: kept,
                }) => Policy::Compact {
                    min_lag: at_least(min_lag, lag),
                    delete_retention: at_least(delete_retention, kept),
                },
                _ => Policy::Compact {
                    min_lag,
                    delete_retention,
                },
            })
        }
        "delete" => {
            let retention = millis("retention.ms").unwrap_or_default();
            Ok(Policy::Delete {
                retention: match take {
                    Some(Policy::Delete { retention: wanted }) => at_least(retention, wanted),
                    _ => retention,
                },
            })
        }
        other => Err(Fault::new(
            FaultKind::Config,
            format!("topic `{name}` has cleanup.policy = `{other}`"),
        )
        .remedy(
            "use a broker that compacts: with another policy the log forgets records that live",
        )),
    }
}
