//! What becomes of rows, one step after another.

use std::time::Duration;

use types::IndexName;

use super::{Plan, Predicate, Term, Value};
use crate::ItemRef;

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Keeps the rows that the search finds.
    Search(Predicate),
    /// Keeps the rows of which the expression is true.
    Where(Term),
    /// Keeps these fields only, in this order.
    Keep(Vec<String>),
    /// Takes fields away.
    Drop(Vec<String>),
    /// Gives fields other names: from, to.
    Rename(Vec<(String, String)>),
    /// Adds or replaces fields, each seeing those before it.
    Let(Vec<(String, Term)>),
    /// Puts the rows in order.
    Sort(Vec<SortKey>),
    /// The first rows: of events the newest, after `sort` the first in that order.
    Head(u64),
    /// The last rows: of events the oldest.
    Tail(u64),
    /// Aggregates by key.
    Stats {
        /// The aggregates, at least one.
        measures: Vec<Measure>,
        /// The keys.
        by: Vec<String>,
    },
    /// Aggregates by key and time.
    Chart {
        /// The aggregates, at least one.
        measures: Vec<Measure>,
        /// The keys besides the time.
        by: Vec<String>,
        /// The distance between points; `None` leaves it to who draws.
        every: Option<Duration>,
        /// How far each point looks back; `None` for as far as the point before it.
        over: Option<Duration>,
    },
    /// The commonest or the rarest values.
    Top {
        /// How many.
        count: u64,
        /// Of these fields together.
        fields: Vec<String>,
        /// Separately for each value of these.
        by: Vec<String>,
        /// The rarest instead.
        rare: bool,
    },
    /// One row for each value: of events the newest.
    Dedup(Vec<String>),
    /// Takes fields out of a text.
    Parse {
        /// How the text is laid out.
        how: Parsing,
        /// The field that holds it; `None` for the message.
        from: Option<String>,
    },
    /// Joins the events of a key that follow one another closely into one row.
    Session {
        /// The keys.
        by: Vec<String>,
        /// The longest pause.
        gap: Duration,
    },
    /// Finds events that follow one another.
    Sequence {
        /// What each of them is, at least two.
        terms: Vec<Predicate>,
        /// With equal values of these.
        by: Vec<String>,
        /// From the first to the last.
        within: Duration,
    },
    /// Adds the fields of another query's rows with equal keys.
    Join {
        /// What becomes of rows without a partner.
        kind: JoinKind,
        /// The keys, at least one.
        on: Vec<String>,
        /// The other query.
        plan: Box<Plan>,
    },
    /// Adds the rows of another query.
    Append(Box<Plan>),
    /// Adds fields of a table that somebody has uploaded.
    Lookup {
        /// The table.
        table: ItemRef,
        /// The keys, at least one.
        on: Vec<String>,
        /// The fields that are added; empty for all.
        fields: Vec<String>,
    },
    /// Makes a row for each element of a field.
    Expand(String),
    /// Goes on with what comes.
    Follow,
    /// Adds the rows around each.
    Context {
        /// How many before it.
        before: u64,
        /// How many after it.
        after: u64,
    },
    /// Groups the messages by their template.
    Patterns,
    /// Finds points that are unlike those before.
    Anomaly {
        /// What is watched.
        measure: Measure,
        /// Separately for each value of these.
        by: Vec<String>,
        /// The distance between points.
        every: Duration,
    },
    /// Tells for each field how many rows have it, and how many values it has.
    Fields,
    /// Adds the same figures of an earlier time.
    Compare(Duration),
    /// Notifies when the expression becomes true of a row.
    Alert {
        /// The expression.
        when: Term,
        /// For how long it must be true.
        hold: Option<Duration>,
    },
    /// Writes the rows into an index.
    Into(IndexName),
    /// Writes the rows into a file.
    Export(Format),
    /// Saves the query under a name.
    View(String),
    /// Gives a value to fields that have none.
    Fill {
        /// The fields, at least one.
        fields: Vec<String>,
        /// The value.
        value: Value,
    },
    /// Keeps about one row in so many.
    Sample(u64),
    /// Replaces a text in a field.
    Replace {
        /// The text, as it stands.
        from: String,
        /// What stands there afterwards.
        to: String,
        /// The field.
        field: String,
    },
    /// Writes a text with fields in braces: `"{method} {path}"`.
    Format {
        /// The text; `{{` is one brace.
        template: String,
        /// The field that holds it.
        name: String,
    },
    /// Adds aggregates of all rows up to each, in order of time.
    Running {
        /// The aggregates, at least one.
        measures: Vec<Measure>,
        /// Separately for each value of these.
        by: Vec<String>,
    },
    /// Adds to each row the aggregates of all rows of its key.
    Annotate {
        /// The aggregates, at least one.
        measures: Vec<Measure>,
        /// The keys.
        by: Vec<String>,
    },
    /// Adds the difference to the row before, in order of time.
    Delta {
        /// The field.
        field: String,
        /// The field that holds the difference.
        name: String,
    },
    /// Rounds a field down to a multiple of a width.
    Bin {
        /// The field.
        field: String,
        /// The width.
        width: Value,
    },
    /// Answers how the query would run.
    Explain,
}

