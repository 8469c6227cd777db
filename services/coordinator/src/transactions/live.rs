//! One transaction that has not ended, and what comes next for one that is being committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use types::{ContainerId, IndexName, KeyRange, SegmentId, Timestamp, TransactionId};
use wire::coordinator::{SegmentRange, Transaction, TransactionPhase, TransactionShare};

use super::{LIFE_LEASES_MAX, LIFE_MAX};
use crate::Stream;

/// Why a transaction is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Its writer did not ping in time, or it was open for too long.
    LeaseExpired,
    /// Somebody wanted it.
    AskedFor,
    /// Its stream takes no events any more.
    StreamSealed,
}

impl Reason {
    /// For a person.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseExpired => "lease expired",
            Self::AskedFor => "asked for",
            Self::StreamSealed => "stream sealed",
        }
    }
}

/// How far a transaction is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Its shadow segments are being created.
    Creating,
    /// Takes events.
    Open,
    /// Will be visible.
    Committing {
        /// How its parts come into segments that were sealed since; `None`: none was, or it was not looked at yet.
        roll: Option<Roll>,
    },
    /// Will never be visible.
    Aborting(Reason),
}

/// The plan for a transaction whose segments were sealed since it was opened: an epoch with its ranges, and then one with the ranges
/// that there were before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// The epoch when this was planned.
    pub epoch: u32,
    /// Present segments that give way.
    pub seal: Vec<SegmentId>,
    /// The parts that need a new segment.
    pub shares: Vec<TransactionShare>,
    /// The ranges of the segments that give way.
    pub restore: Vec<KeyRange>,
    /// The segments that were opened, one for each of `shares`; empty until then.
    pub targets: Vec<SegmentRange>,
    /// Whether all parts are merged.
    pub merged: bool,
}

impl Roll {
    /// Where the segments have to be into which the parts are merged.
    pub fn containers(&self) -> Vec<ContainerId> {
        self.shares.iter().map(|share| share.container).collect()
    }

    /// Whether the ranges are the same before and after, so that nothing has to be restored.
    fn changes_ranges(&self) -> bool {
        let mut before = self.restore.clone();
        let mut after: Vec<_> = self.shares.iter().map(|share| share.range).collect();
        before.sort_unstable();
        after.sort_unstable();
        before != after
    }
}

/// What comes next for a transaction that is being committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A scale must end first.
    Wait,
    /// Write down this plan.
    Plan(Roll),
    /// Open the planned epoch: replace these segments by the ranges of these parts, in their containers.
    Open(Roll),
    /// Write down that the planned epoch is open with these segments.
    TakeUp(Vec<SegmentRange>),
    /// Merge each part into its segment; then either the transaction was rolled and that has to be written down, or it is committed.
    Merge {
        /// Each part with where it goes.
        parts: Vec<(TransactionShare, SegmentId)>,
        /// Whether the segments were opened for it.
        rolled: bool,
    },
    /// Replace the segments that were opened by the ranges that there were before.
    Restore {
        /// The opened segments.
        seal: Vec<SegmentId>,
        /// The ranges that there were before.
        ranges: Vec<KeyRange>,
    },
    /// Everything is done; write it down.
    End,
}

/// What a decision has to know of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    /// The stream.
    pub stream: u32,
    /// Its epoch.
    pub epoch: u32,
    /// Its present segments by range.
    pub segments: &'a [SegmentRange],
    /// Whether a scale was begun and has not ended.
    pub scaling: bool,
    /// Whether it takes no appends, now or soon.
    pub sealed: bool,
    /// How many segments a commit may begin.
    pub room: usize,
    /// The number of the first shadow of its first transaction: above those of a stream that had its number before it came
    /// back, for containers take no segment again that was deleted.
    pub first_shadow: u32,
}

/// A transaction that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The transaction.
    pub transaction: TransactionId,
    /// The epoch in which it was opened.
    pub epoch: u32,
    /// How far it is.
    pub stage: Stage,
    /// Its parts.
    pub shares: Vec<TransactionShare>,
    /// When it was begun.
    pub begun: Timestamp,
    /// The lease that it was given last.
    pub lease_ms: u32,
    /// When its lease ends.
    pub expires: Timestamp,
    /// When its last lease ends at the latest.
    pub ends: Timestamp,
}

impl Live {
    pub(super) fn begun(
        (transaction, epoch): (TransactionId, u32),
        lease_ms: u32,
        shares: Vec<TransactionShare>,
        at: Timestamp,
    ) -> Self {
        let lease = Duration::from_millis(lease_ms.into());
        let ends = at + LIFE_MAX.min(lease * LIFE_LEASES_MAX);
        Self { transaction, epoch, stage: Stage::Creating, shares, begun: at, lease_ms, expires: at + lease, ends }
    }

    /// When a lease that is given now ends.
    pub(super) fn lease_end(&self, now: Timestamp, lease_ms: u32) -> Timestamp {
        (now + Duration::from_millis(lease_ms.into())).min(self.ends)
    }

