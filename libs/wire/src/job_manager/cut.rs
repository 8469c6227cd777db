//! Up to where a source has read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::{IndexName, StreamCut};

/// Where one source of a job begins, or up to where a checkpoint of it has read.
///
/// A source is named by its vertex in the job graph, which is the same in every attempt and at every parallelism. The
/// parts of its tasks hold more (watermarks, for instance); a task takes the splits that are its share from the parts of
/// *all* subtasks of its vertex, whatever their number was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceCut {
    /// Of an index: exactly the segments that are read, with the next offset of each.
    Index {
        /// The index.
        index: IndexName,
        /// The cut.
        cut: StreamCut,
    },
    /// Of anything else: the next position by split. The splits that are not named are found by the source itself.
    Splits(BTreeMap<String, u64>),
}
