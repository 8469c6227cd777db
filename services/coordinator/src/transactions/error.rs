//! What is refused of a transaction, and what its writer learns of it.

use types::{IndexName, TransactionId};
use wire::Problem;

use super::{LEASE_MS, TRANSACTIONS_MAX, TRANSACTIONS_OPEN_MAX};

/// Why a command on a transaction is refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Never was, or ended before the last hundred of its stream.
    #[error("there is no transaction {0}; it was never begun, or it ended long ago")]
    Unknown(TransactionId),
    /// Ended, or decided to end, in another way than asked for.
    #[error(
        "transaction {transaction} is over: {how}; begin another one and write its events again if they are still wanted"
    )]
    Over {
        /// The transaction.
        transaction: TransactionId,
        /// How it ended, for a person.
        how: &'static str,
    },
    /// Its shadow segments are still being created.
    #[error("transaction {0} is still being opened; try again")]
    Opening(TransactionId),
    /// Commits of a stream come one after the other.
    #[error("another transaction of index {0} is being committed; try again")]
    OtherCommit(IndexName),
    /// Its segments are about to change.
    #[error("the stream of index {0} is being scaled; try again")]
    Scaling(IndexName),
    /// [`crate::graph::COMMIT_ROOM`] is used up.
    #[error(
        "transaction {transaction} needs an epoch of its own, for segments of index {index} were replaced since it was begun, and the stream remembers too many segments for that; truncate the stream and commit again, or abort"
    )]
    NoRoom {
        /// The transaction, which stays open.
        transaction: TransactionId,
        /// Its index.
        index: IndexName,
    },
    /// Takes no events any more.
    #[error("the stream of index {0} is sealed; it takes no events")]
    StreamSealed(IndexName),
    /// A named limit.
    #[error(
        "too many transactions are open: at most {TRANSACTIONS_OPEN_MAX} of one stream and {TRANSACTIONS_MAX} in all; commit or abort some"
    )]
    TooMany,
    /// Out of bounds.
    #[error("a lease of {lease_ms} ms was asked for; it lasts {} to {} ms", LEASE_MS.start(), LEASE_MS.end())]
    Lease {
        /// What was asked for.
        lease_ms: u32,
    },
}

impl From<&TransactionError> for Problem {
    fn from(error: &TransactionError) -> Self {
        match error {
            TransactionError::Unknown(_) => Self::not_found("UnknownTransaction", error),
            TransactionError::Over { .. } => Self::conflict("TransactionOver", error),
            TransactionError::Opening(_) => Self::unavailable("TransactionOpening", error),
            TransactionError::OtherCommit(_) => Self::unavailable("CommitInProgress", error),
            TransactionError::Scaling(_) => Self::unavailable("ScaleInProgress", error),
            TransactionError::NoRoom { .. } => Self::throttled("TooManySegments", error),
            TransactionError::StreamSealed(_) => Self::conflict("StreamSealed", error),
            TransactionError::TooMany => Self::throttled("TooManyTransactions", error),
            TransactionError::Lease { .. } => Self::bad_request("LeaseOutOfRange", error),
        }
    }
}
