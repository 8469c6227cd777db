//! State as blocks: what a checkpoint stores of an operator, and how parts are put together again.
//!
//! An operator cuts its state into blocks by table, range of key groups and span of time, each a few hundred KiB to a few
//! MiB. A block is an Arrow IPC stream with a column `_hash` (`UInt64`, the hash of the row's key, by which rows of other
//! key groups are left out on a restore) and `lb.table`, `lb.version` in its schema's metadata. It is stored once, under a
//! name made of its content (SHA-256), put-if-absent, below `ckpt/<job>-<submission>/blocks/`: a checkpoint stores only
//! what changed. The part of a task names its blocks ([`OperatorState`]); blocks that no kept checkpoint and no savepoint
//! names are deleted off the critical path.
//!
//! What is not keyed (positions of sources, numbers of writers) stands in the part itself, by split.

use std::{ops::Range, sync::Arc};

use arrow::buffer::Buffer;
use serde::{Deserialize, Serialize};
use types::Timestamp;

use crate::{Error, KEY_GROUPS};

/// The hash of the key of a row of a block.
pub const HASH_COLUMN: &str = "_hash";

/// A contiguous range of key groups, the end left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroups {
    /// The first.
    pub first: u16,
    /// The first one behind.
    pub end: u16,
}

impl KeyGroups {
    /// All of them.
    pub const ALL: Self = Self { first: 0, end: KEY_GROUPS };

    /// Whether the two have a group in common.
    pub fn meets(self, other: Self) -> bool {
        self.first < other.end && other.first < self.end
    }

    /// Whether a key group is among them.
    pub fn has(self, group: u8) -> bool {
        (self.first..self.end).contains(&u16::from(group))
    }
}

impl From<Range<u16>> for KeyGroups {
    fn from(range: Range<u16>) -> Self {
        Self { first: range.start, end: range.end }
    }
}

/// Content of a block, shared with the operator and not changed any more.
pub trait Frozen: std::fmt::Debug + Send + Sync {
    /// The block as an Arrow IPC stream; equal contents give equal bytes, for the name is made of them. Called beside the
    /// task, once per edition.
    fn encode(&self) -> Result<Vec<u8>, Error>;
    /// About how many bytes that takes.
    fn bytes(&self) -> usize;
}

/// Bytes that were encoded already.
impl Frozen for Vec<u8> {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        Ok(self.clone())
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

/// One block of a snapshot.
#[derive(Debug, Clone)]
pub struct StateBlock {
    /// Which table of the operator it is of.
    pub table: String,
    /// The key groups whose rows it can hold.
    pub groups: KeyGroups,
    /// The span of time that it is of (a window's start, a bucket of a TTL); `None` for a table without time.
    pub time: Option<Timestamp>,
    /// Tells whether it changed: two blocks of one operator's life with equal table, groups, time and edition are equal.
    pub edition: u64,
    /// What it holds.
    pub content: Arc<dyn Frozen>,
}

/// One stored block, on its way back.
#[derive(Debug, Clone)]
pub struct StoredBlock {
    /// Which table it is of.
    pub table: String,
    /// The key groups whose rows it can hold.
    pub groups: KeyGroups,
    /// The span of time that it is of.
    pub time: Option<Timestamp>,
    /// The Arrow IPC stream; decoding shares it.
    pub bytes: Buffer,
}

/// How a part refers to a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    /// Which table it is of.
    pub table: String,
    /// The key groups whose rows it can hold.
    pub groups: KeyGroups,
    /// The span of time that it is of.
    #[serde(default)]
    pub time: Option<Timestamp>,
    /// Its name: the SHA-256 of its bytes in hex.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// The state of one operator in a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorState {
    /// The operator's name in its vertex.
    pub operator: String,
    /// Its watermark.
    pub watermark: Timestamp,
    /// Its blocks.
    #[serde(default)]
    pub blocks: Vec<BlockRef>,
}

impl OperatorState {
    /// The blocks that a subtask with these key groups needs: those of several subtasks are put together this way.
    pub fn for_groups<'a>(states: &'a [Self], operator: &'a str, groups: KeyGroups) -> Vec<&'a BlockRef> {
        let of = states.iter().filter(move |state| state.operator == operator);
        of.flat_map(|state| &state.blocks).filter(|block| block.groups.meets(groups)).collect()
    }
}

/// Where an operator puts state that does not fit memory: a file of the worker's, gone with the attempt.
pub trait Spill: std::fmt::Debug + Send {
    /// Writes bytes away.
    fn write(&mut self, bytes: &[u8]) -> Result<SpillRef, Error>;
    /// Reads them back; they stay there.
    fn read(&mut self, at: SpillRef) -> Result<Buffer, Error>;
    /// They are not needed any more.
    fn free(&mut self, at: SpillRef);
}

/// Where spilled bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpillRef {
    /// Where they begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_range_takes_blocks_of_several_old_ones() {
        let block = |name: &str, groups: Range<u16>| BlockRef {
            table: "panes".into(),
            groups: groups.into(),
            time: None,
            name: name.into(),
            bytes: 1,
        };
        let state =
            |operator: &str, blocks| OperatorState { operator: operator.into(), watermark: Timestamp::MIN, blocks };
        let old = [
            state("window", vec![block("a", 0..64), block("b", 64..128)]),
            state("window", vec![block("c", 128..256)]),
            state("other", vec![block("d", 0..256)]),
        ];
        let names = |groups: Range<u16>| -> Vec<String> {
            OperatorState::for_groups(&old, "window", groups.into()).into_iter().map(|b| b.name.clone()).collect()
        };
        assert_eq!(names(0..64), ["a"]);
        assert_eq!(names(100..150), ["b", "c"]);
        assert_eq!(names(0..256), ["a", "b", "c"]);
    }
}
