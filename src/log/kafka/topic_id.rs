//! A topic's id as the broker gave it: another id means another topic of the same name.
//!
//! The Rust client does not offer `DescribeTopics` (KIP-516, KIP-848), so this file calls librdkafka's own function;
//! it is the only one that may.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;

use crate::fault::{Fault, FaultKind};
use crate::log::kafka::fault::of_code;

/// The id that brokers before 2.8 give every topic.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The id of `topic`, asked of the broker of that number; `None` if there is no such topic. Blocking.
///
/// # Errors
/// What the broker or the client says; `Config` for a broker that gives its topics no ids.
pub(super) fn topic_id<C: rdkafka::ClientContext>(
    client: &Client<C>,
    broker: i32,
    topic: &str,
    wait: Duration,
) -> Result<Option<String>, Fault> {
    let doing = || format!("asking for the id of `{topic}`");
    let name = CString::new(topic)
        .map_err(|error| Fault::new(FaultKind::Config, doing()).source(error))?;
    let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    let client = client.native_ptr();
    // SAFETY: the native client lives as long as its borrow; every pointer made here is destroyed once before the end, by a
    // guard; the name outlives the collection, which copies it; texts are copied before their event is destroyed.
    unsafe {
        let queue = Guard(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy);
        let options = Guard(
            sys::rd_kafka_AdminOptions_new(
                client,
                sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            sys::rd_kafka_AdminOptions_destroy,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, std::ptr::null_mut(), 0);
        // By default the controller is asked, which has other things to do.
        sys::rd_kafka_AdminOptions_set_broker(options.0, broker, std::ptr::null_mut(), 0);
        let mut names = [name.as_ptr()];
        let topics = Guard(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            sys::rd_kafka_TopicCollection_destroy,
        );
        sys::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        // The request's own timeout comes first, and says why.
        let event = sys::rd_kafka_queue_poll(queue.0, millis.saturating_add(1_000));
        if event.is_null() {
            return Err(Fault::new(FaultKind::Unavailable, doing()));
        }
        let event = Guard(event, sys::rd_kafka_event_destroy);
        let code = sys::rd_kafka_event_error(event.0);
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(of_code(&doing(), RDKafkaErrorCode::from(code)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(Fault::new(FaultKind::Protocol, doing()));
        }
        let mut count = 0;
        let found = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if found.is_null() || count == 0 {
            return Ok(None);
        }
        let description = *found;
        let error = sys::rd_kafka_TopicDescription_error(description);
        let code = sys::rd_kafka_error_code(error);
        match code {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(None),
            code => return Err(of_code(&doing(), RDKafkaErrorCode::from(code))),
        }
        let uuid = sys::rd_kafka_TopicDescription_topic_id(description);
        let text = sys::rd_kafka_Uuid_base64str(uuid);
        let id = CStr::from_ptr(text).to_string_lossy().into_owned();
        if id == NONE {
            return Err(Fault::new(
                FaultKind::Config,
                format!("the brokers give topic `{topic}` no id, so that a deleted topic could not be told from its successor"),
            )
            .remedy("use Apache Kafka 2.8 or later"));
        }
        Ok(Some(id))
    }
}

/// Destroys what it holds.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from librdkafka, is destroyed nowhere else, and its destroyer takes null too.
        unsafe { (self.1)(self.0) }
    }
}
