//! The rules of a join.

use std::collections::BTreeSet;

use super::{JoinKind, JoinSide, JoinSpec, JoinType};
use crate::{
    Error, HASH_COLUMN, TIME_COLUMN, WINDOW_END_COLUMN, WINDOW_START_COLUMN, WindowPlan, WindowShape,
    window::grid::Grid,
};

/// The most milliseconds between the rows of an interval: 73 years, so that nothing overflows.
const REACH_MS: i64 = i64::MAX / 4_000_000;

pub(super) fn broken(problem: impl Into<String>) -> Error {
    Error::Spec { operator: "join", problem: problem.into() }
}

impl JoinSpec {
    /// Checks the join: its keys, its names, its times.
    ///
    /// Errors: `Spec` names the rule; `Window` if the windows contradict themselves.
    pub fn validate(&self) -> Result<(), Error> {
        if self.left.keys.len() != self.right.keys.len() {
            let (left, right) = (self.left.keys.len(), self.right.keys.len());
            return Err(broken(format!("has {left} keys on the left and {right} on the right: give as many")));
        }
        let mut names = BTreeSet::from([TIME_COLUMN, WINDOW_START_COLUMN, WINDOW_END_COLUMN]);
        if !matches!(self.kind, JoinKind::Window(_)) {
            names = BTreeSet::from([TIME_COLUMN]);
        }
        let sides = if self.how.left_alone() { vec![&self.left] } else { vec![&self.left, &self.right] };
        for (_, name) in sides.into_iter().flat_map(|side| &side.columns) {
            if !names.insert(name) {
                return Err(broken(format!("gives two columns of the name {name:?}: rename one")));
            }
        }
        self.left.check()?;
        self.right.check()?;
        match &self.kind {
            JoinKind::Window(shape) => grid(*shape).map(|_| ()),
            JoinKind::Interval { lower_ms, upper_ms } => {
                let reach = -REACH_MS..=REACH_MS;
                if lower_ms > upper_ms || !reach.contains(lower_ms) || !reach.contains(upper_ms) {
                    let problem = format!(
                        "has no interval {lower_ms}ms to {upper_ms}ms: the first is the lesser one, within 73 years"
                    );
                    return Err(broken(problem));
                }
                Ok(())
            }
            JoinKind::Temporal | JoinKind::Lookup { .. } if matches!(self.how, JoinType::Right | JoinType::Full) => {
                Err(broken("has no rows of the right side without a partner: use inner, left, semi or anti"))
            }
            JoinKind::Temporal | JoinKind::Lookup { .. } => Ok(()),
        }
    }
}

impl JoinSide {
    fn check(&self) -> Result<(), Error> {
        if !self.types.is_empty() && self.types.len() != self.columns.len() {
            let problem = format!(
                "has {} types for {} columns: give one for each, or none",
                self.types.len(),
                self.columns.len()
            );
            return Err(broken(problem));
        }
        match self.columns.iter().map(|(column, _)| column).chain(&self.keys).find(|name| *name == HASH_COLUMN) {
            Some(name) => Err(broken(format!("cannot read {name:?}, which is the engine's: rename it in front"))),
            None => Ok(()),
        }
    }
}

impl JoinType {
    /// Whether only columns of the left side come out.
    pub(super) fn left_alone(self) -> bool {
        matches!(self, Self::Semi | Self::Anti)
    }

    /// Whether left rows, and right rows, come out that have no partner.
    pub(super) fn keeps(self) -> [bool; 2] {
        [matches!(self, Self::Left | Self::Full | Self::Anti), matches!(self, Self::Right | Self::Full)]
    }
}

/// The windows of a window join.
pub(super) fn grid(shape: WindowShape) -> Result<Grid, Error> {
    if matches!(shape, WindowShape::Session { .. } | WindowShape::Count { .. }) {
        return Err(broken("joins rows of windows by time: tumble, hop or cumulate"));
    }
    Grid::new(&WindowPlan {
        keys: Vec::new(),
        aggregates: Vec::new(),
        shape,
        lateness: Default::default(),
        emit: Default::default(),
        early: None,
        phase: Default::default(),
    })
}
