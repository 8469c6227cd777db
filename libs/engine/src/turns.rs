//! Whose turn it is to decode: the threads of queries are shared between indexes, not between queries.
//!
//! What is decoded as one (a row group) is a turn. While all threads have one, turns wait, and the next one goes to the index
//! that has had the least, by what its turns cost. So an index with one short query waits for no more than the turns that
//! are under way, however many long queries read another.
//! Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", 1996.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The turns of one process; clones share them.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// The begin of the turn that began last, on the scale of what turns cost.
    now: u64,
    /// Where the last turn of an index ends on that scale; of indexes that are ahead of it only.
    ends: HashMap<Arc<str>, u64>,
    /// At most as many as there are parts of all queries that run: each waits for one.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    index: Arc<str>,
    begin: u64,
    turn: oneshot::Sender<Turn>,
}

/// A thread to decode on; given back by being dropped.
pub(crate) struct Turn(Turns);

impl Turns {
    /// So many turns at once.
    pub(crate) fn new(count: usize) -> Self {
        let state = State { free: count.max(1), now: 0, ends: HashMap::new(), waiting: VecDeque::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A turn for something that costs so much; dropped while it waits, it is nobody's.
    pub(crate) async fn take(&self, index: &Arc<str>, cost: u64) -> Turn {
        let turn = {
            let mut state = self.0.lock();
            let begin = state.begin(index, cost);
            if state.free > 0 {
                state.free -= 1;
                state.now = state.now.max(begin);
                return Turn(self.clone());
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push_back(Waiting { index: Arc::clone(index), begin, turn: sender });
            turn
        };
        // Whoever has a turn gives it on when it ends, and a sender is never dropped unsent.
        turn.await.unwrap_or_else(|_| Turn(self.clone()))
    }
}

impl State {
    /// Where a turn begins on the scale; the next one of its index begins behind it.
    fn begin(&mut self, index: &Arc<str>, cost: u64) -> u64 {
        let now = self.now;
        self.ends.retain(|_, end| *end > now);
        let begin = self.ends.get(index).copied().unwrap_or(now);
        self.ends.insert(Arc::clone(index), begin.saturating_add(cost.max(1)));
        begin
    }

    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|one| !one.turn.is_closed());
        // The first of those that begin at the same place.
        let (place, _) = self.waiting.iter().enumerate().min_by_key(|(_, one)| one.begin)?;
        let next = self.waiting.remove(place)?;
        self.now = self.now.max(next.begin);
        Some(next)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.0.lock();
            let next = state.next();
            state.free += usize::from(next.is_none());
            next
        };
        if let Some(Waiting { index, turn, .. }) = next {
            tracing::trace!(%index, "turn given on");
            // Who does not wait any more gives it to the next by dropping it.
            drop(turn.send(Turn(self.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::BoxFuture};

    use super::*;

    fn asked(turns: &Turns, index: &'static str, cost: u64) -> BoxFuture<'static, Turn> {
        let (turns, index) = (turns.clone(), Arc::from(index));
        let mut turn = async move { turns.take(&index, cost).await }.boxed();
        assert!(turn.as_mut().now_or_never().is_none(), "all turns are taken");
        turn
    }

    /// Gives the turn on until nobody waits; who got it, in order.
    fn order(mut held: Turn, mut waiting: Vec<(&'static str, BoxFuture<'static, Turn>)>) -> Vec<&'static str> {
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let mut got = waiting.iter_mut().enumerate().filter_map(|(place, (_, turn))| {
                let turn = turn.as_mut().now_or_never()?;
                Some((place, turn))
            });
            let (place, turn) = got.next().expect("somebody gets it");
            assert!(got.next().is_none(), "nobody else does");
            drop(got);
            held = turn;
            order.push(waiting.remove(place).0);
        }
        order
    }

    #[test]
    fn an_index_with_little_to_do_waits_for_no_more_than_is_under_way() {
        let turns = Turns::new(1);
        let held = turns.take(&Arc::from("loud"), 100).now_or_never().expect("nobody has one");
        let mut waiting: Vec<_> = (0..6).map(|_| ("loud", asked(&turns, "loud", 100))).collect();
        waiting.push(("quiet", asked(&turns, "quiet", 100)));
        waiting.push(("quiet", asked(&turns, "quiet", 100)));
        let order = order(held, waiting);
        assert_eq!(order, ["quiet", "loud", "quiet", "loud", "loud", "loud", "loud", "loud"]);
    }

    #[test]
    fn shares_are_of_cost_and_not_of_turns() {
        let turns = Turns::new(1);
        let held = turns.take(&Arc::from("other"), 1).now_or_never().expect("nobody has one");
        let mut waiting: Vec<_> = (0..3).map(|_| ("wide", asked(&turns, "wide", 30))).collect();
        waiting.extend((0..9).map(|_| ("narrow", asked(&turns, "narrow", 10))));
        let order = order(held, waiting);
        let narrow_before = |n: usize| {
            let place = order.iter().enumerate().filter(|(_, one)| **one == "wide").nth(n).unwrap().0;
            order[..place].iter().filter(|one| **one == "narrow").count()
        };
        assert_eq!([0, 1, 2].map(narrow_before), [0, 3, 6], "{order:?}");
    }

    #[test]
    fn a_turn_that_nobody_waits_for_is_the_next_ones() {
        let turns = Turns::new(2);
        let index: Arc<str> = Arc::from("shop");
        let one = turns.take(&index, 5).now_or_never().expect("the first");
        let two = turns.take(&index, 5).now_or_never().expect("the second");
        let (gone, third) = (asked(&turns, "shop", 5), asked(&turns, "shop", 5));
        drop(gone);
        drop(one);
        let third = third.now_or_never().expect("it is its turn");
        drop((two, third));
        assert_eq!(turns.0.lock().free, 2);
        assert!(turns.take(&index, 5).now_or_never().is_some());
        assert!(turns.0.lock().ends.len() <= 1, "indexes are forgotten");
    }

    #[test]
    fn who_was_away_has_nothing_saved() {
        let turns = Turns::new(1);
        let busy: Arc<str> = Arc::from("busy");
        for _ in 0..50 {
            drop(turns.take(&busy, 100).now_or_never().expect("it is alone"));
        }
        let held = turns.take(&busy, 100).now_or_never().expect("it is alone");
        let mut waiting: Vec<_> = (0..4).map(|_| ("late", asked(&turns, "late", 100))).collect();
        waiting.extend((0..4).map(|_| ("busy", asked(&turns, "busy", 100))));
        // The one that is under way counts, those before it do not.
        assert_eq!(order(held, waiting), ["late", "late", "busy", "late", "busy", "late", "busy", "busy"]);
    }
}
