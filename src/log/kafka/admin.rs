//! Topics on the broker: made with their settings, and checked against them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::asker::{Asker, WAIT};
use crate::log::kafka::contact::{Contact, Listening};
use crate::log::kafka::fault::{of_code, refused};
use crate::log::kafka::settings::{KafkaSettings, MAX_MESSAGE_BYTES};
use crate::log::port::{Policy, TopicSpec};
use crate::log::topic::{check_same, closed};

/// How long a new topic may take to be known.
const KNOWN: Duration = Duration::from_secs(30);
/// Between two looks meanwhile.
const LOOK: Duration = Duration::from_millis(50);

type Client = AdminClient<Listening>;

/// Makes, checks and lists topics.
pub(super) struct Admin {
    /// Gone once the log is closed.
    client: Mutex<Option<Arc<Client>>>,
    asker: Arc<Asker>,
    replication: Option<u16>,
}

impl Admin {
    pub(super) fn new(
        settings: &KafkaSettings,
        contact: &Arc<Contact>,
        asker: &Arc<Asker>,
    ) -> Result<Self, Fault> {
        let client: Client = settings
            .admin()
            .create_with_context(Listening(Arc::clone(contact)))
            .map_err(|error| refused("setting up `[log.kafka]`", error))?;
        Ok(Self {
            client: Mutex::new(Some(Arc::new(client))),
            asker: Arc::clone(asker),
            replication: settings.replication,
        })
    }

