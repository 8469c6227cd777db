//! What depends on the order of a key's rows.

use std::collections::BTreeMap;

use super::{Answer, Input, Row, Windows, place};

/// `window start, window end, key, rank, value, id` of the `most` rows with the largest values of each window and key; of equal
/// ones the earlier.
pub fn top_rows(input: &Input, windows: Windows, most: usize) -> Answer {
    let (rows, late) = input.by_order();
    let mut groups = BTreeMap::<(i64, i64, &str), Vec<&Row>>::new();
    for row in rows {
        for (start, end) in windows.of(row.time) {
            groups.entry((start, end, &row.key)).or_default().push(row);
        }
    }
    let mut answer = Answer { late, ..Answer::default() };
    for ((start, end, key), mut rows) in groups {
        if end > input.watermark {
            continue;
        }
        rows.sort_by_key(|row| (std::cmp::Reverse(row.value), place(row)));
        for (rank, row) in rows.into_iter().take(most).enumerate() {
            let numbers = [start.to_string(), end.to_string()];
            let row = [key.to_owned(), (rank + 1).to_string(), row.value.to_string(), row.id.clone()];
            answer.add(numbers.into_iter().chain(row));
        }
    }
    answer
}

/// `key, time, id` of the first row of each key.
pub fn first_rows(input: &Input) -> Answer {
    let (rows, late) = input.passed(input.watermark);
    let mut seen = BTreeMap::<&str, &Row>::new();
    for row in rows {
        seen.entry(&row.key).or_insert(row);
    }
    let mut answer = Answer { late, ..Answer::default() };
    seen.into_values().for_each(|row| answer.add([row.key.clone(), row.time.to_string(), row.id.clone()]));
    answer
}

/// `key, time, id, sum` of every row with the sum of its value and those of up to `before` rows of its key before it.
pub fn running_sums(input: &Input, before: usize) -> Answer {
    let (rows, late) = input.passed(input.watermark);
    let mut of_key = BTreeMap::<&str, Vec<&Row>>::new();
    rows.into_iter().for_each(|row| of_key.entry(&row.key).or_default().push(row));
    let mut answer = Answer { late, ..Answer::default() };
    for rows in of_key.values() {
        for (at, row) in rows.iter().enumerate() {
            let sum: i64 = rows[at.saturating_sub(before)..=at].iter().map(|row| row.value).sum();
            answer.add([row.key.clone(), row.time.to_string(), row.id.clone(), sum.to_string()]);
        }
    }
    answer
}

/// `key, from, until` of every row with the last mark that has one of each mark before it, in order, the first at most `within`
/// milliseconds before: from the latest first one on.
pub fn sequences(input: &Input, marks: &[&str], within: i64) -> Answer {
    let (rows, late) = input.passed(input.watermark);
    let mut of_key = BTreeMap::<&str, Vec<&Row>>::new();
    rows.into_iter().for_each(|row| of_key.entry(&row.key).or_default().push(row));
    let mut answer = Answer { late, ..Answer::default() };
    for (key, rows) in &of_key {
        for (at, row) in rows.iter().enumerate() {
            let Some(from) = latest_begin(rows, marks, at).filter(|from| row.time - from <= within) else { continue };
            answer.add([(*key).to_owned(), from.to_string(), row.time.to_string()]);
        }
    }
    answer
}

/// `key, first time, first id, last time, last id` of runs of rows with these marks, one after the other with any others between, the last at most `within`
/// milliseconds behind the first: each begins as early as it can, takes the next row of each mark, and the search goes on behind it.
pub fn matches(input: &Input, marks: &[&str], within: i64) -> Answer {
    let (rows, late) = input.passed(input.watermark);
    let mut of_key = BTreeMap::<&str, Vec<&Row>>::new();
    rows.into_iter().for_each(|row| of_key.entry(&row.key).or_default().push(row));
    let mut answer = Answer { late, ..Answer::default() };
    for (key, rows) in &of_key {
        let mut begin = 0;
        while begin < rows.len() {
            let found = run(&rows[begin..], marks).filter(|last| rows[begin + last].time - rows[begin].time <= within);
            begin += match found {
                Some(last) => {
                    let ends = [rows[begin], rows[begin + last]];
                    let ends = ends.into_iter().flat_map(|row| [row.time.to_string(), row.id.clone()]);
                    answer.add([(*key).to_owned()].into_iter().chain(ends));
                    last + 1
                }
                None => 1,
            };
        }
    }
    answer
}

