//! What is refused of a library.

use types::{IndexName, ItemName};
use wire::{Code, Problem, coordinator::ItemKind};

use super::{BYTES_ALL_MAX, BYTES_MAX, ITEMS_ALL_MAX, ITEMS_MAX, PLACES_MAX, PLACES_OF_INDEX_MAX};

/// Why a command on a library is refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// Not there.
    #[error("the library of index {index} has no {name}")]
    Unknown {
        /// The index.
        index: IndexName,
        /// The name.
        name: ItemName,
    },
    /// Somebody else was faster.
    #[error("{name} is not in the expected version: {}", version(.is))]
    Changed {
        /// The name.
        name: ItemName,
        /// Its version, if it is there.
        is: Option<u64>,
    },
    /// A name is that of one item.
    #[error("{name} is the name of an item of kind {} already; choose another name", .kind.as_str())]
    KindDiffers {
        /// The name.
        name: ItemName,
        /// What it is.
        kind: ItemKind,
    },
    /// A rule is broken.
    #[error("{0}")]
    Invalid(String),
    /// The place is not, or no longer, reserved.
    #[error("the table of {name} was not put into storage for this index, or too long ago; upload it again")]
    UploadExpired {
        /// The name.
        name: ItemName,
    },
    /// [`ITEMS_MAX`].
    #[error("the library of index {index} has {ITEMS_MAX} items already, which is the limit; delete some")]
    TooManyItems {
        /// The index.
        index: IndexName,
    },
    /// [`BYTES_MAX`].
    #[error(
        "the library of index {index} would have more than {BYTES_MAX} bytes of texts, which is the limit; delete some"
    )]
    TooMuch {
        /// The index.
        index: IndexName,
    },
    /// [`ITEMS_ALL_MAX`], [`BYTES_ALL_MAX`].
    #[error("all libraries together hold at most {ITEMS_ALL_MAX} items and {BYTES_ALL_MAX} bytes; delete some")]
    TooMuchInAll,
    /// [`PLACES_OF_INDEX_MAX`].
    #[error(
        "{PLACES_OF_INDEX_MAX} tables of index {index} are on their way into object storage or out of it, which is the limit; try again later"
    )]
    TooManyPlacesOfIndex {
        /// The index.
        index: IndexName,
    },
    /// [`PLACES_MAX`].
    #[error(
        "{PLACES_MAX} tables are on their way into object storage or out of it, which is the limit; try again later"
    )]
    TooManyPlaces,
}

fn version(is: &Option<u64>) -> String {
    is.map_or_else(|| "it is not there".to_owned(), |is| format!("it is in version {is}"))
}

impl From<&LibraryError> for Problem {
    fn from(error: &LibraryError) -> Self {
        match error {
            LibraryError::Unknown { .. } => Self::not_found("UnknownItem", error),
            LibraryError::Changed { .. } => Self::new(Code::Fenced, "ItemChanged", error),
            LibraryError::KindDiffers { .. } => Self::conflict("ItemKindDiffers", error),
            LibraryError::Invalid(_) => Self::bad_request("InvalidItem", error),
            LibraryError::UploadExpired { .. } => Self::conflict("UploadExpired", error),
            LibraryError::TooManyItems { .. }
            | LibraryError::TooMuch { .. }
            | LibraryError::TooMuchInAll
            | LibraryError::TooManyPlacesOfIndex { .. }
            | LibraryError::TooManyPlaces => Self::new(Code::Throttled, "TooManyItems", error),
        }
    }
}
