//! The exactly-once writer of a stream.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task,
    time::Duration,
};

use bus::SystemClock;
use bytes::Bytes;
use tokio::{task::JoinHandle, time::timeout};
use types::{Clock, IndexName, RoutingKey, TransactionId, WriterId, hash64};
use wire::{Problem, coordinator::SegmentRange};

use super::{
    answers::is_gone,
    engine::{Engine, Shared, Target},
    note_time::{Latest, NoteTime, Noting},
    plan::{Kind, Limits, Plan, Push},
    receipt::{BatchReceipt, Receipt, Slot},
};
use crate::{
    Client,
    error::{WriteCause, WriteError},
    patience::Patience,
    spill::{Left, Spill, SpillOptions, newest_epoch},
    view::version,
};

/// How long a segment does not answer before its events leave memory.
const SPILL_AFTER: Duration = Duration::from_secs(1);
/// How long a description of the stream is waited for that is as new as what was spilled.
const DESCRIBED_WITHIN: Duration = Duration::from_secs(30);
/// Events of a batch that are added while nobody else can write.
const STRETCH_MAX: usize = 256;
/// The largest block that may be set: with the largest event it stays below what a container takes.
const BLOCK_BYTES_LIMIT: usize = 1 << 20;
/// The most blocks of a segment that may be set to be under way.
const IN_FLIGHT_LIMIT: usize = 64;

/// How a writer gathers, waits and gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// Its name, which no other living writer of the index may have. A restarted process may keep it: numbers go on behind
    /// what the segments have, once the process before has ended.
    pub writer: WriterId,
    /// Bytes of unacknowledged events in memory, from which on writes wait: 64 MiB. On top of it each segment keeps one
    /// block's buffer, and one block for each append under way that is read from the spill file.
    pub bytes_max: usize,
    /// How long an event waits for others while its segment is free: 1 ms.
    pub linger: Duration,
    /// Size at which a block is closed: 512 KiB, at most 1 MiB.
    pub block_bytes_max: usize,
    /// Blocks of one segment under way at once: 1, at most 64. Meanwhile the next one fills, so that more pay only where a
    /// round trip takes longer than filling a block. A block that overtakes another is refused and sent again.
    pub in_flight_max: usize,
    /// Where events go when segments do not answer for a second and memory is full; `None` lets writes wait.
    pub spill: Option<SpillOptions>,
    /// How long the writer tries without any progress of a segment before it fails as a whole: 10 min.
    pub give_up_after: Duration,
    /// Whether, and by which clock, the writer tells readers how far its event times are; `None` leaves it to
    /// [`Client::note_time`].
    pub note_time: Option<NoteTime>,
}

impl WriterOptions {
    /// The defaults.
    pub fn new(writer: WriterId) -> Self {
        Self {
            writer,
            bytes_max: 64 << 20,
            linger: Duration::from_millis(1),
            block_bytes_max: 512 << 10,
            in_flight_max: 1,
            spill: None,
            give_up_after: Duration::from_secs(600),
            note_time: None,
        }
    }

    fn limits(&self) -> Result<Limits, WriteError> {
        let refused = |why| Err(WriteError::not_applied(WriteCause::Options(why)));
        if !(1 << 16..=1 << 40).contains(&self.bytes_max) {
            return refused("bytes_max must be 64 KiB to 1 TiB");
        }
        if !(1 << 10..=BLOCK_BYTES_LIMIT).contains(&self.block_bytes_max) {
            return refused("block_bytes_max must be 1 KiB to 1 MiB");
        }
        if !(1..=IN_FLIGHT_LIMIT).contains(&self.in_flight_max) {
            return refused("in_flight_max must be 1 to 64");
        }
        if self.spill.is_some() && self.in_flight_max > 1 {
            return refused("in_flight_max must be 1 where there is a spill directory");
        }
        if self.note_time.as_ref().is_some_and(|note| !note.is_valid()) {
            return refused("time must be noted every 50 ms to 15 s");
        }
        if self.linger > Duration::from_secs(60) || self.give_up_after < Duration::from_secs(1) {
            return refused("linger must be at most a minute, give_up_after at least a second");
        }
        Ok(Limits {
            bytes_max: self.bytes_max,
            spill_bytes_max: self.spill.as_ref().map_or(0, |spill| spill.bytes_max),
            linger: self.linger,
            // Several blocks fit into memory, so that some are under way while others fill.
            block_bytes_max: self.block_bytes_max.min(self.bytes_max / 8),
            in_flight_max: self.in_flight_max,
            give_up_after: self.give_up_after,
            spill_after: SPILL_AFTER,
        })
    }
}

