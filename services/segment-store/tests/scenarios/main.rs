//! The segment store as its callers see it, on a real nats-server: what was acknowledged is read exactly once.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod adopted;
mod archived;
mod bucket;
mod carried;
mod containers;
mod crashes;
mod encrypted;
mod epochs;
mod failures;
mod faults;
mod fence;
mod handover;
mod lanes;
mod process;
mod quotas;
mod room;
mod stage;
mod storage;
