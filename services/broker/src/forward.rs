//! The way from a replica that does not lead to the one that does.

use wire::{Call, Retry, Service};

use crate::osb::{Answer, Request};

/// Answers one request of the Open Service Broker API, whose credentials were checked where it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForwardRequest;

impl Call for ForwardRequest {
    const NAME: &'static str = "ForwardRequest";
    const PATTERN: &'static str = "lb.v1.broker.requests.forward";
    const OWNER: Service = Service::Broker;
    // Every request of the API may be repeated: that is what its status codes are made for.
    const RETRY: Retry = Retry::Idempotent;
    type Key = ();
    type Request = Request;
    type Reply = Answer;
}
