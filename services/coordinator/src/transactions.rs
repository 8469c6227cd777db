//! Transactions: which are open, what was decided of them, and how the last ones ended. Pure.
//!
//! A transaction that was decided to be committed is the only one of its stream in that phase until its events are visible, and
//! no scale of the stream begins meanwhile: so what its next step is can be told from the journal alone, at any time and by any leader.

pub(crate) mod doors;
mod error;
mod event;
mod live;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod transactions_tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::{IndexName, SegmentId, Timestamp, TransactionId};
use wire::{
    coordinator::{Transaction, TransactionShare},
    segment_store::SegmentPlace,
};

use crate::{CoordinatorError, State};

pub use error::TransactionError;
pub use event::{Command, Event, Which, Wish};
use live::Ended;
pub use live::{Live, Present, Reason, Roll, Stage, Step};

/// Transactions of one stream that have not ended: each keeps a shadow segment for every segment of the stream.
pub const TRANSACTIONS_OPEN_MAX: usize = 100;

/// Transactions of an installation that have not ended.
pub const TRANSACTIONS_MAX: usize = 10_000;

/// Ended transactions that a stream remembers, so that a late writer learns how its transaction ended.
pub const ENDED_MAX: usize = 100;

/// Lengths of a lease.
pub const LEASE_MS: RangeInclusive<u32> = 1_000..=600_000;

/// The longest life of a transaction, however often it is pinged.
pub const LIFE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest life of a transaction in leases.
pub const LIFE_LEASES_MAX: u32 = 1_000;

/// Transactions that one decision aborts; the rest waits for the next.
const ABORTED_AT_ONCE_MAX: usize = 1_000;

/// What marks the number of a shadow segment; ordinary segments stay below.
const SHADOW: u32 = 0x8000_0000;

/// Parts of all transactions that have not ended: about 100 bytes each in the state and in its snapshots.
pub const SHARES_MAX: usize = 200_000;

/// The transactions of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OfStream {
    index: IndexName,
    next: u32,
    /// Grows by one with every shadow segment.
    shadows: u32,
    live: BTreeMap<TransactionId, Live>,
    ended: VecDeque<Ended>,
}

/// All transactions that have not ended, and the last ones of each stream that have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transactions {
    streams: BTreeMap<u32, OfStream>,
    /// How many have not ended, over all streams.
    live_count: usize,
    /// How many parts those have.
    share_count: usize,
}

impl Transactions {
    /// A transaction that has not ended.
    pub fn live(&self, stream: u32, transaction: TransactionId) -> Option<&Live> {
        self.streams.get(&stream)?.live.get(&transaction)
    }

    /// Whether the commit of a transaction was decided and is not done: then no scale may begin but those that it needs.
    pub fn is_committing(&self, stream: u32) -> bool {
        self.committing(stream).is_some()
    }

    /// The transaction of a stream whose commit was decided and is not done.
    pub fn committing(&self, stream: u32) -> Option<&Live> {
        let committing = |live: &&Live| matches!(live.stage, Stage::Committing { .. });
        self.streams.get(&stream)?.live.values().find(committing)
    }

    /// The transactions of a stream whose abort was decided and is not done.
    pub fn aborting(&self, stream: u32) -> impl Iterator<Item = &Live> {
        let all = self.streams.get(&stream).into_iter().flat_map(|of| of.live.values());
        all.filter(|live| matches!(live.stage, Stage::Aborting(_)))
    }

    /// Indexes with transactions whose end was decided and is not done.
    pub fn pending(&self) -> impl Iterator<Item = &IndexName> {
        let decided = |live: &Live| matches!(live.stage, Stage::Committing { .. } | Stage::Aborting(_));
        self.streams.values().filter(move |of| of.live.values().any(decided)).map(|of| &of.index)
    }

    /// The segments of every transaction of a stream that has not ended.
    pub fn shadows(&self, stream: u32) -> impl Iterator<Item = SegmentPlace> {
        let all = self.streams.get(&stream).into_iter().flat_map(|of| of.live.values());
        all.flat_map(|live| &live.shares).map(shadow_place)
    }

    /// How many transactions have not ended.
    pub fn live_count(&self) -> usize {
        self.live_count
    }

