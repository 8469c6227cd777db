//! Results of windows that share panes, without adding every pane again for each of them.

use super::groups::Groups;

/// Windows of fewer panes are added up as they come: that is no more work.
const PANES_MIN: usize = 4;

/// Two stacks: of the panes before `split` the sums from each one on, of those behind it the sum so far.
///
/// A window from `start` to `end` is the sum from `start` on and the sum so far: two additions, whatever the aggregates are,
/// for nothing is ever taken away. When `start` passes `split`, everything up to `end` goes before it, one addition for each
/// pane; so a pane is added three times in all. It is made of panes that are done, and never part of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Running {
    split: i64,
    /// By the begin of the pane, descending: the sum from there to `split`.
    before: Vec<(i64, Groups)>,
    behind: Option<Groups>,
    /// Panes that begin before this are in.
    until: i64,
}

fn add(sum: Option<Groups>, groups: &Groups) -> Groups {
    match sum {
        None => groups.clone(),
        Some(mut sum) => {
            sum.merge(groups, true);
            sum
        }
    }
}

impl Running {
    /// The sum of panes that are done: all of the window from `start` to `end`, in order.
    pub(super) fn merged(&mut self, start: i64, end: i64, panes: &[(i64, &Groups)]) -> Option<Groups> {
        if panes.len() < PANES_MIN {
            *self = Self::default();
            return panes.iter().fold(None, |sum, (_, groups)| Some(add(sum, groups)));
        }
        let started = self.until > self.split || !self.before.is_empty();
        // Ends only rise; windows of one begin keep it, and those that slide leave panes behind.
        if !started || start >= self.split || end < self.until {
            self.before.clear();
            let mut sum = None;
            for (pane, groups) in panes.iter().rev() {
                let next = add(sum.take(), groups);
                self.before.push((*pane, next.clone()));
                sum = Some(next);
            }
            (self.split, self.behind, self.until) = (end, None, end);
            return sum;
        }
        for (_, groups) in panes.iter().filter(|(pane, _)| *pane >= self.until) {
            self.behind = Some(add(self.behind.take(), groups));
        }
        self.until = end;
        while self.before.last().is_some_and(|(pane, _)| *pane < start) {
            self.before.pop();
        }
        match (self.before.last(), &self.behind) {
            (Some((_, before)), Some(behind)) => Some(add(Some(before.clone()), behind)),
            (Some((_, before)), None) => Some(before.clone()),
            (None, behind) => behind.clone(),
        }
    }
}
