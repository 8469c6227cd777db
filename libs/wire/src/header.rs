//! Names of the NATS headers that we read and write.

/// Identifies a message for deduplication; NATS' own.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// When the caller stops waiting: nanoseconds since the epoch.
pub const DEADLINE: &str = "Lb-Deadline";
/// How long the caller waits, in milliseconds from when the request comes in: goes before `Lb-Deadline`, and needs no clocks that agree.
pub const WITHIN: &str = "Lb-Within";
/// `<service>/<replica>` of the caller.
pub const CALLER: &str = "Lb-Caller";
/// On behalf of which leader of the caller's service the call is made: its generation. Whoever has heard of a later one refuses it.
pub const LEADER: &str = "Lb-Leader";
/// `<call>/<version>` of the body.
pub const SCHEMA: &str = "Lb-Schema";
/// A routing key that is not a subject token.
pub const ROUTING_KEY: &str = "Lb-Routing-Key";
/// The delegation of a program outside the platform.
pub const DELEGATION: &str = "Lb-Delegation";
/// Identifies a request from the outermost door inwards, in logs and answers.
pub const REQUEST_ID: &str = "Lb-Request-Id";
/// ADR-32: numeric code of a service error.
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// ADR-32: text of a service error.
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