    /// A transaction as others see it.
    pub fn describe(&self, stream: u32, transaction: TransactionId) -> Result<Transaction, TransactionError> {
        let unknown = TransactionError::Unknown(transaction);
        let of = self.streams.get(&stream).ok_or(unknown.clone())?;
        if let Some(live) = of.live.get(&transaction) {
            return Ok(live.describe(&of.index));
        }
        of.ended
            .iter()
            .find(|ended| ended.transaction == transaction)
            .map(|ended| ended.describe(&of.index))
            .ok_or(unknown)
    }

    /// The transactions of a stream that were begun before one of them: open ones, and the last that ended; the last begun first.
    pub fn list(&self, stream: u32, before: Option<TransactionId>) -> impl Iterator<Item = Transaction> {
        let of = self.streams.get(&stream).into_iter();
        let ids = of.flat_map(|of| of.live.keys().copied().chain(of.ended.iter().map(|ended| ended.transaction)));
        let ids: BTreeSet<TransactionId> = ids.filter(|id| before.is_none_or(|before| *id < before)).collect();
        ids.into_iter().rev().filter_map(move |id| self.describe(stream, id).ok())
    }

    /// Forgets a stream that was deleted.
    pub fn forget(&mut self, stream: u32) {
        if let Some(of) = self.streams.remove(&stream) {
            self.live_count -= of.live.len();
            self.share_count -= of.live.values().map(|live| live.shares.len()).sum::<usize>();
        }
    }

    /// Decides a command.
    pub fn decide(&self, state: &State, command: Command, now: Timestamp) -> Result<Vec<Event>, CoordinatorError> {
        let (index, wish) = match command {
            Command::Expire => return Ok(self.expire(now)),
            Command::Renew => return Ok(self.renew()),
            Command::Of { index, wish } => (index, wish),
        };
        let stream = state.live_stream(&index)?;
        // A ping is frequent and looks at no segment.
        let looks = matches!(wish, Wish::Begin { .. } | Wish::Commit(_) | Wish::Roll(_) | Wish::EndRoll(_));
        let segments: Vec<_> = if looks { stream.graph().present().copied().collect() } else { Vec::new() };
        Ok(self.decide_of(&index, wish, Present::of(stream, &segments), now)?)
    }

    fn decide_of(
        &self,
        index: &IndexName,
        wish: Wish,
        present: Present<'_>,
        now: Timestamp,
    ) -> Result<Vec<Event>, TransactionError> {
        let stream = present.stream;
        let which = |transaction| Which { stream, transaction };
        let stage = |transaction| self.live(stream, transaction).map(|live| &live.stage);
        let one = |happens: bool, event: Event| Ok(if happens { vec![event] } else { Vec::new() });
        match wish {
            Wish::Begin { lease_ms } => self.begin(index, lease_ms, present),
            Wish::Open(transaction) => {
                let creating = self.wanted(stream, transaction)?.stage == Stage::Creating;
                one(creating, Event::Opened(which(transaction)))
            }
            Wish::Ping { transaction, lease_ms } => self.ping(which(transaction), lease_ms, now),
            Wish::Commit(transaction) => self.commit(transaction, index, present),
            Wish::Roll(transaction) => match self.wanted(stream, transaction)?.step(present) {
                Some(Step::Plan(roll)) => Ok(vec![Event::Rolling { which: which(transaction), roll }]),
                _ => Ok(Vec::new()),
            },
            Wish::EndRoll(transaction) => match self.wanted(stream, transaction)?.step(present) {
                Some(Step::TakeUp(targets)) => Ok(vec![Event::Rolled { which: which(transaction), targets }]),
                _ => Ok(Vec::new()),
            },
            Wish::EndMerge(transaction) => {
                let rolled = |roll: &Roll| !roll.merged && !roll.targets.is_empty();
                let rolled = matches!(stage(transaction), Some(Stage::Committing { roll: Some(roll) }) if rolled(roll));
                one(rolled, Event::Merged(which(transaction)))
            }
            Wish::EndCommit(transaction) => {
                let committing = matches!(stage(transaction), Some(Stage::Committing { .. }));
                one(committing, Event::Committed(which(transaction)))
            }
            Wish::Abort(transaction) => self.abort(which(transaction)),
            Wish::EndAbort(transaction) => {
                let aborting = matches!(stage(transaction), Some(Stage::Aborting(_)));
                one(aborting, Event::Aborted(which(transaction)))
            }
        }
    }

