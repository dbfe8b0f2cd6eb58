//! Tests of the Kafka engine: the suite on a mock cluster, its faults, and a real broker.

mod broker;
mod mock;
mod mock_faults;
