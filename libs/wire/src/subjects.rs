//! Durable and public subjects: what is stored, and what users may touch.

use types::{BindingId, ContainerId, IndexName, InstanceId, LaneId, RuleId};

use crate::{Row, Service};

macro_rules! records {
    ($($name:literal, $pattern:literal, $owner:ident, $body:literal, $doc:literal;)*) => {
        pub(crate) const RECORDS: &[Row] = &[$(Row {
            kind: "record", name: $name, pattern: $pattern, owner: Service::$owner,
            request: $body, reply: "", retry: "", outer: "", doc: $doc,
        }),*];
    };
}

records! {
    "LogEvents", "logs.{index}", SegmentStore, "one event", "What producers publish without a routing key: one order for the whole index. Answered with a JetStream PubAck when the frame that holds the event is durable.";
    "LogEventsKeyed", "logs.{index}.{routing_key}", SegmentStore, "one event", "What producers publish with a routing key: order per key.";
    "LaneEvents", "lane.{lane}.{index}", SegmentStore, "one event", "Where the tenants' account maps `logs.{index}` to: one owner per lane.";
    "LaneEventsKeyed", "lane.{lane}.{index}.{routing_key}", SegmentStore, "one event", "Where the tenants' account maps `logs.{index}.{routing_key}` to.";
    "AlertChanged", "alerts.{index}.{rule}", Alerter, "JSON Transition", "A rule began or ceased to fire; kept in one JetStream stream, deduplicated by Nats-Msg-Id.";
    "Frames", "lb.v1.t1.{container}.frame", SegmentStore, "frame", "Tier 1: events of many segments, appended together.";
    "Operations", "lb.v1.t1.{container}.op", SegmentStore, "frame", "Tier 1: segment created, sealed, tiered, deleted.";
    "Owner", "lb.v1.t1.{container}.owner", SegmentStore, "OwnerRecord", "Tier 1: who owns the container; the fence of every frame.";
    "Journal", "lb.v1.journal.{service}", Coordinator, "JournalEntry", "The truth of one control service, in order; never purged to empty.";
    "BrokerAudit", "lb.v1.audit.broker.{instance}", Broker, "AuditEntry", "Who wanted what changed at the broker, and what became of it; `_` where no instance of ours can be meant. Only added to; the oldest go by age and bytes.";
}

/// The subject for events of an index without a routing key.
pub fn logs(index: &IndexName) -> String {
    format!("logs.{index}")
}

/// The subject on which a rule's transitions appear.
pub fn alerts(index: &IndexName, rule: &RuleId) -> String {
    format!("alerts.{index}.{rule}")
}

/// The subscription of one lane's owner.
pub fn lane_filter(lane: LaneId) -> String {
    format!("lane.{lane}.>")
}

/// The journal of a control service.
pub fn journal(service: Service) -> String {
    format!("lb.v1.journal.{service}")
}

/// The audit of every service.
pub const AUDIT: &str = "lb.v1.audit.>";

/// The audit of the broker about an instance; `None` where the request named none that can be one.
pub fn broker_audit(instance: Option<&InstanceId>) -> String {
    format!("lb.v1.audit.broker.{}", instance.map_or("_", InstanceId::as_str))
}

/// Tier 1: data frames of a container.
pub fn t1_frame(container: ContainerId) -> String {
    format!("lb.v1.t1.{container}.frame")
}

/// Tier 1: operations of a container.
pub fn t1_op(container: ContainerId) -> String {
    format!("lb.v1.t1.{container}.op")
}

/// Tier 1: owner records of a container.
pub fn t1_owner(container: ContainerId) -> String {
    format!("lb.v1.t1.{container}.owner")
}

/// The inbox prefix that a binding's client must set, else its PubAcks are refused.
pub fn inbox_prefix(binding: &BindingId) -> String {
    format!("_INBOX.{binding}")
}

/// The subject mappings of the tenants' account: `(source, destination)`.
///
/// A keyed subject always meets the same lane, so the order of a key holds from the wire on. The server checks publish
/// permissions after the mapping, so a binding is allowed its own index on every lane too.
pub fn lane_mappings(lane_count: u16) -> [(String, String); 2] {
    [
        ("logs.*".to_owned(), format!("lane.{{{{partition({lane_count},1)}}}}.{{{{wildcard(1)}}}}")),
        (
            "logs.*.*".to_owned(),
            format!("lane.{{{{partition({lane_count},1,2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"),
        ),
    ]
}
