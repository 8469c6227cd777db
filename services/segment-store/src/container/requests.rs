//! Changes that callers ask for: each becomes an entry, and is answered when that is durable and applied.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use types::{ByteSize, SegmentId, Timestamp};
use wire::{
    block::Block,
    segment_store::{Append, Appended, Merge, Merged, NewSegment, SegmentInfo, Truncate},
};

use crate::{
    container::{
        BLOCK_BYTES_MAX, Container,
        frame::{Entry, Seeds},
        seeds::{self, Peers},
        state::Effect,
        throttle,
    },
    error::Error,
    metrics,
};

/// One entry on its way to the log.
pub(crate) struct Op {
    pub(crate) entry: Entry,
    pub(crate) deadline: Timestamp,
    pub(crate) reply: oneshot::Sender<Result<Effect, Error>>,
    /// Given back when the entry is done, whatever became of it.
    _held: Option<Held>,
}

/// A place among the appends in flight, and its bytes.
pub(crate) struct Held {
    _permit: OwnedSemaphorePermit,
    bytes: u64,
    queued: Arc<AtomicU64>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Container {
    /// Appends a block; durable in Tier 1 when it returns.
    ///
    /// Order: per writer, by event number. Bounds: [`BLOCK_BYTES_MAX`], [`Limits::appends_max`], [`Limits::tail_bytes_max`].
    /// Errors: `AppendUnknown` unknown - repeat with the same numbers; all others not applied.
    ///
    /// [`Limits::appends_max`]: crate::container::Limits::appends_max
    /// [`Limits::tail_bytes_max`]: crate::container::Limits::tail_bytes_max
    pub async fn append(&self, request: Append, deadline: Timestamp) -> Result<Appended, Error> {
        let found = request.block.len();
        if found > BLOCK_BYTES_MAX {
            let limit = ByteSize(u64::try_from(BLOCK_BYTES_MAX).unwrap_or(u64::MAX));
            return Err(Error::BlockTooLarge { found: ByteSize(u64::try_from(found).unwrap_or(u64::MAX)), limit });
        }
        let block = Block::open(request.block).map_err(|e| Error::BadBlock(e.to_string()))?;
        let Append { segment, writer, first_event_number, expected_end, .. } = request;
        let entry = Entry::Append { segment, writer, first_event_number, expected_end, block };
        let held = self.admit(segment, entry.raw_bytes()).inspect_err(|_| metrics::REFUSALS.with("throttled").inc())?;
        let appended = match self.submit(entry, deadline, Some(held)).await {
            Ok(Effect::Appended { answer, .. }) => Ok(answer),
            Ok(other) => Err(self.unexpected(&other)),
            Err(error) => Err(error),
        };
        // Lanes ask without a door.
        self.sure(appended).await
    }

    /// Creates a segment that knows what writers have in its predecessors; one that is there already is fine.
    pub(crate) async fn create(&self, request: NewSegment, peers: &Peers, deadline: Timestamp) -> Result<(), Error> {
        let NewSegment { segment, index, predecessors, transactional, origin } = request;
        let describe = origin.map(|origin| Entry::Describe { segment, origin });
        let described = self.serving()?.state.segments.get(&segment).map(|s| s.origin.is_some());
        if let Some(described) = described {
            return match describe.filter(|_| !described) {
                Some(describe) => self.submit(describe, deadline, None).await.map(drop),
                None => Ok(()),
            };
        }
        let seeds = if transactional {
            // A transaction's segment follows nothing: its events are numbered by themselves.
            Seeds::default()
        } else {
            seeds::learn(peers, &predecessors, self.clock.as_ref(), deadline).await?
        };
        let entry = Entry::CreateSegment { segment, index, seeds, transactional };
        self.submit_all([entry].into_iter().chain(describe).collect(), deadline).await
    }

    /// Commits entries in their order, in one frame if it has room; the first refusal is the answer.
    async fn submit_all(&self, entries: Vec<Entry>, deadline: Timestamp) -> Result<(), Error> {
        let gone = || self.unavailable("its owner stopped");
        let places = self.ops.reserve_many(entries.len()).await.map_err(|_| gone())?;
        let mut answers = Vec::with_capacity(entries.len());
        for (place, entry) in places.zip(entries) {
            let (reply, answer) = oneshot::channel();
            place.send(Op { entry, deadline, reply, _held: None });
            answers.push(answer);
        }
        for answer in answers {
            if let Effect::Refused(why) = answer.await.map_err(|_| gone())?? {
                return Err(why);
            }
        }
        Ok(())
    }

    /// Seals a segment and describes it.
    pub async fn seal(&self, segment: SegmentId, deadline: Timestamp) -> Result<SegmentInfo, Error> {
        let known = self.serving()?.state.segment(segment).map(|s| s.sealed.then(|| s.info(segment)))?;
        if let Some(known) = known {
            return Ok(known);
        }
        match self.submit(Entry::Seal { segment }, deadline, None).await? {
            Effect::Sealed(brief) => Ok(self.describe(segment).unwrap_or(brief)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Makes a segment begin later, and describes it; a start that it has passed already changes nothing.
    pub async fn truncate(&self, request: Truncate, deadline: Timestamp) -> Result<SegmentInfo, Error> {
        let Truncate { segment, before } = request;
        let known = self.serving()?.state.segment(segment).map(|s| (s.start >= before).then(|| s.info(segment)))?;
        if let Some(known) = known {
            return Ok(known);
        }
        let entry = Entry::Truncate { segment, before, at: self.clock.now() };
        match self.submit(entry, deadline, None).await? {
            Effect::Truncated(brief) => {
                self.kick.notify_one();
                Ok(self.describe(segment).unwrap_or(brief))
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Adds the events of a transaction's segment to the end of another one; a repeat says where they are.
    pub async fn merge(&self, request: Merge, deadline: Timestamp) -> Result<Merged, Error> {
        let Merge { segment, source } = request;
        match self.submit(Entry::Merge { segment, source }, deadline, None).await? {
            Effect::Merged(merged) => Ok(merged),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Deletes a segment; its objects go afterwards.
    pub async fn delete(&self, segment: SegmentId, deadline: Timestamp) -> Result<(), Error> {
        // Also where it is not known: a creation of it may be on its way to the log, and must not come behind.
        let entry = Entry::Delete { segment, at: self.clock.now() };
        self.submit(entry, deadline, None).await.map(drop)
    }

    /// Commits an entry of the container itself, in its turn; waits for a place in the queue.
    pub(crate) async fn submit(&self, entry: Entry, deadline: Timestamp, held: Option<Held>) -> Result<Effect, Error> {
        drop(self.serving()?);
        let (reply, answer) = oneshot::channel();
        let gone = || self.unavailable("its owner stopped");
        self.ops.send(Op { entry, deadline, reply, _held: held }).await.map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())?? {
            Effect::Refused(why) => Err(why),
            effect => Ok(effect),
        }
    }

    /// The gate through which every answer leaves that a segment does not exist: whoever lost the container may not have
    /// heard of a new one, so that its owner record is looked at first.
    ///
    /// Nobody else makes [`Error::UnknownSegment`] of [`Error::NotHere`]; an answer that missed the gate is no certain one.
    pub(crate) async fn sure<T>(&self, answer: Result<T, Error>) -> Result<T, Error> {
        let Err(Error::NotHere(segment)) = answer else { return answer };
        let owner = match self.log.get() {
            Some(log) => log.owner().await.ok(),
            None => None,
        };
        Err(match owner {
            Some(Some((_, record))) if record.generation == self.generation => Error::UnknownSegment(segment),
            Some(_) => Error::Fenced(self.id),
            None => self.unavailable("its owner record cannot be read"),
        })
    }

    fn admit(&self, segment: SegmentId, bytes: usize) -> Result<Held, Error> {
        let throttled = |limit| Error::Throttled { container: self.id, limit };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let (tail, log) = {
            let books = self.serving()?;
            let transactional = books.state.segment(segment).is_ok_and(|s| s.transactional);
            // Half of the tail is for what can go to Tier 2: else open transactions would wait for each other.
            if transactional && books.tail.withheld_bytes() + bytes > self.limits.tail_bytes_max / 2 {
                return Err(Error::TransactionTooLarge(segment));
            }
            (books.tail.bytes(), books.log.held())
        };
        if tail + self.queued.load(Ordering::Relaxed) + bytes > self.limits.tail_bytes_max {
            self.kick.notify_one();
            return Err(throttled("tail_bytes_max of events wait for object storage"));
        }
        if log > self.limits.log_bytes_max / 4 * 3 {
            self.kick.notify_one();
            return Err(throttled("its log is nearly full and waits for a snapshot"));
        }
        let permit = self.places.clone().try_acquire_owned();
        let permit = permit.map_err(|_| throttled("appends_in_flight_max appends are in flight"))?;
        self.queued.fetch_add(bytes, Ordering::Relaxed);
        Ok(Held { _permit: permit, bytes, queued: self.queued.clone() })
    }

    /// How long the next frame with appends waits.
    pub(crate) fn delay(&self) -> std::time::Duration {
        let used = self.books.read().tail.bytes() + self.queued.load(Ordering::Relaxed);
        throttle::delay(used, self.limits.tail_bytes_max)
    }

    fn unexpected(&self, effect: &Effect) -> Error {
        debug_assert!(false, "an entry had the effect {effect:?} of another kind");
        Error::AppendUnknown(self.id)
    }
}
