//! One owned segment container: what callers may ask of it, whichever task does the work.
//!
//! The owner (`owner`) writes frames and applies them; the storage writer (`tiering`) moves events to Tier 2; both
//! share the books: the state and the tail under one lock, so that a reader never sees an event twice or not at all.

pub(crate) mod books;
pub(crate) mod columns;
pub mod frame;
pub(crate) mod owner;
pub(crate) mod read;
pub mod recent;
pub(crate) mod recovery;
pub(crate) mod snapshots;
pub mod state;
pub mod tail;
pub(crate) mod tiering;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use types::{ByteSize, Clock, ContainerId, Generation, SegmentId, Timestamp, WriterId};
use wire::{
    block::Block,
    segment_store::{Append, Appended, NewSegment, SegmentInfo, WriterInfo},
};

use crate::{
    config::Config,
    container::{
        books::{Books, Phase},
        columns::Answers,
        frame::Entry,
        state::Effect,
        tail::FlushRule,
    },
    error::Error,
    metrics,
};

/// Largest block of one append: an event of 1 MiB, and as much again of smaller ones.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// Room in the queue for the container's own entries besides the appends in flight.
const OWN_ENTRIES_MAX: usize = 16;

/// The sizes and times by which a container works.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Frames are closed at this size.
    pub frame_bytes_max: usize,
    /// Or after this time.
    pub frame_linger: Duration,
    /// When events go to Tier 2.
    pub flush: FlushRule,
    /// Bytes of one chunk before encoding, at most about this.
    pub chunk_bytes_max: u64,
    /// Un-tiered bytes from which appends are throttled.
    pub tail_bytes_max: u64,
    /// Appends in flight.
    pub appends_max: usize,
    /// Frames between snapshots.
    pub snapshot_frames: u64,
    /// Bytes of frames between snapshots.
    pub snapshot_bytes: u64,
    /// Longest time between snapshots while something changes.
    pub snapshot_interval: Duration,
    /// Capacity of the log; appends are throttled at three quarters of it, so that chunks can always be committed.
    pub log_bytes_max: u64,
}

impl Limits {
    /// What the settings say.
    pub fn of(config: &Config, snapshot_interval: Duration) -> Self {
        let tail_bytes_max = config.tail_bytes_max.0;
        Self {
            frame_bytes_max: usize::try_from(config.frame_bytes_max.0).unwrap_or(1 << 20),
            frame_linger: config.frame_linger.0,
            flush: FlushRule {
                bytes: config.flush_bytes.0,
                age: config.flush_interval.0,
                total: tail_bytes_max / 4 * 3,
            },
            chunk_bytes_max: config.flush_bytes.0.saturating_mul(2),
            tail_bytes_max,
            appends_max: usize::try_from(config.appends_in_flight_max).unwrap_or(1024),
            snapshot_frames: config.snapshot_frames,
            // Three snapshots hold the log back: with half a tail between them that is one and a half tails.
            snapshot_bytes: tail_bytes_max / 2,
            snapshot_interval,
            log_bytes_max: tail_bytes_max.saturating_mul(4),
        }
    }
}

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

/// A container of this replica; cheap to clone.
#[derive(Clone)]
pub struct Container(Arc<Shared>);

/// What the tasks of a container share.
pub struct Shared {
    pub(crate) id: ContainerId,
    pub(crate) generation: Generation,
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) books: RwLock<Books>,
    pub(crate) answers: Answers,
    /// Tells the storage writer to look now.
    pub(crate) kick: Notify,
    /// Parked reads are answered at once.
    pub(crate) draining: AtomicBool,
    ops: mpsc::Sender<Op>,
    places: Arc<Semaphore>,
    queued: Arc<AtomicU64>,
}

impl std::ops::Deref for Container {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Container {
    /// A container that is not recovered yet, and the queue that its owner serves.
    pub(crate) fn new(
        id: ContainerId,
        generation: Generation,
        limits: Limits,
        clock: Arc<dyn Clock>,
        answers: Answers,
    ) -> (Self, mpsc::Receiver<Op>) {
        let (ops, queue) = mpsc::channel(limits.appends_max + OWN_ENTRIES_MAX);
        let shared = Shared {
            id,
            generation,
            limits,
            clock,
            books: RwLock::new(Books::new(id)),
            answers,
            kick: Notify::new(),
            draining: AtomicBool::new(false),
            ops,
            places: Arc::new(Semaphore::new(limits.appends_max)),
            queued: Arc::default(),
        };
        (Self(Arc::new(shared)), queue)
    }

