//! What a write is answered with: something to await, shared by the events of a block.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use types::{Offset, Position, SegmentId};

use super::block::{Fate, Run};
use crate::error::WriteError;

/// The fate of events that were gathered together.
#[derive(Debug, Default)]
pub(super) struct Slot {
    settled: Mutex<Vec<Settled>>,
    changed: Notify,
    /// The batch that last touched it and the place of its part there; changed under the plan's lock only.
    batch: AtomicU64,
    part: AtomicU64,
}

/// What became of events with consecutive places.
#[derive(Debug)]
struct Settled {
    first: u32,
    count: u32,
    fate: Result<Option<Position>, WriteError>,
}

impl Slot {
    fn settled(&self) -> MutexGuard<'_, Vec<Settled>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, first: u32, count: u32, fate: Result<Option<Position>, WriteError>) {
        self.settled().push(Settled { first, count, fate });
        self.changed.notify_waiters();
    }

    /// What became of the event at a place; `None` while it waits.
    fn fate(&self, place: u32) -> Option<Result<Option<Position>, WriteError>> {
        let settled = self.settled();
        let run = settled.iter().find(|run| (run.first..run.first + run.count).contains(&place))?;
        let behind = |from: Position| Position { offset: from.offset + u64::from(place - run.first), ..from };
        Some(run.fate.clone().map(|from| from.map(behind)))
    }

    /// What became of the events at the places `first .. first + count`; the first error of any.
    fn fate_of_all(&self, first: u32, count: u32) -> Option<Result<(), WriteError>> {
        let settled = self.settled();
        let end = first + count;
        let within = |run: &&Settled| run.first < end && first < run.first + run.count;
        let done: u32 =
            settled.iter().filter(within).map(|run| (run.first + run.count).min(end) - run.first.max(first)).sum();
        let failed = || settled.iter().filter(within).find_map(|run| run.fate.as_ref().err().cloned());
        (done == count).then(|| failed().map_or(Ok(()), Err))
    }

    async fn wait<T>(&self, look: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Listen first, then look: what is settled in between is not missed.
            changed.as_mut().enable();
            match look(self) {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }
}

impl Fate for Arc<Slot> {
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }

    fn stored(&self, first: u32, segment: SegmentId, count: u32, offsets: &[Option<Offset>]) {
        let mut at = 0;
        let mut rest = offsets;
        // One stretch, unless somebody else's events came between.
        while let Some(begin) = rest.first() {
            let follows = |(n, offset): (u64, &Option<Offset>)| *offset == begin.map(|from| from + n);
            let length = (0u64..).zip(rest).take_while(|found| follows(*found)).count();
            let stretch = u32::try_from(length).unwrap_or(u32::MAX);
            self.settle(first + at, stretch, Ok(begin.map(|offset| Position { segment, offset })));
            at += stretch;
            rest = &rest[length..];
        }
        if at < count {
            self.settle(first + at, count - at, Ok(None));
        }
    }

    fn failed(&self, first: u32, count: u32, error: &WriteError) {
        self.settle(first, count, Err(error.clone()));
    }
}

/// The acknowledgement of one event; await it, or drop it.
///
/// `Ok` means that the event is durable, exactly once. It holds the event's position; `None` where only that it is stored
/// is known, and not where, because an acknowledgement was lost.
///
/// Cheap: the events of a block share one allocation.
#[derive(Debug, Clone)]
#[must_use = "an event is durable when its receipt says so; use `flush` if single receipts do not matter"]
pub struct Receipt {
    slot: Arc<Slot>,
    place: u32,
}

impl Receipt {
    pub(super) fn new(slot: Arc<Slot>, place: u32) -> Self {
        Self { slot, place }
    }

    /// What is known at this moment; `None` while the event waits.
    pub fn now(&self) -> Option<Result<Option<Position>, WriteError>> {
        self.slot.fate(self.place)
    }
}

impl IntoFuture for Receipt {
    type Output = Result<Option<Position>, WriteError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.slot.wait(|slot| slot.fate(self.place)).await })
    }
}

/// The acknowledgement of a batch: `Ok` when every event of it is durable, else the first error.
#[derive(Debug, Clone, Default)]
#[must_use = "a batch is durable when its receipt says so; use `flush` if single receipts do not matter"]
pub struct BatchReceipt {
    parts: Vec<Part>,
    count: u64,
}

#[derive(Debug, Clone)]
struct Part {
    slot: Arc<Slot>,
    first: u32,
    count: u32,
}

impl BatchReceipt {
    /// Stands for events that are waiting already.
    pub(super) fn of(runs: Vec<Run<Arc<Slot>>>) -> Self {
        let count = runs.iter().map(|run| u64::from(run.count)).sum();
        let part = |run: Run<Arc<Slot>>| Part { slot: run.fate, first: run.first, count: run.count };
        Self { parts: runs.into_iter().map(part).collect(), count }
    }

    /// Counts an event in; `batch` is unique to a stretch in which nobody else writes.
    pub(super) fn add(&mut self, batch: u64, slot: &Arc<Slot>, place: u32) {
        self.count += 1;
        if slot.batch.load(Ordering::Relaxed) == batch {
            let part = usize::try_from(slot.part.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
            if let Some(part) = self.parts.get_mut(part) {
                part.count += 1;
                return;
            }
        }
        slot.batch.store(batch, Ordering::Relaxed);
        slot.part.store(u64::try_from(self.parts.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.parts.push(Part { slot: slot.clone(), first: place, count: 1 });
    }

    /// How many events it stands for.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether the batch was empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl IntoFuture for BatchReceipt {
    type Output = Result<(), WriteError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut all = Ok(());
            for Part { slot, first, count } in self.parts {
                let part = slot.wait(|slot| slot.fate_of_all(first, count)).await;
                all = all.and(part);
            }
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use wire::Outcome;

    use super::*;
    use crate::error::WriteCause;

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    fn at(offset: Offset) -> Option<Result<Option<Position>, WriteError>> {
        Some(Ok(Some(Position { segment: SEGMENT, offset })))
    }

    #[tokio::test]
    async fn each_event_learns_where_it_is() {
        let slot = Arc::new(Slot::default());
        let receipts: Vec<_> = (0..6).map(|place| Receipt::new(slot.clone(), place)).collect();
        let last = tokio::spawn(receipts[5].clone().into_future());
        slot.stored(0, SEGMENT, 4, &[Some(7), Some(8), None, Some(20)]);
        slot.stored(4, SEGMENT, 1, &[]);
        let now: Vec<_> = receipts.iter().map(Receipt::now).collect();
        assert_eq!(now, [at(7), at(8), Some(Ok(None)), at(20), Some(Ok(None)), None]);
        slot.failed(5, 1, &WriteError::unknown(WriteCause::Closed));
        assert_eq!(last.await.unwrap().unwrap_err().outcome, Outcome::Unknown);
    }

    #[tokio::test]
    async fn a_batch_is_done_when_its_own_events_are() {
        let slot = Arc::new(Slot::default());
        let mut batch = BatchReceipt::default();
        // Places 2 to 4 are the batch's; 0, 1 and 5 are somebody else's.
        for place in 2..5 {
            batch.add(1, &slot, place);
        }
        assert_eq!((batch.len(), batch.parts.len()), (3, 1));
        slot.stored(0, SEGMENT, 3, &[]);
        slot.failed(5, 1, &WriteError::not_applied(WriteCause::Closed));
        assert!(slot.fate_of_all(2, 3).is_none());
        slot.stored(3, SEGMENT, 2, &[]);
        batch.await.unwrap();
        assert!(BatchReceipt::default().await.is_ok());
    }
}
