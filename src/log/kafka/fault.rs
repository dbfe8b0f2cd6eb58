//! What Kafka can answer, and the kind of fault that is.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::fault::{Fault, FaultKind};

/// A fault of Kafka, met while `doing` something.
pub(super) fn refused(doing: &str, error: KafkaError) -> Fault {
    let (kind, remedy) = match error.rdkafka_error_code() {
        Some(code) => fate(code),
        None => (FaultKind::Unavailable, None),
    };
    let fault = Fault::new(kind, doing.to_owned()).source(error);
    match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}

/// Whether publishing again can't help.
pub(super) const fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
    )
}

/// The kind of fault behind a code, and what can be done.
pub(super) const fn fate(code: Code) -> (FaultKind, Option<&'static str>) {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::InvalidRecord => {
            (FaultKind::Record, None)
        }
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => (
            FaultKind::Missing,
            Some(
                "the topic was deleted behind our back: a restart makes it again and reads what is missing",
            ),
        ),
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed => (
            FaultKind::Permission,
            Some("let this principal read, write, create and describe the topics of the prefix"),
        ),
        Code::SaslAuthenticationFailed | Code::Authentication => (
            FaultKind::Credentials,
            Some("check `sasl.*` and `ssl.*` under `[log.kafka]`"),
        ),
        Code::AutoOffsetReset | Code::OffsetOutOfRange => (FaultKind::PositionLost, None),
        Code::PolicyViolation | Code::InvalidConfig | Code::InvalidReplicationFactor => (
            FaultKind::Config,
            Some("check `[log] replication` and the broker's policies"),
        ),
        _ => (FaultKind::Unavailable, None),
    }
}
