//! The Open Service Broker API without sockets: requests, routes, bodies and answers.

mod answer;
mod body;
mod request;
mod route;

pub(crate) use answer::Answer;
pub(crate) use body::{Body, canonical};
pub(crate) use request::{Credential, Identity, Request, Version};
pub(crate) use route::{Route, Subject, route};
