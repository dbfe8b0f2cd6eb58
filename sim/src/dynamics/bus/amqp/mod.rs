//! AMQP 1.0 on the wire: values, their bytes, and frames. The simulator's own, so that a client's mistake shows.

pub(super) mod decode;
pub(super) mod encode;
pub(super) mod frame;
pub(super) mod value;
