use std::collections::BTreeSet;

use types::{ContainerId, KeyRange};
use wire::coordinator::{SegmentRange, TransactionPhase};

use super::*;
use crate::graph::Graph;

pub(super) const STREAM: u32 = 7;
pub(super) const LEASE: u32 = 10_000;

/// One stream with its transactions, and every merge that was done.
pub(super) struct Sim {
    pub(super) all: Transactions,
    pub(super) graph: Graph,
    pub(super) now: Timestamp,
    pub(super) sealed: bool,
    /// Segments that a commit may begin, where the graph is not to say it.
    pub(super) room: Option<usize>,
    pub(super) merged: Vec<(SegmentId, SegmentId)>,
    pub(super) events: Vec<(Event, Timestamp)>,
}

fn index() -> IndexName {
    "shop".parse().unwrap()
}

fn graph(count: u32) -> Graph {
    let segments = (0..).zip(KeyRange::split_evenly(count)).map(|(number, range)| {
        let segment = SegmentId { stream: STREAM, epoch: 0, number };
        SegmentRange { segment, container: segment.container(8), range }
    });
    Graph::first(STREAM, segments.collect(), Timestamp::default())
}

impl Sim {
    pub(super) fn new(segment_count: u32) -> Self {
        let (all, graph) = (Transactions::default(), graph(segment_count));
        let (now, merged, events) = (Timestamp::from_millis(0), Vec::new(), Vec::new());
        Self { all, graph, now, sealed: false, room: None, merged, events }
    }