    fn begin(&self, index: &IndexName, lease_ms: u32, present: Present<'_>) -> Result<Vec<Event>, TransactionError> {
        if !LEASE_MS.contains(&lease_ms) {
            return Err(TransactionError::Lease { lease_ms });
        }
        if present.sealed {
            return Err(TransactionError::StreamSealed(index.clone()));
        }
        if present.scaling {
            return Err(TransactionError::Scaling(index.clone()));
        }
        let of = self.streams.get(&present.stream);
        if of.is_some_and(|of| of.live.len() >= TRANSACTIONS_OPEN_MAX) || self.live_count >= TRANSACTIONS_MAX {
            return Err(TransactionError::TooMany);
        }
        let (next, shadows) = of.map_or((0, present.first_shadow), |of| (of.next, of.shadows));
        if self.share_count + present.segments.len() > SHARES_MAX || next == u32::MAX {
            return Err(TransactionError::TooMany);
        }
        let shares = (shadows..).zip(present.segments).map(|(count, parent)| {
            // After 2^31 shadows the numbers begin again; a parent remembers only the last 1 024 that were merged into it.
            let number = SHADOW | (count & !SHADOW);
            let shadow = SegmentId { stream: present.stream, epoch: present.epoch, number };
            TransactionShare { shadow, segment: parent.segment, container: parent.container, range: parent.range }
        });
        let transaction = TransactionId(next);
        let (stream, epoch, shares) = (present.stream, present.epoch, shares.collect());
        Ok(vec![Event::Begun { stream, index: index.clone(), transaction, epoch, lease_ms, shares }])
    }

    fn ping(&self, which: Which, lease_ms: u32, now: Timestamp) -> Result<Vec<Event>, TransactionError> {
        if !LEASE_MS.contains(&lease_ms) {
            return Err(TransactionError::Lease { lease_ms });
        }
        let live = self.wanted(which.stream, which.transaction)?;
        let changes = live.is_open() && (live.lease_end(now, lease_ms), lease_ms) != (live.expires, live.lease_ms);
        Ok(if changes { vec![Event::Pinged { which, lease_ms }] } else { Vec::new() })
    }

    /// Decides a commit only if it can be carried out: once it is decided nothing else happens to the stream until it is done.
    fn commit(
        &self,
        transaction: TransactionId,
        index: &IndexName,
        present: Present<'_>,
    ) -> Result<Vec<Event>, TransactionError> {
        let stream = present.stream;
        let ended = self.ended(stream, transaction);
        if ended.is_some_and(|ended| ended.aborted.is_none()) {
            return Ok(Vec::new());
        }
        let live = self.wanted(stream, transaction)?;
        match live.stage {
            Stage::Creating => Err(TransactionError::Opening(transaction)),
            Stage::Committing { .. } => Ok(Vec::new()),
            _ if self.is_committing(stream) => Err(TransactionError::OtherCommit(index.clone())),
            _ if present.scaling => Err(TransactionError::Scaling(index.clone())),
            _ if live.begun_by_commit(present) > present.room => {
                Err(TransactionError::NoRoom { transaction, index: index.clone() })
            }
            _ => Ok(vec![Event::Committing(Which { stream, transaction })]),
        }
    }

    fn abort(&self, which: Which) -> Result<Vec<Event>, TransactionError> {
        let transaction = which.transaction;
        if let Some(live) = self.live(which.stream, transaction) {
            return match live.stage {
                Stage::Creating | Stage::Open => Ok(vec![Event::Aborting { which, reason: Reason::AskedFor }]),
                Stage::Committing { .. } => Err(TransactionError::Over { transaction, how: "being committed" }),
                Stage::Aborting(_) => Ok(Vec::new()),
            };
        }
        match self.ended(which.stream, transaction) {
            Some(Ended { aborted: Some(_), .. }) => Ok(Vec::new()),
            Some(_) => Err(TransactionError::Over { transaction, how: "committed" }),
            None => Err(TransactionError::Unknown(transaction)),
        }
    }

    /// What aborts every open transaction of a stream.
    pub fn abort_all(&self, stream: u32, reason: Reason) -> Vec<Event> {
        let all = self.streams.get(&stream).into_iter().flat_map(|of| of.live.values());
        let aborting = |live: &Live| {
            let which = Which { stream, transaction: live.transaction };
            Event::Aborting { which, reason }
        };
        all.filter(|live| live.is_open()).map(aborting).collect()
    }

    fn expire(&self, now: Timestamp) -> Vec<Event> {
        let all = self.streams.iter().flat_map(|(stream, of)| of.live.values().map(move |live| (*stream, live)));
        let expired = all.filter(|(_, live)| live.expired(now)).map(|(stream, live)| {
            let which = Which { stream, transaction: live.transaction };
            Event::Aborting { which, reason: Reason::LeaseExpired }
        });
        expired.take(ABORTED_AT_ONCE_MAX).collect()
    }