/// One field to sort by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortKey {
    /// The field.
    pub field: String,
    /// Where the largest stands.
    pub direction: Direction,
}

/// Where the largest stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Last.
    Ascending,
    /// First.
    Descending,
}

/// What becomes of rows without a partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinKind {
    /// They are left out.
    Inner,
    /// They stay.
    Left,
}

/// One aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// What it computes.
    pub function: MeasureFunction,
    /// Of what; `None` where the function counts rows.
    pub argument: Option<Term>,
    /// Its name.
    pub name: String,
}

impl Measure {
    /// The name that it has where the text gives none: `count`, `avg_latency`, `p95_latency`.
    pub fn default_name(function: MeasureFunction, argument: Option<&Term>) -> String {
        match argument {
            Some(Term::Field(field)) => format!("{}_{field}", function.word()),
            _ => function.word(),
        }
    }
}

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MeasureFunction {
    /// Rows, or rows where the argument has a value.
    Count,
    /// Rows where the argument is true.
    CountIf,
    /// Different values.
    Distinct,
    /// The sum.
    Sum,
    /// The mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The value below which so many percent lie, more than 0 and less than 100; an approximation.
    Percentile(f64),
    /// The standard deviation of a sample.
    Deviation,
    /// The variance of a sample.
    Variance,
    /// The value at the earliest time.
    First,
    /// The value at the latest time.
    Last,
    /// Every different value.
    Values,
    /// Rows in a second.
    Rate,
}

impl MeasureFunction {
    /// The words for it, its own first; percentiles are `p` and a number.
    pub const WORDS: [(Self, &'static [&'static str]); 13] = [
        (Self::Count, &["count"]),
        (Self::CountIf, &["countif", "count_if"]),
        (Self::Distinct, &["dc", "distinct_count", "count_distinct", "count_uniq"]),
        (Self::Sum, &["sum"]),
        (Self::Avg, &["avg", "mean"]),
        (Self::Min, &["min"]),
        (Self::Max, &["max"]),
        (Self::Deviation, &["stdev", "stddev"]),
        (Self::Variance, &["var", "variance"]),
        (Self::First, &["first", "earliest"]),
        (Self::Last, &["last", "latest"]),
        (Self::Values, &["values", "uniq_values"]),
        (Self::Rate, &["rate", "per_second"]),
    ];

    /// How it is written.
    pub fn word(self) -> String {
        match self {
            Self::Percentile(percent) => format!("p{percent}"),
            other => {
                let row = Self::WORDS.iter().find(|(function, _)| *function == other);
                row.map_or("count", |(_, words)| words[0]).to_owned()
            }
        }
    }

    /// The aggregate that a word names, in any case of letters: also `median`, `p99.9` and `perc95`.
    pub fn of(word: &str) -> Option<Self> {
        let lower = word.to_ascii_lowercase();
        if lower == "median" {
            return Some(Self::Percentile(50.0));
        }
        let digits = lower.strip_prefix("perc").or_else(|| lower.strip_prefix('p'));
        if let Some(digits) = digits.filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit())) {
            let plain = digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let percent: f64 = if plain { digits.parse().ok()? } else { return None };
            return (percent > 0.0 && percent < 100.0).then_some(Self::Percentile(percent));
        }
        let row = Self::WORDS.iter().find(|(_, words)| words.contains(&lower.as_str()));
        row.map(|(function, _)| *function)
    }
}

/// How a text is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsing {
    /// `<name>` stands for a field, `<_>` for anything.
    Pattern(String),
    /// The named groups of a regular expression.
    Regex(String),
    /// A JSON object.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// A line of an access log.
    Clf,
    /// A line of syslog.
    Syslog,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values.
    Csv,
    /// A JSON object in each line.
    Json,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// All of them with their words.
    pub const WORDS: [(Self, &'static str); 3] = [(Self::Csv, "csv"), (Self::Json, "json"), (Self::Parquet, "parquet")];
}
