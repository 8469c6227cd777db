//! Joins of two inputs by key.

use super::{Answer, Input, Row, Windows};

/// `key, left id, right id` of rows whose times lie close: the right one from `from` to `to` milliseconds after the left one.
///
/// With `outer` a left row without any is answered too, beside `null`, when none can come any more.
pub fn interval_join(left: &Input, right: &Input, from: i64, to: i64, outer: bool) -> Answer {
    let watermark = left.watermark.min(right.watermark);
    let ((lefts, late), (rights, late_too)) = (left.passed(watermark), right.passed(watermark));
    let mut answer = Answer { late: late + late_too, ..Answer::default() };
    for l in &lefts {
        let matching = |r: &&&Row| r.key == l.key && (from..=to).contains(&(r.time - l.time));
        let mut alone = true;
        for r in rights.iter().filter(matching) {
            alone = false;
            answer.add([l.key.clone(), l.id.clone(), r.id.clone()]);
        }
        if outer && alone && l.time + to < watermark {
            answer.add([l.key.clone(), l.id.clone(), "null".to_owned()]);
        }
    }
    answer
}

/// `window start, window end, key, left id, right id` of rows of one key that lie in the same window.
pub fn window_join(left: &Input, right: &Input, windows: Windows) -> Answer {
    let watermark = left.watermark.min(right.watermark);
    let ((lefts, late), (rights, late_too)) = (left.by_order(), right.by_order());
    let mut answer = Answer { late: late + late_too, ..Answer::default() };
    for l in &lefts {
        for (start, end) in windows.of(l.time).into_iter().filter(|(_, end)| *end <= watermark) {
            for r in rights.iter().filter(|r| r.key == l.key && (start..end).contains(&r.time)) {
                answer.add([start.to_string(), end.to_string(), l.key.clone(), l.id.clone(), r.id.clone()]);
            }
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

    #[test]
    fn rows_are_joined_as_far_apart_as_is_said() {
        let left = input("0 10 a 1; 0 20 b 1; 0 30 a 1").ended();
        let right = input("1 8 a 1; 1 12 a 1; 1 10 b 1; 1 32 a 1; 1 26 a 1").ended();
        // 26 is late behind 32: the watermark is 27 by then.
        let pairs = interval_join(&left, &right, -2, 2, false);
        assert_eq!(texts(&pairs), ["a 0.0 1.0", "a 0.0 1.1", "a 0.2 1.3"]);
        assert_eq!(pairs.late, 1);
        assert_eq!(texts(&interval_join(&left, &right, 0, 1, true)), ["a 0.0 null", "a 0.2 null", "b 0.1 null"]);
    }

    #[test]
    fn a_pair_waits_for_both_inputs_and_a_lonely_row_for_the_last_that_could_come() {
        let left = input("0 10 a 1; 0 14 b 1; 0 40 c 1");
        // The smallest watermark is 15.
        let right = input("1 12 a 1; 1 20 b 1");
        assert_eq!(texts(&interval_join(&left, &right, 0, 5, true)), ["a 0.0 1.0"]);
        let further = input("1 12 a 1; 1 24 z 1");
        assert_eq!(texts(&interval_join(&left, &further, 0, 5, true)), ["a 0.0 1.0"], "at 19 one may come");
        let further = input("1 12 a 1; 1 25 z 1");
        assert_eq!(texts(&interval_join(&left, &further, 0, 5, true)), ["a 0.0 1.0", "b 0.1 null"]);
    }

    #[test]
    fn a_window_joins_everything_in_it() {
        let left = input("0 1 a 1; 0 2 a 1; 0 12 a 1; 0 13 b 1; 0 99 z 1");
        let right = input("1 9 a 1; 1 10 a 1; 1 14 b 1; 1 26 c 1");
        let tumble = window_join(&left, &right, Windows::Tumble { size: 10 });
        assert_eq!(
            texts(&tumble),
            ["0 10 a 0.0 1.0", "0 10 a 0.1 1.0", "10 20 a 0.2 1.1", "10 20 b 0.3 1.2"],
            "the smallest watermark is 21"
        );
        let hop = window_join(&left, &right, Windows::Hop { size: 10, slide: 5 });
        assert!(texts(&hop).contains(&"5 15 a 0.2 1.0".to_owned()), "{hop:?}");
    }
}
