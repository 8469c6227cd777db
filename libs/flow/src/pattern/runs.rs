//! The runs of one key: where each stands, and which comes to a match.
//!
//! A run is the set of ways on which its rows were taken so far, the preferred first: where a row can be taken as one more of a
//! step and as the first of the next, there are two. Two ways that stand alike have the same future, of which the second is given up,
//! so there are never more than steps times rows of a step.

use std::collections::{HashSet, VecDeque};

use super::{
    AfterMatch,
    plan::{Bits, Plan},
};

/// The rows that a step took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: u32,
}

/// One way.
#[derive(Debug, Clone)]
struct Way {
    step: usize,
    /// Steps behind which a row came that may not come before the next one is taken.
    barred: Bits,
    /// Whether it takes no more rows, and only waits.
    closed: bool,
    taken: Vec<Taken>,
}

/// A run from its first row on.
#[derive(Debug)]
struct Run {
    first: u64,
    time: i64,
    ways: Vec<Way>,
    found: Option<Vec<Taken>>,
}

/// A match, and where it comes out among others: at an instant, behind rows of it if it waited, by a row.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) order: (i64, bool, u64),
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) taken: Vec<Taken>,
}

/// A row that has its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) seq: u64,
    pub(super) time: i64,
    pub(super) bits: Bits,
}

/// The runs of a key, in the order in which they began.
#[derive(Debug)]
pub(super) struct Runs {
    pub(super) key: Box<[u8]>,
    runs: VecDeque<Run>,
    /// The rows that they can still need, all of them from the first row of the first run on.
    rows: VecDeque<u64>,
    /// How many ways there are.
    pub(super) ways: usize,
}

fn gaps(from: usize, to: usize) -> Bits {
    (from..to).fold(0, |bits, gap| bits | 1 << gap)
}

impl Way {
    fn begin(plan: &Plan, step: usize, seq: u64) -> Self {
        let way = Self { step: 0, barred: 0, closed: false, taken: vec![Taken::default(); plan.steps.len()] };
        way.take(step, seq)
    }

    fn take(&self, step: usize, seq: u64) -> Self {
        let mut taken = self.taken.clone();
        let of = &mut taken[step];
        *of = Taken { first: if of.count == 0 { seq } else { of.first }, last: seq, count: of.count.saturating_add(1) };
        Self { step, barred: 0, closed: false, taken }
    }

    fn count(&self) -> u32 {
        self.taken[self.step].count
    }

    /// The steps to which a row can take it.
    fn next<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = usize> + 'a {
        let more = (self.count() < plan.steps[self.step].most).then_some(self.step);
        let through = self.count() >= plan.steps[self.step].least;
        let mut on = through;
        let behind = (self.step + 1..plan.steps.len()).take_while(move |step| {
            let reached = on && self.barred & gaps(self.step, *step) == 0;
            on = reached && plan.steps[*step].least == 0;
            reached
        });
        more.into_iter().chain(behind).filter(|_| !self.closed)
    }

    /// Whether it has all rows that a match needs.
    fn is_whole(&self, plan: &Plan) -> bool {
        let rest = &plan.steps[self.step + 1..];
        self.count() >= plan.steps[self.step].least
            && rest.iter().all(|step| step.least == 0)
            && self.barred & gaps(self.step, plan.steps.len()) == 0
    }

    /// Whether a row may still come that spoils a whole match.
    fn waits(&self, plan: &Plan) -> bool {
        plan.steps[self.step..].iter().any(|step| step.absent > 0)
    }

    /// A row has its turn: the ways on which it is taken, or this one without it.
    fn advance(mut self, plan: &Plan, row: Turn, into: &mut Vec<Self>) {
        let before = into.len();
        let takes = self.next(plan).filter(|step| row.bits & plan.steps[*step].bit > 0);
        into.extend(takes.map(|step| self.take(step, row.seq)));
        if into.len() > before {
            return;
        }
        for (gap, step) in plan.steps.iter().enumerate().skip(self.step) {
            // A step that must come first ends what this way is between.
            if gap > self.step && step.least > 0 {
                break;
            }
            if row.bits & step.absent > 0 {
                self.barred |= 1 << gap;
            }
        }
        self.closed |= !plan.gaps;
        let waits = self.is_whole(plan) && self.waits(plan);
        if waits || self.next(plan).next().is_some() {
            into.push(self);
        }
    }

    /// Ways that are equal in this have the same future.
    fn stand(&self, plan: &Plan) -> (usize, u32, Bits, bool) {
        let step = &plan.steps[self.step];
        let count = if step.most == u32::MAX { self.count().min(step.least) } else { self.count() };
        (self.step, count, self.barred, self.closed)
    }
}