    /// Makes the topic if it is not there, checks it, and answers with its id.
    pub(super) async fn ensure(&self, spec: &TopicSpec) -> Result<String, Fault> {
        let until = Instant::now() + KNOWN;
        loop {
            // Asked first: whoever may not create topics can use those that are there.
            let checked = match self.asker.topic_id(&spec.name).await? {
                Some(id) => self.check(spec).await.map(|()| Some(id)),
                None => self.make(spec).await.map(|()| None),
            };
            match checked {
                Ok(Some(id)) => return Ok(id),
                // A topic that was just made takes a moment to be known everywhere, and so does a deletion.
                Ok(None) if Instant::now() < until => {}
                Ok(None) => {
                    return Err(Fault::new(
                        FaultKind::Unavailable,
                        format!(
                            "topic `{}` was made and the brokers do not know it yet",
                            spec.name
                        ),
                    ));
                }
                Err(fault) if fault.kind() == FaultKind::Missing && Instant::now() < until => {}
                Err(fault) => return Err(fault),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Checks the topic if it is there, and tells whether it is.
    pub(super) async fn verify(&self, spec: &TopicSpec) -> Result<bool, Fault> {
        if self.asker.topic_id(&spec.name).await?.is_none() {
            return Ok(false);
        }
        self.check(spec).await.map(|()| true)
    }

    async fn check(&self, spec: &TopicSpec) -> Result<(), Fault> {
        let partitions = self.asker.partitions(&spec.name).await?.len();
        let found = self.settings(&[&spec.name]).await?;
        let found = found.get(&spec.name).cloned().unwrap_or_default();
        check_settings(&spec.name, &found)?;
        let found = TopicSpec {
            name: spec.name.clone(),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            policy: forgiving(policy(&spec.name, &found)?, spec.policy),
        };
        check_same(&found, spec)
    }

    /// All topics that could be the log's.
    pub(super) async fn topics(&self) -> Result<Vec<TopicSpec>, Fault> {
        let mut counts = self.asker.topics().await?;
        // The brokers' own.
        counts.retain(|name, _| !name.starts_with("__"));
        let names: Vec<&str> = counts.keys().map(String::as_str).collect();
        let settings = self.settings(&names).await?;
        let mut topics = Vec::new();
        for (name, partitions) in counts {
            let Some(found) = settings.get(&name) else {
                continue;
            };
            match policy(&name, found) {
                Ok(policy) => topics.push(TopicSpec {
                    name,
                    partitions,
                    policy,
                }),
                // Others' topics are none of ours.
                Err(fault) => tracing::debug!(error = %fault, "topic passed over"),
            }
        }
        Ok(topics)
    }

    /// Ends the client, off the runtime: its threads are joined.
    pub(super) fn close(&self) -> Option<Arc<impl Send + Sync + use<>>> {
        self.client
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn client(&self) -> Result<Arc<Client>, Fault> {
        let client = self.client.lock();
        let client = client.unwrap_or_else(PoisonError::into_inner).clone();
        client.ok_or_else(closed)
    }

    async fn make(&self, spec: &TopicSpec) -> Result<(), Fault> {
        let doing = format!("making topic `{}`", spec.name);
        let replicas = self.replication.map_or(-1, i32::from);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let wanted = wanted(spec.policy, self.replication);
        let mut topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replicas));
        for (name, value) in &wanted {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new()
            .operation_timeout(Some(WAIT))
            .request_timeout(Some(WAIT));
        let client = self.client()?;
        let made = client
            .create_topics([&topic], &options)
            .await
            .map_err(|error| refused(&doing, error))?;
        for outcome in made {
            match outcome {
                Ok(_) => tracing::info!(topic = spec.name, "topic made"),
                // By another daemon, a moment ago.
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(of_code(&doing, code)),
            }
        }
        Ok(())
    }

    /// Settings by topic; topics that may not be looked at are left out.
    async fn settings(
        &self,
        names: &[&str],
    ) -> Result<HashMap<String, HashMap<String, String>>, Fault> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let doing = match names {
            [name] => format!("checking topic `{name}`"),
            _ => "looking at the topics' settings".to_owned(),
        };
        let options = AdminOptions::new().request_timeout(Some(WAIT));
        let topics: Vec<_> = names
            .iter()
            .map(|name| ResourceSpecifier::Topic(name))
            .collect();
        let client = self.client()?;
        let described = client
            .describe_configs(&topics, &options)
            .await
            .map_err(|error| refused(&doing, error))?;
        let mut settings = HashMap::new();
        for (name, resource) in names.iter().zip(described) {
            let entries = match resource {
                Ok(resource) => resource.entries,
                Err(code) if names.len() == 1 => return Err(of_code(&doing, code)),
                Err(code) => {
                    tracing::debug!(topic = name, error = %code, "topic passed over");
                    continue;
                }
            };
            let entries = entries.into_iter();
            let values = entries.filter_map(|entry| entry.value.map(|value| (entry.name, value)));
            settings.insert((*name).to_owned(), values.collect());
        }
        Ok(settings)
    }
}

/// The settings that the road needs.
fn wanted(policy: Policy, replication: Option<u16>) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
        // Dates are those of the append, by one clock.
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        // A replica that lags must not become the leader: what it lacks was acknowledged.
        ("unclean.leader.election.enable", "false".to_owned()),
    ];
    if let Some(replicas @ 3..) = replication {
        // One may be away; what is acknowledged lies on two at least.
        let least = replicas - 1;
        settings.push(("min.insync.replicas", least.to_string()));
    }
    match policy {
        Policy::Compact {
            min_lag,
            delete_retention,
        } => settings.extend([
            ("cleanup.policy", "compact".to_owned()),
            ("min.compaction.lag.ms", min_lag.as_millis().to_string()),
            (
                "delete.retention.ms",
                delete_retention.as_millis().to_string(),
            ),
        ]),
        Policy::Delete { retention } => settings.extend([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention.as_millis().to_string()),
        ]),
    }
    settings
}

/// What is wrong whatever the policy.
fn check_settings(name: &str, found: &HashMap<String, String>) -> Result<(), Fault> {
    let bytes = found.get("max.message.bytes");
    let bytes: Option<usize> = bytes.and_then(|value| value.parse().ok());
    let refuse = |setting: &str, value: &str, due: &str| {
        Fault::new(
            FaultKind::Config,
            format!("topic `{name}` has {setting} = {value}, {due} is needed"),
        )
        .remedy(format!("set it: kafka-configs --alter --entity-type topics --entity-name {name} --add-config {setting}={due}"))
    };
    if let Some(bytes) = bytes
        && bytes < MAX_MESSAGE_BYTES
    {
        let due = MAX_MESSAGE_BYTES.to_string();
        return Err(refuse("max.message.bytes", &bytes.to_string(), &due));
    }
    match found.get("message.timestamp.type").map(String::as_str) {
        Some("LogAppendTime") | None => Ok(()),
        Some(other) => Err(refuse("message.timestamp.type", other, "LogAppendTime")),
    }
}

