//! How far event time has come: per split by its own rows, per operator by the minimum over its inputs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::Timestamp;

/// How far a row's time may lie ahead of its receipt and still move the watermark, unless the job says otherwise.
pub const MAX_FUTURE_SKEW: Duration = Duration::from_secs(300);

/// The watermark of one split, and the only judge of lateness: a pure function of the split's rows in their order.
///
/// A row is late iff the end of its window is not after the watermark that the rows *before it* in the split had
/// reached. Wall-clock time has no part in it, so a replay drops exactly the same rows. A row whose time lies more
/// than the skew ahead of its receipt does not move the watermark: one broken clock cannot make everything late.
/// Durable: part of the source's checkpoint, beside the split's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitWatermark {
    delay: Duration,
    max_future_skew: Duration,
    max: Option<Timestamp>,
    late_rows: u64,
    skewed_rows: u64,
}

impl SplitWatermark {
    /// A split without rows; `delay` is how much disorder is waited for.
    pub fn new(delay: Duration) -> Self {
        Self { delay, max_future_skew: MAX_FUTURE_SKEW, max: None, late_rows: 0, skewed_rows: 0 }
    }

    /// The same with another skew limit than [`MAX_FUTURE_SKEW`].
    pub fn with_max_future_skew(self, max_future_skew: Duration) -> Self {
        Self { max_future_skew, ..self }
    }

    /// The watermark after the rows seen so far; [`Timestamp::MIN`] before the first.
    pub fn watermark(&self) -> Timestamp {
        self.max.map_or(Timestamp::MIN, |max| max - self.delay)
    }

    /// Takes the next row of the split and tells whether it is late for the window that ends at `window_end`.
    ///
    /// Order: once per row, in offset order, before any filter, so that push-down cannot change the answer.
    pub fn late(&mut self, time: Timestamp, received: Timestamp, window_end: Timestamp) -> bool {
        let late = window_end <= self.watermark();
        self.late_rows += u64::from(late);
        self.observe(time, received);
        late
    }

    /// Takes the next row of a split whose job has no window.
    pub fn observe(&mut self, time: Timestamp, received: Timestamp) {
        if time > received + self.max_future_skew {
            self.skewed_rows += 1;
        } else {
            self.max = Some(self.max.map_or(time, |max| max.max(time)));
        }
    }

    /// Rows found late so far.
    pub fn late_rows(&self) -> u64 {
        self.late_rows
    }

    /// Rows too far in the future to move the watermark, so far.
    pub fn skewed_rows(&self) -> u64 {
        self.skewed_rows
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Active,
    Idle,
    Finished,
}

/// The watermark of an operator: the minimum over its active inputs, which never goes back.
///
/// - An idle input is left out until its next watermark (or [`Combined::active`]) arrives.
/// - If all open inputs are idle, the result is the *largest* that any of them reached: it must not depend on which
///   of them fell silent last. Nothing further moves until one of them speaks.
/// - A finished input is left out for good; when all are finished the result is [`Timestamp::MAX`], which fires
///   every window.
/// - An operator without inputs is idle from the start.
#[derive(Debug, Clone)]
pub struct Combined {
    inputs: Vec<(Timestamp, Standing)>,
    current: Timestamp,
}

impl Combined {
    /// Combines `inputs` inputs, all active and without a watermark.
    pub fn new(inputs: usize) -> Self {
        Self { inputs: vec![(Timestamp::MIN, Standing::Active); inputs], current: Timestamp::MIN }
    }

    /// Adds an input and returns its number; the result holds where it is until the newcomer has caught up.
    pub fn add_input(&mut self) -> usize {
        self.inputs.push((Timestamp::MIN, Standing::Active));
        self.inputs.len() - 1
    }

    /// Takes a watermark of one input, which makes it active; returns the combined watermark if that rose.
    pub fn watermark(&mut self, input: usize, watermark: Timestamp) -> Option<Timestamp> {
        let (old, standing) = self.inputs.get_mut(input)?;
        if *standing == Standing::Finished {
            return None;
        }
        *old = watermark.max(*old);
        *standing = Standing::Active;
        self.rise()
    }

    /// Takes the news that an input has rows again though no new watermark.
    pub fn active(&mut self, input: usize) {
        if let Some((_, standing @ Standing::Idle)) = self.inputs.get_mut(input) {
            *standing = Standing::Active;
        }
    }

    /// Takes the news that an input is idle; returns the combined watermark if that rose.
    pub fn idle(&mut self, input: usize) -> Option<Timestamp> {
        if let Some((_, standing @ Standing::Active)) = self.inputs.get_mut(input) {
            *standing = Standing::Idle;
        }
        self.rise()
    }

    /// Takes the news that an input has ended; returns the combined watermark if that rose.
    pub fn finish(&mut self, input: usize) -> Option<Timestamp> {
        if let Some((_, standing)) = self.inputs.get_mut(input) {
            *standing = Standing::Finished;
        }
        self.rise()
    }