    fn renew(&self) -> Vec<Event> {
        let any = self.streams.values().any(|of| of.live.values().any(Live::is_open));
        if any { vec![Event::LeasesRenewed] } else { Vec::new() }
    }

    fn ended(&self, stream: u32, transaction: TransactionId) -> Option<&Ended> {
        self.streams.get(&stream)?.ended.iter().find(|ended| ended.transaction == transaction)
    }

    /// A transaction that its writer wants to go on with; of one that is over it says how it ended.
    fn wanted(&self, stream: u32, transaction: TransactionId) -> Result<&Live, TransactionError> {
        let over = |how| Err(TransactionError::Over { transaction, how });
        match self.live(stream, transaction) {
            Some(Live { stage: Stage::Aborting(reason), .. }) => over(reason.as_str()),
            Some(live) => Ok(live),
            None => match self.ended(stream, transaction) {
                Some(ended) => over(ended.aborted.map_or("committed", Reason::as_str)),
                None => Err(TransactionError::Unknown(transaction)),
            },
        }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::Begun { stream, index, transaction, epoch, lease_ms, shares } => {
                let live = Live::begun((*transaction, *epoch), *lease_ms, shares.clone(), at);
                let fresh = OfStream {
                    index: index.clone(),
                    next: 0,
                    shadows: 0,
                    live: BTreeMap::new(),
                    ended: VecDeque::new(),
                };
                let of = self.streams.entry(*stream).or_insert(fresh);
                of.next = transaction.0.saturating_add(1);
                let last = shares.last().map_or(of.shadows, |share| share.shadow.number.wrapping_add(1));
                of.shadows = last & !SHADOW;
                of.live.insert(*transaction, live);
                self.live_count += 1;
                self.share_count += shares.len();
            }
            Event::Opened(which) => self.with(*which, |live| live.stage = Stage::Open),
            Event::Pinged { which, lease_ms } => self.with(*which, |live| {
                live.expires = live.lease_end(at, *lease_ms);
                live.lease_ms = *lease_ms;
            }),
            Event::Committing(which) => self.with(*which, |live| live.stage = Stage::Committing { roll: None }),
            Event::Rolling { which, roll } => {
                self.with(*which, |live| live.stage = Stage::Committing { roll: Some(roll.clone()) });
            }
            Event::Rolled { which, targets } => self.with_roll(*which, |roll| roll.targets.clone_from(targets)),
            Event::Merged(which) => self.with_roll(*which, |roll| roll.merged = true),
            Event::Aborting { which, reason } => self.with(*which, |live| live.stage = Stage::Aborting(*reason)),
            Event::Committed(which) | Event::Aborted(which) => self.end(*which, at),
            Event::LeasesRenewed => {
                for live in self.streams.values_mut().flat_map(|of| of.live.values_mut()).filter(|live| live.is_open())
                {
                    live.expires = live.expires.max(live.lease_end(at, live.lease_ms));
                }
            }
        }
    }

    fn with(&mut self, which: Which, change: impl FnOnce(&mut Live)) {
        let live = self.streams.get_mut(&which.stream).and_then(|of| of.live.get_mut(&which.transaction));
        if let Some(live) = live {
            change(live);
        }
    }

    fn with_roll(&mut self, which: Which, change: impl FnOnce(&mut Roll)) {
        self.with(which, |live| {
            if let Stage::Committing { roll: Some(roll) } = &mut live.stage {
                change(roll);
            }
        });
    }

    fn end(&mut self, which: Which, at: Timestamp) {
        let Some(of) = self.streams.get_mut(&which.stream) else { return };
        let Some(live) = of.live.remove(&which.transaction) else { return };
        self.live_count -= 1;
        self.share_count -= live.shares.len();
        let aborted = match live.stage {
            Stage::Aborting(reason) => Some(reason),
            _ => None,
        };
        let (transaction, epoch, begun) = (live.transaction, live.epoch, live.begun);
        of.ended.push_back(Ended { transaction, epoch, begun, at, aborted });
        if of.ended.len() > ENDED_MAX {
            of.ended.pop_front();
        }
    }
}

/// Where the segment of a part is.
pub(crate) fn shadow_place(share: &TransactionShare) -> SegmentPlace {
    SegmentPlace { segment: share.shadow, container: share.container }
}
