//! Notices: what people are told, and how it is carried to them: by mail, or by a webhook.

pub mod carriers;
pub mod mail;
pub mod memory;
pub mod notice;
pub mod port;
pub mod post;
mod webhook;
