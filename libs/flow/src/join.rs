//! Joins of two inputs, as data. Input 0 is the left one, 1 the right one.

use serde::{Deserialize, Serialize};

use crate::{ValueType, WindowShape};

mod check;
mod interval;
mod lookup;
mod operator;
mod page;
mod side;
mod temporal;
#[cfg(test)]
mod tests;
mod windows;

pub use lookup::{Lookup, LookupJoin, LookupTable};
pub(crate) use operator::JoinOperator;

/// A join. A condition besides the keys is a filter behind it, which only an inner join allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSpec {
    /// Which rows can meet.
    pub kind: JoinKind,
    /// Which rows come out without a partner.
    #[serde(default)]
    pub how: JoinType,
    /// The left input.
    pub left: JoinSide,
    /// The right input.
    pub right: JoinSide,
}

/// One input of a join.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSide {
    /// The columns that must be equal to those of the other side, in their order; null equals nothing.
    pub keys: Vec<String>,
    /// The columns that come out, as (column of the input, name of the output).
    pub columns: Vec<(String, String)>,
    /// The types of `columns`, in their order. Where they are not told they are those of the first row, and text in rows that
    /// come out without a partner before there was one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<ValueType>,
}

/// Which rows can meet. `_time` of a result is the later one of its two rows, and that of a row which comes out alone its
/// own; of a window join the window's last instant, with `window_start` and `window_end` behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinKind {
    /// Those of one window.
    Window(WindowShape),
    /// Where `left._time + lower <= right._time <= left._time + upper`.
    Interval {
        /// In milliseconds; negative: before.
        lower_ms: i64,
        /// In milliseconds.
        upper_ms: i64,
    },
    /// Each left row with the version of the right key that was valid at its time; right rows may change or delete. A version is
    /// valid from its own time on until the next one's, of equal times the last.
    Temporal,
    /// Each row of the only input with rows of a lookup table; `right.keys` and `right.columns` are of the table.
    Lookup {
        /// The name of the lookup.
        table: String,
    },
}

/// Which rows come out without a partner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinType {
    /// None.
    #[default]
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
