//! Log indexes and the credentials to use them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, InstanceId, ScopeName, Timestamp};

use crate::{
    Empty,
    coordinator::{Page, ScalingPolicy},
    views::{Quota, Role},
};

calls! {
    /// Creates the log index of a service instance on its back-end; repeating it answers the same. Kinds: `IndexNameTaken`, `InstanceDiffers`, `NoArchive`, `Superseded`.
    CreateIndex(NewIndex) -> IndexDescription; "lb.v1.index-provisioner.indexes.create" [()] @ IndexProvisioner, Idempotent
    /// Changes the log index of a service instance; repeating it answers the same. Kinds: `UnknownInstance`, `NotUpdatable`, `NoArchive`, `Superseded`.
    UpdateIndex(IndexChange) -> IndexDescription; "lb.v1.index-provisioner.indexes.update" [()] @ IndexProvisioner, Idempotent
    /// Deletes the log index of a service instance with its credentials; deleting what is not there succeeds. Kinds: `NotEmpty`, `ArchiveInUse`, `Superseded`.
    DeleteIndex(InstanceName) -> Empty; "lb.v1.index-provisioner.indexes.delete" [()] @ IndexProvisioner, Idempotent
    /// Lists the log indexes that can be used, in pages. Kinds: `InvalidPage`.
    ListIndexes(IndexesOf) -> IndexList; "lb.v1.index-provisioner.indexes.list" [()] @ IndexProvisioner, Idempotent
    /// Issues the credentials of a binding; repeating it answers the same credentials. Kinds: `UnknownInstance`, `BindingDiffers`.
    IssueCredentials(NewBinding) -> Credentials; "lb.v1.index-provisioner.credentials.issue" [()] @ IndexProvisioner, Idempotent
    /// Revokes the credentials of a binding and drops its live connections; revoking what is not there succeeds.
    RevokeCredentials(BindingName) -> Empty; "lb.v1.index-provisioner.credentials.revoke" [()] @ IndexProvisioner, Idempotent
    /// Lists the live bindings, without secrets, in pages. Kinds: `InvalidPage`.
    ListBindings(BindingsOf) -> BindingList; "lb.v1.index-provisioner.bindings.list" [()] @ IndexProvisioner, Idempotent
}

/// What becomes of the events of an index when its instance is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reclaim {
    /// They are deleted.
    #[default]
    Delete,
    /// They stay on the back-end under their name; nobody's credentials reach them any more.
    Retain,
    /// The deletion is refused while there are any.
    Fail,
}

/// What an index is beyond its name: the part of it that a change of plan may change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexOptions {
    /// Payload bytes that are kept; the oldest go first. `None` keeps all of the retention's days.
    #[serde(default)]
    pub bytes_max: Option<u64>,
    /// When segments are split and merged.
    #[serde(default)]
    pub scaling: ScalingPolicy,
    /// What its users may do in a day and at once.
    #[serde(default)]
    pub quota: Quota,
    /// What becomes of its events in the end.
    #[serde(default)]
    pub reclaim: Reclaim,
    /// Whether something of its name that stands already, and belongs to nobody, becomes this index.
    #[serde(default)]
    pub adopt: bool,
    /// The index of the back-end `s3`, in the same scope, into whose bucket its chunks are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_to: Option<IndexName>,
    /// Whether what it has in object storage is sealed with a key of its own; fixed when it is created.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encryption: bool,
    /// What only its back-end knows, by name: at most 16, of at most 255 characters each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub backend: BTreeMap<String, String>,
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
    /// The back-end: `own`, `splunk` or `s3`.
    pub backend: String,
    /// Segments of the stream: 1 to 64; 0 takes the default.
    #[serde(default)]
    pub segment_count: u16,
    /// How long events are kept.
    #[serde(default)]
    pub retention_days: Option<u32>,
    /// Everything else.
    #[serde(default)]
    pub options: IndexOptions,
    /// Grows with everything that is wanted of the instance: what comes behind something greater is late, and refused. 0 has no place.
    #[serde(default)]
    pub order: u64,
}

/// A change to the index of a service instance: what it is to be from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexChange {
    /// The service instance.
    pub instance: InstanceId,
    /// How long events are kept; applies to events that are there too.
    #[serde(default)]
    pub retention_days: Option<u32>,
    /// Everything else; `adopt` means nothing here.
    #[serde(default)]
    pub options: IndexOptions,
    /// Grows with everything that is wanted of the instance: what comes behind something greater is late, and refused. 0 has no place.
    #[serde(default)]
    pub order: u64,
}

/// Names a service instance, of which something is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceName {
    /// The instance.
    pub instance: InstanceId,
    /// Grows with everything that is wanted of the instance: what comes behind something greater is late, and refused. 0 has no place.
    #[serde(default)]
    pub order: u64,
}

/// Names a service binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingName {
    /// The binding.
    pub binding: BindingId,
    /// Its instance, where it is known: then what is being done for the instance ends first.
    #[serde(default)]
    pub instance: Option<InstanceId>,
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
    /// Everything else.
    #[serde(default)]
    pub options: IndexOptions,
    /// When it was created.
    pub created: Timestamp,
}

/// Which log indexes to list. A request of former versions, which says nothing, asks for the first page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexesOf {
    /// Only those whose instances are behind this one; `None` begins.
    #[serde(default)]
    pub after: Option<InstanceId>,
    /// How many at most.
    #[serde(default)]
    pub limit: Page,
}

/// Some log indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexList {
    /// In the order of their instances.
    pub indexes: Vec<IndexDescription>,
    /// Whether there are more behind the last one.
    #[serde(default)]
    pub more: bool,
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

/// Which live bindings to list. A request of former versions, which says nothing, asks for the first page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingsOf {
    /// Only those behind this one; `None` begins.
    #[serde(default)]
    pub after: Option<BindingId>,
    /// How many at most.
    #[serde(default)]
    pub limit: Page,
}

/// Some live bindings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingList {
    /// In the order of their ids.
    pub bindings: Vec<BindingDescription>,
    /// Whether there are more behind the last one.
    #[serde(default)]
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    /// Requests and answers of the version without pages.
    #[test]
    fn former_callers_ask_for_the_first_page_and_former_answers_are_the_last_one() {
        assert_eq!(decode::<IndexesOf>(&encode(&Empty {})).unwrap(), IndexesOf::default());
        assert_eq!(decode::<BindingsOf>(&encode(&Empty {})).unwrap(), BindingsOf::default());
        let former: BTreeMap<&str, Vec<u8>> = [("bindings", vec![])].into();
        assert_eq!(decode::<BindingList>(&encode(&former)).unwrap(), BindingList::default());
    }
}
