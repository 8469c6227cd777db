//! Which panes and windows an instant belongs to.

use types::DurationText;

use super::{Phase, WindowPlan, WindowShape};
use crate::Error;

/// The most panes that a window may have: rows of each are kept, and a result is made of all.
const PANES_MAX: i64 = 100_000;

/// Windows by time, cut into panes: a window consists of whole panes, and one ends with every pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The length of a pane.
    pub(super) pane: i64,
    size: i64,
    offset: i64,
    kind: Kind,
    /// How long after its end a window takes late rows.
    pub(super) lateness: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slides,
    Grows,
}

/// Which windows rows of one pane count for: those from `again` on, and at their first firing those from `first` on. Windows are
/// told by their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Class {
    /// The begin of the pane.
    pub(super) pane: i64,
    pub(super) first: i64,
    pub(super) again: i64,
}

/// The most by which an instant of a window can pass the last of time: nothing overflows within.
const REACH: i64 = i64::MAX / 4;

pub(crate) fn nanos(name: &str, duration: DurationText, zero: bool) -> Result<i64, Error> {
    let nanos = i64::try_from(duration.0.as_nanos()).unwrap_or(i64::MAX);
    // Whole milliseconds, since that is what the written form of a duration can say.
    if nanos % 1_000_000 != 0 || nanos > REACH || (nanos == 0 && !zero) {
        let least = if zero { "0ms" } else { "1ms" };
        let problem = format!("{name} {:?} is out of range: whole milliseconds, {least} to 73 years", duration.0);
        return Err(Error::Window(problem));
    }
    Ok(nanos)
}

impl Grid {
    pub(crate) fn new(plan: &WindowPlan) -> Result<Self, Error> {
        let (kind, size, pane, offset) = match plan.shape {
            WindowShape::Tumble { size, offset } => (Kind::Slides, size, size, offset),
            WindowShape::Hop { size, slide, offset } => (Kind::Slides, size, slide, offset),
            WindowShape::Cumulate { size, step, offset } => (Kind::Grows, size, step, offset),
            WindowShape::Session { .. } | WindowShape::Count { .. } => {
                return Err(Error::Window("sessions and counts have no panes".to_owned()));
            }
        };
        let (size, pane) = (nanos("size", size, false)?, nanos("step", pane, false)?);
        if size % pane != 0 || size / pane > PANES_MAX {
            let problem = format!("size {size}ns must be 1 to {PANES_MAX} whole steps of {pane}ns: change one of them");
            return Err(Error::Window(problem));
        }
        let lateness = nanos("lateness", plan.lateness, true)?;
        if plan.phase != Phase::Whole && lateness / pane > PANES_MAX {
            return Err(Error::Window(format!("lateness is more than {PANES_MAX} steps: use longer steps")));
        }
        Ok(Self { pane, size, offset: nanos("offset", offset, true)?, kind, lateness })
    }

    fn floor(&self, time: i64, unit: i64) -> i64 {
        time.saturating_sub(time.saturating_sub(self.offset).rem_euclid(unit))
    }

    /// The begin of an instant's pane.
    pub(crate) fn pane_of(&self, time: i64) -> i64 {
        self.floor(time, self.pane)
    }

    /// The end of the last window that a pane is part of.
    pub(crate) fn last(&self, pane: i64) -> i64 {
        match self.kind {
            Kind::Slides => pane.saturating_add(self.size),
            Kind::Grows => self.floor(pane, self.size).saturating_add(self.size),
        }
    }

    /// The begin of the window with that end.
    pub(crate) fn start(&self, end: i64) -> i64 {
        match self.kind {
            Kind::Slides => end.saturating_sub(self.size),
            Kind::Grows => self.floor(end.saturating_sub(1), self.size),
        }
    }

    /// The first end of a window after that instant.
    pub(crate) fn end_after(&self, instant: i64) -> i64 {
        self.pane_of(instant).saturating_add(self.pane)
    }

    /// The first window with that pane that takes rows with that watermark; behind the last one if none does.
    fn open(&self, pane: i64, watermark: i64) -> i64 {
        let end = pane.saturating_add(self.pane);
        if end > watermark {
            return end;
        }
        self.end_after(watermark).min(self.last(pane).saturating_add(self.pane))
    }

    /// The class of rows of a pane with that watermark; `None`: they are late for all of its windows.
    pub(super) fn class(&self, pane: i64, watermark: i64) -> Option<Class> {
        let first = self.open(pane, watermark);
        let again = if self.lateness == 0 { first } else { self.open(pane, watermark.saturating_sub(self.lateness)) };
        (again <= self.last(pane)).then_some(Class { pane, first, again })
    }

    /// The class that is left of one when windows have fired up to a watermark.
    pub(super) fn still(&self, class: Class, fired: i64) -> Option<Class> {
        let now = self.class(class.pane, fired)?;
        let left = Class { first: class.first.max(now.first), again: class.again.max(now.again), ..class };
        (left.again <= self.last(class.pane)).then_some(left)
    }

    /// When the last window of a pane is done with.
    pub(super) fn over(&self, pane: i64) -> i64 {
        self.last(pane).saturating_add(self.lateness)
    }

    /// The firings that a class is part of in `(after, until]`, to be done in the order of what this gives.
    pub(super) fn firings(&self, class: Class, after: i64, until: i64, mut each: impl FnMut(Firing)) {
        let last = self.last(class.pane);
        let mut ends = |from: i64, to: i64, late: i64, second: bool| {
            let mut end = from.max(self.end_after(after.saturating_sub(late).max(from.saturating_sub(self.pane))));
            while end <= to && end.saturating_add(late) <= until {
                each(Firing { instant: end.saturating_add(late), end, second });
                let next = end.saturating_add(self.pane);
                if next == end {
                    break;
                }
                end = next;
            }
        };
        ends(class.first, last, 0, false);
        if self.lateness > 0 && class.again < class.first {
            ends(class.again, last.min(class.first.saturating_sub(1)), self.lateness, true);
        }
    }

    /// The instant of the next firing that a class is part of, after that one.
    pub(super) fn next(&self, class: Class, after: i64) -> Option<i64> {
        let last = self.last(class.pane);
        let first = class.first.max(self.end_after(after));
        let first = (first <= last && first > after).then_some(first);
        let again = class.again.max(self.end_after(after.saturating_sub(self.lateness)));
        let again = (class.again < class.first && again < class.first && again <= last)
            .then(|| again.saturating_add(self.lateness));
        first.into_iter().chain(again).min()
    }
}

/// One time that a window gives rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Firing {
    pub(super) instant: i64,
    pub(super) end: i64,
    /// Whether it is that after the lateness, of the keys that late rows changed.
    pub(super) second: bool,
}
