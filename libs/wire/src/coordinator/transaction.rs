//! Transactions: events of several segments that become visible together or never.

use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, KeyRange, SegmentId, Timestamp, TransactionId};

use super::Page;

/// A transaction to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTransaction {
    /// The index.
    pub index: IndexName,
    /// How long it lives without a ping: 1 000 to 600 000 ms.
    pub lease_ms: u32,
}

/// Names a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionName {
    /// The index.
    pub index: IndexName,
    /// The transaction.
    pub transaction: TransactionId,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionPing {
    /// The index.
    pub index: IndexName,
    /// The transaction.
    pub transaction: TransactionId,
    /// How long it lives from now on without another: 1 000 to 600 000 ms.
    pub lease_ms: u32,
}

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionPhase {
    /// Takes events.
    Open,
    /// Will be visible.
    Committing,
    /// Is visible.
    Committed,
    /// Will never be visible.
    Aborting,
    /// Is gone.
    Aborted,
}

/// The part of a transaction in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionShare {
    /// Where the transaction's events of these keys are appended meanwhile; takes event numbers of its own from 1.
    pub shadow: SegmentId,
    /// The segment to which they will be added.
    pub segment: SegmentId,
    /// The container of both.
    pub container: ContainerId,
    /// The keys.
    pub range: KeyRange,
}

/// A transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The index.
    pub index: IndexName,
    /// The transaction.
    pub transaction: TransactionId,
    /// The epoch in which it was opened.
    pub epoch: u32,
    /// How far it is.
    pub phase: TransactionPhase,
    /// Its parts; ranges cover the key space once. Empty once it has ended.
    pub shares: Vec<TransactionShare>,
    /// When it was opened.
    pub begun: Timestamp,
    /// When it is aborted without a ping.
    pub expires: Timestamp,
    /// Why it was aborted, for a person: `lease expired`, `asked for`, `stream sealed`.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Transaction {
    /// The part for a place in the hash space.
    pub fn route_hash(&self, hash: u64) -> Option<TransactionShare> {
        self.shares.iter().find(|share| share.range.contains(hash)).copied()
    }
}

/// Which transactions to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionsOf {
    /// The index.
    pub index: IndexName,
    /// Begin with those that were begun before this one.
    #[serde(default)]
    pub before: Option<TransactionId>,
    /// At most so many.
    #[serde(default)]
    pub limit: Page,
}

impl TransactionsOf {
    /// The first page of the transactions of an index.
    pub fn all(index: IndexName) -> Self {
        Self { index, before: None, limit: Page::default() }
    }
}

/// Transactions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionList {
    /// The last begun first.
    pub transactions: Vec<Transaction>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}
