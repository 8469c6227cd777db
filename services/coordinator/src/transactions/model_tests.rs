//! Any run of commands agrees with a model that only counts.

use std::collections::BTreeSet;

use proptest::prelude::*;
use types::KeyRange;
use wire::coordinator::TransactionPhase;

use super::{
    transactions_tests::{LEASE, STREAM, Sim},
    *,
};

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
                if let Some(one) = self.model.get_mut(&TransactionId(t))
                    && one.phase == TransactionPhase::Aborting
                {
                    one.phase = TransactionPhase::Aborted;
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
