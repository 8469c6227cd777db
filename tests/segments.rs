//! Streams as their users have them: Pravega's system tests, S1 to S26, and the complaints of its users, on real processes.
//!
//! What needs no failure shares one installation; whoever kills has one of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it saw, and starts processes"
)]

#[path = "segments/autoscale.rs"]
mod autoscale;
#[path = "segments/bytes.rs"]
mod bytes;
#[path = "segments/checkpoints.rs"]
mod checkpoints;
#[path = "segments/cuts.rs"]
mod cuts;
#[path = "segments/explore.rs"]
mod explore;
#[path = "segments/failover.rs"]
mod failover;
#[path = "segments/fragments.rs"]
mod fragments;
#[path = "segments/groups.rs"]
mod groups;
#[path = "segments/leaders.rs"]
mod leaders;
#[path = "segments/list.rs"]
mod list;
#[path = "segments/management.rs"]
mod management;
#[path = "segments/numbered.rs"]
mod numbered;
#[path = "segments/pressure.rs"]
mod pressure;
#[path = "segments/rest.rs"]
mod rest;
#[path = "segments/retention.rs"]
mod retention;
#[path = "segments/scaling.rs"]
mod scaling;
#[path = "segments/shared.rs"]
mod shared;
#[path = "segments/state.rs"]
mod state;
#[path = "segments/transactions.rs"]
mod transactions;
#[path = "segments/writing.rs"]
mod writing;
