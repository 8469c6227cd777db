//! The stream engine without I/O.
//!
//! Owns what a continuous job *is* and how it *decides*: the job graph and its placement, watermarks, keyed tumbling
//! windows, key groups and scatter, byte credits, barrier alignment and the coordinator's view of a checkpoint.
//! Deliberately does not know: sockets, threads, clocks, object storage, SQL. It is handed batches and instants and
//! answers with batches and decisions, so that every rule here is tested in microseconds and replays bit for bit.
//!
//! Determinism: a row is late by the order of its own split alone ([`SplitWatermark`]), windows fire in
//! `(window_end, key)` order ([`TumblingState`]), and sums of floating-point numbers are exact, so neither the
//! interleaving of inputs nor the size of batches can change one emitted bit.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use arrow::{array::{ArrayRef, RecordBatch, StringArray, TimestampNanosecondArray}, util::pretty::pretty_format_batches};
//! use flow::{AggregateSpec, TumblingState, WindowSpec};
//! use types::{DurationText, Timestamp};
//!
//! let mut windows = TumblingState::new(WindowSpec {
//!     keys: vec!["service".into()],
//!     aggregates: vec![AggregateSpec::count_all("errors")],
//!     size: DurationText(Duration::from_secs(10)),
//!     early: None,
//! })?;
//! let batch = RecordBatch::try_from_iter([
//!     ("_time", Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3])) as ArrayRef),
//!     ("service", Arc::new(StringArray::from(vec!["cart", "cart", "shop"]))),
//! ])?;
//! windows.update(&batch)?;
//! assert!(windows.advance(Timestamp::from_millis(9_999))?.is_empty());
//! let fired = windows.advance(Timestamp::from_millis(10_000))?;
//! assert_eq!(fired[0].num_rows(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod barrier;
mod build;
mod chain;
mod changelog;
mod checkpoint;
mod column;
mod credit;
#[cfg(test)]
mod drive;
mod error;
mod execution;
mod fault;
mod graph;
mod group;
mod hash;
mod join;
mod kept;
mod operator;
mod ordered;
mod over;
mod pattern;
mod rank;
pub mod row;
mod state;
mod watermark;
mod window;

pub use barrier::{Aligner, Alignment};
pub use chain::Chain;
pub use changelog::{Change, ChangelogMode};
pub use checkpoint::{Ack, CheckpointLimits, Checkpoints, CommitPermit, Refused, Stopped};
pub use credit::{GRANT_TARGET, ReceiverCredit, SenderCredit, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
pub use error::Error;
pub use execution::{Channel, ExecutionGraph, FreeSlots, Task, TaskId};
pub use fault::{DEAD_ROW_BYTES_MAX, DeadLetter, ErrorPolicy, FaultKind, dead_letter_schema};
pub use graph::{
    ColumnSpec, Connector, Corrupt, Edge, EpochUnit, EventTime, FileFormat, GRAPH_VERSION, Hidden, JobGraph,
    NexmarkTable, OperatorSpec, PARALLELISM_MAX, Partition, Projection, SinkSpec, SourceSpec, SourceStart, Uid,
    VERTICES_MAX, ValueType, Vertex,
};
pub use group::GroupSpec;
pub use hash::{KEY_GROUPS, hashes, key_group, key_groups_of, scatter, subtask_of};
pub use join::{JoinKind, JoinSide, JoinSpec, JoinType, Lookup, LookupJoin, LookupTable};
pub use operator::{Counts, Operator, Out, Port, Setting, Verdict};
pub use over::{FRAME_ROWS_MAX, Frame, OverSpec};
pub use pattern::{AfterMatch, Measure, MeasureValue, PATTERN_STEPS_MAX, PatternSpec, PatternStep};
pub use rank::{DedupSpec, Keep, SortKey, TOP_ROWS_MAX, TopNSpec};
pub use row::{CHANGE_COLUMN, HIDDEN_COLUMNS, INSTANT_TYPE, OFFSET_COLUMN, ROW_WATERMARK_COLUMN, SPLIT_COLUMN};
pub use state::{BlockRef, Frozen, HASH_COLUMN, KeyGroups, OperatorState, Spill, SpillRef, StateBlock, StoredBlock};
pub use watermark::{Combined, MAX_FUTURE_SKEW, SplitWatermark};
pub use window::{
    AggregateFunction, AggregateSpec, EARLY_COLUMN, EarlyFire, EarlyOp, Emit, GROUPS_MAX, KEY_BYTES_MAX, Phase,
    SNAPSHOT_VERSION, TIME_COLUMN, TumblingOperator, TumblingState, WINDOW_END_COLUMN, WINDOW_START_COLUMN, WindowPlan,
    WindowShape, WindowSpec, window_end, window_start,
};