/// Where a run ends that begins with the first row.
fn run(rows: &[&Row], marks: &[&str]) -> Option<usize> {
    let mut at = 0;
    if rows.first()?.mark != *marks.first()? {
        return None;
    }
    for mark in &marks[1..] {
        at += 1 + rows[at + 1..].iter().position(|row| row.mark == *mark)?;
    }
    Some(at)
}

/// The latest time of a first mark from which a row in this place is reached mark by mark: every way is tried.
fn latest_begin(rows: &[&Row], marks: &[&str], at: usize) -> Option<i64> {
    let (last, before) = marks.split_last()?;
    if rows[at].mark != *last {
        return None;
    }
    if before.is_empty() {
        return Some(rows[at].time);
    }
    (0..at).filter_map(|earlier| latest_begin(rows, before, earlier)).max()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn of_equal_values_the_earlier_row_ranks_higher() {
        let input = input("0 3 a 7; 1 2 a 7; 0 1 a 9; 0 5 a 1; 1 8 b 2; 0 16 a 7").ended();
        let top = top_rows(&input, Windows::Tumble { size: 10 }, 2);
        assert_eq!(texts(&top), ["0 10 a 1 9 0.1", "0 10 a 2 7 1.0", "0 10 b 1 2 1.1", "10 20 a 1 7 0.3"]);
        assert_eq!(top.late, 0, "the watermark before each is below its time");
    }

    #[test]
    fn the_first_row_is_the_first_by_time_not_by_arrival() {
        let rows = input("0 9 a 1; 1 7 a 1; 0 8 b 1; 0 30 c 1; 1 21 c 1");
        assert_eq!(texts(&first_rows(&rows)), ["a 7 1.0", "b 8 0.1"], "the smallest watermark is 16");
    }

    #[test]
    fn a_running_sum_takes_the_rows_before_by_time() {
        let sums = running_sums(&input("0 4 a 1; 0 2 a 10; 0 6 a 100; 0 6 a 1000").ended(), 1);
        assert_eq!(texts(&sums), ["a 2 0.1 10", "a 4 0.0 11", "a 6 0.2 101", "a 6 0.3 1100"]);
    }

    #[test]
    fn a_sequence_begins_at_the_latest_first_one() {
        let found = |text: &str, marks: &[&str], within| texts(&sequences(&input(text).ended(), marks, within));
        // Arrival is not order: the second login comes later and lies earlier than the error.
        let logins = "0 1 u 0 login; 0 6 u 0 error; 0 4 u 0 login; 0 7 v 0 error; 0 9 u 0 error";
        assert_eq!(found(logins, &["login", "error"], 4), ["u 4 6"]);
        assert_eq!(found(logins, &["login", "error"], 5), ["u 4 6", "u 4 9"]);
        let three = "0 1 u 0 a; 0 2 u 0 b; 0 3 u 0 a; 0 4 u 0 c; 0 5 u 0 b; 0 6 u 0 c";
        assert_eq!(found(three, &["a", "b", "c"], 9), ["u 1 4", "u 3 6"]);
        assert_eq!(found(three, &["a", "b", "c"], 2), Vec::<String>::new());
        let runs = |text: &str, marks: &[&str], within| texts(&matches(&input(text).ended(), marks, within));
        // Rows: login 1, login 4, error 6, error 9 of u.
        assert_eq!(runs(logins, &["login", "error"], 5), ["u 1 0.0 6 0.1"], "the second login lies within the run");
        assert_eq!(runs(logins, &["login", "error"], 4), ["u 4 0.2 6 0.1"]);
        assert_eq!(runs(three, &["a", "b", "c"], 9), ["u 1 0.0 4 0.3"], "behind it no a is left");
        assert_eq!(found("0 1 u 0 a; 0 3 u 0 a", &["a", "a"], 5), ["u 1 3"], "no row follows itself");
    }
}
