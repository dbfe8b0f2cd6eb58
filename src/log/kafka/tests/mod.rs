//! Tests of the Kafka engine.
