//! The part of LogQL that Grafana and logcli send, for `/loki/api/v1/*`.
//!
//! A log query becomes a [`Plan`] of the same predicates and steps as the pipe language; a metric query becomes a
//! [`Metric`] over such plans. Labels are fields: a field `http.status` is also the label `http_status`, `level` and
//! `detected_level` are the severity, and a label that no event has is empty. Lines are taken apart when they come in, so
//! `json`, `logfmt` and `unpack` without parameters, `decolorize` and everything about `__error__` change nothing.
//! Not in it: `label_replace`, `group_left`, `group_right`, `and`, `or` and `unless` between series, templates with more
//! than names of labels, and `ip()` on lines.

mod lower;
mod metric;
mod operator;
mod parse;

use std::time::Duration;

use crate::{Diagnostic, TEXT_BYTES_MAX, pipe::Cursor, plan::Plan};

pub use lower::{LogqlRange, lower_logs, lower_metric};

/// Most points of one series, as in Loki.
pub const POINTS_MAX: i64 = 11_000;

/// A query of LogQL.
#[derive(Debug, Clone, PartialEq)]
pub enum Logql {
    /// Lines.
    Logs(Plan),
    /// Series of numbers.
    Metric(Metric),
}

/// What gives a number for each label set at each point in time.
#[derive(Debug, Clone, PartialEq)]
pub enum Metric {
    /// A number.
    Number(f64),
    /// One series without labels that is always this number.
    Vector(f64),
    /// Aggregates of the lines before each point.
    Range(Box<RangeMetric>),
    /// Aggregates over series.
    Aggregate {
        /// What it computes.
        function: VectorFunction,
        /// How many series `topk` and `bottomk` keep.
        count: Option<u32>,
        /// Which labels make a group; `None` for one group of all.
        grouping: Option<Grouping>,
        /// The series.
        of: Box<Metric>,
    },
    /// Two of them joined by an operator.
    Binary {
        /// The operator.
        op: MetricOperator,
        /// Whether a comparison gives 0 or 1 instead of leaving points out.
        boolean: bool,
        /// Which labels must be equal; `None` for all.
        matching: Option<Grouping>,
        /// The left side.
        left: Box<Metric>,
        /// The right side.
        right: Box<Metric>,
    },
}

/// Aggregates of the lines of a window that ends at each point.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeMetric {
    /// What it computes.
    pub function: RangeFunction,
    /// Which quantile, from 0 to 1.
    pub quantile: Option<f64>,
    /// The lines.
    pub logs: Plan,
    /// The label whose value is computed with.
    pub unwrap: Option<Unwrap>,
    /// How long the window is.
    pub range: Duration,
    /// How long before the point the window ends, in nanoseconds; negative for after.
    pub offset: i64,
    /// Which labels make a series; `None` for all.
    pub grouping: Option<Grouping>,
}

/// The label whose value is computed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwrap {
    /// The label.
    pub label: String,
    /// What its value is.
    pub unit: Unit,
}

/// What the value of a label is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number.
    Number,
    /// A span of time; its seconds are meant.
    Duration,
    /// A size.
    Bytes,
}

/// Labels that count, or that do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// Whether it names the labels that do not count.
    pub without: bool,
    /// The labels.
    pub labels: Vec<String>,
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($variant:ident $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum $name { $(#[doc = concat!("`", $word, "`")] $variant,)+ }

        impl $name {
            /// All of them with their words.
            pub const WORDS: &'static [(Self, &'static str)] = &[$((Self::$variant, $word),)+];

            /// How it is written.
            pub fn as_str(self) -> &'static str {
                Self::WORDS.iter().find(|(one, _)| *one == self).map_or("", |(_, word)| word)
            }
        }
    };
}

words! {
    /// What a range aggregation computes.
    RangeFunction {
        Count "count_over_time",
        Rate "rate",
        Bytes "bytes_over_time",
        BytesRate "bytes_rate",
        Sum "sum_over_time",
        Avg "avg_over_time",
        Min "min_over_time",
        Max "max_over_time",
        Deviation "stddev_over_time",
        Variance "stdvar_over_time",
        First "first_over_time",
        Last "last_over_time",
        Absent "absent_over_time",
        Quantile "quantile_over_time",
    }
}

words! {
    /// What a vector aggregation computes.
    VectorFunction {
        Sum "sum",
        Avg "avg",
        Min "min",
        Max "max",
        Count "count",
        Deviation "stddev",
        Variance "stdvar",
        Top "topk",
        Bottom "bottomk",
        Sort "sort",
        SortDescending "sort_desc",
    }
}

words! {
    /// An operator between metrics.
    MetricOperator {
        Or "or",
        Unless "unless",
        And "and",
        Equal "==",
        NotEqual "!=",
        AtLeast ">=",
        AtMost "<=",
        Above ">",
        Below "<",
        Plus "+",
        Minus "-",
        Times "*",
        By "/",
        Modulo "%",
        Power "^",
    }
}

impl MetricOperator {
    /// How closely it binds.
    fn rank(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Plus | Self::Minus => 4,
            Self::Times | Self::By | Self::Modulo => 5,
            Self::Power => 6,
            _ => 3,
        }
    }

    fn compares(self) -> bool {
        self.rank() == 3
    }
}

/// Reads a query of LogQL.
///
/// Bounds: those of the pipe language.
/// Errors: what is no LogQL or not in the part that is read, with the place.
pub fn parse_logql(text: &str) -> Result<Logql, Diagnostic> {
    if text.len() > TEXT_BYTES_MAX {
        let found = format!("the text has {} bytes, {TEXT_BYTES_MAX} are the most a query may have", text.len());
        return Err(Diagnostic::new(1, 1, found));
    }
    let mut cursor = Cursor::new(text);
    let query = match cursor.next() {
        None => return Err(cursor.complaint("the query is empty").help("write {service=\"shop\"} |= \"error\"")),
        Some('{') => Logql::Logs(cursor.log_query()?.logs),
        Some(_) => Logql::Metric(cursor.metric()?),
    };
    match cursor.next() {
        None => Ok(query),
        Some(_) => Err(cursor.expected("the end of the query")),
    }
}

#[cfg(test)]
mod tests;