    /// Whether nothing was decided yet.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Creating | Stage::Open)
    }

    pub(super) fn expired(&self, now: Timestamp) -> bool {
        self.is_open() && self.expires <= now
    }

    /// What others see of it.
    pub fn describe(&self, index: &IndexName) -> Transaction {
        let (phase, reason) = match self.stage {
            Stage::Creating | Stage::Open => (TransactionPhase::Open, None),
            Stage::Committing { .. } => (TransactionPhase::Committing, None),
            Stage::Aborting(reason) => (TransactionPhase::Aborting, Some(reason.as_str().to_owned())),
        };
        Transaction {
            index: index.clone(),
            transaction: self.transaction,
            epoch: self.epoch,
            phase,
            shares: self.shares.clone(),
            begun: self.begun,
            expires: self.expires,
            reason,
        }
    }

    /// What comes next while it is being committed; `None` when it is not.
    ///
    /// It is told from the journal alone, so that a step that was done and not written down is found done, or repeated: merges and
    /// scales bear that. Order: no scale but the transaction's own begins while it is being committed.
    pub fn step(&self, present: Present<'_>) -> Option<Step> {
        let Stage::Committing { roll } = &self.stage else { return None };
        if present.scaling {
            return Some(Step::Wait);
        }
        let Some(roll) = roll else {
            if self.shares.iter().all(|share| present.holds(share.segment, share.range)) {
                let parts = self.shares.iter().map(|share| (*share, share.segment)).collect();
                return Some(Step::Merge { parts, rolled: false });
            }
            return Some(Step::Plan(self.plan(present)));
        };
        if roll.targets.is_empty() {
            return Some(match opened(roll, present) {
                Some(targets) => Step::TakeUp(targets),
                None => Step::Open(roll.clone()),
            });
        }
        if !roll.merged {
            let rolled: BTreeMap<_, _> = roll.shares.iter().map(|part| part.shadow).zip(&roll.targets).collect();
            let target_of = |share: &TransactionShare| {
                (*share, rolled.get(&share.shadow).map_or(share.segment, |target| target.segment))
            };
            return Some(Step::Merge { parts: self.shares.iter().map(target_of).collect(), rolled: true });
        }
        if roll.changes_ranges() && roll.targets.iter().all(|target| present.holds(target.segment, target.range)) {
            let targets = roll.targets.iter().map(|target| target.segment).collect();
            return Some(Step::Restore { seal: targets, ranges: roll.restore.clone() });
        }
        Some(Step::End)
    }

    /// How many segments its commit begins: none while all segments are there over which it was opened.
    pub(super) fn begun_by_commit(&self, present: Present<'_>) -> usize {
        let roll = self.plan(present);
        roll.shares.len() + if roll.changes_ranges() { roll.restore.len() } else { 0 }
    }

    /// Parts whose segment is still there are merged into it. The rest of the key space is covered once by the other present segments
    /// and once by the other parts, so that the latter can take the place of the former.
    fn plan(&self, present: Present<'_>) -> Roll {
        let parents: BTreeSet<_> = self.shares.iter().map(|share| share.segment).collect();
        let giving_way: Vec<_> = present.segments.iter().filter(|there| !parents.contains(&there.segment)).collect();
        let gone = |share: &&TransactionShare| !present.holds(share.segment, share.range);
        Roll {
            epoch: present.epoch,
            seal: giving_way.iter().map(|there| there.segment).collect(),
            shares: self.shares.iter().filter(gone).copied().collect(),
            restore: giving_way.iter().map(|there| there.range).collect(),
            targets: Vec::new(),
            merged: false,
        }
    }
}

/// The segments of a planned epoch, if it is open.
fn opened(roll: &Roll, present: Present<'_>) -> Option<Vec<SegmentRange>> {
    let opened_for = |share: &TransactionShare| {
        let there = present.at(share.range)?;
        (there.segment.epoch > roll.epoch && there.container == share.container).then_some(there)
    };
    roll.shares.iter().map(opened_for).collect()
}

impl<'a> Present<'a> {
    /// What `stream` is now; `segments` are its present ones, or none where nobody looks at them.
    pub fn of(stream: &Stream, segments: &'a [SegmentRange]) -> Self {
        let graph = stream.graph();
        let (scaling, sealed, room) = (graph.scaling().is_some(), stream.is_ending(), graph.commit_room());
        let (stream, epoch, first_shadow) = (graph.stream(), graph.epoch(), graph.next_number());
        Self { stream, epoch, segments, scaling, sealed, room, first_shadow }
    }
}

impl Present<'_> {
    /// The present segment with exactly this range.
    fn at(&self, range: KeyRange) -> Option<SegmentRange> {
        let near = self.segments.binary_search_by_key(&range, |there| there.range).ok()?;
        self.segments.get(near).copied()
    }

    fn holds(&self, segment: SegmentId, range: KeyRange) -> bool {
        self.at(range).is_some_and(|there| there.segment == segment)
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) transaction: TransactionId,
    pub(super) epoch: u32,
    pub(super) begun: Timestamp,
    pub(super) at: Timestamp,
    /// `None`: committed.
    pub(super) aborted: Option<Reason>,
}

impl Ended {
    pub(super) fn describe(&self, index: &IndexName) -> Transaction {
        Transaction {
            index: index.clone(),
            transaction: self.transaction,
            epoch: self.epoch,
            phase: if self.aborted.is_some() { TransactionPhase::Aborted } else { TransactionPhase::Committed },
            shares: Vec::new(),
            begun: self.begun,
            expires: self.at,
            reason: self.aborted.map(|reason| reason.as_str().to_owned()),
        }
    }
}
