//! What a continuous text computes, as plain data.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::IndexName;

use super::{
    clause::OnError,
    kind::ValueKind,
    sink::Target,
    source::{CorruptRows, Input},
};
use crate::{AggregateFunction, OutputColumn};

/// What a text computes: steps, each behind those that feed it, and what is written of them.
///
/// Two parts of a text that compute the same are one step. Between steps columns are known by their names, and `_time` goes
/// with every row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamPlan {
    /// The steps.
    pub nodes: Vec<Node>,
    /// What is written, one for each statement.
    pub outputs: Vec<Output>,
    /// What becomes of rows that cannot be computed.
    pub on_error: OnError,
}

/// What one statement writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The step whose rows they are.
    pub node: usize,
    /// Where they go; `None` where the text does not say.
    pub target: Option<Target>,
    /// Where rows go that came too late for the steps of this statement.
    pub late_into: Option<Target>,
    /// Whether rows say what they change in a result.
    pub changes: bool,
}

/// One step; inputs are places of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Reads rows.
    Read {
        /// Where from.
        input: Input,
        /// How far the watermark stays behind the latest event time.
        delay: Duration,
        /// How long a part of the input without rows holds the watermark back; `None`: as is usual for the input.
        idle: Option<Duration>,
    },
    /// Keeps the rows for which the predicate is true.
    Filter {
        /// The rows.
        input: usize,
        /// The predicate, as SQL.
        predicate: String,
    },
    /// Computes columns.
    Project {
        /// The rows.
        input: usize,
        /// The columns, as SQL.
        columns: Vec<OutputColumn>,
    },
    /// Aggregates of windows: `window_start`, `window_end`, the keys, the aggregates.
    Window {
        /// The rows.
        input: usize,
        /// The key columns.
        keys: Vec<String>,
        /// The aggregates, at least one.
        aggregates: Vec<Computed>,
        /// Which windows.
        window: Window,
        /// How often results come while a window is open.
        emit_every: Option<Duration>,
    },
    /// Aggregates of all rows of a key, which change: the keys, the aggregates.
    Group {
        /// The rows.
        input: usize,
        /// The key columns.
        keys: Vec<String>,
        /// The aggregates, at least one.
        aggregates: Vec<Computed>,
    },
    /// Adds to each row aggregates of a frame that ends with it.
    Over {
        /// The rows.
        input: usize,
        /// The key columns.
        keys: Vec<String>,
        /// The aggregates.
        aggregates: Vec<Computed>,
        /// Which rows count.
        frame: Frame,
    },
    /// The first rows of each key.
    Top {
        /// The rows; windowed ones have `window_end`.
        input: usize,
        /// The key columns.
        keys: Vec<String>,
        /// By what.
        order: Vec<Order>,
        /// How many.
        limit: u64,
        /// The column of the rank, from 1, if it is wanted.
        rank: Option<String>,
        /// Whether rows come when their window closes; else the result changes.
        windowed: bool,
    },
    /// The first row in time of each key, or the last one, which changes.
    Deduplicate {
        /// The rows.
        input: usize,
        /// The key columns.
        keys: Vec<String>,
        /// The last one.
        last: bool,
    },
    /// Two inputs by equal keys and in time.
    Join {
        /// The left input.
        left: JoinInput,
        /// The right input.
        right: JoinInput,
        /// Which rows can meet.
        within: Within,
        /// Which rows come out without a partner.
        how: JoinHow,
    },
    /// Sequences of rows: the keys, the measures.
    Sequence {
        /// The rows; a column of truth for each step.
        input: usize,
        /// The key columns.
        keys: Vec<String>,
        /// The steps, in order.
        steps: Vec<SequenceStep>,
        /// From the first row to the last at most.
        within: Duration,
        /// Whether the search goes on behind the first row of a match instead of its last.
        overlap: bool,
        /// Whether rows that match no step may lie between.
        gaps: bool,
        /// The output columns besides the keys.
        measures: Vec<Measured>,
    },
}

/// Which windows a row belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    /// One of the size.
    #[default]
    Tumble,
    /// Every one of the size that covers it, one beginning each `slide`.
    Hop {
        /// From one begin to the next; it divides the size.
        slide: Duration,
    },
    /// Windows with one begin that grow by `step` up to the size.
    Cumulate {
        /// From one end to the next; it divides the size.
        step: Duration,
    },
    /// While no row is further than the size, which is the gap, from the next.
    Session,
}

/// Windows over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Which.
    pub kind: WindowKind,
    /// How long the longest lasts; of sessions the gap.
    pub size: Duration,
    /// How long after its end a window takes late rows, to answer a second time.
    pub lateness: Duration,
}

