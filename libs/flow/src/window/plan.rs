//! Windows of every shape, as plain data.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::DurationText;

use super::{AggregateSpec, EarlyFire, WindowSpec, counts, grid::Grid, panes, sessions};
use crate::Error;

/// Keyed windows. It supersedes [`WindowSpec`], which only tumbles and which graphs of older releases hold.
///
/// Output: `_time` (the window's last instant), `window_start`, `window_end`, the keys, the aggregates; one row per window
/// and key, in `(window_end, key)` order of each subtask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowPlan {
    /// The key columns; none for one group over everything.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The output columns besides window and key.
    pub aggregates: Vec<AggregateSpec>,
    /// Which windows a row belongs to.
    pub shape: WindowShape,
    /// How long after its end a window takes late rows; it then fires a second time, with all of them, if there were any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lateness: DurationText,
    /// When rows come out.
    #[serde(default)]
    pub emit: Emit,
    /// Rows before the end of the window, for alerts that cannot wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<EarlyFire>,
    /// Which part of the work this operator does.
    #[serde(default)]
    pub phase: Phase,
}

impl WindowPlan {
    /// Checks the plan: its names, its aggregates, its times.
    pub fn validate(&self) -> Result<(), Error> {
        let (keys, aggregates, early) = (self.keys.clone(), self.aggregates.clone(), self.early);
        WindowSpec { keys, aggregates, size: DurationText(Duration::from_secs(1)), early }.validate()?;
        match self.shape {
            WindowShape::Session { .. } => sessions::gap_of(self).map(|_| ()),
            WindowShape::Count { .. } => counts::rows_of(self).map(|_| ()),
            _ => Grid::new(self).and_then(|_| panes::validate(self)),
        }
    }
}

fn is_zero(duration: &DurationText) -> bool {
    duration.0.is_zero()
}

/// Which windows a row belongs to. Windows by time are aligned to the Unix epoch plus `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowShape {
    /// One of `size`.
    Tumble {
        /// The length.
        size: DurationText,
        /// Where windows begin.
        #[serde(default, skip_serializing_if = "is_zero")]
        offset: DurationText,
    },
    /// Every one of `size` that covers it, one beginning each `slide`; `slide` divides `size`.
    Hop {
        /// The length.
        size: DurationText,
        /// From one begin to the next.
        slide: DurationText,
        /// Where windows begin.
        #[serde(default, skip_serializing_if = "is_zero")]
        offset: DurationText,
    },
    /// Windows with one begin that grow by `step` up to `size`; `step` divides `size`.
    Cumulate {
        /// The longest.
        size: DurationText,
        /// From one end to the next.
        step: DurationText,
        /// Where windows begin.
        #[serde(default, skip_serializing_if = "is_zero")]
        offset: DurationText,
    },
    /// From the first row of a key to `gap` after the last, while none is further than `gap` from the next.
    Session {
        /// The gap.
        gap: DurationText,
    },
    /// Each `rows` rows of a key, in the order of time: from the first one to the last, whose time is that of the result. A window
    /// that never gets its last row gives nothing.
    Count {
        /// How many.
        rows: u64,
    },
}

/// When rows of a window come out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    /// At its end.
    #[default]
    OnClose,
    /// Also while it is open, by the clock, as rows that change (`_change`, in mode
    /// [`ChangelogMode::Upsert`](crate::ChangelogMode::Upsert): window and keys say what a row replaces); only for sinks that take
    /// changes. What has not changed is not told again, not even at the end.
    Every(DurationText),
}

/// Which part of the work an operator does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// All of it.
    #[default]
    Whole,
    /// Aggregates its rows for the operator of phase `Global` behind the edge; unkeyed, so it stands in the chain of the
    /// source. Its rows go on at every watermark and before every barrier, so it has no state in a checkpoint.
    Local,
    /// Takes the rows of `Local`.
    Global,
}

impl From<WindowSpec> for WindowPlan {
    fn from(spec: WindowSpec) -> Self {
        Self {
            keys: spec.keys,
            aggregates: spec.aggregates,
            shape: WindowShape::Tumble { size: spec.size, offset: DurationText::default() },
            lateness: DurationText::default(),
            emit: Emit::default(),
            early: spec.early,
            phase: Phase::default(),
        }
    }
}
