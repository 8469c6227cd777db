//! Log indexes and the credentials to use them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, InstanceId, ScopeName, Timestamp};

use crate::{Empty, views::Role};

calls! {
    /// Creates the log index of a service instance on its back-end; repeating it answers the same. Kinds: `IndexNameTaken`, `InstanceDiffers`.
    CreateIndex(NewIndex) -> IndexDescription; "lb.v1.index-provisioner.indexes.create" [()] @ IndexProvisioner, Idempotent
    /// Deletes the log index of a service instance with its credentials; deleting what is not there succeeds.
    DeleteIndex(InstanceName) -> Empty; "lb.v1.index-provisioner.indexes.delete" [()] @ IndexProvisioner, Idempotent
    /// Lists every log index.
    ListIndexes(Empty) -> IndexList; "lb.v1.index-provisioner.indexes.list" [()] @ IndexProvisioner, Idempotent
    /// Issues the credentials of a binding; repeating it answers the same credentials. Kinds: `UnknownInstance`, `BindingDiffers`.
    IssueCredentials(NewBinding) -> Credentials; "lb.v1.index-provisioner.credentials.issue" [()] @ IndexProvisioner, Idempotent
    /// Revokes the credentials of a binding and drops its live connections; revoking what is not there succeeds.
    RevokeCredentials(BindingName) -> Empty; "lb.v1.index-provisioner.credentials.revoke" [()] @ IndexProvisioner, Idempotent
    /// Lists the live bindings, without secrets.
    ListBindings(Empty) -> BindingList; "lb.v1.index-provisioner.bindings.list" [()] @ IndexProvisioner, Idempotent
}

/// A log index to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewIndex {
    /// The service instance.
    pub instance: InstanceId,
    /// The tenant.
    pub scope: ScopeName,
    /// The wanted name; `None` derives one from the instance id.
    #[serde(default)]
    pub index: Option<IndexName>,
    /// The back-end: `own` at this stage.
    pub backend: String,
    /// Segments of the stream: 1 to 64; 0 takes the default.
    #[serde(default)]
    pub segment_count: u16,
    /// How long events are kept.
    #[serde(default)]
    pub retention_days: Option<u32>,
}

/// Names a service instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceName {
    /// The instance.
    pub instance: InstanceId,
}

/// Names a service binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingName {
    /// The binding.
    pub binding: BindingId,
}

/// A log index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexDescription {
    /// The service instance that owns it.
    pub instance: InstanceId,
    /// The tenant.
    pub scope: ScopeName,
    /// Its name.
    pub index: IndexName,
    /// The back-end.
    pub backend: String,
    /// Segments of its stream.
    pub segment_count: u16,
    /// How long events are kept.
    #[serde(default)]
    pub retention_days: Option<u32>,
    /// When it was created.
    pub created: Timestamp,
}

/// Every log index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexList {
    /// In order of creation.
    pub indexes: Vec<IndexDescription>,
}

/// A binding to issue credentials for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBinding {
    /// The instance.
    pub instance: InstanceId,
    /// The binding.
    pub binding: BindingId,
    /// What its bearer may do.
    pub role: Role,
    /// How long it lives; `None` until it is unbound.
    #[serde(default)]
    pub ttl_seconds: Option<u64>,
}

/// Flat credentials: what the OSB binding hands to the application.
///
/// Keys: `index`, `role`, `nats_url`, `nats_creds` (a .creds file), `nats_jwt`, `nats_seed`, `subject`, `inbox_prefix`,
/// `alerts_subject`, `http_url`, `token`, `ingest_url`, `expires_at` where it ends.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Key to text.
    pub values: BTreeMap<String, String>,
}

impl std::fmt::Debug for Credentials {
    /// Shows the keys only: secrets never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// A live binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingDescription {
    /// The binding.
    pub binding: BindingId,
    /// Its instance.
    pub instance: InstanceId,
    /// Its index.
    pub index: IndexName,
    /// What it may do.
    pub role: Role,
    /// When it was issued.
    pub created: Timestamp,
    /// When it ends by itself.
    #[serde(default)]
    pub expires: Option<Timestamp>,
}

/// Every live binding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingList {
    /// In order of issue.
    pub bindings: Vec<BindingDescription>,
}
