//! What a continuous query must answer, reckoned row by row from its input: maps and loops, nothing of the engine.
//!
//! One rule makes an answer a function of the input alone, whatever the parallelism, the order of arrival and the restarts. Each
//! row carries the watermark that the rows *before it in its split* had reached: the latest time among them less the delay.
//! - A **window of panes** (tumble, hop, cumulate) takes a row iff the window ends after that watermark.
//! - What goes **by order** (sessions, joins, ranks, first rows, running sums, sequences) takes a row iff its time lies at that
//!   watermark or after it, and sees rows by `(time, split, offset)`.
//! - What ends at the smallest watermark of all splits or before it is closed, and rows before that watermark are passed: that is
//!   answered, the rest not yet. A row that lies exactly there may still have others before it.

mod joins;
mod orders;
mod windows;

use std::collections::BTreeMap;

pub use joins::{interval_join, window_join};
pub use orders::{first_rows, matches, running_sums, sequences, top_rows};
pub use windows::{Windows, aggregate, sessions};

/// The watermark of a split that has ended.
pub const ENDED: i64 = i64::MAX;

/// A row of a source; times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The segment or the file.
    pub split: u64,
    /// Where it stands in its split.
    pub offset: u64,
    /// Event time.
    pub time: i64,
    /// When it was received; [`ENDED`] where nothing is too far in the future.
    pub received: i64,
    /// What is grouped and joined by.
    pub key: String,
    /// What is counted up.
    pub value: i64,
    /// Which kind of event it is, for sequences.
    pub mark: String,
    /// Tells it from every other row.
    pub id: String,
}

/// How a source judges time.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    /// How much disorder is waited for, in milliseconds.
    pub delay: i64,
    /// How far ahead of its receipt a row may lie and still move the watermark, in milliseconds.
    pub max_future_skew: i64,
}

/// A row with the watermark of its split before it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The row.
    pub row: Row,
    /// The watermark; `i64::MIN` before the first row.
    pub watermark: i64,
}

/// All rows of a source.
#[derive(Debug, Clone)]
pub struct Input {
    /// Every row that has a time, split by split in order.
    pub rows: Vec<Judged>,
    /// The smallest watermark of all splits.
    pub watermark: i64,
    /// Rows too far in the future to move a watermark.
    pub skewed: u64,
}

impl Input {
    /// Reads a source whose splits go on; `splits` names all of them.
    pub fn of(judge: Judge, splits: &[u64], rows: impl IntoIterator<Item = Row>) -> Self {
        let mut latest: BTreeMap<u64, Option<i64>> = splits.iter().map(|split| (*split, None)).collect();
        let mut sorted: Vec<Row> = rows.into_iter().collect();
        sorted.sort_by_key(|row| (row.split, row.offset));
        let (mut judged, mut skewed) = (Vec::new(), 0);
        let after = |latest: Option<i64>| latest.map_or(i64::MIN, |latest| latest - judge.delay);
        for row in sorted {
            let latest = latest.entry(row.split).or_default();
            let watermark = after(*latest);
            if row.time > row.received.saturating_add(judge.max_future_skew) {
                skewed += 1;
            } else {
                *latest = Some(latest.map_or(row.time, |latest| latest.max(row.time)));
            }
            judged.push(Judged { row, watermark });
        }
        let watermark = latest.into_values().map(after).min().unwrap_or(ENDED);
        Self { rows: judged, watermark, skewed }
    }

    /// The same when every split has ended.
    pub fn ended(self) -> Self {
        Self { watermark: ENDED, ..self }
    }

    /// Only some rows, as behind a filter: watermarks are those of all.
    pub fn only(&self, wanted: impl Fn(&Row) -> bool) -> Self {
        let rows = self.rows.iter().filter(|judged| wanted(&judged.row)).cloned().collect();
        Self { rows, ..*self }
    }

    /// The rows that are taken by order, in that order, and how many came too late for it.
    fn by_order(&self) -> (Vec<&Row>, u64) {
        let (taken, late): (Vec<&Judged>, Vec<&Judged>) =
            self.rows.iter().partition(|judged| judged.row.time >= judged.watermark);
        let mut rows: Vec<&Row> = taken.into_iter().map(|judged| &judged.row).collect();
        rows.sort_by_key(|row| place(row));
        (rows, late.len() as u64)
    }

    /// Those of them that every watermark has passed.
    fn passed(&self, until: i64) -> (Vec<&Row>, u64) {
        let (mut rows, late) = self.by_order();
        rows.retain(|row| row.time < until);
        (rows, late)
    }
}

fn place(row: &Row) -> (i64, u64, u64) {
    (row.time, row.split, row.offset)
}

/// What a query must answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Every row, as text, and how many times it comes. Times are milliseconds; nothing is `null`.
    pub rows: BTreeMap<Vec<String>, u64>,
    /// Rows of the input that were in time for nothing.
    pub late: u64,
}

impl Answer {
    fn add(&mut self, row: impl IntoIterator<Item = String>) {
        *self.rows.entry(row.into_iter().collect()).or_default() += 1;
    }

