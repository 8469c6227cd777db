//! Rows of one window.

use super::{JoinType, operator::State, page::Row, side::Side};
use crate::{Error, Out, window::grid::Grid};

#[derive(Debug)]
pub(super) struct Windows {
    grid: Grid,
}

impl Windows {
    pub(super) fn new(grid: Grid) -> Self {
        Self { grid }
    }

    /// The first row of a side that is part of a window which ends after that instant.
    fn open(&self, side: &Side, after: i64) -> Option<(u64, i64)> {
        // All rows of a pane are in the same windows.
        let mut seq = side.log.first();
        while seq < side.log.next() {
            let time = side.log.time(side.log.place(seq));
            if self.grid.last(self.grid.pane_of(time)) > after {
                return Some((seq, time));
            }
            seq = side.log.first_at(self.grid.end_after(time));
        }
        None
    }

    pub(super) fn step(&mut self, state: &mut State, until: i64, out: &mut Out) -> Result<(), Error> {
        for side in &mut state.sides {
            let new = side.advance(until, &mut state.stamps)?;
            new.for_each(|seq| side.enter(seq));
        }
        let mut done = state.fired;
        loop {
            let open = state.sides.each_ref().map(|side| self.open(side, done));
            let Some(first) = open.into_iter().flatten().map(|(_, time)| time).min() else { return Ok(()) };
            let end = self.grid.end_after(first.max(done));
            if end > until || end <= done {
                return Ok(());
            }
            fire(state, (self.grid.start(end), end), out)?;
            done = end;
        }
    }

    /// Drops rows whose windows have all ended.
    pub(super) fn drop(&self, state: &mut State) {
        for side in &mut state.sides {
            let open = self.open(side, state.fired).map_or(side.log.next(), |(seq, _)| seq);
            side.drop_before(open);
        }
    }
}

/// The rows of one window, by left row and then by right row; right rows without a partner come last.
fn fire(state: &mut State, (start, end): (i64, i64), out: &mut Out) -> Result<(), Error> {
    let State { sides, page, spec, .. } = state;
    let (window, span, time) = ((start, end), (start, end.saturating_sub(1)), end.saturating_sub(1));
    let [lefts, rights] = sides.each_ref().map(|side| side.log.first_at(start)..side.log.first_at(end));
    let [left_side, right_side] = &*sides;
    let how = spec.how;
    let [left_alone, right_alone] = how.keeps();
    for left in lefts {
        let mut alone = true;
        for right in right_side.partners(left_side, left_side.log.place(left), span) {
            alone = false;
            if how.left_alone() {
                break;
            }
            page.push_of(spec, sides, (Row { time, left: Some(left), right: Some(right) }, window), out)?;
        }
        if (alone && left_alone) || (!alone && how == JoinType::Semi) {
            page.push_of(spec, sides, (Row { time, left: Some(left), right: None }, window), out)?;
        }
    }
    for right in rights.filter(|_| right_alone) {
        if left_side.partners(right_side, right_side.log.place(right), span).next().is_none() {
            page.push_of(spec, sides, (Row { time, left: None, right: Some(right) }, window), out)?;
        }
    }
    Ok(())
}
