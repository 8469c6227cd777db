//! A writer that says by itself how far its event times are.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bus::SystemClock;
use tokio::time::{MissedTickBehavior, interval};
use types::{Clock, IndexName, Timestamp, WriterId};

use super::{engine::Shared, receipt::BatchReceipt};
use crate::{Client, WRITER_SILENT_AFTER};

/// Reads the time of an event; `None` where it has none.
type TimeOf = dyn Fn(&[u8]) -> Option<Timestamp> + Send + Sync;

/// How a writer notes time by itself, see [`WriterOptions::note_time`](crate::WriterOptions::note_time).
///
/// Every few seconds it says that it is done with everything up to a time, as soon as all that it had written by then is
/// durable; and again when it is closed, after which it is not waited for any more. What readers make of it:
/// [`Client::time_window`].
///
/// ```
/// use std::time::Duration;
/// use client::{NoteTime, WriterOptions};
/// use types::Timestamp;
///
/// # fn options(writer: types::WriterId) -> WriterOptions {
/// // Events are written as they happen, at most 2 s late.
/// let live = NoteTime::of_clock(Duration::from_secs(2));
/// // Events bring their times with them, and may come 10 s out of order.
/// let millis = |event: &[u8]| Some(Timestamp::from_millis(std::str::from_utf8(event).ok()?.split(' ').next()?.parse().ok()?));
/// let replayed = NoteTime::of_events(millis, Duration::from_secs(10));
/// # let _ = live;
/// WriterOptions { note_time: Some(replayed), ..WriterOptions::new(writer) }
/// # }
/// ```
#[derive(Clone)]
pub struct NoteTime {
    /// `None`: the clock.
    time_of: Option<Arc<TimeOf>>,
    late_by: Duration,
    every: Duration,
}

impl NoteTime {
    /// Says that everything up to `late_by` before now was written.
    pub fn of_clock(late_by: Duration) -> Self {
        Self { time_of: None, late_by, every: WRITER_SILENT_AFTER / 6 }
    }

    /// Says that everything up to `late_by` before the latest event so far was written; nothing while no later one comes, so that
    /// a writer without events is waited for no longer than [`WRITER_SILENT_AFTER`].
    ///
    /// `time_of` is asked about every event as it is written: it should be quick.
    pub fn of_events(time_of: impl Fn(&[u8]) -> Option<Timestamp> + Send + Sync + 'static, late_by: Duration) -> Self {
        Self { time_of: Some(Arc::new(time_of)), ..Self::of_clock(late_by) }
    }

    /// How often it is said: 5 s unless this is called; 50 ms to 15 s, half of what makes a writer silent.
    #[must_use]
    pub fn every(self, every: Duration) -> Self {
        Self { every, ..self }
    }

    pub(super) fn is_valid(&self) -> bool {
        (Duration::from_millis(50)..=WRITER_SILENT_AFTER / 2).contains(&self.every)
    }
}

impl fmt::Debug for NoteTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = if self.time_of.is_some() { "events" } else { "clock" };
        f.debug_struct("NoteTime")
            .field("of", &source)
            .field("late_by", &self.late_by)
            .field("every", &self.every)
            .finish()
    }
}

impl PartialEq for NoteTime {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.time_of, &other.time_of) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        same && (self.late_by, self.every) == (other.late_by, other.every)
    }
}

impl Eq for NoteTime {}

/// The latest time of what was written, as far as it is asked for.
#[derive(Default)]
pub(super) struct Latest {
    time_of: Option<Arc<TimeOf>>,
    /// Nanoseconds; changed and read under the plan's lock, together with what was written.
    nanos: AtomicI64,
}

impl Latest {
    pub(super) fn new(note_time: Option<&NoteTime>) -> Self {
        let time_of = note_time.and_then(|note| note.time_of.clone());
        Self { time_of, nanos: AtomicI64::new(i64::MIN) }
    }

    /// The time of an event that is about to be written.
    pub(super) fn of(&self, event: &[u8]) -> Option<Timestamp> {
        self.time_of.as_ref().and_then(|time_of| time_of(event))
    }

    /// Takes note of an event that was written.
    pub(super) fn written(&self, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.nanos.fetch_max(time.nanos(), Ordering::Relaxed);
        }
    }

    fn get(&self) -> Option<Timestamp> {
        let nanos = self.nanos.load(Ordering::Relaxed);
        (nanos > i64::MIN).then(|| Timestamp::from_nanos(nanos))
    }
}

/// Notes the time of one writer.
pub(super) struct Noting {
    pub(super) client: Client,
    pub(super) index: IndexName,
    pub(super) writer: WriterId,
    pub(super) note_time: NoteTime,
    pub(super) shared: Arc<Shared>,
}

impl Noting {
    /// Goes on until the writer is over.
    pub(super) async fn run(self) {
        let mut ticks = interval(self.note_time.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut noted = None;
        loop {
            let over = tokio::select! {
                biased;
                () = self.shared.over() => true,
                _ = ticks.tick() => false,
            };
            let (time, waiting) = self.reached();
            // Who failed says nothing more: nobody knows what of his is there.
            if BatchReceipt::of(waiting).await.is_err() || self.shared.plan().failure().is_some() {
                return;
            }
            if let Some(time) = time.filter(|time| Some(*time) != noted || self.note_time.time_of.is_none()) {
                match self.client.note_time(&self.index, &self.writer, time).await {
                    Ok(()) => noted = Some(time),
                    Err(problem) => tracing::debug!(writer = %self.writer, %problem, "time not noted"),
                }
            }
            if over {
                break;
            }
        }
        if let Err(problem) = self.client.forget_writer(&self.index, &self.writer).await {
            tracing::debug!(writer = %self.writer, %problem, "writer that was closed is waited for until it is silent");
        }
    }

    /// Up to when everything was written, and what of it is not durable yet.
    fn reached(&self) -> (Option<Timestamp>, Vec<super::block::Run<Arc<super::receipt::Slot>>>) {
        let plan = self.shared.plan();
        let latest = match self.note_time.time_of {
            None => Some(SystemClock.now()),
            Some(_) => self.shared.latest.get(),
        };
        (latest.map(|latest| latest - self.note_time.late_by), plan.waiting())
    }
}
