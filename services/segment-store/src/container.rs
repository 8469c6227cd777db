//! One owned segment container: what callers may ask of it, whichever task does the work.
//!
//! The owner (`owner`) writes frames and applies them; the storage writer (`tiering`) moves events to Tier 2; both
//! share the books: the state and the tail under one lock, so that a reader never sees an event twice or not at all.

pub(crate) mod adopt;
pub(crate) mod archive;
pub(crate) mod books;
pub(crate) mod columns;
pub(crate) mod compaction;
pub(crate) mod compactor;
pub(crate) mod fence;
pub mod frame;
pub(crate) mod garbage;
mod inspect;
pub(crate) mod load;
pub(crate) mod outside;
pub(crate) mod owner;
pub(crate) mod read;
pub mod recent;
pub(crate) mod recovery;
mod requests;
pub(crate) mod seeds;
pub(crate) mod snapshots;
pub mod state;
pub mod tail;
mod throttle;
pub(crate) mod tier2;
pub(crate) mod tiering;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bus::ContainerLog;
use parking_lot::RwLock;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use types::{Clock, ContainerId, Generation, ReplicaId};

pub(crate) use requests::Op;

use crate::{
    config::Config,
    container::{
        books::{Books, Phase},
        columns::Answers,
        tail::FlushRule,
    },
    error::Error,
    metrics,
};

/// Largest block of one append: an event of 1 MiB, and as much again of smaller ones.
pub const BLOCK_BYTES_MAX: usize = 2 << 20;

/// Room in the queue for the container's own entries besides the appends in flight.
const OWN_ENTRIES_MAX: usize = 16;

/// A log takes so many times [`Limits::tail_bytes_max`], and JetStream reserves that for it.
///
/// What holds the log back are the events that are not in Tier 2 and the oldest of three snapshots. Both are ends of the
/// same log, so that the longer one counts: a whole tail, or three snapshots a quarter of a tail apart. Once more than one
/// tail is held, whatever is oldest goes to Tier 2 or to the end of the log, snapshots follow one another, and at one and a
/// half tails appends are throttled. The last half is for what is on its way then, and for open transactions to be
/// carried.
const LOG_TAILS: u64 = 2;

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
    /// How long an object stays that nothing names any more.
    pub garbage_delay: Duration,
    /// Capacity of the log, twice that of the tail; appends are throttled at three quarters of it.
    pub log_bytes_max: u64,
    /// Time between two notices of how much segments take.
    pub load_interval: Duration,
    /// Time between two copies of a segment to its archive while there is little to copy.
    pub archive_interval: Duration,
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
            // Three snapshots hold the log back.
            snapshot_bytes: tail_bytes_max / 4,
            snapshot_interval,
            garbage_delay: config.garbage_delay.0,
            log_bytes_max: tail_bytes_max.saturating_mul(LOG_TAILS),
            load_interval: config.load_interval.0,
            archive_interval: config.archive.interval.0,
        }
    }
}

/// A container of this replica; cheap to clone.
#[derive(Clone)]
pub struct Container(Arc<Shared>);

/// What the tasks of a container share.
pub struct Shared {
    pub(crate) id: ContainerId,
    pub(crate) generation: Generation,
    pub(crate) replica: ReplicaId,
    pub(crate) fence: fence::Fence,
    pub(crate) limits: Limits,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) books: RwLock<Books>,
    pub(crate) answers: Answers,
    /// Tells the storage writer to look now.
    pub(crate) kick: Notify,
    /// Tells the archive worker that there is a new chunk.
    pub(crate) chunked: Notify,
    /// Its log, to ask who owns the container; set once it is open.
    pub(crate) log: OnceLock<ContainerLog>,
    /// The frame up to which somebody wants everything to be in Tier 2 and in a snapshot.
    pub(crate) flush_wanted: AtomicU64,
    /// The frame up to which the storage writer has done that.
    pub(crate) flushed: watch::Sender<u64>,
    /// The log refused a frame for want of room, and was not purged since.
    pub(crate) log_full: AtomicBool,
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
        (id, generation): (ContainerId, Generation),
        replica: ReplicaId,
        limits: Limits,
        clock: Arc<dyn Clock>,
        answers: Answers,
    ) -> (Self, mpsc::Receiver<Op>) {
        let (ops, queue) = mpsc::channel(limits.appends_max + OWN_ENTRIES_MAX);
        let shared = Shared {
            id,
            generation,
            replica,
            fence: fence::Fence::default(),
            limits,
            clock,
            books: RwLock::new(Books::new(id, limits.log_bytes_max)),
            answers,
            kick: Notify::new(),
            chunked: Notify::new(),
            log: OnceLock::new(),
            flush_wanted: AtomicU64::new(0),
            flushed: watch::Sender::new(0),
            log_full: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            ops,
            places: Arc::new(Semaphore::new(limits.appends_max)),
            queued: Arc::default(),
        };
        (Self(Arc::new(shared)), queue)
    }

    /// The sequence below which the log should hold nothing that could be elsewhere: half of what it takes stands behind.
    pub(crate) fn overdue(&self, books: &Books) -> u64 {
        books.log.behind(self.limits.log_bytes_max / 2)
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

    /// Parks no more requests, and ends those that are parked.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.flushed.send_modify(|_| {});
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
