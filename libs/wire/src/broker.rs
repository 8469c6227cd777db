//! Service instances and bindings from inside, as an operator's tools see them, and the entries of the audit stream.

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, InstanceId, ReplicaId, ScopeName, Timestamp};

use crate::{coordinator::Page, views::Role};

calls! {
    /// Lists service instances in the order of their ids, in pages.
    ListInstances(InstancesOf) -> InstancePage; "lb.v1.broker.instances.list" [()] @ Broker, Idempotent
    /// Shows a service instance with its operation and its bindings, in pages; never secrets or parameters. Kinds: `UnknownInstance`.
    ShowInstance(BindingsOf) -> InstanceDetails; "lb.v1.broker.instances.show" [()] @ Broker, Idempotent
    /// Takes up what was begun on a service instance and its bindings now, not after the pause that follows a failure. Kinds: `UnknownInstance`, `NothingPending`.
    RetryOperation(Retrial) -> Retried; "lb.v1.broker.instances.retry" [()] @ Broker, Idempotent
    /// Forgets a service instance with its bindings; what stands behind it is left to the reconciler. Kinds: `UnknownInstance`, `InstanceInUse`.
    AbandonInstance(Abandonment) -> Abandoned; "lb.v1.broker.instances.abandon" [()] @ Broker, Never
    /// Makes a binding that takes the place of another one, which stays valid until it is unbound or ends. Kinds: `UnknownInstance`, `UnknownBinding`.
    RotateBinding(Rotation) -> BindingView; "lb.v1.broker.bindings.rotate" [()] @ Broker, Idempotent
    /// Brings a service instance to the maintenance version of its plan, or says how far that is. Kinds: `UnknownInstance`, `NothingToUpgrade`.
    UpgradeInstance(Upgrade) -> Upgraded; "lb.v1.broker.instances.upgrade" [()] @ Broker, Idempotent
}

/// Which service instances to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancesOf {
    /// Only those behind this one; `None` begins.
    #[serde(default)]
    pub after: Option<InstanceId>,
    /// Only those with something that was begun and has not ended, on themselves or on a binding.
    #[serde(default)]
    pub pending: bool,
    /// Only those whose plan has another maintenance version than they have.
    #[serde(default)]
    pub upgradable: bool,
    /// How many at most.
    #[serde(default)]
    pub limit: Page,
}

/// Some service instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancePage {
    /// In the order of their ids.
    pub instances: Vec<InstanceView>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// How far an instance or a binding is. The aliases are what states of former versions have stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is being provisioned or bound.
    #[serde(alias = "Beginning")]
    Beginning,
    /// It can be used.
    #[serde(alias = "Live")]
    Live,
    /// It can be used as it was, and is being changed.
    #[serde(alias = "Updating")]
    Updating,
    /// It is being deprovisioned or unbound.
    #[serde(alias = "Ending")]
    Ending,
}

/// The last operation on an instance or a binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// `provision`, `update`, `deprovision`, `bind` or `unbind`.
    pub kind: String,
    /// Names it to the platform.
    pub token: String,
    /// When it began.
    pub begun: Timestamp,
    /// Whether it has ended.
    pub ended: bool,
    /// Why it failed for good.
    #[serde(default)]
    pub failure: Option<String>,
    /// What keeps it from ending: what the last attempt was told.
    #[serde(default)]
    pub problem: Option<String>,
}

/// A service instance as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// The instance.
    pub instance: InstanceId,
    /// The name of its offering; its id if it has left the catalog.
    pub service: String,
    /// The name of its plan; its id if it has left the catalog.
    pub plan: String,
    /// The platform's organization.
    pub organization: String,
    /// The platform's space.
    pub space: String,
    /// The log index.
    pub index: IndexName,
    /// The tenant.
    pub scope: ScopeName,
    /// The back-end.
    pub backend: String,
    /// How far it is.
    pub phase: Phase,
    /// The last operation on it.
    pub operation: OperationView,
    /// Its bindings.
    pub binding_count: u32,
    /// The maintenance version that it has.
    #[serde(default)]
    pub version: Option<String>,
    /// The one that its plan has, where it is another.
    #[serde(default)]
    pub upgrade: Option<String>,
    /// The platform of whoever asked for it; empty where nobody was named.
    #[serde(default)]
    pub platform: String,
    /// What the platform said of that user, as JSON.
    #[serde(default)]
    pub user: String,
}

/// Which service instance to show, and which of its bindings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingsOf {
    /// The instance.
    pub instance: InstanceId,
    /// Only the bindings behind this one; `None` begins.
    #[serde(default)]
    pub after: Option<BindingId>,
    /// How many bindings at most.
    #[serde(default)]
    pub limit: Page,
}