impl Window {
    /// From one end of a window to the next; `None` for sessions, which end anywhere.
    pub fn pane(&self) -> Option<Duration> {
        match self.kind {
            WindowKind::Tumble => Some(self.size),
            WindowKind::Hop { slide } => Some(slide),
            WindowKind::Cumulate { step } => Some(step),
            WindowKind::Session => None,
        }
    }
}

/// One aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed {
    /// The name of the result.
    pub name: String,
    /// What is computed.
    pub function: AggregateFunction,
    /// Of which column; `None` for `count(*)`.
    pub column: Option<String>,
    /// The type of the column.
    pub kind: Option<ValueKind>,
}

/// Which rows of a key count, the row itself among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// All before it.
    Unbounded,
    /// So many before it.
    Rows(u64),
    /// Those at most that much before it.
    Range(Duration),
}

/// A column to order by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: String,
    /// Largest first.
    pub descending: bool,
    /// Nulls before everything.
    pub nulls_first: bool,
}

/// One input of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinInput {
    /// The rows.
    pub node: usize,
    /// The columns that must be equal to those of the other side, in their order.
    pub keys: Vec<String>,
    /// The columns that come out, as (column of the input, name of the output).
    pub columns: Vec<(String, String)>,
    /// The types of those columns.
    pub types: Vec<ValueKind>,
}

/// Which rows of a join can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Those of one window.
    Window(Window),
    /// Where `left._time + lower <= right._time <= left._time + upper`, in milliseconds.
    Interval {
        /// Negative: before.
        lower_ms: i64,
        /// Not below `lower_ms`.
        upper_ms: i64,
    },
}

/// Which rows of a join come out without a partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinHow {
    /// None.
    Inner,
    /// The left ones.
    Left,
    /// The right ones.
    Right,
    /// Both.
    Full,
    /// Left rows with a partner come out once, alone.
    Semi,
    /// Left rows without a partner come out, alone.
    Anti,
}

/// One step of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceStep {
    /// Its name.
    pub name: String,
    /// The column that says whether a row matches.
    pub condition: String,
    /// How often at least.
    pub least: u32,
    /// How often at most.
    pub most: u32,
    /// That no such row comes.
    pub absent: bool,
}

/// One output column of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Of which step.
    pub step: String,
    /// What of it.
    pub value: MeasuredValue,
}

/// What is told of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeasuredValue {
    /// A column of its first row.
    First(String),
    /// A column of its last row.
    Last(String),
    /// How many rows matched it.
    Count,
}

impl Node {
    /// The steps that feed it.
    pub fn inputs(&self) -> Vec<usize> {
        match self {
            Self::Read { .. } => Vec::new(),
            Self::Join { left, right, .. } => vec![left.node, right.node],
            Self::Filter { input, .. }
            | Self::Project { input, .. }
            | Self::Window { input, .. }
            | Self::Group { input, .. }
            | Self::Over { input, .. }
            | Self::Top { input, .. }
            | Self::Deduplicate { input, .. }
            | Self::Sequence { input, .. } => vec![*input],
        }
    }

    /// Whether it remembers rows, so that they can come too late for it.
    pub fn is_stateful(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::Filter { .. } | Self::Project { .. })
    }

    /// Whether what it gives depends on the order of rows within one instant.
    pub fn is_ordered(&self) -> bool {
        matches!(
            self,
            Self::Over { .. } | Self::Top { .. } | Self::Deduplicate { .. } | Self::Join { .. } | Self::Sequence { .. }
        )
    }
}

impl StreamPlan {
    /// The inputs, in the order of their steps.
    pub fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Read { input, .. } => Some(input),
            _ => None,
        })
    }

    /// Where rows, late ones and dead letters go.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let dead = match &self.on_error {
            OnError::Into(target) => Some(target),
            OnError::Fail | OnError::Null => None,
        };
        self.outputs.iter().flat_map(|output| output.target.iter().chain(&output.late_into)).chain(dead)
    }

    /// The indexes that are read, each once.
    pub fn reads(&self) -> Vec<&IndexName> {
        let mut found: Vec<&IndexName> = Vec::new();
        for index in self.inputs().filter_map(Input::index) {
            if !found.contains(&index) {
                found.push(index);
            }
        }
        found
    }

    /// The indexes that are written, each once.
    pub fn writes(&self) -> Vec<&IndexName> {
        let mut found: Vec<&IndexName> = Vec::new();
        for index in self.targets().filter_map(Target::index) {
            if !found.contains(&index) {
                found.push(index);
            }
        }
        found
    }

    /// Whether it reads or writes anything but indexes.
    pub fn reaches_out(&self) -> bool {
        self.inputs().any(|input| input.index().is_none()) || self.targets().any(|target| target.index().is_none())
    }

    /// Whether rows that cannot be read are to go where dead letters go.
    pub(crate) fn wants_dead_letters(&self) -> bool {
        self.inputs().any(|input| input.corrupt() == CorruptRows::DeadLetter)
    }
}
