//! The segment store as its callers see it, on a real nats-server: what was acknowledged is read exactly once.

mod containers;
mod failures;
mod lanes;
mod stage;