    fn present<T>(&self, look: impl FnOnce(Present<'_>) -> T) -> T {
        let segments: Vec<_> = self.graph.present().copied().collect();
        let (stream, epoch, scaling) = (STREAM, self.graph.epoch(), self.graph.scaling().is_some());
        let room = self.room.unwrap_or(self.graph.commit_room());
        look(Present { stream, epoch, segments: &segments, scaling, sealed: self.sealed, room, first_shadow: 0 })
    }

    pub(super) fn take(&mut self, events: Vec<Event>) -> Vec<Event> {
        for event in &events {
            self.all.apply(event, self.now);
            self.events.push((event.clone(), self.now));
        }
        events
    }

    pub(super) fn wish(&mut self, wish: Wish) -> Result<Vec<Event>, TransactionError> {
        let events = self.present(|present| self.all.decide_of(&index(), wish, present, self.now))?;
        Ok(self.take(events))
    }

    fn open(&mut self) -> TransactionId {
        let begun = self.wish(Wish::Begin { lease_ms: LEASE }).unwrap();
        let Event::Begun { transaction, .. } = begun[0] else { panic!("{begun:?}") };
        self.wish(Wish::Open(transaction)).unwrap();
        transaction
    }

    pub(super) fn at(&mut self, ms: i64) {
        self.now = Timestamp::from_millis(ms);
    }

    pub(super) fn expire(&mut self) {
        let events = self.all.expire(self.now);
        self.take(events);
    }

    fn scale(&mut self, seal: &[SegmentId], ranges: &[KeyRange], containers: Option<Vec<ContainerId>>) {
        let container =
            |asked: usize, segment: SegmentId| containers.as_ref().map_or(segment.container(8), |c| c[asked]);
        let scaling = self.graph.plan(seal, ranges, container).unwrap();
        self.graph.begin(&scaling);
        self.graph.open(scaling.epoch, self.now);
    }

    /// Splits the first present segment in two.
    pub(super) fn split_first(&mut self) {
        let first = *self.graph.present().next().unwrap();
        let half = first.range.first + (first.range.last - first.range.first) / 2;
        let ranges =
            [KeyRange { first: first.range.first, last: half }, KeyRange { first: half + 1, last: first.range.last }];
        self.scale(&[first.segment], &ranges, None);
    }

    /// Makes the whole key space one segment.
    pub(super) fn join(&mut self) {
        let all: Vec<_> = self.graph.present().map(|there| there.segment).collect();
        self.scale(&all, &[KeyRange { first: 0, last: u64::MAX }], None);
    }

    fn merge(&mut self, parts: &[(TransactionShare, SegmentId)]) {
        for (share, segment) in parts {
            assert!(self.graph.is_present(*segment), "{segment} is sealed: a merge into it fails");
            assert_eq!(self.graph.place(*segment).unwrap().container, share.container, "both are in one container");
            assert_eq!(self.graph.node(*segment).unwrap().range, share.range, "keys stay where they belong");
            if !self.merged.iter().any(|(source, _)| *source == share.shadow) {
                self.merged.push((share.shadow, *segment));
            }
        }
    }

    /// Does the next step of the commit; with `lost` the leader dies after its effect and before it is written down.
    pub(super) fn step(&mut self, lost: bool) -> bool {
        let Some(live) = self.all.committing(STREAM).cloned() else { return false };
        let transaction = live.transaction;
        let wish = match self.present(|present| live.step(present)).unwrap() {
            Step::Wait => panic!("nobody scales"),
            Step::Plan(_) => Wish::Roll(transaction),
            Step::Open(roll) => {
                let ranges: Vec<_> = roll.shares.iter().map(|share| share.range).collect();
                self.scale(&roll.seal, &ranges, Some(roll.containers()));
                return true;
            }
            Step::TakeUp(_) => Wish::EndRoll(transaction),
            Step::Merge { parts, rolled } => {
                self.merge(&parts);
                if rolled { Wish::EndMerge(transaction) } else { Wish::EndCommit(transaction) }
            }
            Step::Restore { seal, ranges } => {
                self.scale(&seal, &ranges, None);
                return true;
            }
            Step::End => Wish::EndCommit(transaction),
        };
        if !lost {
            self.wish(wish).unwrap();
        }
        true
    }

    fn phase(&self, transaction: TransactionId) -> TransactionPhase {
        self.all.describe(STREAM, transaction).unwrap().phase
    }
}

#[test]
fn a_transaction_takes_events_until_it_is_committed() {
    let mut sim = Sim::new(3);
    let begun = sim.wish(Wish::Begin { lease_ms: LEASE }).unwrap();
    let Event::Begun { transaction, shares, .. } = &begun[0] else { panic!("{begun:?}") };
    let parents: Vec<_> = sim.graph.present().copied().collect();
    for (count, (share, parent)) in (0..).zip(shares.iter().zip(&parents)) {
        assert_eq!((share.segment, share.container, share.range), (parent.segment, parent.container, parent.range));
        assert_eq!(share.shadow, SegmentId { stream: STREAM, epoch: 0, number: 0x8000_0000 + count });
    }
    let early = sim.wish(Wish::Commit(*transaction));
    assert_eq!(early, Err(TransactionError::Opening(*transaction)), "its segments may not be there yet");
    sim.wish(Wish::Open(*transaction)).unwrap();
    assert_eq!(sim.wish(Wish::Open(*transaction)), Ok(vec![]));
    sim.wish(Wish::Commit(*transaction)).unwrap();
    assert_eq!(sim.phase(*transaction), TransactionPhase::Committing);
    assert_eq!(sim.wish(Wish::Commit(*transaction)), Ok(vec![]));
    let refused = sim.wish(Wish::Abort(*transaction));
    assert_eq!(refused, Err(TransactionError::Over { transaction: *transaction, how: "being committed" }));
    while sim.step(false) {}
    assert_eq!(sim.merged.len(), 3);
    let committed = sim.all.describe(STREAM, *transaction).unwrap();
    assert_eq!((committed.phase, committed.shares.len(), committed.reason), (TransactionPhase::Committed, 0, None));
    assert_eq!(sim.wish(Wish::Commit(*transaction)), Ok(vec![]), "a repeat answers the same");
    let next = sim.open();
    let shares = sim.all.describe(STREAM, next).unwrap().shares;
    assert!(shares.iter().all(|share| share.shadow.number > 0x8000_0002), "numbers never return: {shares:?}");
}

#[test]
fn a_late_writer_learns_why_its_transaction_is_over() {
    let mut sim = Sim::new(2);
    let late = sim.open();
    let asked = sim.open();
    sim.wish(Wish::Abort(asked)).unwrap();
    sim.at(9_999);
    sim.expire();
    assert_eq!(sim.phase(late), TransactionPhase::Open);
    sim.at(10_000);
    sim.expire();
    for deleted in [false, true] {
        for (transaction, how) in [(late, "lease expired"), (asked, "asked for")] {
            for wish in [Wish::Commit(transaction), Wish::Ping { transaction, lease_ms: LEASE }] {
                assert_eq!(sim.wish(wish), Err(TransactionError::Over { transaction, how }), "{wish:?}");
            }
            assert_eq!(sim.wish(Wish::Abort(transaction)), Ok(vec![]), "what is wanted is so");
            assert_eq!(sim.all.describe(STREAM, transaction).unwrap().reason.as_deref(), Some(how));
            if !deleted {
                assert_eq!(sim.phase(transaction), TransactionPhase::Aborting);
                assert_eq!(sim.all.shadows(STREAM).count(), if transaction == late { 4 } else { 2 });
                sim.wish(Wish::EndAbort(transaction)).unwrap();
            }
            assert_eq!(sim.phase(transaction), TransactionPhase::Aborted);
        }
    }
}

#[test]
fn pings_prolong_a_life_up_to_its_end() {
    let mut sim = Sim::new(1);
    let transaction = sim.open();
    let ping = |lease_ms| Wish::Ping { transaction, lease_ms };
    let mut at = 0;
    for _ in 0..1_111 {
        at += 9_000;
        sim.at(at);
        sim.wish(ping(LEASE)).unwrap();
    }
    let ends = Timestamp::from_millis(1_000 * i64::from(LEASE));
    assert_eq!(sim.all.describe(STREAM, transaction).unwrap().expires, ends, "a thousand leases");
    assert_eq!(sim.wish(ping(LEASE)), Ok(vec![]), "nothing changes any more, so nothing is written");
    sim.at(1_000 * i64::from(LEASE));
    sim.expire();
    assert_eq!(sim.phase(transaction), TransactionPhase::Aborting);
    let long = sim.wish(Wish::Begin { lease_ms: 600_000 }).unwrap();
    let Event::Begun { transaction, .. } = long[0] else { panic!("{long:?}") };
    let day = sim.now + Duration::from_secs(24 * 60 * 60);
    assert_eq!(sim.all.live(STREAM, transaction).unwrap().ends, day, "a day, if that is less");
}

#[test]
fn a_new_leader_gives_everybody_one_lease() {
    let mut sim = Sim::new(1);
    let (idle, long) = (sim.open(), sim.open());
    sim.wish(Wish::Ping { transaction: long, lease_ms: 600_000 }).unwrap();
    // Nobody led for a minute: nobody could ping.
    sim.at(60_000);
    let renewed = sim.all.renew();
    sim.take(renewed);
    sim.expire();
    assert_eq!(sim.all.describe(STREAM, idle).unwrap().expires, Timestamp::from_millis(70_000));
    let expires = sim.all.describe(STREAM, long).unwrap().expires;
    assert_eq!(expires, Timestamp::from_millis(660_000), "one lease from now, of the length given last");
    sim.at(70_000);
    sim.expire();
    assert_eq!((sim.phase(idle), sim.phase(long)), (TransactionPhase::Aborting, TransactionPhase::Open));
    sim.wish(Wish::Abort(long)).unwrap();
    assert_eq!(sim.all.renew(), vec![], "nothing is open, so nothing is written");
}

#[test]
fn what_cannot_be_is_refused() {
    let mut sim = Sim::new(1);
    let lease = |lease_ms| Err(TransactionError::Lease { lease_ms });
    assert_eq!(sim.wish(Wish::Begin { lease_ms: 999 }), lease(999));
    assert_eq!(sim.wish(Wish::Begin { lease_ms: 600_001 }), lease(600_001));
    let first = sim.open();
    assert_eq!(sim.wish(Wish::Ping { transaction: first, lease_ms: 1 }), lease(1));
    let nobody = TransactionId(99);
    for wish in [Wish::Commit(nobody), Wish::Abort(nobody), Wish::Ping { transaction: nobody, lease_ms: LEASE }] {
        assert_eq!(sim.wish(wish), Err(TransactionError::Unknown(nobody)), "{wish:?}");
    }
    let second = sim.open();
    sim.wish(Wish::Commit(first)).unwrap();
    assert_eq!(sim.wish(Wish::Commit(second)), Err(TransactionError::OtherCommit(index())), "one after the other");
    while sim.step(false) {}
    sim.wish(Wish::Commit(second)).unwrap();
    let scaling = sim.graph.plan(
        &[SegmentId { stream: STREAM, epoch: 0, number: 0 }],
        &KeyRange::split_evenly(2),
        |_, segment| segment.container(8),
    );
    sim.graph.begin(&scaling.unwrap());
    assert_eq!(sim.wish(Wish::Begin { lease_ms: LEASE }), Err(TransactionError::Scaling(index())));
    let live = sim.all.committing(STREAM).unwrap();
    assert_eq!(sim.present(|present| live.step(present)), Some(Step::Wait));
    sim.graph.open(1, sim.now);
    sim.sealed = true;
    assert_eq!(sim.wish(Wish::Begin { lease_ms: LEASE }), Err(TransactionError::StreamSealed(index())));
}

#[test]
fn open_and_ended_ones_have_a_limit() {
    let mut sim = Sim::new(1);
    let all: Vec<_> = (0..TRANSACTIONS_OPEN_MAX).map(|_| sim.open()).collect();
    assert_eq!(sim.wish(Wish::Begin { lease_ms: LEASE }), Err(TransactionError::TooMany));
    for transaction in &all {
        sim.wish(Wish::Abort(*transaction)).unwrap();
        sim.wish(Wish::EndAbort(*transaction)).unwrap();
    }
    let listed = |sim: &Sim, before| sim.all.list(STREAM, before).map(|one| one.transaction).collect::<Vec<_>>();
    assert_eq!((sim.all.live_count(), listed(&sim, None).len()), (0, ENDED_MAX));
    let last = sim.open();
    sim.wish(Wish::Abort(last)).unwrap();
    sim.wish(Wish::EndAbort(last)).unwrap();
    assert_eq!(listed(&sim, None).len(), ENDED_MAX);
    assert_eq!(listed(&sim, None)[0], last, "the last one comes first");
    assert_eq!(listed(&sim, Some(last))[0], all[ENDED_MAX - 1], "and a page goes on behind it");
    assert_eq!(listed(&sim, Some(all[1])), [], "what is forgotten is listed no more");
    assert_eq!(sim.wish(Wish::Commit(all[0])), Err(TransactionError::Unknown(all[0])), "too long ago");
    let full = Transactions { live_count: TRANSACTIONS_MAX, ..sim.all.clone() };
    let begin = |all: &Transactions| {
        sim.present(|present| all.decide_of(&index(), Wish::Begin { lease_ms: LEASE }, present, sim.now))
    };
    assert_eq!(begin(&full), Err(TransactionError::TooMany));
    let broad = Transactions { share_count: SHARES_MAX, ..sim.all.clone() };
    assert_eq!(begin(&broad), Err(TransactionError::TooMany));
    let one = sim.open();
    assert_eq!((sim.all.live_count, sim.all.share_count), (1, 1));
    sim.all.forget(STREAM);
    assert_eq!((sim.all.live_count, sim.all.share_count), (0, 0));
    assert_eq!(sim.all.describe(STREAM, one), Err(TransactionError::Unknown(one)));
}

#[test]
fn a_sealed_stream_aborts_what_is_open() {
    let mut sim = Sim::new(2);
    let (open, committing) = (sim.open(), sim.open());
    sim.wish(Wish::Commit(committing)).unwrap();
    let aborted = sim.all.abort_all(STREAM, Reason::StreamSealed);
    sim.take(aborted);
    let refused = sim.wish(Wish::Commit(open));
    assert_eq!(refused, Err(TransactionError::Over { transaction: open, how: "stream sealed" }));
    assert_eq!(sim.phase(committing), TransactionPhase::Committing, "what was decided is done");
}

#[test]
fn a_commit_over_sealed_segments_opens_two_epochs() {
    let mut sim = Sim::new(2);
    let transaction = sim.open();
    let shares = sim.all.describe(STREAM, transaction).unwrap().shares;
    sim.split_first();
    let ranges = |sim: &Sim| sim.graph.present().map(|there| there.range).collect::<Vec<_>>();
    let before = ranges(&sim);
    sim.wish(Wish::Commit(transaction)).unwrap();
    while sim.step(false) {}
    assert_eq!((sim.graph.epoch(), ranges(&sim)), (3, before), "one for the transaction, one as it was");
    let merged: BTreeSet<_> = sim.merged.iter().copied().collect();
    assert!(merged.contains(&(shares[1].shadow, shares[1].segment)), "a segment that is still there takes its part");
    let target = merged.iter().find(|(source, _)| *source == shares[0].shadow).unwrap().1;
    assert_eq!((target.epoch, sim.graph.node(target).unwrap().sealed_in), (2, Some(3)));
    assert_eq!(sim.phase(transaction), TransactionPhase::Committed);
}

#[test]
fn a_commit_that_finds_no_room_is_refused_before_it_is_decided() {
    let mut sim = Sim::new(2);
    let (early, late) = (sim.open(), sim.open());
    sim.split_first();
    let after = sim.open();
    // One segment for the part whose segment was split, two that come back.
    for room in 0..3 {
        sim.room = Some(room);
        let no_room = TransactionError::NoRoom { transaction: early, index: index() };
        assert_eq!(sim.wish(Wish::Commit(early)), Err(no_room), "{room}");
    }
    assert_eq!(sim.phase(early), TransactionPhase::Open, "it may be aborted, or committed later");
    sim.wish(Wish::Commit(after)).unwrap();
    while sim.step(false) {}
    assert_eq!(sim.phase(after), TransactionPhase::Committed, "what needs no epoch needs no room");
    sim.room = Some(3);
    sim.wish(Wish::Commit(early)).unwrap();
    while sim.step(false) {}
    assert_eq!(sim.phase(early), TransactionPhase::Committed);
    sim.room = Some(0);
    sim.wish(Wish::Abort(late)).unwrap();
    assert_eq!(sim.phase(late), TransactionPhase::Aborting);
}

#[test]
fn a_transaction_stays_open_across_a_thousand_scales() {
    let mut sim = Sim::new(3);
    let transaction = sim.open();
    for n in 0..1_000 {
        if n % 9 == 8 { sim.join() } else { sim.split_first() }
    }
    let before: Vec<_> = sim.graph.present().map(|there| there.range).collect();
    sim.wish(Wish::Commit(transaction)).unwrap();
    let mut steps = 0;
    // The leader dies after every effect, and the next one finds it done.
    while sim.step(steps % 2 == 0) {
        steps += 1;
        assert!(steps < 24, "a commit has six steps");
    }
    assert_eq!((sim.phase(transaction), sim.graph.epoch()), (TransactionPhase::Committed, 1_002));
    assert_eq!(sim.graph.present().map(|there| there.range).collect::<Vec<_>>(), before);
    assert_eq!(sim.merged.len(), 3);
}

#[test]
fn ranges_that_came_back_are_not_opened_twice() {
    let mut sim = Sim::new(1);
    let transaction = sim.open();
    sim.split_first();
    sim.join();
    sim.wish(Wish::Commit(transaction)).unwrap();
    while sim.step(false) {}
    assert_eq!(sim.graph.epoch(), 3, "the range is the same before and after, the container may be another");
    assert_eq!(sim.phase(transaction), TransactionPhase::Committed);
}
