//! Tests of the Kafka engine: the suite on a mock cluster, its faults, and a real broker.

mod broker;
mod broker_topics;
mod mock;
mod mock_faults;
mod outage;
