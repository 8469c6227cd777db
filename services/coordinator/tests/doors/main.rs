//! The coordinator through its doors, on a real nats-server, with a segment-store of a few lines behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod crashes;
mod leaders;
mod scales;
mod scopes;
mod stage;
mod streams;
mod wide;
