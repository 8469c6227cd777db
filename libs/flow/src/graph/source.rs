//! What a job reads, as data.

use serde::{Deserialize, Serialize};
use types::{DurationText, IndexName};

use super::SourceStart;

/// A source: where rows come from, what they look like, how far event time has come.
///
/// It supersedes `Source`, which only reads an index and which graphs of older releases hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Where from.
    pub from: Connector,
    /// Event time and watermarks.
    pub time: EventTime,
    /// The declared columns; none: what the rows have, learnt from the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schema: Vec<ColumnSpec>,
    /// The columns that the job uses, so that others are not read at all; `None`: all. `_time` comes always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// The hidden columns that the job uses.
    #[serde(default)]
    pub hidden: Hidden,
    /// What becomes of rows that are not of the format, or have no time.
    #[serde(default)]
    pub corrupt: Corrupt,
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connector {
    /// The segments of an index; a segment is a split.
    Index {
        /// The index.
        index: IndexName,
        /// Where to begin without a checkpoint.
        #[serde(default)]
        start: SourceStart,
    },
    /// Files; a file is a split, or several by ranges of bytes.
    Files {
        /// A URL of one file or of a directory (`file:///…`, `s3://…`); of a directory all files in the order of their names.
        url: String,
        /// Their format.
        format: FileFormat,
        /// Whether what is there at the begin is all; else new files are looked for.
        #[serde(default = "yes")]
        bounded: bool,
    },
    /// Rows made up from a seed, of the declared columns.
    Datagen {
        /// The seed: the same one gives the same rows.
        seed: u64,
        /// Rows of all splits together; `None`: without end.
        #[serde(default)]
        rows: Option<u64>,
        /// Rows each second of all splits together; `None`: as fast as they are taken.
        #[serde(default)]
        per_second: Option<u64>,
        /// How many splits.
        #[serde(default = "one")]
        splits: u32,
    },
    /// The events of the Nexmark benchmark.
    Nexmark {
        /// Which of them.
        table: NexmarkTable,
        /// The seed.
        seed: u64,
        /// Events of all three kinds together; `None`: without end.
        #[serde(default)]
        events: Option<u64>,
        /// Events each second of the events' own time.
        #[serde(default = "nexmark_rate")]
        rate: u64,
        /// How many splits.
        #[serde(default = "one")]
        splits: u32,
    },
    /// A stream of NATS JetStream; it is one split.
    JetStream {
        /// The stream.
        stream: String,
        /// Which of its subjects; empty: all.
        #[serde(default)]
        subject: String,
        /// The format of a message.
        format: FileFormat,
    },
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn nexmark_rate() -> u64 {
    10_000
}

/// The format of a file, or of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// A JSON object per line.
    Ndjson,
    /// Separated values.
    Csv {
        /// One byte of ASCII.
        #[serde(default = "comma")]
        delimiter: char,
        /// Whether the first line has the names; else the declared columns in their order.
        #[serde(default = "yes")]
        header: bool,
    },
    /// Parquet.
    Parquet,
}

fn comma() -> char {
    ','
}

/// A kind of events of Nexmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NexmarkTable {
    /// Who offers and bids.
    Person,
    /// What is offered.
    Auction,
    /// What is bid.
    Bid,
}

/// The type of a declared column, and of an aggregate's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// `Int64`.
    Integer,
    /// `Float64`.
    Float,
    /// `Utf8`.
    Text,
    /// `Boolean`.
    Boolean,
    /// `Timestamp(Nanosecond)`.
    Time,
}

/// A declared column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ValueType,
}

/// Event time and watermarks of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTime {
    /// The column that holds it: a timestamp, RFC 3339 text or a number of `unit`; `None`: `_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What a number counts.
    #[serde(default)]
    pub unit: EpochUnit,
    /// How much disorder is waited for.
    pub delay: DurationText,
    /// How far ahead of its receipt a row may be and still move the watermark; `None` where rows have no receipt (files,
    /// generators): nothing is too far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_future_skew: Option<DurationText>,
    /// A split without rows and without lag for that long is idle; `None`: never. Idleness is by the clock, so a job that
    /// must be exact over a silent split sets `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<DurationText>,
    /// How far splits may be ahead of the slowest one of their source before they are not read any further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_drift: Option<DurationText>,
}

/// What a number of event time counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    #[default]
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// The hidden columns that a source adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// `_wm`: for every operator that can find a row late.
    #[serde(default)]
    pub watermark: bool,
    /// `_split` and `_offset`: for operators that depend on order.
    #[serde(default)]
    pub place: bool,
}

/// What becomes of rows of a source that are not of its format, or have no time; they are counted in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corrupt {
    /// The job fails with a named error.
    #[default]
    Fail,
    /// They are left out.
    Drop,
    /// They leave by the port of dead letters.
    DeadLetter,
}