/// What waits to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Bytes in memory.
    pub memory_bytes: usize,
    /// Bytes in the spill file.
    pub spilled_bytes: u64,
}

/// Writes events to a stream: each exactly once, those of a key in order, through scaling, failures and time-outs.
///
/// Events are gathered into a block per segment; while one is under way the next fills, so that a single task keeps many
/// segments busy. Writing waits only for memory. When a segment is sealed, what it does not have goes to its successors in
/// order. Clones are the same writer: several tasks may share it, and the order of a key is then that in which their calls
/// took place.
///
/// Durable: as each [`Receipt`] says, or when [`EventWriter::flush`] returns. Dropping the last clone lets what was written
/// be sent in the background; [`EventWriter::close`] waits for it.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use client::WriterOptions;
/// use types::RoutingKey;
///
/// let writer = client.event_writer("shop".parse()?, WriterOptions::new("till-4".parse()?)).await?;
/// let key = RoutingKey::new("cart-17")?;
/// let receipt = writer.write(Some(&key), "first".into()).await?;
/// let batch = writer.write_batch([(Some(&key), "second"), (None, "of no key")]).await?;
/// println!("first is at {:?}", receipt.await?);
/// batch.await?;
/// writer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EventWriter(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    /// Where events without a key go.
    keyless: u64,
    stretches: AtomicU64,
    recovered: BatchReceipt,
    noting: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.plan().close();
        self.shared.wake.notify_one();
    }
}

/// A batch on its way into a writer's memory, see [`EventWriter::write_batch`]; does nothing unless it is awaited.
///
/// A type of its own that names neither the iterator nor its closures: so a task that awaits it can be spawned whatever they are.
#[must_use = "nothing is written until it is awaited"]
pub struct WriteBatch<'w>(Pin<Box<dyn Future<Output = Result<BatchReceipt, WriteError>> + Send + 'w>>);

impl Future for WriteBatch<'_> {
    type Output = Result<BatchReceipt, WriteError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for WriteBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteBatch")
    }
}

impl fmt::Debug for EventWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWriter").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens an exactly-once writer of an index.
    ///
    /// Bounds: as [`WriterOptions`] say. Errors: `Options`, `Spill`, `StreamGone`, `StreamSealed`; whatever the coordinator
    /// answers.
    pub async fn event_writer(&self, index: IndexName, options: WriterOptions) -> Result<EventWriter, WriteError> {
        let limits = options.limits()?;
        let stream = self.stream(&index).await.map_err(|problem| match is_gone(&problem) {
            true => WriteError::not_applied(WriteCause::StreamGone(index.clone())),
            false => problem.into(),
        })?;
        let mut plan = Plan::new(index.clone(), options.writer.clone(), Kind::Stream, limits);
        plan.view(version(&stream), stream.segments.clone(), stream.sealed, Duration::ZERO);
        if let Some(refusal) = plan.refusal() {
            return Err(refusal);
        }
        EventWriter::start(self, index, options, Target::Stream, plan).await
    }
}

/// Waits for a description of the stream that is no older than what an earlier process knew.
async fn plan_of_now(
    client: &Client,
    index: &IndexName,
    plan: &mut Plan<Arc<Slot>>,
    left: &[Left],
) -> Result<(), WriteError> {
    let mut patience = Patience::new(DESCRIBED_WITHIN);
    while plan.version.is_some_and(|(stream, epoch)| newest_epoch(left, stream).is_some_and(|known| known > epoch)) {
        let problem = match client.stream_now(index).await {
            Ok(stream) => {
                plan.view(version(&stream), stream.segments.clone(), stream.sealed, Duration::ZERO);
                Problem::unavailable("NoNewEpoch", "the stream's description is older than what was spilled")
            }
            Err(problem) => problem,
        };
        match patience.pause_after(&problem) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Err(problem.into()),
        }
    }
    Ok(())
}