    /// Appends a block; durable in Tier 1 when it returns.
    ///
    /// Order: per writer, by event number. Bounds: [`BLOCK_BYTES_MAX`], [`Limits::appends_max`], [`Limits::tail_bytes_max`].
    /// Errors: `AppendUnknown` unknown - repeat with the same numbers; all others not applied.
    pub async fn append(&self, request: Append, deadline: Timestamp) -> Result<Appended, Error> {
        let found = request.block.len();
        if found > BLOCK_BYTES_MAX {
            let limit = ByteSize(u64::try_from(BLOCK_BYTES_MAX).unwrap_or(u64::MAX));
            return Err(Error::BlockTooLarge { found: ByteSize(u64::try_from(found).unwrap_or(u64::MAX)), limit });
        }
        let block = Block::open(request.block).map_err(|e| Error::BadBlock(e.to_string()))?;
        let Append { segment, writer, first_event_number, .. } = request;
        let entry = Entry::Append { segment, writer, first_event_number, block };
        let held = self.admit(entry.raw_bytes()).inspect_err(|_| metrics::REFUSALS.with("throttled").inc())?;
        match self.submit(entry, deadline, Some(held)).await? {
            Effect::Appended { answer, .. } => Ok(answer),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Creates a segment; one that is there already is fine.
    pub async fn create(&self, request: NewSegment, deadline: Timestamp) -> Result<(), Error> {
        if self.serving()?.state.segments.contains_key(&request.segment) {
            return Ok(());
        }
        let entry = Entry::CreateSegment { segment: request.segment, index: request.index };
        self.submit(entry, deadline, None).await.map(drop)
    }

    /// Seals a segment and describes it.
    pub async fn seal(&self, segment: SegmentId, deadline: Timestamp) -> Result<SegmentInfo, Error> {
        let known = self.serving()?.state.segment(segment).map(|s| s.info(segment))?;
        if known.sealed {
            return Ok(known);
        }
        match self.submit(Entry::Seal { segment }, deadline, None).await? {
            Effect::Sealed(info) => Ok(info),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Deletes a segment; its objects go afterwards.
    pub async fn delete(&self, segment: SegmentId, deadline: Timestamp) -> Result<(), Error> {
        if !self.serving()?.state.segments.contains_key(&segment) {
            return Ok(());
        }
        self.submit(Entry::Delete { segment }, deadline, None).await.map(drop)
    }

    /// Describes a segment.
    pub fn describe(&self, segment: SegmentId) -> Result<SegmentInfo, Error> {
        self.readable()?.state.segment(segment).map(|s| s.info(segment))
    }

    /// What a writer has in a segment.
    pub fn writer(&self, segment: SegmentId, writer: &WriterId) -> Result<WriterInfo, Error> {
        let books = self.readable()?;
        let last_event_number = books.state.segment(segment)?.writers.get(writer).map_or(0, |w| w.last);
        Ok(WriterInfo { last_event_number })
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

    fn admit(&self, bytes: usize) -> Result<Held, Error> {
        let throttled = |limit| Error::Throttled { container: self.id, limit };
        let (tail, log) = {
            let books = self.serving()?;
            (books.tail.bytes(), books.log.held())
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
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

    /// The books, if changes are taken.
    fn serving(&self) -> Result<parking_lot::RwLockReadGuard<'_, Books>, Error> {
        let books = self.readable()?;
        match &books.phase {
            Phase::ReadOnly(damage) => Err(Error::ReadOnly { container: self.id, damage: damage.clone() }),
            _ => Ok(books),
        }
    }

    /// The books, if they may be looked at.
    pub(crate) fn readable(&self) -> Result<parking_lot::RwLockReadGuard<'_, Books>, Error> {
        let books = self.books.read();
        match &books.phase {
            Phase::Recovering => Err(self.unavailable("it is being recovered")),
            Phase::Over => Err(self.unavailable("its owner stopped")),
            Phase::Serving | Phase::ReadOnly(_) => Ok(books),
        }
    }

    pub(crate) fn unavailable(&self, why: &str) -> Error {
        Error::Unavailable { container: self.id, why: why.to_owned() }
    }

    fn unexpected(&self, effect: &Effect) -> Error {
        debug_assert!(false, "an entry had the effect {effect:?} of another kind");
        Error::AppendUnknown(self.id)
    }

    /// Parks no more reads, and ends those that are parked.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.books.read().tail.notify_all();
    }

    /// Ends all service: parked readers and queued entries learn it.
    pub(crate) fn close(&self) {
        let mut books = self.books.write();
        if matches!(books.phase, Phase::ReadOnly(_)) {
            metrics::READ_ONLY.add(-1);
        }
        books.phase = Phase::Over;
        books.tail.notify_all();
    }
}
