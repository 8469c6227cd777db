use std::collections::BTreeSet;

use proptest::prelude::*;
use types::{ContainerId, KeyRange};

use super::*;
use crate::graph::Graph;

const STREAM: u32 = 7;
const LEASE: u32 = 10_000;

/// One stream with its transactions, and every merge that was done.
struct Sim {
    all: Transactions,
    graph: Graph,
    now: Timestamp,
    sealed: bool,
    merged: Vec<(SegmentId, SegmentId)>,
    events: Vec<(Event, Timestamp)>,
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
    fn new(segment_count: u32) -> Self {
        let (all, graph) = (Transactions::default(), graph(segment_count));
        Self { all, graph, now: Timestamp::from_millis(0), sealed: false, merged: Vec::new(), events: Vec::new() }
    }

    fn present<T>(&self, look: impl FnOnce(Present<'_>) -> T) -> T {
        let segments: Vec<_> = self.graph.present().copied().collect();
        let (stream, epoch, scaling) = (STREAM, self.graph.epoch(), self.graph.scaling().is_some());
        look(Present { stream, epoch, segments: &segments, scaling, sealed: self.sealed })
    }

    fn take(&mut self, events: Vec<Event>) -> Vec<Event> {
        for event in &events {
            self.all.apply(event, self.now);
            self.events.push((event.clone(), self.now));
        }
        events
    }

    fn wish(&mut self, wish: Wish) -> Result<Vec<Event>, TransactionError> {
        let events = self.present(|present| self.all.decide_of(&index(), wish, present, self.now))?;
        Ok(self.take(events))
    }

    fn open(&mut self) -> TransactionId {
        let begun = self.wish(Wish::Begin { lease_ms: LEASE }).unwrap();
        let Event::Begun { transaction, .. } = begun[0] else { panic!("{begun:?}") };
        self.wish(Wish::Open(transaction)).unwrap();
        transaction
    }

    fn at(&mut self, ms: i64) {
        self.now = Timestamp::from_millis(ms);
    }

    fn expire(&mut self) {
        let events = self.all.expire(self.now);
        self.take(events);
    }

    fn scale(&mut self, seal: &[SegmentId], ranges: &[KeyRange], containers: Option<Vec<ContainerId>>) {
        let container = |asked: usize, segment: SegmentId| containers.as_ref().map_or(segment.container(8), |c| c[asked]);
        let scaling = self.graph.plan(seal, ranges, container).unwrap();
        self.graph.begin(&scaling);
        self.graph.open(scaling.epoch, self.now);
    }

    /// Splits the first present segment in two.
    fn split_first(&mut self) {
        let first = *self.graph.present().next().unwrap();
        let half = first.range.first + (first.range.last - first.range.first) / 2;
        let ranges =
            [KeyRange { first: first.range.first, last: half }, KeyRange { first: half + 1, last: first.range.last }];
        self.scale(&[first.segment], &ranges, None);
    }

    /// Makes the whole key space one segment.
    fn join(&mut self) {
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
    fn step(&mut self, lost: bool) -> bool {
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
    assert_eq!((sim.all.live_count(), sim.all.list(STREAM).len()), (0, ENDED_MAX));
    let last = sim.open();
    sim.wish(Wish::Abort(last)).unwrap();
    sim.wish(Wish::EndAbort(last)).unwrap();
    assert_eq!(sim.all.list(STREAM).len(), ENDED_MAX);
    assert_eq!(sim.all.list(STREAM)[0].transaction, last, "the last one comes first");
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

/// What a random run does.
#[derive(Debug, Clone)]
enum Action {
    Begin,
    Open(u32),
    Ping(u32, u32),
    Commit(u32),
    Abort(u32),
    EndAbort(u32),
    /// One step of the commit; whether the leader dies before it is written down.
    Step(bool),
    Pass(i64),
    Expire,
    Renew,
    Split,
    Join,
    Seal,
}

fn action() -> impl Strategy<Value = Action> {
    let which = 0..12u32;
    prop_oneof![
        3 => Just(Action::Begin),
        4 => which.clone().prop_map(Action::Open),
        2 => (which.clone(), 1_000..20_000u32).prop_map(|(t, lease)| Action::Ping(t, lease)),
        3 => which.clone().prop_map(Action::Commit),
        1 => which.clone().prop_map(Action::Abort),
        2 => which.prop_map(Action::EndAbort),
        6 => any::<bool>().prop_map(Action::Step),
        3 => (0..6_000i64).prop_map(Action::Pass),
        2 => Just(Action::Expire),
        1 => Just(Action::Renew),
        2 => Just(Action::Split),
        1 => Just(Action::Join),
        1 => Just(Action::Seal),
    ]
}

/// What a transaction is to somebody who only counts: its phase and when its lease ends.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Model {
    phase: TransactionPhase,
    opened: bool,
    expires: i64,
    lease: i64,
    ends: i64,
    reason: Option<&'static str>,
}

struct Run {
    sim: Sim,
    model: BTreeMap<TransactionId, Model>,
    ms: i64,
}

impl Run {
    fn open_ones(&mut self) -> impl Iterator<Item = &mut Model> {
        self.model.values_mut().filter(|m| m.phase == TransactionPhase::Open)
    }

    fn end(&mut self, reason: &'static str, which: impl Fn(&Model) -> bool) {
        for one in self.open_ones().filter(|m| which(m)) {
            (one.phase, one.reason) = (TransactionPhase::Aborting, Some(reason));
        }
    }

    fn act(&mut self, action: &Action) {
        let (ms, lease) = (self.ms, i64::from(LEASE));
        let committing = self.model.values().any(|m| m.phase == TransactionPhase::Committing);
        match *action {
            Action::Begin => {
                let begun = self.sim.wish(Wish::Begin { lease_ms: LEASE });
                assert_eq!(begun.is_ok(), !self.sim.sealed);
                if let Ok([Event::Begun { transaction, .. }]) = begun.as_deref() {
                    let (phase, expires, ends) = (TransactionPhase::Open, ms + lease, ms + 1_000 * lease);
                    let one = Model { phase, opened: false, expires, lease, ends, reason: None };
                    assert_eq!(self.model.insert(*transaction, one), None, "numbers never return");
                }
            }
            Action::Open(t) => {
                let opened = self.sim.wish(Wish::Open(TransactionId(t)));
                if let Some(one) = self.model.get_mut(&TransactionId(t)) {
                    one.opened |= opened.is_ok();
                }
            }
            Action::Ping(t, lease_ms) => {
                let pinged = self.sim.wish(Wish::Ping { transaction: TransactionId(t), lease_ms });
                let Some(one) = self.model.get_mut(&TransactionId(t)) else { return assert!(pinged.is_err()) };
                let lives = matches!(one.phase, TransactionPhase::Open | TransactionPhase::Committing);
                assert_eq!(pinged.is_ok(), lives, "{one:?}");
                if one.phase == TransactionPhase::Open {
                    one.lease = i64::from(lease_ms);
                    one.expires = (ms + one.lease).min(one.ends);
                }
            }
            Action::Commit(t) => {
                let committed = self.sim.wish(Wish::Commit(TransactionId(t)));
                let Some(one) = self.model.get_mut(&TransactionId(t)) else { return assert!(committed.is_err()) };
                let may = match one.phase {
                    TransactionPhase::Open => one.opened && !committing,
                    TransactionPhase::Committing | TransactionPhase::Committed => true,
                    TransactionPhase::Aborting | TransactionPhase::Aborted => {
                        let (transaction, how) = (TransactionId(t), one.reason.unwrap());
                        assert_eq!(committed, Err(TransactionError::Over { transaction, how }));
                        false
                    }
                };
                assert_eq!(committed.is_ok(), may, "{one:?}");
                if one.phase == TransactionPhase::Open && may {
                    one.phase = TransactionPhase::Committing;
                }
            }
            Action::Abort(t) => {
                let aborted = self.sim.wish(Wish::Abort(TransactionId(t)));
                let Some(one) = self.model.get_mut(&TransactionId(t)) else { return assert!(aborted.is_err()) };
                let decided = matches!(one.phase, TransactionPhase::Committing | TransactionPhase::Committed);
                assert_eq!(aborted.is_err(), decided);
                if one.phase == TransactionPhase::Open {
                    (one.phase, one.reason) = (TransactionPhase::Aborting, Some("asked for"));
                }
            }
            Action::EndAbort(t) => {
                self.sim.wish(Wish::EndAbort(TransactionId(t))).unwrap();
                if let Some(one) = self.model.get_mut(&TransactionId(t)) {
                    if one.phase == TransactionPhase::Aborting {
                        one.phase = TransactionPhase::Aborted;
                    }
                }
            }
            Action::Step(lost) => {
                let before = self.sim.all.committing(STREAM).map(|live| live.transaction);
                self.sim.step(lost);
                if let Some(done) = before.filter(|_| self.sim.all.committing(STREAM).is_none()) {
                    self.model.get_mut(&done).unwrap().phase = TransactionPhase::Committed;
                }
            }
            Action::Pass(more) => {
                self.ms += more;
                self.sim.at(self.ms);
            }
            Action::Expire => {
                self.sim.expire();
                self.end("lease expired", |m| m.expires <= ms);
            }
            Action::Renew => {
                let renewed = self.sim.all.renew();
                self.sim.take(renewed);
                self.open_ones().for_each(|m| m.expires = m.expires.max((ms + m.lease).min(m.ends)));
            }
            // The state lets no other scale begin while a commit is on its way.
            Action::Split | Action::Join if committing => {}
            Action::Split if self.sim.graph.present().len() < 16 => self.sim.split_first(),
            Action::Split => {}
            Action::Join => self.sim.join(),
            Action::Seal if !committing => {
                self.sim.sealed = true;
                let aborted = self.sim.all.abort_all(STREAM, Reason::StreamSealed);
                self.sim.take(aborted);
                self.end("stream sealed", |_| true);
            }
            Action::Seal => {}
        }
    }

    fn check(&self) {
        for (transaction, one) in &self.model {
            let there = self.sim.all.describe(STREAM, *transaction).unwrap();
            assert_eq!((there.phase, there.reason.as_deref()), (one.phase, one.reason));
            if one.phase == TransactionPhase::Open {
                assert_eq!(there.expires, Timestamp::from_millis(one.expires));
            }
        }
        let live = |m: &&Model| !matches!(m.phase, TransactionPhase::Committed | TransactionPhase::Aborted);
        assert_eq!(self.sim.all.live_count(), self.model.values().filter(live).count());
        let ranges: Vec<_> = self.sim.graph.present().map(|there| there.range).collect();
        assert!(KeyRange::cover_once(&ranges));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn any_run_agrees_with_its_model(segments in 1..4u32, actions in prop::collection::vec(action(), 1..120)) {
        let mut run = Run { sim: Sim::new(segments), model: BTreeMap::new(), ms: 0 };
        for action in &actions {
            run.act(action);
            run.check();
        }
        // Whatever was decided comes to its end, and every part of it was merged once.
        let mut steps = 0;
        while run.sim.step(false) {
            steps += 1;
            prop_assert!(steps < 12, "a commit has six steps");
        }
        let sources: BTreeSet<_> = run.sim.merged.iter().map(|(source, _)| *source).collect();
        prop_assert_eq!(sources.len(), run.sim.merged.len());
        let committed = |event: &(Event, Timestamp)| match event.0 {
            Event::Committed(which) => Some(which.transaction),
            _ => None,
        };
        let committed: BTreeSet<_> = run.sim.events.iter().filter_map(committed).collect();
        let shares = run.sim.events.iter().filter_map(|(event, _)| match event {
            Event::Begun { transaction, shares, .. } => Some((*transaction, shares)),
            _ => None,
        });
        for (transaction, shares) in shares {
            for share in shares {
                let merged = sources.contains(&share.shadow);
                prop_assert_eq!(merged, committed.contains(&transaction), "all of it or nothing: {:?}", transaction);
            }
        }
        // A replica that follows the journal, and one that restores a snapshot, know the same.
        let mut follower = Transactions::default();
        run.sim.events.iter().for_each(|(event, at)| {
            let stored: Event = wire::decode(&wire::encode(event)).unwrap();
            follower.apply(&stored, *at);
        });
        prop_assert_eq!(&follower, &run.sim.all);
        prop_assert_eq!(&wire::decode::<Transactions>(&wire::encode(&follower)).unwrap(), &follower);
    }
}
