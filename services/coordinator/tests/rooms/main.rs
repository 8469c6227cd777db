//! Transactions, reader groups, retention and automatic scaling through the coordinator's doors, on a real nats-server, with a
//! segment-store behind it that holds its events in a list.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod autoscale;
mod groups;
mod keys;
mod library;
mod retention;
mod stage;
mod transactions;
