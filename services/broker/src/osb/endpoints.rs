//! The doors of the API in one table: the router finds its routes here, and the published document is written from it.

use crate::osb::Method;

/// What a path names; each has one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Catalog,
    Instance,
    InstanceOperation,
    Binding,
    BindingOperation,
    OpenApi,
}

/// One method of one path.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) door: Door,
    pub(crate) method: Method,
    /// Ids stand in braces.
    pub(crate) path: &'static str,
    pub(super) operation: &'static str,
    pub(super) summary: &'static str,
    /// Names of query fields.
    pub(super) query: &'static [&'static str],
    /// The schema of the request's body.
    pub(super) body: Option<&'static str>,
    /// Status, schema of the body, meaning. What every door answers stands in [`EVERYWHERE`], or is added by kind.
    pub(super) answers: &'static [(u16, &'static str, &'static str)],
}

/// What the checks before every route answer.
pub(super) const EVERYWHERE: [(u16, &str, &str); 3] = [
    (400, "Error", "A header, the query or the body is not as described; nothing was done."),
    (401, "Error", "The credentials of the platform are missing or wrong."),
    (412, "Error", "X-Broker-API-Version is missing, or not 2.11 or a later 2.x."),
];

/// What every door answers that the leader alone can answer.
pub(super) const BY_LEADER: [(u16, &str, &str); 3] = [
    (500, "Error", "The broker failed; its log says why. Repeating is safe."),
    (503, "Error", "No leader is known at the moment; Retry-After says when to ask again."),
    (504, "Error", "It takes longer than a request may, and goes on; repeat the request, or delete."),
];

/// What every door answers that changes something.
pub(super) const BY_CHANGES: [(u16, &str, &str); 2] = [
    (413, "Error", "The body is larger than 1 MiB."),
    (429, "Error", "A limit of the installation is reached; Retry-After says when to ask again."),
];

const CATALOG: &str = "/v2/catalog";
const INSTANCE: &str = "/v2/service_instances/{instance_id}";
const INSTANCE_OPERATION: &str = "/v2/service_instances/{instance_id}/last_operation";
const BINDING: &str = "/v2/service_instances/{instance_id}/service_bindings/{binding_id}";
const BINDING_OPERATION: &str = "/v2/service_instances/{instance_id}/service_bindings/{binding_id}/last_operation";
/// Where the document itself is.
pub(super) const OPENAPI: &str = "/openapi.json";

const CONCURRENCY: &str = "ConcurrencyError: something else is being done to it.";
const IN_PROGRESS: &str = "In progress; poll last_operation with the token.";

