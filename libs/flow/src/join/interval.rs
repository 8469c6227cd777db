//! Rows whose times lie close.
//!
//! Rows have their turn one by one, in the order of both inputs together. A row then meets those of the other side that had it
//! before, so that a pair comes out in the place of its later row. When time has passed the last partner that a row could still
//! have, it is over: it comes out alone, if it is to, and is dropped. That is an event of its own, behind all rows of the
//! instant, and what comes out does not depend on how far each watermark went.

use super::{JoinType, operator::State, page::Row, side::Side};
use crate::{Error, Out};

const MILLI: i64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Interval {
    lower: i64,
    upper: i64,
    how: JoinType,
    /// Of each side the first row that is not over.
    open: [u64; 2],
}

impl Interval {
    /// Of an interval that was checked.
    pub(super) fn new(lower_ms: i64, upper_ms: i64, how: JoinType) -> Self {
        Self { lower: lower_ms.saturating_mul(MILLI), upper: upper_ms.saturating_mul(MILLI), how, open: [0; 2] }
    }

    /// How long after its own time a row of each side is met by others.
    fn after(&self) -> [i64; 2] {
        [self.upper.max(0), self.lower.saturating_neg().max(0)]
    }

    /// Of which sides it is remembered which rows had a partner.
    fn marks(&self) -> [bool; 2] {
        let [left, right] = self.how.keeps();
        [left || self.how == JoinType::Semi, right]
    }

    /// How far behind the watermark rows can still come out.
    pub(super) fn held(&self) -> i64 {
        let [left, right] = self.after();
        let [left_alone, right_alone] = self.marks();
        (if left_alone { left } else { 0 }).max(if right_alone { right } else { 0 })
    }

    /// The times of the partners of a row.
    fn span(&self, side: usize, time: i64) -> (i64, i64) {
        let (from, to) = if side == 0 { (self.lower, self.upper) } else { (-self.upper, -self.lower) };
        (time.saturating_add(from), time.saturating_add(to))
    }

    pub(super) fn step(&mut self, state: &mut State, until: i64, out: &mut Out) -> Result<(), Error> {
        let mut turn = [0; 2];
        let mut end = [0; 2];
        for (number, side) in state.sides.iter_mut().enumerate() {
            let new = side.advance(until, &mut state.stamps)?;
            (turn[number], end[number]) = (new.start, new.end);
        }
        let time = |side: &Side, seq: u64, end: u64| (seq < end).then(|| side.log.time(side.log.place(seq)));
        loop {
            let left = time(&state.sides[0], turn[0], end[0]);
            let right = time(&state.sides[1], turn[1], end[1]);
            let (side, now) = match (left, right) {
                (None, None) => break,
                (Some(left), Some(right)) if right < left => (1, right),
                (Some(left), _) => (0, left),
                (None, Some(right)) => (1, right),
            };
            self.close(state, turn, now, out)?;
            self.meet(state, (side, turn[side], now), out)?;
            turn[side] += 1;
        }
        self.close(state, turn, until, out)
    }

    /// A row has its turn.
    fn meet(&self, state: &mut State, (side, seq, time): (usize, u64, i64), out: &mut Out) -> Result<(), Error> {
        let State { sides, page, spec, stamps, .. } = state;
        let own = sides[side].log.place(seq);
        let marks = self.marks();
        let found: Vec<u64> = sides[1 - side].partners(&sides[side], own, self.span(side, time)).collect();
        sides[side].enter(seq);
        for other in &found {
            let (left, right) = if side == 0 { (seq, *other) } else { (*other, seq) };
            let mut first = false;
            for (number, row) in [left, right].into_iter().enumerate().filter(|(number, _)| marks[*number]) {
                let place = sides[number].log.place(row);
                let new = sides[number].log.mark(place, stamps);
                first |= new && number == 0;
            }
            match self.how {
                JoinType::Anti => {}
                JoinType::Semi if !first => {}
                JoinType::Semi => {
                    let time = sides[0].log.time(sides[0].log.place(left));
                    page.push(spec, sides, Row { time, left: Some(left), right: None }, out)?;
                }
                _ => page.push(spec, sides, Row { time, left: Some(left), right: Some(right) }, out)?,
            }
        }
        Ok(())
    }

    /// The rows that are over before that instant, those of both sides in the order in which they are.
    fn close(&mut self, state: &mut State, turn: [u64; 2], now: i64, out: &mut Out) -> Result<(), Error> {
        let (after, keeps) = (self.after(), self.how.keeps());
        let State { sides, page, spec, .. } = state;
        loop {
            let over = |number: usize| {
                let (seq, side) = (self.open[number], &sides[number]);
                let over =
                    (seq < turn[number]).then(|| side.log.time(side.log.place(seq)))?.saturating_add(after[number]);
                (over < now).then_some((over, number))
            };
            let Some((_, number)) = [over(0), over(1)].into_iter().flatten().min() else { return Ok(()) };
            let (seq, log) = (self.open[number], &sides[number].log);
            self.open[number] += 1;
            let place = log.place(seq);
            if keeps[number] && !log.marked(place) {
                let [left, right] = [0, 1].map(|side| (side == number).then_some(seq));
                page.push(spec, sides, Row { time: log.time(place), left, right }, out)?;
            }
        }
    }

    /// Drops what is over.
    pub(super) fn drop(&self, state: &mut State) {
        state.sides.iter_mut().zip(self.open).for_each(|(side, open)| side.drop_before(open));
    }

    /// Finds out what is over by the watermark of the stored rows.
    pub(super) fn resume(&mut self, state: &State) {
        let after = self.after();
        for ((open, side), after) in self.open.iter_mut().zip(&state.sides).zip(after) {
            *open = side.log.first_at(state.fired.saturating_sub(after));
        }
    }
}
