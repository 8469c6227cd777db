//! The Open Service Broker API without sockets: requests, routes, bodies and answers.

mod answer;
mod body;
mod credentials;
mod endpoints;
mod gate;
pub(crate) mod openapi;
mod request;
mod route;

pub(crate) use answer::Answer;
pub(crate) use body::{Body, canonical};
pub(crate) use credentials::Admission;
pub(crate) use gate::gate;
pub(crate) use request::{API_VERSION, HEADERS, ORIGINATING_IDENTITY, REQUEST_IDENTITY, Request};
pub use request::{Identity, Version};
pub(crate) use route::{Method, Route, Subject, own_id, route};

#[cfg(test)]
mod fuzz_tests;