impl Run {
    /// Makes these its ways: a whole one is a match, before which all that are less preferred are nothing.
    fn settle(&mut self, plan: &Plan, ways: Vec<Way>, row: u64) {
        let (mut known, several) = (HashSet::new(), ways.len() > 1);
        self.ways.clear();
        for way in ways {
            if several && !known.insert(way.stand(plan)) {
                continue;
            }
            let whole = way.taken[way.step].last == row && way.is_whole(plan) && !way.waits(plan);
            if whole {
                self.found = Some(way.taken.clone());
            }
            if !whole || way.next(plan).next().is_some() {
                self.ways.push(way);
            }
            if whole {
                return;
            }
        }
    }

    /// Its time is over.
    fn expire(&mut self, plan: &Plan) {
        let whole = self.ways.iter().find(|way| way.is_whole(plan) && way.waits(plan));
        if let Some(whole) = whole {
            self.found = Some(whole.taken.clone());
        }
        self.ways.clear();
    }
}

impl Runs {
    pub(super) fn new(key: &[u8]) -> Self {
        Self { key: key.into(), runs: VecDeque::new(), rows: VecDeque::new(), ways: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// A row has its turn; answers whether a run began with it.
    pub(super) fn row(&mut self, plan: &Plan, row: Turn, matches: &mut Vec<Match>) -> bool {
        self.expire(plan, row.time, matches);
        for run in &mut self.runs {
            let mut ways = Vec::with_capacity(run.ways.len());
            std::mem::take(&mut run.ways).into_iter().for_each(|way| way.advance(plan, row, &mut ways));
            run.settle(plan, ways, row.seq);
        }
        let mut first = Vec::new();
        for (number, step) in plan.steps.iter().enumerate() {
            if row.bits & step.bit > 0 {
                first.push(Way::begin(plan, number, row.seq));
            }
            if step.least > 0 {
                break;
            }
        }
        let begins = !first.is_empty();
        if begins {
            let mut run = Run { first: row.seq, time: row.time, ways: Vec::new(), found: None };
            run.settle(plan, first, row.seq);
            self.runs.push_back(run);
        }
        self.rows.push_back(row.seq);
        self.resolve(plan, (row.time, false), row.seq, matches);
        self.ways = self.runs.iter().map(|run| run.ways.len() + 1).sum();
        begins
    }

    /// Ends the runs whose time is over before that instant.
    pub(super) fn expire(&mut self, plan: &Plan, now: i64, matches: &mut Vec<Match>) {
        while let Some(run) = self.runs.front_mut() {
            let (end, first) = (run.time.saturating_add(plan.within), run.first);
            if end >= now {
                break;
            }
            run.expire(plan);
            self.resolve(plan, (end, true), first, matches);
        }
        if self.runs.is_empty() {
            self.ways = 0;
        }
    }

    /// Takes away the first runs, as far as it is known what becomes of them.
    fn resolve(&mut self, plan: &Plan, (instant, late): (i64, bool), row: u64, matches: &mut Vec<Match>) {
        while let Some(run) = self.runs.pop_front_if(|run| run.ways.is_empty()) {
            let Some(taken) = run.found else { continue };
            let last = taken.iter().filter(|of| of.count > 0).map(|of| of.last).max().unwrap_or(run.first);
            matches.push(Match { order: (instant, late, row), first: run.first, last, taken });
            if plan.after == AfterMatch::PastLast {
                while self.runs.pop_front_if(|run| run.first <= last).is_some() {}
            }
        }
    }

    /// The rows that no run can need any more.
    pub(super) fn done(&mut self) -> impl Iterator<Item = u64> {
        let live = self.runs.front().map_or(u64::MAX, |run| run.first);
        let count = self.rows.partition_point(|row| *row < live);
        self.rows.drain(..count)
    }
}
