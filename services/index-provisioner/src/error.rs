//! What the provisioner refuses, and what callers learn of it.

use types::{BindingId, IndexName, InstanceId, ScopeName};
use wire::Problem;

/// Why a command is refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionerError {
    /// No such back-end.
    #[error("there is no back-end {asked:?}; this installation has: {there}")]
    UnknownBackend {
        /// What was asked for.
        asked: String,
        /// What the settings give.
        there: String,
    },
    /// An option that no back-end can have.
    #[error("{0}")]
    Options(&'static str),
    /// Outside of 1 to 64.
    #[error("{0} segments were asked for; an index has 1 to 64")]
    SegmentCount(u16),
    /// Zero or longer than ten years.
    #[error("a binding that lives {0} s was asked for; it may live 1 s to 315360000 s (ten years)")]
    TtlSeconds(u64),
    /// Another instance owns the name.
    #[error("the index name {0} is taken by another service instance; choose another name")]
    IndexNameTaken(IndexName),
    /// The instance has an index of another shape.
    #[error(
        "service instance {0} exists with another index, scope, back-end, number of segments, retention or options"
    )]
    InstanceDiffers(InstanceId),
    /// The binding exists in another shape.
    #[error("service binding {0} exists with another instance, role or time to live")]
    BindingDiffers(BindingId),
    /// Late.
    #[error("something later was wanted of service instance {0} already; this comes too late")]
    Superseded(InstanceId),
    /// Not there.
    #[error("there is no service instance {0}")]
    UnknownInstance(InstanceId),
    /// Being created or deleted.
    #[error("the index of service instance {0} is being created or deleted; try again")]
    NotReady(InstanceId),
    /// Another change is on its way.
    #[error("the index of service instance {0} is being changed in another way; try again")]
    BeingUpdated(InstanceId),
    /// It must not be deleted with them.
    #[error("index {0} holds events, and its reclaim policy is `fail`: empty it, or change the policy")]
    NotEmpty(IndexName),
    /// No bucket to archive into.
    #[error(
        "scope {scope} has no bucket {archive} to archive into: provision an instance of s3-archive in this scope first, and name its index"
    )]
    NoArchive {
        /// What was named.
        archive: IndexName,
        /// The scope in which it should be.
        scope: ScopeName,
    },
    /// The back-end of buckets is off, or off by now.
    #[error(
        "archive_to: {0} cannot be archived into, this installation has no back-end s3: leave archive_to out, or put \
         index_provisioner.s3 into the settings"
    )]
    NoArchives(IndexName),
    /// Only our own chunks are copied.
    #[error("an index of the back-end {0:?} cannot be archived: leave archive_to out")]
    NotArchivable(String),
    /// Chunks are copied into it.
    #[error("indexes are archived into {archive}: take archive_to away from {users} first")]
    ArchiveInUse {
        /// The bucket's index.
        archive: IndexName,
        /// Some of the indexes that are archived there.
        users: String,
    },
    /// Being revoked.
    #[error("service binding {0} is being revoked; try again")]
    BeingRevoked(BindingId),
    /// The named limit.
    #[error("there are {0} indexes already, which is the limit of an installation")]
    TooManyIndexes(usize),
    /// The named limit.
    #[error(
        "live and revoked credentials are {0} together, which is the limit of the tenants account; bindings with ttl_seconds free their place when they end"
    )]
    TooManyKeys(usize),
}

impl From<ProvisionerError> for Problem {
    fn from(error: ProvisionerError) -> Self {
        match &error {
            ProvisionerError::UnknownBackend { .. } => Self::bad_request("UnknownBackend", &error),
            ProvisionerError::Options(_) => Self::bad_request("InvalidPolicy", &error),
            ProvisionerError::NotEmpty(_) => Self::conflict("NotEmpty", &error),
            ProvisionerError::NoArchive { .. }
            | ProvisionerError::NoArchives(_)
            | ProvisionerError::NotArchivable(_) => Self::bad_request("NoArchive", &error),
            ProvisionerError::ArchiveInUse { .. } => Self::conflict("ArchiveInUse", &error),
            ProvisionerError::BeingUpdated(_) => Self::unavailable("NotReady", &error),
            ProvisionerError::SegmentCount(_) => Self::bad_request("SegmentCount", &error),
            ProvisionerError::TtlSeconds(_) => Self::bad_request("TtlSeconds", &error),
            ProvisionerError::IndexNameTaken(_) => Self::conflict("IndexNameTaken", &error),
            ProvisionerError::InstanceDiffers(_) => Self::conflict("InstanceDiffers", &error),
            ProvisionerError::BindingDiffers(_) => Self::conflict("BindingDiffers", &error),
            ProvisionerError::Superseded(_) => Self::conflict("Superseded", &error),
            ProvisionerError::UnknownInstance(_) => Self::not_found("UnknownInstance", &error),
            ProvisionerError::NotReady(_) => Self::unavailable("NotReady", &error),
            ProvisionerError::BeingRevoked(_) => Self::unavailable("BeingRevoked", &error),
            ProvisionerError::TooManyIndexes(_) => Self::throttled("TooManyIndexes", &error),
            ProvisionerError::TooManyKeys(_) => Self::throttled("TooManyKeys", &error),
        }
    }
}
