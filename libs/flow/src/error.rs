//! What can be wrong with a graph, a batch or a peer.

use arrow::error::ArrowError;
use types::Invalid;

/// Says what the engine refuses, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job graph breaks a rule.
    #[error("job graph: {place}: {problem}")]
    Graph {
        /// The vertex or edge.
        place: String,
        /// The rule and how to keep it.
        problem: String,
    },
    /// The workers offer fewer slots than the job's largest parallelism.
    #[error("job needs {needed} slots and {workers} workers offer {free}: lower the parallelism or add task workers")]
    SlotsMissing {
        /// The largest parallelism of the graph.
        needed: u32,
        /// Free slots over all workers.
        free: u32,
        /// Workers that were offered.
        workers: usize,
    },
    /// A parallelism or a number of outputs is out of range.
    #[error("parallelism {found} is out of range: 1 to {max}", max = crate::KEY_GROUPS)]
    Parallelism {
        /// The number asked for.
        found: usize,
    },
    /// A window specification contradicts itself.
    #[error("window: {0}")]
    Window(String),
    /// The specification of an operator contradicts itself.
    #[error("{operator}: {problem}")]
    Spec {
        /// The operator.
        operator: &'static str,
        /// The rule and how to keep it.
        problem: String,
    },
    /// A batch lacks a column.
    #[error("column {column:?} is missing; the batch has {known}")]
    NoColumn {
        /// The missing column.
        column: String,
        /// The columns of the batch.
        known: String,
    },
    /// A column has a type that the operator cannot use.
    #[error("column {column:?} is {found}, wanted {wanted}: cast it in the projection")]
    ColumnType {
        /// The column.
        column: String,
        /// The type found.
        found: String,
        /// The types that would do.
        wanted: String,
    },
    /// A row has no event time.
    #[error("column {column:?} is null at row {row}: every row needs an event time")]
    NullTime {
        /// The time column.
        column: &'static str,
        /// The row within its batch.
        row: usize,
    },
    /// The open windows hold as many groups as they may.
    #[error("open windows hold {limit} groups, the limit: use fewer keys, shorter windows or more parallelism")]
    TooManyGroups {
        /// The limit.
        limit: usize,
    },
    /// The keys of the open windows take as many bytes as they may.
    #[error("keys of open windows take {limit} bytes, the limit: group by shorter keys or use more parallelism")]
    TooManyKeyBytes {
        /// The limit.
        limit: usize,
    },
    /// A snapshot is not one of this operator.
    #[error("snapshot of state: {0}")]
    Snapshot(String),
    /// This release does not run that.
    #[error("not built: {0}")]
    NotBuilt(String),
    /// A row cannot be computed, and the job's policy is to fail then.
    #[error("{operator}: {kind}: {detail}; `errors null` or `errors dead_letter` would go on")]
    Fault {
        /// The operator.
        operator: String,
        /// What kind of fault it is.
        kind: crate::FaultKind,
        /// The fault.
        detail: String,
    },
    /// An operator's state is as large as it may be.
    #[error(
        "{operator}: state takes {bytes} bytes and {limit} are its budget: use more parallelism, shorter windows or a larger budget"
    )]
    StateTooLarge {
        /// The operator.
        operator: String,
        /// What it takes.
        bytes: usize,
        /// What it may take.
        limit: usize,
    },
    /// A checkpoint holds state that no operator of the plan takes.
    #[error("state of {operator:?} has no operator in this plan: pin its uid, or start with `drop_state`")]
    StateWithoutOperator {
        /// The operator that had it.
        operator: String,
    },
    /// State could not be moved to or from disk.
    #[error("spilled state: {0}")]
    Spill(String),
    /// More bytes were sent or received than were granted.
    #[error("credit exceeded: {bytes} more bytes after {used} would pass the {granted} granted")]
    Credit {
        /// Size of the frame.
        bytes: u64,
        /// Bytes sent or received so far.
        used: u64,
        /// Bytes granted in all.
        granted: u64,
    },
    /// A word is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A column operation failed.
    #[error("column operation failed")]
    Arrow(#[from] ArrowError),
}
