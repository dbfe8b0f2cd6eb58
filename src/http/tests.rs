//! The client against small servers: limits, cut answers, compression, the count of calls.
