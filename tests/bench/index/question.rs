//! The ten questions that every store is asked.

/// One of the ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    Trace,
    RareWord,
    Phrase,
    Levels,
    Histogram,
    Pods,
    Regex,
    Last,
    Part,
    Distinct,
}

use Question::{Distinct, Histogram, Last, Levels, Part, Phrase, Pods, RareWord, Regex, Trace};

pub(super) const QUESTIONS: [Question; 10] =
    [Trace, RareWord, Phrase, Levels, Histogram, Pods, Regex, Last, Part, Distinct];

pub(super) const PHRASE: &str = "Connection broken";
pub(super) const REGEX: &str = "blk_-?[0-9]+ of size [0-9]{8}";
pub(super) const PART: &str = "etRespon";
/// The newest errors that are asked for.
pub(super) const LAST: usize = 100;
/// The pods that are asked for.
pub(super) const TOP: usize = 10;

impl Question {
    /// As figures name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Trace => "q1 trace id",
            RareWord => "q2 rare word",
            Phrase => "q3 phrase count",
            Levels => "q4 count by level",
            Histogram => "q5 minute x level",
            Pods => "q6 top pods by errors",
            Regex => "q7 regex count",
            Last => "q8 last 100 errors",
            Part => "q9 substring count",
            Distinct => "q10 distinct trace ids",
        }
    }

    /// CPU milliseconds of all processes that we want to need at most, on five million lines with everything warm.
    pub(super) fn goal(self) -> f64 {
        match self {
            Levels => 1.0,
            Trace | Histogram => 2.0,
            RareWord | Pods | Last => 3.0,
            Phrase => 4.0,
            Part => 30.0,
            Regex => 60.0,
            Distinct => 250.0,
        }
    }

    /// What is compared of the rows: all, in the order of the answer where that matters.
    pub(super) fn answer(self, mut rows: Vec<String>) -> Vec<String> {
        match self {
            Last => {}
            Pods => alike(&mut rows),
            _ => rows.sort_unstable(),
        }
        rows
    }
}

/// Leaves the names out of the pods that have as few as the last one: any of these may have come in. Others of equal
/// counts stand in any order.
fn alike(rows: &mut [String]) {
    let count = |row: &String| row.rsplit('\t').next().and_then(|count| count.parse::<u64>().ok());
    let least = rows.last().and_then(count);
    for row in rows.iter_mut().filter(|row| count(row) == least) {
        *row = format!("any\t{}", least.unwrap_or_default());
    }
    rows.sort_by_key(|row| (std::cmp::Reverse(count(row)), row.clone()));
}
