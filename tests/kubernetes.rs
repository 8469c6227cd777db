//! The manifests on a real API server: what it takes, what each ServiceAccount may do, and the way from `kubectl apply -k` to a log line.
//!
//! No kubelet, scheduler or controller is there; where one would act, a test says so and does what it would do. Without Go, or without
//! Go's module proxy, what needs the server is skipped with a word on standard error.
#![allow(clippy::unwrap_used, reason = "a test panics, also in what its functions call")]
#![allow(clippy::disallowed_methods, reason = "tests start processes")]

#[path = "kubernetes/bed.rs"]
mod bed;
#[path = "kubernetes/dashboard.rs"]
mod dashboard;
#[path = "kubernetes/keys.rs"]
mod keys;
#[path = "kubernetes/manifests.rs"]
mod manifests;
#[path = "kubernetes/network.rs"]
mod network;
#[path = "kubernetes/rights.rs"]
mod rights;
#[path = "kubernetes/walk.rs"]
mod walk;
#[path = "kubernetes/workers.rs"]
mod workers;
