//! The segment store as its callers see it, on a real nats-server: what was acknowledged is read exactly once.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod bucket;
mod containers;
mod crashes;
mod epochs;
mod failures;
mod lanes;
mod stage;
mod storage;
