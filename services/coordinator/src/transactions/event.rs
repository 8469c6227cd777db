//! What somebody wants of transactions, and what happened to them.

use serde::{Deserialize, Serialize};
use types::{IndexName, TransactionId};
use wire::coordinator::{SegmentRange, TransactionShare};

use super::{Reason, Roll};

/// What somebody wants of transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Aborts what was not pinged in time.
    Expire,
    /// Gives every open transaction one lease from now on: when a leader takes over, or its clock jumped.
    Renew,
    /// About the transactions of one stream.
    Of {
        /// The index.
        index: IndexName,
        /// What is wanted.
        wish: Wish,
    },
}

/// What somebody wants of the transactions of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Opens a transaction over the present segments.
    Begin {
        /// Its lease.
        lease_ms: u32,
    },
    /// The shadow segments are there.
    Open(TransactionId),
    /// Its writer lives.
    Ping {
        /// Which.
        transaction: TransactionId,
        /// The next lease.
        lease_ms: u32,
    },
    /// Decides that its events will be visible.
    Commit(TransactionId),
    /// Plans the epoch into which the parts of sealed segments are merged.
    Roll(TransactionId),
    /// The planned epoch is open.
    EndRoll(TransactionId),
    /// All parts are merged; only of a transaction that was rolled.
    EndMerge(TransactionId),
    /// Its events are visible.
    EndCommit(TransactionId),
    /// Decides that its events will never be visible.
    Abort(TransactionId),
    /// Its shadow segments are gone.
    EndAbort(TransactionId),
}

/// What happened to transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A transaction has a number; its shadow segments are being created.
    Begun {
        /// The stream.
        stream: u32,
        /// Its index.
        index: IndexName,
        /// The transaction.
        transaction: TransactionId,
        /// The stream's epoch.
        epoch: u32,
        /// The lease.
        lease_ms: u32,
        /// The parts.
        shares: Vec<TransactionShare>,
    },
    /// It takes events.
    Opened(Which),
    /// It lives on.
    Pinged {
        /// Which.
        which: Which,
        /// The next lease.
        lease_ms: u32,
    },
    /// Its events will be visible: the decision.
    Committing(Which),
    /// Segments that were sealed since it was opened are replaced for it; this was planned.
    Rolling {
        /// Which.
        which: Which,
        /// The plan.
        roll: Roll,
    },
    /// The segments of the plan are there.
    Rolled {
        /// Which.
        which: Which,
        /// Where the rolled parts go, in the order of the plan.
        targets: Vec<SegmentRange>,
    },
    /// All its parts are merged; the epoch that was opened for it can end.
    Merged(Which),
    /// Its events are visible.
    Committed(Which),
    /// Its events will never be visible: the decision.
    Aborting {
        /// Which.
        which: Which,
        /// Why.
        reason: Reason,
    },
    /// Its shadow segments are gone.
    Aborted(Which),
    /// Every open transaction has one lease from now on.
    LeasesRenewed,
}

/// A transaction in the journal: by number, since the name of an index can come to mean another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// The stream.
    pub stream: u32,
    /// The transaction.
    pub transaction: TransactionId,
}
