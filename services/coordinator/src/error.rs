//! What the coordinator refuses, and what callers learn of it.

use types::{IndexName, ScopeName};
use wire::{Code, Problem};

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
    #[error("the stream of index {index} exists in scope {scope} with other segments or retention")]
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
    /// The named limit.
    #[error("there are {0} streams already, which is the limit of an installation")]
    TooManyStreams(usize),
}

impl From<CoordinatorError> for Problem {
    fn from(error: CoordinatorError) -> Self {
        match &error {
            CoordinatorError::NotInstalled => Self::unavailable("Starting", &error),
            CoordinatorError::ContainerCountChanged { .. } => Self::unavailable("ContainerCountChanged", &error),
            CoordinatorError::SegmentCount(_) => Self::bad_request("SegmentCount", &error),
            CoordinatorError::IndexNameTaken { .. } => Self::conflict("IndexNameTaken", &error),
            CoordinatorError::StreamDiffers { .. } => Self::conflict("StreamDiffers", &error),
            CoordinatorError::BeingDeleted(_) => Self::unavailable("BeingDeleted", &error),
            CoordinatorError::Deleted(_) => Self::conflict("StreamDeleted", &error),
            CoordinatorError::UnknownIndex(_) => Self::not_found("UnknownIndex", &error),
            CoordinatorError::TooManyStreams(_) => Self::new(Code::Throttled, "TooManyStreams", &error),
        }
    }
}