/// A service instance with some of its bindings, or how its last operation ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceDetails {
    /// The instance, if it is there.
    #[serde(default)]
    pub instance: Option<InstanceView>,
    /// How the last operation on it ended, if it is not.
    #[serde(default)]
    pub ended: Option<EndedView>,
    /// In the order of their ids.
    #[serde(default)]
    pub bindings: Vec<BindingView>,
    /// Whether there are more behind the last one.
    #[serde(default)]
    pub more: bool,
}

/// How the last operation on what is no longer there ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedView {
    /// The operation.
    pub operation: OperationView,
    /// When it ended.
    pub at: Timestamp,
}

/// A service binding as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingView {
    /// The binding.
    pub binding: BindingId,
    /// What its bearer may do.
    pub role: Role,
    /// When it ends by itself.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// The binding whose place it takes.
    #[serde(default)]
    pub predecessor: Option<BindingId>,
    /// How far it is.
    pub phase: Phase,
    /// The last operation on it.
    pub operation: OperationView,
    /// The platform of whoever asked for it; empty where nobody was named.
    #[serde(default)]
    pub platform: String,
    /// What the platform said of that user, as JSON.
    #[serde(default)]
    pub user: String,
}

/// Whose operations to take up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retrial {
    /// The instance.
    pub instance: InstanceId,
    /// Who asks, in his own words, for the audit.
    #[serde(default)]
    pub by: String,
}

/// What is being taken up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// The tokens of the operations.
    pub operations: Vec<String>,
}

/// What to forget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandonment {
    /// The instance.
    pub instance: InstanceId,
    /// Begin to deprovision it, as its platform would, instead of forgetting it.
    #[serde(default)]
    pub delete: bool,
    /// Also if it can be used, or has bindings that can.
    #[serde(default)]
    pub force: bool,
    /// Who asks, in his own words, for the audit.
    #[serde(default)]
    pub by: String,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abandoned {
    /// The operation that deprovisions it; `None` if nothing of it is left here.
    #[serde(default)]
    pub operation: Option<String>,
}

/// Which binding takes the place of which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The instance.
    pub instance: InstanceId,
    /// The binding that is there.
    pub binding: BindingId,
    /// The new one.
    pub successor: BindingId,
    /// Who asks, in his own words, for the audit.
    #[serde(default)]
    pub by: String,
}

/// What to upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// The instance.
    pub instance: InstanceId,
    /// Who asks, in his own words, for the audit.
    #[serde(default)]
    pub by: String,
}

/// How far the upgrade is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The version that it is brought to.
    pub version: String,
    /// The operation that is under way; `None` if it is done.
    #[serde(default)]
    pub operation: Option<String>,
}

/// Which side of a request an entry of the audit tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It was asked for; on its way before anything is done.
    Asked,
    /// It was answered.
    Answered,
}

/// One entry of the audit: who wanted what changed, and what became of it. Never parameters or credentials.
///
/// Order: of one request `Asked` comes first; a request whose answer is missing may have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The same for both sides of one request, and for no other request.
    pub id: String,
    /// Which side.
    pub stage: Stage,
    /// When.
    pub at: Timestamp,
    /// The replica of the broker that worked on it.
    pub replica: ReplicaId,
    /// By which way it came: `osb`, `tools`, or the part of the broker that wanted it.
    pub via: String,
    /// The name of the platform's credential, or of the operator.
    #[serde(default)]
    pub credential: String,
    /// The platform of the originating identity; empty where nobody was named.
    #[serde(default)]
    pub platform: String,
    /// What the platform said of that user, as JSON.
    #[serde(default)]
    pub user: String,
    /// The platform's own name of the request.
    #[serde(default)]
    pub request_identity: String,
    /// What was wanted: `provision`, `update`, `deprovision`, `bind`, `unbind`, `retry`, `abandon`, …
    pub action: String,
    /// Of which instance, as the request said it.
    #[serde(default)]
    pub instance: String,
    /// Of which binding, as the request said it.
    #[serde(default)]
    pub binding: Option<String>,
    /// Of which offering, as the request said it.
    #[serde(default)]
    pub service_id: Option<String>,
    /// Of which plan, as the request said it.
    #[serde(default)]
    pub plan_id: Option<String>,
    /// The status of the answer.
    #[serde(default)]
    pub status: Option<u16>,
    /// The name of the error, where it was refused.
    #[serde(default)]
    pub error: Option<String>,
    /// The operation that it began or found.
    #[serde(default)]
    pub operation: Option<String>,
}
