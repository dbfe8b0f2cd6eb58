//! What Kafka can answer, and the kind of fault that is.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::fault::{Fault, FaultKind};

/// A fault of Kafka, met while `doing` something.
pub(super) fn refused(doing: &str, error: KafkaError) -> Fault {
    let (kind, remedy) = match (error.rdkafka_error_code(), &error) {
        (Some(code), _) => fate(code),
        // What librdkafka does not take is a setting of ours.
        (None, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)) => {
            (FaultKind::Config, Some("look at `[log.kafka]`"))
        }
        (None, _) => (FaultKind::Unavailable, None),
    };
    remedied(Fault::new(kind, doing.to_owned()).source(error), remedy)
}

/// A fault of Kafka that came as a bare code.
pub(super) fn of_code(doing: &str, code: Code) -> Fault {
    let (kind, remedy) = fate(code);
    remedied(Fault::new(kind, doing.to_owned()).source(code), remedy)
}

fn remedied(fault: Fault, remedy: Option<&'static str>) -> Fault {
    match remedy {
        Some(remedy) => fault.remedy(remedy),
        None => fault,
    }
}

/// Whether a failed call means that no broker is reached, and not that one refused.
pub(super) fn is_contact_lost(fault: &Fault) -> bool {
    use std::error::Error;
    let cause = fault.source();
    let code = cause.and_then(|cause| {
        let error = cause.downcast_ref::<KafkaError>();
        error
            .and_then(KafkaError::rdkafka_error_code)
            .or_else(|| cause.downcast_ref::<Code>().copied())
    });
    code.is_some_and(|code| {
        matches!(
            code,
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::Resolve
                | Code::Authentication
        )
    })
}

/// Whether a partition is between two leaders.
pub(super) const fn has_no_leader(code: Code) -> bool {
    matches!(
        code,
        Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::ReplicaNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
    )
}

/// What librdkafka gets over by itself while it goes on reading.
pub(super) const fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::Resolve
            | Code::Authentication
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::NotEnoughReplicas
            | Code::NoError
    )
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

/// Whether the place where a reader stands is no longer there.
pub(super) const fn is_position_lost(code: Code) -> bool {
    matches!(
        code,
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation
    )
}

/// The kind of fault behind a code, and what can be done.
pub(super) const fn fate(code: Code) -> (FaultKind, Option<&'static str>) {
    match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::InvalidRecord => {
            (FaultKind::Record, None)
        }
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId => (
            FaultKind::Missing,
            Some(
                "the topic was deleted behind our back: a restart makes it again and reads what is missing",
            ),
        ),
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed => (
            FaultKind::Permission,
            Some("give this principal the ACLs that the manual lists (docs/kafka.md)"),
        ),
        Code::SaslAuthenticationFailed => (
            FaultKind::Credentials,
            Some("check `sasl.*` and `ssl.*` under `[log.kafka]`"),
        ),
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => {
            (FaultKind::PositionLost, None)
        }
        Code::BadMessage | Code::InvalidMessage | Code::BadCompression => {
            (FaultKind::Corrupt, None)
        }
        Code::PolicyViolation
        | Code::InvalidConfig
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions => (
            FaultKind::Config,
            Some("check `[log] replication` and the brokers' policies"),
        ),
        _ => (FaultKind::Unavailable, None),
    }
}
