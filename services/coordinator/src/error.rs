//! What the coordinator refuses, and what callers learn of it.

use types::{IndexName, ScopeName};
use wire::{Code, Problem};

use crate::{
    groups::GroupError,
    library::LibraryError,
    state::graph::{CutError, RestoreError, ScaleError},
    transactions::TransactionError,
};

/// Why a command is refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordinatorError {
    /// The leader has not yet written down the number of containers.
    #[error("the coordinator is still starting; try again")]
    NotInstalled,
    /// The setting was changed after the first start.
    #[error(
        "common.container_count is {wanted}, but this installation was started with {installed}; set it back to {installed}"
    )]
    ContainerCountChanged {
        /// What the journal says.
        installed: u16,
        /// What the setting says.
        wanted: u16,
    },
    /// Outside of 1 to 64.
    #[error("{0} segments were asked for; a stream has 1 to 64")]
    SegmentCount(u16),
    /// Another tenant owns the name.
    #[error("index {index} exists in another scope; choose another name")]
    IndexNameTaken {
        /// The wanted name.
        index: IndexName,
    },
    /// The same tenant has it in another shape.
    #[error("the stream of index {index} exists in scope {scope} with other segments, policies or tags")]
    StreamDiffers {
        /// The tenant.
        scope: ScopeName,
        /// The index.
        index: IndexName,
    },
    /// The name is free again when the deletion is done.
    #[error("the stream of index {0} is being deleted; try again")]
    BeingDeleted(IndexName),
    /// Deleted while it was being created.
    #[error("the stream of index {0} was deleted while it was being created")]
    Deleted(IndexName),
    /// Not there.
    #[error("there is no index {0}")]
    UnknownIndex(IndexName),
    /// The scope is going.
    #[error("scope {0} is being deleted; try again")]
    ScopeBeingDeleted(ScopeName),
    /// Something is in it.
    #[error("scope {scope} has {stream_count} streams, or reader groups; delete them first, or delete it recursively")]
    ScopeNotEmpty {
        /// The scope.
        scope: ScopeName,
        /// How many streams it has.
        stream_count: usize,
    },
    /// The named limit.
    #[error("there are {0} scopes already, which is the limit of an installation")]
    TooManyScopes(usize),
    /// A policy or a tag breaks a rule.
    #[error("{0}")]
    InvalidPolicy(String),
    /// The segments cannot be replaced as asked.
    #[error("the stream cannot be scaled so: {0}")]
    InvalidScale(#[from] ScaleError),
    /// The cut is none of this stream.
    #[error("the stream cut is not valid: {0}")]
    InvalidCut(#[from] CutError),
    /// What is to be restored makes no stream.
    #[error("the stream cannot be restored: {0}")]
    InvalidRestore(#[from] RestoreError),
    /// Another stream has the number.
    #[error("stream {number} is that of index {index}; restore with another name, which gives it another number")]
    StreamNumberTaken {
        /// The number.
        number: u32,
        /// The index that has it.
        index: IndexName,
    },
    /// It takes appends no more.
    #[error("the stream of index {0} is sealed")]
    StreamSealed(IndexName),
    /// One scale of a stream at a time.
    #[error("the stream of index {0} is being scaled; try again")]
    ScaleInProgress(IndexName),
    /// A scale waits for a commit.
    #[error("a transaction of index {0} is being committed; try again")]
    CommitInProgress(IndexName),
    /// The named limit.
    #[error("there are {0} streams already, which is the limit of an installation")]
    TooManyStreams(usize),
    /// What the plans of its service instances say.
    #[error(
        "scope {scope} may hold {most} streams, as the plans of its service instances say: delete one, or change a plan"
    )]
    ScopeFull {
        /// The scope.
        scope: ScopeName,
        /// So many it may hold.
        most: u64,
    },
    /// About a transaction.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// About a reader group.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// About a library.
    #[error(transparent)]
    Library(#[from] LibraryError),
}

impl From<CoordinatorError> for Problem {
    fn from(error: CoordinatorError) -> Self {
        match &error {
            CoordinatorError::Transaction(error) => error.into(),
            CoordinatorError::Group(error) => error.into(),
            CoordinatorError::Library(error) => error.into(),
            CoordinatorError::NotInstalled => Self::unavailable("Starting", &error),
            CoordinatorError::ContainerCountChanged { .. } => Self::unavailable("ContainerCountChanged", &error),
            CoordinatorError::SegmentCount(_) => Self::bad_request("SegmentCount", &error),
            CoordinatorError::IndexNameTaken { .. } => Self::conflict("IndexNameTaken", &error),
            CoordinatorError::StreamDiffers { .. } => Self::conflict("StreamDiffers", &error),
            CoordinatorError::BeingDeleted(_) => Self::unavailable("BeingDeleted", &error),
            CoordinatorError::Deleted(_) => Self::conflict("StreamDeleted", &error),
            CoordinatorError::UnknownIndex(_) => Self::not_found("UnknownIndex", &error),
            CoordinatorError::ScopeBeingDeleted(_) => Self::unavailable("ScopeBeingDeleted", &error),
            CoordinatorError::ScopeNotEmpty { .. } => Self::conflict("ScopeNotEmpty", &error),
            CoordinatorError::TooManyScopes(_) => Self::new(Code::Throttled, "TooManyScopes", &error),
            CoordinatorError::InvalidPolicy(_) => Self::bad_request("InvalidPolicy", &error),
            CoordinatorError::InvalidScale(ScaleError::TooManyKept(_)) => {
                Self::new(Code::Throttled, "TooManySegments", &error)
            }
            CoordinatorError::InvalidScale(ScaleError::NumbersUsedUp) => Self::conflict("NumbersUsedUp", &error),
            CoordinatorError::InvalidScale(_) => Self::bad_request("InvalidScale", &error),
            CoordinatorError::InvalidRestore(_) => Self::bad_request("InvalidRestore", &error),
            CoordinatorError::StreamNumberTaken { .. } => Self::conflict("StreamNumberTaken", &error),
            CoordinatorError::InvalidCut(_) => Self::bad_request("InvalidCut", &error),
            CoordinatorError::StreamSealed(_) => Self::conflict("StreamSealed", &error),
            CoordinatorError::ScaleInProgress(_) => Self::unavailable("ScaleInProgress", &error),
            CoordinatorError::CommitInProgress(_) => Self::unavailable("CommitInProgress", &error),
            CoordinatorError::ScopeFull { .. } => Self::new(Code::Throttled, "QuotaStreams", &error),
            CoordinatorError::TooManyStreams(_) => Self::new(Code::Throttled, "TooManyStreams", &error),
        }
    }
}
