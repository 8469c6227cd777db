//! `logboom admin export`, `restore` and `repair` as an operator types them: the real binary, a real nats-server, real files.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod archives;
mod chunks;
mod encrypted;
mod exports;
mod installation;
mod repairs;
