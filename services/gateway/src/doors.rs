//! The doors of other log stores, so that their agents and clients can send here unmodified.
//!
//! A room translates the bodies of one API into events and knows nothing of HTTP; its part of [`http`] reads requests, hands the
//! events to the one way in, and answers exactly as that API does, because it is by the answer that agents send again or drop.

mod elastic;
mod event;
mod hec;
pub(crate) mod http;
mod json;
mod jsonline;
mod loki;
pub(crate) mod otlp;
pub(crate) mod protobuf;