/// Every route there is.
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        door: Door::Catalog,
        method: Method::Get,
        path: CATALOG,
        operation: "catalog.get",
        summary: "What is offered, with the fields that the platform's version knows.",
        query: &[],
        body: None,
        answers: &[(200, "Catalog", "The catalog; ETag names it."), (304, "", "If-None-Match names it already.")],
    },
    Endpoint {
        door: Door::Instance,
        method: Method::Get,
        path: INSTANCE,
        operation: "serviceInstance.get",
        summary: "Describes a service instance.",
        query: &["service_id", "plan_id"],
        body: None,
        answers: &[
            (200, "Instance", "As it is; parameters that are secrets are blotted out."),
            (404, "Error", "It is not there, or not yet."),
            (422, "Error", "ConcurrencyError: it is being updated."),
        ],
    },
    Endpoint {
        door: Door::Instance,
        method: Method::Put,
        path: INSTANCE,
        operation: "serviceInstance.provision",
        summary: "Provisions a service instance, or finds it.",
        query: &["accepts_incomplete"],
        body: Some("Provision"),
        answers: &[
            (200, "Provisioned", "It is there already, with the same attributes."),
            (201, "Provisioned", "It was provisioned."),
            (202, "Provisioned", IN_PROGRESS),
            (409, "Error", "It is there with other attributes."),
            (422, "Error", "AsyncRequired, MaintenanceInfoConflict, or ConcurrencyError: it is being deprovisioned."),
        ],
    },
    Endpoint {
        door: Door::Instance,
        method: Method::Patch,
        path: INSTANCE,
        operation: "serviceInstance.update",
        summary: "Changes plan, parameters, maintenance version or context of a service instance.",
        query: &["accepts_incomplete"],
        body: Some("Update"),
        answers: &[
            (200, "Updated", "It is as wanted."),
            (202, "Updated", IN_PROGRESS),
            (404, "Error", "There is no such service instance."),
            (
                422,
                "UpdateError",
                "AsyncRequired, MaintenanceInfoConflict, ConcurrencyError, or the plan cannot be changed so.",
            ),
        ],
    },
    Endpoint {
        door: Door::Instance,
        method: Method::Delete,
        path: INSTANCE,
        operation: "serviceInstance.deprovision",
        summary: "Deprovisions a service instance with its bindings.",
        query: &["service_id", "plan_id", "accepts_incomplete"],
        body: None,
        answers: &[
            (200, "Empty", "It is gone."),
            (202, "Operation", IN_PROGRESS),
            (410, "Error", "It is not there."),
            (422, "UpdateError", "AsyncRequired, or its reclaim policy forbids to delete the events that it holds."),
        ],
    },
    Endpoint {
        door: Door::InstanceOperation,
        method: Method::Get,
        path: INSTANCE_OPERATION,
        operation: "serviceInstance.lastOperation.get",
        summary: "Tells how far the last operation on a service instance is.",
        query: &["service_id", "plan_id", "operation"],
        body: None,
        answers: &[
            (200, "LastOperation", "How far it is; Retry-After says when to ask again."),
            (404, "Error", "There never was such a service instance, or it is long gone."),
            (410, "Error", "The deprovisioning that the token names has ended."),
        ],
    },
    Endpoint {
        door: Door::Binding,
        method: Method::Get,
        path: BINDING,
        operation: "serviceBinding.get",
        summary: "Describes a service binding with its credentials.",
        query: &["service_id", "plan_id"],
        body: None,
        answers: &[(200, "Binding", "As it is."), (404, "Error", "It is not there, or not yet, or it has expired.")],
    },
    Endpoint {
        door: Door::Binding,
        method: Method::Put,
        path: BINDING,
        operation: "serviceBinding.bind",
        summary: "Binds a service instance or rotates a binding of it; finds the binding if it is there.",
        query: &["accepts_incomplete"],
        body: Some("Bind"),
        answers: &[
            (200, "Binding", "It is there already, with the same attributes."),
            (201, "Binding", "It was bound."),
            (202, "Operation", IN_PROGRESS),
            (404, "Error", "There is no such service instance."),
            (409, "Error", "It is there with other attributes."),
            (422, "Error", "RequiresApp, or ConcurrencyError."),
        ],
    },
    Endpoint {
        door: Door::Binding,
        method: Method::Delete,
        path: BINDING,
        operation: "serviceBinding.unbind",
        summary: "Ends a service binding: its credentials are dead when this is answered.",
        query: &["service_id", "plan_id", "accepts_incomplete"],
        body: None,
        answers: &[
            (200, "Empty", "It is gone."),
            (202, "Operation", IN_PROGRESS),
            (410, "Error", "It is not there."),
            (422, "Error", CONCURRENCY),
        ],
    },
    Endpoint {
        door: Door::BindingOperation,
        method: Method::Get,
        path: BINDING_OPERATION,
        operation: "serviceBinding.lastOperation.get",
        summary: "Tells how far the last operation on a service binding is.",
        query: &["service_id", "plan_id", "operation"],
        body: None,
        answers: &[
            (200, "LastOperation", "How far it is; Retry-After says when to ask again."),
            (404, "Error", "There never was such a service binding, or it is long gone."),
            (410, "Error", "The unbinding that the token names has ended."),
        ],
    },
    Endpoint {
        door: Door::OpenApi,
        method: Method::Get,
        path: OPENAPI,
        operation: "openapi.get",
        summary: "This document. It needs credentials like everything else, and no version header.",
        query: &[],
        body: None,
        answers: &[(200, "Document", "This document.")],
    },
];