    /// The combined watermark.
    pub fn current(&self) -> Timestamp {
        self.current
    }

    /// Whether no input is active while some may still speak: to be passed on as idle.
    pub fn is_idle(&self) -> bool {
        !self.is_finished() && self.inputs.iter().all(|(_, standing)| *standing != Standing::Active)
    }

    /// Whether every input has ended.
    pub fn is_finished(&self) -> bool {
        !self.inputs.is_empty() && self.inputs.iter().all(|(_, standing)| *standing == Standing::Finished)
    }

    fn rise(&mut self) -> Option<Timestamp> {
        let of = |wanted| self.inputs.iter().filter(move |(_, s)| *s == wanted).map(|(watermark, _)| *watermark);
        let found = if self.is_finished() {
            Timestamp::MAX
        } else {
            of(Standing::Active).min().or_else(|| of(Standing::Idle).max())?
        };
        (found > self.current).then(|| {
            self.current = found;
            found
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn lateness_is_judged_by_the_rows_before() {
        let mut split = SplitWatermark::new(Duration::from_secs(5));
        // (time, received, window end, late, watermark afterwards)
        let rows = [
            (12, 12, 20, false, 7),
            (3, 12, 10, false, 7),     // window still open: 10 > 7
            (15, 15, 20, false, 10),   // does not judge itself
            (9, 15, 10, true, 10),     // 10 <= 10
            (400, 15, 410, false, 10), // 385 s ahead: does not move
            (315, 15, 320, false, 310),
            (16, 15, 20, true, 310),
        ];
        for (i, (time, received, end, late, after)) in rows.into_iter().enumerate() {
            assert_eq!(split.late(at(time), at(received), at(end)), late, "row {i}");
            assert_eq!(split.watermark(), at(after), "row {i}");
        }
        assert_eq!((split.late_rows(), split.skewed_rows()), (2, 1));
        let text = serde_json::to_string(&split).unwrap();
        assert_eq!(serde_json::from_str::<SplitWatermark>(&text).unwrap(), split);
    }

    #[test]
    fn a_split_without_rows_makes_nothing_late() {
        let mut split = SplitWatermark::new(Duration::ZERO);
        assert_eq!(split.watermark(), Timestamp::MIN);
        assert!(!split.late(Timestamp::MIN, at(0), at(0)));
    }

    #[test]
    fn the_minimum_over_active_inputs() {
        let mut w = Combined::new(2);
        assert_eq!(w.watermark(0, at(10)), None);
        assert_eq!(w.watermark(1, at(5)), Some(at(5)));
        assert_eq!(w.watermark(1, at(3)), None);
        assert_eq!(w.idle(1), Some(at(10)));
        assert_eq!(w.watermark(1, at(7)), None, "never back");
        assert_eq!(w.watermark(0, at(20)), None, "input 1 holds at 7");
        assert_eq!(w.watermark(1, at(15)), Some(at(15)));
        assert_eq!(w.finish(1), Some(at(20)));
        assert!(!w.is_idle());
        assert_eq!(w.idle(0), None);
        assert!(w.is_idle());
        let late_comer = w.add_input();
        assert_eq!(w.watermark(late_comer, at(1)), None);
        assert_eq!(w.finish(late_comer), None);
        assert_eq!(w.finish(0), Some(Timestamp::MAX));
        assert!(w.is_finished());
    }

    #[test]
    fn rows_make_an_idle_input_count_again() {
        let mut w = Combined::new(2);
        w.idle(1);
        w.active(1);
        assert_eq!(w.watermark(0, at(10)), None);
    }

    #[test]
    fn without_inputs_it_is_idle() {
        assert!(Combined::new(0).is_idle());
        assert!(!Combined::new(0).is_finished());
    }

    proptest! {
        #[test]
        fn all_idle_does_not_depend_on_who_fell_silent_last(
            marks in prop::collection::vec(0i64..100, 1..6), order in any::<prop::sample::Index>(),
        ) {
            let n = marks.len();
            let mut w = Combined::new(n);
            marks.iter().enumerate().for_each(|(i, m)| { w.watermark(i, at(*m)); });
            (0..n).for_each(|i| { w.idle((i + order.index(n)) % n); });
            prop_assert_eq!(w.current(), at(*marks.iter().max().unwrap()));
        }

        #[test]
        fn it_never_goes_back(
            steps in prop::collection::vec((0usize..3, 0i64..50, 0u8..6), 0..60),
        ) {
            let mut w = Combined::new(3);
            let mut last = w.current();
            for (input, time, kind) in steps {
                let risen = match kind { 0 => w.idle(input), 1 => { w.active(input); None }, _ => w.watermark(input, at(time)) };
                if let Some(risen) = risen { prop_assert!(risen > last); }
                prop_assert!(w.current() >= last);
                last = w.current();
            }
        }
    }
}