impl EventWriter {
    /// A writer of a transaction's own segments.
    pub(crate) async fn of_transaction(
        client: &Client,
        index: IndexName,
        options: WriterOptions,
        (transaction, epoch): (TransactionId, u32),
        segments: Vec<SegmentRange>,
    ) -> Result<Self, WriteError> {
        let limits = options.limits()?;
        let mut plan = Plan::new(index.clone(), options.writer.clone(), Kind::Transaction, limits);
        plan.view((0, epoch), segments, false, Duration::ZERO);
        Self::start(client, index, options, Target::Transaction(transaction), plan).await
    }

    async fn start(
        client: &Client,
        index: IndexName,
        options: WriterOptions,
        target: Target,
        mut plan: Plan<Arc<Slot>>,
    ) -> Result<Self, WriteError> {
        let WriterOptions { writer, spill, note_time, .. } = options;
        let mut recovered = BatchReceipt::default();
        let spill = match spill {
            None => None,
            Some(options) => {
                let whose = (index.clone(), writer.clone());
                let opened = tokio::task::spawn_blocking(move || Spill::open(&options, &whose.0, &whose.1)).await;
                let opened = opened.map_err(|error| error.to_string()).and_then(|o| o.map_err(|e| e.to_string()));
                let (opened, left) = opened.map_err(|why| WriteError::not_applied(WriteCause::Spill(why)))?;
                plan_of_now(client, &index, &mut plan, &left).await?;
                recovered = BatchReceipt::of(plan.restore(left, Duration::ZERO));
                Some(Arc::new(opened))
            }
        };
        let keyless = hash64(index.as_str().as_bytes());
        let shared = Arc::new(Shared::new(plan, Latest::new(note_time.as_ref())));
        let noting = note_time.map(|note_time| {
            let (index, writer, shared) = (index.clone(), writer.clone(), shared.clone());
            tokio::spawn(Noting { client: client.clone(), index, writer, note_time, shared }.run())
        });
        let engine = Engine { shared: shared.clone(), client: client.clone(), index, writer, target, spill };
        tokio::spawn(engine.run());
        Ok(Self(Arc::new(Handle {
            shared,
            keyless,
            stretches: AtomicU64::new(0),
            recovered,
            noting: Mutex::new(noting),
        })))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    fn hash(&self, key: Option<&RoutingKey>) -> u64 {
        key.map_or(self.0.keyless, RoutingKey::hash)
    }

    /// Writes an event; waits only while memory is full.
    ///
    /// Events without a key have one order, that of the index. Cancel safe: a call that is dropped wrote nothing.
    /// Errors: nothing was written: `EventTooLarge`, `Closed`, `StreamSealed`, or what ended the writer.
    pub async fn write(&self, key: Option<&RoutingKey>, event: Bytes) -> Result<Receipt, WriteError> {
        let hash = self.hash(key);
        if let Some(receipt) = self.try_write(hash, &event)? {
            return Ok(receipt);
        }
        loop {
            let mut room = std::pin::pin!(self.0.shared.room.notified());
            // Listen first, then try: room that comes in between is not missed.
            room.as_mut().enable();
            if let Some(receipt) = self.try_write(hash, &event)? {
                return Ok(receipt);
            }
            self.0.shared.wake.notify_one();
            room.await;
        }
    }

    fn try_write(&self, hash: u64, event: &[u8]) -> Result<Option<Receipt>, WriteError> {
        let shared = &self.0.shared;
        let (received, now, time) = (SystemClock.now(), shared.now(), shared.latest.of(event));
        let mut plan = shared.plan();
        let Push::Taken { fate, place, wake } = plan.push(received, hash, event, now)? else { return Ok(None) };
        shared.latest.written(time);
        let receipt = Receipt::new(fate.clone(), place);
        drop(plan);
        if wake {
            shared.wake.notify_one();
        }
        Ok(Some(receipt))
    }

    /// Writes events in order under one receipt; waits only while memory is full. The cheapest way to write many.
    ///
    /// The iterator is read when this is called; the events are copied when it is awaited.
    /// Errors: as [`EventWriter::write`]; the events before the one refused were written.
    pub fn write_batch<'w, 'k, E: AsRef<[u8]> + Send + 'w>(
        &'w self,
        events: impl IntoIterator<Item = (Option<&'k RoutingKey>, E)>,
    ) -> WriteBatch<'w> {
        let events: Vec<(u64, E)> = events.into_iter().map(|(key, event)| (self.hash(key), event)).collect();
        WriteBatch(Box::pin(self.write_hashed(events)))
    }