/// The policy, with the times found taken for those asked for where they are longer: that loses nothing.
fn forgiving(found: Policy, asked: Policy) -> Policy {
    let within = |found: Duration, asked: Duration| found.min(asked);
    match (found, asked) {
        (
            Policy::Compact {
                min_lag,
                delete_retention,
            },
            Policy::Compact {
                min_lag: lag,
                delete_retention: kept,
            },
        ) => Policy::Compact {
            min_lag: within(min_lag, lag),
            delete_retention: within(delete_retention, kept),
        },
        (Policy::Delete { retention }, Policy::Delete { retention: asked }) => Policy::Delete {
            retention: within(retention, asked),
        },
        (found, _) => found,
    }
}

fn policy(name: &str, found: &HashMap<String, String>) -> Result<Policy, Fault> {
    let millis = |property: &str| {
        let value = found.get(property);
        let value = value.and_then(|value| value.parse::<i64>().ok());
        // -1 is for ever.
        value.map_or(Duration::ZERO, |value| {
            u64::try_from(value).map_or(Duration::MAX, Duration::from_millis)
        })
    };
    let refuse = |what: String| {
        Err(Fault::new(FaultKind::Config, what).remedy(
            "use a cluster that compacts and set the topic right: the log would forget records that live",
        ))
    };
    match found.get("cleanup.policy").map(String::as_str) {
        Some("compact") => Ok(Policy::Compact {
            min_lag: millis("min.compaction.lag.ms"),
            delete_retention: millis("delete.retention.ms"),
        }),
        Some("delete") => {
            let bytes = found.get("retention.bytes").map_or("-1", String::as_str);
            if bytes != "-1" {
                return refuse(format!("topic `{name}` has retention.bytes = {bytes}"));
            }
            Ok(Policy::Delete {
                retention: millis("retention.ms"),
            })
        }
        Some(other) => refuse(format!("topic `{name}` has cleanup.policy = {other}")),
        None => refuse(format!("topic `{name}` has no cleanup.policy")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(lag: u64, kept: u64) -> Policy {
        Policy::Compact {
            min_lag: Duration::from_millis(lag),
            delete_retention: Duration::from_millis(kept),
        }
    }

    fn settings(list: &[(&str, &str)]) -> HashMap<String, String> {
        let pairs = list.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn longer_times_pass_and_shorter_ones_do_not() {
        assert_eq!(forgiving(compact(10, 20), compact(5, 20)), compact(5, 20));
        assert_ne!(forgiving(compact(4, 20), compact(5, 20)), compact(5, 20));
        assert_ne!(forgiving(compact(5, 19), compact(5, 20)), compact(5, 20));
        let for_ever = policy(
            "t",
            &settings(&[("cleanup.policy", "delete"), ("retention.ms", "-1")]),
        );
        let retention = Duration::from_secs(1);
        let asked = Policy::Delete { retention };
        assert_eq!(forgiving(for_ever.unwrap(), asked), asked);
        assert_ne!(forgiving(compact(9, 9), asked), asked);
    }

    #[test]
    fn what_forgets_records_that_live_is_refused() {
        for list in [
            [("cleanup.policy", "compact,delete"), ("retention.ms", "-1")],
            [("cleanup.policy", "delete"), ("retention.bytes", "1000")],
            [("retention.bytes", "-1"), ("retention.ms", "-1")],
        ] {
            let refused = policy("t", &settings(&list)).unwrap_err();
            assert_eq!(refused.kind(), FaultKind::Config);
            assert!(refused.report().contains("`t`"), "{refused}");
        }
    }

    #[test]
    fn small_messages_and_writers_clocks_are_refused() {
        let small = settings(&[("max.message.bytes", "1048588")]);
        let told = check_settings("t", &small).unwrap_err().report();
        assert!(told.contains("max.message.bytes=16842752"), "{told}");
        let clock = settings(&[("message.timestamp.type", "CreateTime")]);
        check_settings("t", &clock).unwrap_err();
        check_settings("t", &settings(&[("max.message.bytes", "16842752")])).unwrap();
    }
}
