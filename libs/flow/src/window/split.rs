//! The rows of a batch by class, by counting: no sort, no list per run of rows.

use super::{
    chunk::{at, number},
    grid::{Class, Grid},
};

/// Rows of no class.
const LATE: u32 = u32::MAX;

/// The split of one batch; its lists are used again for the next.
#[derive(Debug, Default)]
pub(super) struct Split {
    classes: Vec<Class>,
    /// Of each row the place of its class.
    of_row: Vec<u32>,
    /// Where the rows of each class begin, and where they end.
    starts: Vec<u32>,
    rows: Vec<u32>,
    late: Vec<u32>,
}

impl Split {
    /// Splits rows with these times; `watermarks` are those of the rows' splits, and windows have fired up to `fired`.
    pub(super) fn split(&mut self, grid: &Grid, times: &[i64], watermarks: Option<&[i64]>, fired: i64) {
        self.classes.clear();
        self.of_row.clear();
        self.late.clear();
        let mut counts: Vec<u32> = Vec::new();
        // The class of the row before is that of most rows; the pane's end tells whether a row needs a closer look.
        let (mut last, mut pane, mut end) = (LATE, 0i64, 0i64);
        for (row, time) in times.iter().enumerate() {
            let watermark = watermarks.map_or(fired, |all| all[row].max(fired));
            let known = last != LATE && *time >= pane && *time < end && watermark < end;
            if !known || self.classes[at(last)].first != end {
                let class = grid.class(grid.pane_of(*time), watermark);
                last = class.map_or(LATE, |class| self.place(class, &mut counts));
                pane = class.map_or(0, |class| class.pane);
                end = pane.saturating_add(grid.pane);
            }
            match last {
                LATE => self.late.push(number(row)),
                last => counts[at(last)] += 1,
            }
            self.of_row.push(last);
        }
        self.order(&counts);
    }

    fn place(&mut self, class: Class, counts: &mut Vec<u32>) -> u32 {
        // There are few: the newest are at the end.
        if let Some(place) = self.classes.iter().rposition(|known| *known == class) {
            return number(place);
        }
        self.classes.push(class);
        counts.push(0);
        number(self.classes.len() - 1)
    }

    fn order(&mut self, counts: &[u32]) {
        self.starts.clear();
        let mut sum = 0;
        for count in counts {
            self.starts.push(sum);
            sum += count;
        }
        self.starts.push(sum);
        if counts.len() < 2 && self.late.is_empty() {
            return;
        }
        let mut next = self.starts.clone();
        self.rows.resize(at(sum), 0);
        for (row, class) in (0u32..).zip(&self.of_row) {
            if *class != LATE {
                let place = &mut next[at(*class)];
                self.rows[at(*place)] = row;
                *place += 1;
            }
        }
    }

    /// Each class with its rows in their order; no list where they are all of the batch.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Class, Option<&[u32]>)> {
        let all = self.classes.len() == 1 && self.late.is_empty();
        self.classes.iter().enumerate().map(move |(place, class)| {
            let rows = at(self.starts[place])..at(self.starts[place + 1]);
            (*class, (!all).then(|| &self.rows[rows]))
        })
    }

    /// The rows that no window takes any more.
    pub(super) fn late(&self) -> &[u32] {
        &self.late
    }
}