    async fn write_hashed<E: AsRef<[u8]> + Send>(&self, events: Vec<(u64, E)>) -> Result<BatchReceipt, WriteError> {
        let mut receipt = BatchReceipt::default();
        let mut events = events.into_iter();
        while !events.as_slice().is_empty() {
            let mut written = self.try_stretch(events.as_slice(), &mut receipt)?;
            if written == 0 {
                let mut room = std::pin::pin!(self.0.shared.room.notified());
                room.as_mut().enable();
                written = self.try_stretch(events.as_slice(), &mut receipt)?;
                if written == 0 {
                    self.0.shared.wake.notify_one();
                    room.await;
                }
            }
            events.by_ref().take(written).for_each(drop);
        }
        Ok(receipt)
    }

    /// Writes the first events, a stretch of them, and answers how many there was room for.
    fn try_stretch<E: AsRef<[u8]>>(
        &self,
        events: &[(u64, E)],
        receipt: &mut BatchReceipt,
    ) -> Result<usize, WriteError> {
        let Handle { shared, stretches, .. } = &*self.0;
        let (received, now) = (SystemClock.now(), shared.now());
        let times: Vec<_> =
            events.iter().take(STRETCH_MAX).map(|(_, event)| shared.latest.of(event.as_ref())).collect();
        let stretch = stretches.fetch_add(1, Ordering::Relaxed) + 1;
        let mut wake_engine = false;
        let mut written = 0;
        let mut plan = shared.plan();
        let refused = loop {
            let next = events.get(written).filter(|_| written < STRETCH_MAX);
            let Some((hash, event)) = next else { break None };
            match plan.push(received, *hash, event.as_ref(), now) {
                Ok(Push::Taken { fate, place, wake }) => {
                    receipt.add(stretch, fate, place);
                    shared.latest.written(times.get(written).copied().flatten());
                    wake_engine |= wake;
                    written += 1;
                }
                Ok(Push::Full) => break None,
                Err(refused) => break Some(refused),
            }
        };
        drop(plan);
        if wake_engine {
            shared.wake.notify_one();
        }
        refused.map_or(Ok(written), Err)
    }

    /// Sends what was written so far without waiting for more, and waits until it is durable.
    ///
    /// Errors: the first of any event that waited, or what ended the writer.
    pub async fn flush(&self) -> Result<(), WriteError> {
        let waiting = {
            let mut plan = self.0.shared.plan();
            plan.hurry();
            plan.waiting()
        };
        self.0.shared.wake.notify_one();
        BatchReceipt::of(waiting).await?;
        self.0.shared.plan().failure().cloned().map_or(Ok(()), Err)
    }

    /// Takes no more events, also from clones, and waits until everything written is durable.
    ///
    /// Errors: as [`EventWriter::flush`].
    pub async fn close(self) -> Result<(), WriteError> {
        self.0.shared.plan().close();
        self.0.shared.room.notify_waiters();
        let flushed = self.flush().await;
        self.0.shared.over().await;
        let noting = self.0.noting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(noting) = noting {
            // Time is a weak claim: whoever does not get it told in time is silent instead.
            drop(timeout(bus::CALL_DEADLINE, noting).await);
        }
        flushed
    }

    /// The acknowledgement of what an earlier writer of this name left in its spill directory; empty without one.
    ///
    /// It is sent by itself, before anything newer of the same keys. Whoever keeps the events of an ended program elsewhere as
    /// well and writes them again must leave these out: they would be there twice.
    pub fn recovered(&self) -> BatchReceipt {
        self.0.recovered.clone()
    }

    /// How much waits to be acknowledged.
    pub fn backlog(&self) -> Backlog {
        let (memory_bytes, spilled_bytes) = self.0.shared.plan().backlog();
        Backlog { memory_bytes, spilled_bytes }
    }
}
