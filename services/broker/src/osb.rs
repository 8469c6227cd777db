//! The Open Service Broker API without sockets: requests, routes, bodies and answers.

mod answer;
mod body;
mod request;
mod route;

pub(crate) use answer::Answer;
pub(crate) use body::{Body, canonical};
pub(crate) use request::{Credential, HEADERS, REQUEST_IDENTITY, Request};
pub use request::{Identity, Version};
pub(crate) use route::{Method, Route, Subject, route};
