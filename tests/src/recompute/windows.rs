//! Aggregates of windows.

use std::collections::BTreeMap;

use super::{Answer, Input};

/// Windows that do not depend on the rows; sizes in milliseconds.
#[derive(Debug, Clone, Copy)]
pub enum Windows {
    /// One after the other.
    Tumble {
        /// How long one lasts.
        size: i64,
    },
    /// One begins at every slide.
    Hop {
        /// How long one lasts.
        size: i64,
        /// The time between two beginnings.
        slide: i64,
    },
    /// Those that begin together end one after the other, until the longest.
    Cumulate {
        /// How long the longest lasts.
        size: i64,
        /// By how much each is longer than the one before.
        step: i64,
    },
}

impl Windows {
    /// Beginning and end of every window that a time lies in.
    pub fn of(self, time: i64) -> Vec<(i64, i64)> {
        let floor = |unit: i64| time.div_euclid(unit) * unit;
        match self {
            Self::Tumble { size } => vec![(floor(size), floor(size) + size)],
            Self::Hop { size, slide } => {
                let mut found = Vec::new();
                let mut start = floor(slide);
                while start + size > time {
                    found.push((start, start + size));
                    start -= slide;
                }
                found
            }
            Self::Cumulate { size, step } => {
                let start = floor(size);
                let ends = (1..=size / step).map(|n| start + n * step);
                ends.filter(|end| *end > time).map(|end| (start, end)).collect()
            }
        }
    }
}

/// Count, sum, smallest and largest value.
#[derive(Default)]
struct Sums {
    count: i64,
    sum: i64,
    min: Option<i64>,
    max: Option<i64>,
}

impl Sums {
    fn take(&mut self, value: i64) {
        self.count += 1;
        self.sum += value;
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
    }

    fn row(&self, start: i64, end: i64, key: &str) -> [String; 7] {
        let (min, max) = (self.min.unwrap_or_default(), self.max.unwrap_or_default());
        [
            start.to_string(),
            end.to_string(),
            key.to_owned(),
            self.count.to_string(),
            self.sum.to_string(),
            min.to_string(),
            max.to_string(),
        ]
    }
}

/// `window start, window end, key, count, sum, min, max` of each window and key.
///
/// Rows that come up to `lateness` after the end let a window answer a second time, with all of them.
pub fn aggregate(input: &Input, windows: Windows, lateness: i64) -> Answer {
    let mut answer = Answer::default();
    let mut sums = BTreeMap::<(i64, i64, &str), [Sums; 2]>::new();
    for judged in &input.rows {
        let row = &judged.row;
        let mut open = windows.of(row.time);
        open.retain(|(_, end)| end + lateness > judged.watermark);
        answer.late += u64::from(open.is_empty());
        for (start, end) in open {
            let [first, second] = sums.entry((start, end, &row.key)).or_default();
            second.take(row.value);
            if end > judged.watermark {
                first.take(row.value);
            }
        }
    }
    for ((start, end, key), [first, second]) in &sums {
        if first.count > 0 && *end <= input.watermark {
            answer.add(first.row(*start, *end, key));
        }
        if second.count > first.count && end + lateness <= input.watermark {
            answer.add(second.row(*start, *end, key));
        }
    }
    answer
}

