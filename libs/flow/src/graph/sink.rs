//! Where the rows of a job go, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::DurationText;

use super::source::FileFormat;

/// A sink besides an index and an alert rule, which are `SinkIndex` and `SinkAlerts`.
///
/// Guarantees: `Files` exactly once, in two phases (pending objects, published at `CommitCheckpoint`); `JetStream` and
/// `Http` idempotent by a key of job, vertex, generation, subtask and number of the row; `Stdout` and `Blackhole` none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkSpec {
    /// Files that roll.
    Files {
        /// The URL of a directory.
        url: String,
        /// Their format.
        format: FileFormat,
        /// A file rolls at that size, and at every checkpoint; `None`: 128 MiB.
        #[serde(default)]
        roll_bytes: Option<u64>,
        /// A file rolls when it is that old.
        #[serde(default)]
        roll_after: Option<DurationText>,
    },
    /// Messages of JSON to a subject of NATS JetStream.
    JetStream {
        /// The subject; `{column}` is the value of a column.
        subject: String,
    },
    /// Requests with a batch of NDJSON each.
    Http {
        /// The URL.
        url: String,
        /// Headers; a value may be a reference of a secret as in settings.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// Lines of JSON to the worker's standard output.
    Stdout,
    /// Nowhere; rows are counted.
    Blackhole,
}

impl SinkSpec {
    /// One word for pictures and messages.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Files { .. } => "files sink",
            Self::JetStream { .. } => "jetstream sink",
            Self::Http { .. } => "http sink",
            Self::Stdout => "stdout sink",
            Self::Blackhole => "blackhole sink",
        }
    }

    /// Whether it can take rows that change ([`Change`](crate::Change)); the others take inserts only.
    pub fn takes_changes(&self) -> bool {
        matches!(self, Self::Stdout | Self::Blackhole)
    }
}
