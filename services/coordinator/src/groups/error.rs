//! What is refused of a reader group.

use types::{GroupName, IndexName};
use wire::Problem;

use super::{GROUPS_MAX, INDEXES_MAX, PLACES_MAX};

/// Why a command on a reader group is refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Not there.
    #[error("there is no reader group {0}")]
    Unknown(GroupName),
    /// There in another shape, or in another scope.
    #[error("reader group {0} exists with another configuration; reset it to change it, or choose another name")]
    Differs(GroupName),
    /// The group began again, or was never so far.
    #[error("reader group {group} is in generation {is}, not {told}; begin again with its present generation")]
    Generation {
        /// The group.
        group: GroupName,
        /// Its generation.
        is: u64,
        /// What the caller said.
        told: u64,
    },
    /// Out of bounds.
    #[error("{0} indexes were named; a reader group reads 1 to {INDEXES_MAX}")]
    Indexes(usize),
    /// An end of something that is not read.
    #[error("an end is given for index {0}, which the group does not read")]
    EndWithoutBeginning(IndexName),
    /// [`PLACES_MAX`].
    #[error(
        "the cuts of reader group {group} would name {places} segments of at most {PLACES_MAX}; merge segments, or give each index a group of its own"
    )]
    TooManyPlaces {
        /// The group.
        group: GroupName,
        /// How many they would name.
        places: usize,
    },
    /// The named limit.
    #[error("there are {GROUPS_MAX} reader groups already, which is the limit of an installation; delete some")]
    TooMany,
}

impl From<&GroupError> for Problem {
    fn from(error: &GroupError) -> Self {
        match error {
            GroupError::Unknown(_) => Self::not_found("UnknownGroup", error),
            GroupError::Differs(_) => Self::conflict("GroupDiffers", error),
            GroupError::Generation { .. } => Self::conflict("GroupReset", error),
            GroupError::Indexes(_) | GroupError::EndWithoutBeginning(_) => Self::bad_request("InvalidGroup", error),
            GroupError::TooManyPlaces { .. } => Self::throttled("TooManySegments", error),
            GroupError::TooMany => Self::throttled("TooManyGroups", error),
        }
    }
}