/// The same of each key's sessions: rows of which each lies at most `gap` behind the one before. A session ends `gap` behind its last row.
pub fn sessions(input: &Input, gap: i64) -> Answer {
    let (rows, late) = input.by_order();
    let mut of_key = BTreeMap::<&str, Vec<(i64, i64, Sums)>>::new();
    for row in rows {
        let sessions = of_key.entry(&row.key).or_default();
        match sessions.last_mut() {
            Some((_, last, sums)) if row.time - *last <= gap => {
                *last = row.time;
                sums.take(row.value);
            }
            _ => {
                let mut sums = Sums::default();
                sums.take(row.value);
                sessions.push((row.time, row.time, sums));
            }
        }
    }
    let mut answer = Answer { late, ..Answer::default() };
    for (key, sessions) in &of_key {
        for (first, last, sums) in sessions {
            // A row that lies exactly there would still join.
            if last + gap < input.watermark {
                answer.add(sums.row(*first, last + gap, key));
            }
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn a_time_lies_in_the_windows_around_it() {
        for (windows, time, expected) in [
            (Windows::Tumble { size: 10 }, 19, vec![(10, 20)]),
            (Windows::Tumble { size: 10 }, 20, vec![(20, 30)]),
            (Windows::Tumble { size: 10 }, -1, vec![(-10, 0)]),
            (Windows::Hop { size: 10, slide: 5 }, 12, vec![(10, 20), (5, 15)]),
            (Windows::Hop { size: 10, slide: 5 }, 10, vec![(10, 20), (5, 15)]),
            (Windows::Hop { size: 10, slide: 10 }, 12, vec![(10, 20)]),
            (Windows::Cumulate { size: 10, step: 5 }, 12, vec![(10, 15), (10, 20)]),
            (Windows::Cumulate { size: 10, step: 5 }, 15, vec![(10, 20)]),
            (Windows::Cumulate { size: 15, step: 5 }, -1, vec![(-15, 0)]),
        ] {
            assert_eq!(windows.of(time), expected, "{windows:?} {time}");
        }
    }

    #[test]
    fn a_tumbling_window_takes_what_comes_before_it_is_closed() {
        // Watermarks before: -, 7, 7, 20, 20. At 3: too late for [0, 10)? Its end is after 7, so no.
        let input = input("0 12 a 4; 0 3 a 1; 0 25 b 9; 0 9 a 100; 0 24 b 1");
        let answer = aggregate(&input, Windows::Tumble { size: 10 }, 0);
        assert_eq!(texts(&answer), ["0 10 a 1 1 1 1", "10 20 a 1 4 4 4"]);
        assert_eq!(answer.late, 1);
        let all = aggregate(&input.ended(), Windows::Tumble { size: 10 }, 0);
        assert_eq!(texts(&all), ["0 10 a 1 1 1 1", "10 20 a 1 4 4 4", "20 30 b 2 10 1 9"]);
    }

    #[test]
    fn a_row_may_be_late_for_one_window_and_in_time_for_the_next() {
        // The watermark before the second row is 11: [0, 10) is closed, [5, 15) is open.
        let input = input("0 16 a 1; 0 8 a 2; 0 4 a 50").ended();
        let hops = aggregate(&input, Windows::Hop { size: 10, slide: 5 }, 0);
        assert_eq!(texts(&hops), ["10 20 a 1 1 1 1", "15 25 a 1 1 1 1", "5 15 a 1 2 2 2"]);
        assert_eq!(hops.late, 1);
        let sums = aggregate(&input, Windows::Cumulate { size: 20, step: 10 }, 0);
        assert_eq!(texts(&sums), ["0 20 a 3 53 1 50"]);
    }

    #[test]
    fn with_lateness_a_window_answers_again() {
        // The watermark before the second row is 11, before the last one 25.
        let input = input("0 16 a 1; 0 8 a 2; 0 3 b 4; 0 30 a 1; 0 7 a 100").ended();
        let answer = aggregate(&input, Windows::Tumble { size: 10 }, 5);
        assert_eq!(texts(&answer), ["0 10 a 1 2 2 2", "0 10 b 1 4 4 4", "10 20 a 1 1 1 1", "30 40 a 1 1 1 1"]);
        assert_eq!(answer.late, 1);
        let twice = super::super::tests::input("0 9 a 1; 0 17 a 2; 0 8 a 4; 0 40 a 1");
        let answer = aggregate(&twice, Windows::Tumble { size: 10 }, 5);
        assert_eq!(texts(&answer), ["0 10 a 1 1 1 1", "0 10 a 2 5 1 4", "10 20 a 1 2 2 2"]);
    }

    #[test]
    fn windows_are_closed_by_the_split_that_is_most_behind() {
        let behind = input("0 40 a 1; 1 12 a 2; 1 16 a 3");
        let answer = aggregate(&behind, Windows::Tumble { size: 10 }, 0);
        assert_eq!(texts(&answer), Vec::<String>::new(), "10 to 20 is open until the second split has passed it");
        let answer = aggregate(&input("0 40 a 1; 1 12 a 2; 1 25 a 3"), Windows::Tumble { size: 10 }, 0);
        assert_eq!(texts(&answer), ["10 20 a 1 2 2 2"]);
    }

    #[test]
    fn a_session_ends_where_nothing_comes_for_long_enough() {
        let apart = input("0 10 a 1; 0 13 a 2; 0 12 a 4; 0 17 b 1; 0 21 a 8; 0 15 a 16; 0 40 b 1");
        // At 15 the watermark of the split is 16: late. Between 13 and 21 more than 4 passes.
        let answer = sessions(&apart, 4);
        assert_eq!(texts(&answer), ["10 17 a 3 7 1 4", "17 21 b 1 1 1 1", "21 25 a 1 8 8 8"]);
        assert_eq!(answer.late, 1);
        assert_eq!(texts(&sessions(&apart, 8))[0], "10 29 a 4 15 1 8", "exactly the gap still joins");
    }
}