    /// The same with only these columns.
    pub fn columns(self, places: &[usize]) -> Self {
        let mut rows = BTreeMap::new();
        for (row, times) in self.rows {
            *rows.entry(places.iter().map(|place| row[*place].clone()).collect()).or_default() += times;
        }
        Self { rows, late: self.late }
    }

    /// Rows, each as many times as it comes.
    pub fn count(&self) -> u64 {
        self.rows.values().sum()
    }

    /// What is wrong with rows that were found; none if they are these, each as many times as it must be.
    pub fn complaint(&self, found: &BTreeMap<Vec<String>, u64>) -> Option<String> {
        let shown = |rows: Vec<String>| {
            let more = rows.len().saturating_sub(SHOWN);
            format!("{}{}", rows[..rows.len() - more].join("; "), if more > 0 { " …" } else { "" })
        };
        let wrong = |of: &BTreeMap<Vec<String>, u64>, than: &BTreeMap<Vec<String>, u64>| -> Vec<String> {
            let more = of.iter().filter(|(row, times)| than.get(*row).copied().unwrap_or(0) < **times);
            more.map(|(row, times)| {
                format!("{} ({times} instead of {})", row.join(","), than.get(row).copied().unwrap_or(0))
            })
            .collect()
        };
        let (missing, surplus) = (wrong(&self.rows, found), wrong(found, &self.rows));
        if missing.is_empty() && surplus.is_empty() {
            return None;
        }
        Some(format!(
            "{} rows are missing: {}\n{} rows are too many: {}",
            missing.len(),
            shown(missing),
            surplus.len(),
            shown(surplus)
        ))
    }
}

/// Rows that a complaint shows.
const SHOWN: usize = 6;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const JUDGE: Judge = Judge { delay: 5, max_future_skew: 100 };

    /// Rows of `split time key value`, in the order of arrival; the mark is the key's, and the id tells the place.
    pub(crate) fn rows(text: &str) -> Vec<Row> {
        let mut next = BTreeMap::<u64, u64>::new();
        let rows = text.split(';').map(|row| {
            let words: Vec<&str> = row.split_whitespace().collect();
            let split: u64 = words[0].parse().unwrap();
            let offset = next.entry(split).or_default();
            *offset += 1;
            Row {
                split,
                offset: *offset - 1,
                time: words[1].parse().unwrap(),
                received: ENDED,
                key: words[2].to_owned(),
                value: words[3].parse().unwrap(),
                mark: words.get(4).copied().unwrap_or(words[2]).to_owned(),
                id: format!("{split}.{}", *offset - 1),
            }
        });
        rows.collect()
    }

    pub(crate) fn input(text: &str) -> Input {
        let rows = rows(text);
        let splits: Vec<u64> = rows.iter().map(|row| row.split).collect();
        Input::of(JUDGE, &splits, rows)
    }

    pub(crate) fn texts(answer: &Answer) -> Vec<String> {
        answer.rows.iter().flat_map(|(row, times)| (0..*times).map(|_| row.join(" "))).collect()
    }

    #[test]
    fn a_row_is_judged_by_those_before_it_in_its_split() {
        let input = input("0 10 a 1; 0 3 a 1; 0 30 a 1; 0 24 a 1; 1 12 a 1");
        let watermarks: Vec<i64> = input.rows.iter().map(|judged| judged.watermark).collect();
        assert_eq!(watermarks, [i64::MIN, 5, 5, 25, i64::MIN]);
        assert_eq!(input.watermark, 7, "the second split is behind");
        let (taken, late) = input.by_order();
        let ids: Vec<&str> = taken.iter().map(|row| row.id.as_str()).collect();
        assert_eq!((ids, late), (vec!["0.0", "1.0", "0.2"], 2));
        assert_eq!(input.passed(10).0.len(), 0, "another row may come at 10");
        assert_eq!(input.passed(11).0.len(), 1);
    }

    #[test]
    fn a_split_without_rows_holds_everything_and_the_far_future_nothing() {
        let mut rows = rows("0 10 a 1; 0 500 a 1; 0 12 a 1");
        rows.iter_mut().for_each(|row| row.received = 20);
        let of = |splits: &[u64]| Input::of(JUDGE, splits, rows.clone());
        assert_eq!((of(&[0]).watermark, of(&[0]).skewed), (7, 1));
        assert_eq!(of(&[0, 1]).watermark, i64::MIN);
        assert_eq!(of(&[0, 1]).ended().watermark, ENDED);
    }

    #[test]
    fn what_is_missing_and_what_comes_twice_is_told() {
        let mut answer = Answer::default();
        [["a"], ["b"]].into_iter().for_each(|row| answer.add(row.map(str::to_owned)));
        assert_eq!(answer.complaint(&answer.rows), None);
        let found = BTreeMap::from([(vec!["a".to_owned()], 2)]);
        let complaint = answer.complaint(&found).unwrap();
        assert!(complaint.contains("b (1 instead of 0)") && complaint.contains("a (2 instead of 1)"), "{complaint}");
    }
}
