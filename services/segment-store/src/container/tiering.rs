//! The storage writer: moves events to Tier 2, commits that to the log, snapshots, and frees Tier 1.
//!
//! One task does all of it, one thing at a time: flush and snapshot first, because writers wait for them; then the chores
//! compaction, garbage and orphans, each with a pause of its own after a failure.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use bus::ContainerLog;
use futures::future::join_all;
use host::Host;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use types::{Offset, SegmentId, Timestamp};

use crate::{
    container::{
        Container,
        books::{Books, Phase},
        columns,
        compactor::Compactor,
        frame::Entry,
        garbage::Collector,
        recovery::jittered,
        snapshots::Snapshots,
        tail::{Due, FlushRule},
        tier2::{Home, Tier2},
    },
    crash,
    error::Error,
    metrics,
};

/// Chunks written in one round before snapshots get their turn again.
const CHUNKS_PER_ROUND_MAX: usize = 64;
/// Frames of carried blocks in one round: four times the largest transaction in frames of the default size.
const CARRIES_PER_ROUND_MAX: usize = 512;
/// Blocks of one such frame.
const CARRIED_MAX: usize = 1_024;
/// Merges in one round while no flush is due.
const MERGES_PER_ROUND_MAX: usize = 8;
/// Chunks written for which one merge is done although a flush is due: a merge takes eight and leaves one, in all tiers
/// together one in six or seven chunks written.
const CHUNKS_PER_MERGE: usize = 4;
/// What the log of a container at rest may keep of what is in Tier 2 already.
const RESTING_LOG_BYTES_MAX: u64 = 8 << 20;
/// A container is at rest when its log has grown by less than this ...
const RESTING_GROWTH_BYTES: u64 = 1 << 20;
/// ... for this long.
const RESTS_AFTER: Duration = Duration::from_secs(2);
/// The first pause after a failed round; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a segment waits whose chunk could not be sealed, while others are moved.
const UNSEALED_PAUSE: Duration = Duration::from_secs(5);
/// The longest time between two looks at garbage, or at the orphans of one segment.
const CHORE_EVERY_MAX: Duration = Duration::from_secs(10);

/// The storage writer of one container.
pub(crate) struct Tiering {
    tier2: Tier2,
    container: Container,
    log: ContainerLog,
    host: Host,
    snapshots: Snapshots,
    marked: Mark,
    rest: Rest,
    /// The log holds no frame below this sequence.
    purged: u64,
    /// Segments whose key could not be had, with the time when they are tried again; at most those of the container.
    unsealed: BTreeMap<SegmentId, Instant>,
    compactor: Compactor,
    compaction: Chore,
    collector: Collector,
    garbage: Chore,
    orphans: Chore,
}

/// Where the last snapshot stood.
#[derive(Debug, Clone, Copy)]
struct Mark {
    frame_number: u64,
    log_written: u64,
    at: Timestamp,
}

/// Since when the log has hardly grown.
#[derive(Debug)]
struct Rest {
    written: u64,
    since: Instant,
}

impl Rest {
    fn new() -> Self {
        Self { written: 0, since: Instant::now() }
    }

    /// Takes note of what was ever written, and tells whether that has been about the same for [`RESTS_AFTER`].
    fn note(&mut self, written: u64, now: Instant) -> bool {
        if written - self.written >= RESTING_GROWTH_BYTES {
            *self = Self { written, since: now };
        }
        now - self.since >= RESTS_AFTER
    }
}

/// Work that nobody waits for: when it is due again.
#[derive(Debug)]
struct Chore {
    name: &'static str,
    every: Duration,
    pause: Duration,
    next: Instant,
}

impl Chore {
    fn new(name: &'static str, every: Duration) -> Self {
        Self { name, every, pause: PAUSE_MIN, next: Instant::now() }
    }

    fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn done(&mut self, container: &Container, result: Result<(), Error>) {
        let wait = match result {
            Ok(()) => {
                self.pause = PAUSE_MIN;
                self.every
            }
            Err(error) => {
                metrics::CHORE_FAILURES.with(self.name).inc();
                warn!(container = %container.id, %error, chore = self.name, "storage writer failed at a chore, it tries again");
                let pause = self.pause;
                self.pause = (pause * 2).min(PAUSE_MAX);
                jittered(pause)
            }
        };
        self.next = Instant::now() + wait;
    }
}

impl Tiering {
    pub(crate) fn new(container: Container, log: ContainerLog, host: Host, snapshots: Snapshots) -> Self {
        let marked = Mark { frame_number: 0, log_written: 0, at: container.clock.now() };
        let tier2 = Tier2::new(container.clone(), host.clone());
        let (compactor, collector) = (Compactor::new(tier2.clone()), Collector::new(tier2.clone()));
        let every = (container.limits.garbage_delay / 6).clamp(Duration::from_millis(20), CHORE_EVERY_MAX);
        Self {
            tier2,
            container,
            log,
            host,
            snapshots,
            marked,
            rest: Rest::new(),
            purged: 0,
            unsealed: BTreeMap::new(),
            compactor,
            compaction: Chore::new("compaction", Duration::ZERO),
            collector,
            garbage: Chore::new("garbage", every),
            orphans: Chore::new("orphans", every),
        }
    }

    /// Works until it is told to halt.
    pub(crate) async fn run(&mut self, halt: CancellationToken) {
        let tick = (self.container.limits.flush.age / 10).clamp(Duration::from_millis(20), Duration::from_millis(500));
        let mut pause = PAUSE_MIN;
        let mut wait = tick;
        loop {
            tokio::select! {
                biased;
                () = halt.cancelled() => return,
                () = self.container.kick.notified(), if wait == tick => {}
                () = tokio::time::sleep(wait) => {}
            }
            if self.container.books.read().phase != Phase::Serving {
                wait = tick;
                continue;
            }
            let round = tokio::select! {
                biased;
                // What a round leaves half done is an object that nothing names, or done again by the next owner.
                () = halt.cancelled() => return,
                round = self.round() => round,
            };
            match round {
                Ok(()) => (wait, pause) = (tick, PAUSE_MIN),
                Err(error) => {
                    metrics::FLUSH_FAILURES.inc();
                    warn!(container = %self.container.id, %error, "storage writer failed, it tries again");
                    wait = jittered(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        self.serve_flush_calls().await?;
        let mut written = 0;
        while written < CHUNKS_PER_ROUND_MAX {
            let Some((due, home)) = self.due(self.container.limits.flush) else { break };
            self.flush(due, home).await?;
            written += 1;
        }
        let carried = self.carry().await;
        // Also where nothing could be carried: a full log has room again behind a snapshot.
        if self.snapshot_is_due() {
            self.nudge().await?;
            self.snapshot().await?;
        }
        carried?;
        self.chores(written).await;
        Ok(())
    }

    /// Moves everything that was there when a caller asked for it, and tells the caller.
    async fn serve_flush_calls(&mut self) -> Result<(), Error> {
        let wanted = self.container.flush_wanted.load(Ordering::Relaxed);
        if *self.container.flushed.borrow() >= wanted {
            return Ok(());
        }
        let rule = FlushRule { age: Duration::ZERO, ..self.container.limits.flush };
        // Events that come after the call must not hold it up for ever.
        let mut open: BTreeMap<SegmentId, Offset> = {
            let books = self.container.books.read();
            let open = books.state.segments.iter().filter(|(_, s)| !s.transactional && s.tail_from < s.end);
            open.map(|(segment, s)| (*segment, s.end)).collect()
        };
        let mut more = true;
        while more && !open.is_empty() {
            for _ in 0..CHUNKS_PER_ROUND_MAX {
                let due = self.due(rule);
                more = due.is_some();
                let Some((due, home)) = due else { break };
                self.flush(due, home).await?;
            }
            let books = self.container.books.read();
            open.retain(|segment, end| books.state.segments.get(segment).is_some_and(|s| s.tail_from < *end));
        }
        if let Some(segment) = open.keys().find(|segment| self.unsealed.contains_key(segment)) {
            return Err(Error::Sealed(format!("the key of segment {segment} cannot be had: not everything was moved")));
        }
        self.snapshot().await?;
        self.container.flushed.send_replace(wanted);
        Ok(())
    }

    async fn chores(&mut self, written: usize) {
        if self.compaction.is_due() {
            let done = self.compact(1 + written / CHUNKS_PER_MERGE).await;
            self.compaction.done(&self.container, done);
        }
        if self.garbage.is_due() {
            let done = self.collector.tidy().await;
            let more = matches!(done, Ok(true));
            self.garbage.done(&self.container, done.map(drop));
            if more {
                self.garbage.next = Instant::now();
            }
        }
        if self.orphans.is_due() {
            let done = self.collector.orphans().await;
            self.orphans.done(&self.container, done);
        }
    }

    /// Does the merges that keep up with what is written, and more while nothing else is to be done.
    async fn compact(&mut self, least: usize) -> Result<(), Error> {
        for done in 0..least.max(MERGES_PER_ROUND_MAX) {
            let busy = done >= least && self.due(self.container.limits.flush).is_some();
            if busy || !self.compactor.step().await? {
                break;
            }
        }
        Ok(())
    }

    fn due(&self, rule: FlushRule) -> Option<(Due, Home)> {
        let books = self.container.books.read();
        let overdue = self.container.overdue(&books);
        let urgent = |id| {
            let known = books.state.segments.get(&id);
            known.is_some_and(|s| s.sealed || (overdue > 0 && s.oldest_seq().is_some_and(|seq| seq < overdue)))
        };
        let bytes_max = self.container.limits.chunk_bytes_max;
        let now = Instant::now();
        let wait = |id| self.unsealed.get(&id).is_some_and(|until| now < *until);
        let due = books.tail.due(self.container.clock.now(), rule, bytes_max, urgent, wait)?;
        let home = Home::of(books.state.segments.get(&due.segment)?);
        Some((due, home))
    }

    async fn flush(&mut self, due: Due, home: Home) -> Result<(), Error> {
        let Due { segment, blocks } = due;
        let origin = self.container.origin(segment);
        let chunk = self.host.cpu(move || columns::chunk(segment, origin.as_ref(), &blocks)).await?;
        let meta = chunk.meta(self.tier2.fresh_key(&home, segment, chunk.from));
        match self.tier2.put(&meta.key, chunk.bytes).await {
            // One index must not keep others from object storage.
            Err(error @ Error::Sealed(_)) => {
                self.wait_for_key(segment, &error);
                return Ok(());
            }
            put => put?,
        }
        self.unsealed.remove(&segment);
        crash::point("after_chunk_put");
        let entry = Entry::ChunkCommitted { segment, meta: meta.clone() };
        if !self.tier2.commit(segment, &meta.key, &entry).await? {
            // The segment was truncated or deleted meanwhile.
            return Ok(());
        }
        crash::point("after_chunk_committed");
        metrics::CHUNKS.inc();
        metrics::CHUNK_BYTES.observe(meta.bytes as f64);
        debug!(%segment, from = meta.from, to = meta.to, bytes = meta.bytes, "chunk committed");
        self.compactor.note(segment);
        self.container.chunked.notify_one();
        Ok(())
    }

    fn wait_for_key(&mut self, segment: SegmentId, error: &Error) {
        metrics::FLUSH_FAILURES.inc();
        warn!(container = %self.container.id, %segment, %error, "events of an encrypted index stay in the log");
        self.unsealed.insert(segment, Instant::now() + UNSEALED_PAUSE);
    }

    /// Writes blocks of open transactions to the end of the log while they hold back more than half of what it takes.
    ///
    /// An open transaction cannot go to Tier 2 and may last for a day; the log of its container must not. What is carried
    /// is at most half of a tail, and is carried again only when a whole tail has been written behind it.
    async fn carry(&self) -> Result<(), Error> {
        for _ in 0..CARRIES_PER_ROUND_MAX {
            let entries = self.overdue_blocks();
            if entries.is_empty() {
                break;
            }
            let submit = |entry| self.container.submit(entry, Timestamp::MAX, None);
            for carried in join_all(entries.into_iter().map(submit)).await {
                match carried {
                    Ok(_) => metrics::CARRIED_BLOCKS.inc(),
                    // It ended meanwhile: what it held is where it belongs.
                    Err(Error::NotHere(_) | Error::NotTransactional(_) | Error::BadBlock(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The oldest blocks that hold the log back only because their transactions are open: about one frame.
    fn overdue_blocks(&self) -> Vec<Entry> {
        let books = self.container.books.read();
        let overdue = self.container.overdue(&books);
        if overdue == 0 {
            return Vec::new();
        }
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (_, segment, base) in books.state.carriable(overdue) {
            let Some(block) = books.tail.block(segment, base) else { continue };
            bytes += block.bytes().len();
            if !entries.is_empty() && (bytes > self.container.limits.frame_bytes_max || entries.len() >= CARRIED_MAX) {
                break;
            }
            entries.push(Entry::Carry { segment, base, block });
        }
        entries
    }

    fn snapshot_is_due(&mut self) -> bool {
        let books = self.container.books.read();
        let rests = self.rest.note(books.log.written(), Instant::now());
        let limits = &self.container.limits;
        let frames = books.state.frame_number.saturating_sub(self.marked.frame_number);
        let bytes = books.log.written() - self.marked.log_written;
        let age = self.container.clock.now().since(self.marked.at);
        frames >= limits.snapshot_frames
            || bytes >= limits.snapshot_bytes
            || (frames > 0 && age >= limits.snapshot_interval)
            || self.is_pressed(&books, rests)
    }

    /// Whether the log takes no more appends soon, or much room for nothing, and further snapshots would let go of it.
    ///
    /// The log is kept from the oldest of the last three snapshots on. Where they stand far apart, appends may be
    /// throttled before the next two are due, and without appends they would never be.
    fn is_pressed(&self, books: &Books, rests: bool) -> bool {
        let full = self.container.log_full.load(Ordering::Relaxed);
        let tail_seq = books.state.tail_seq();
        let takes_room = full || books.log.held() > self.container.limits.log_bytes_max / 2;
        takes_room && self.purged < tail_seq || rests && books.log.below(tail_seq) > RESTING_LOG_BYTES_MAX
    }

    /// Commits an entry that changes nothing if there would be nothing new to snapshot.
    ///
    /// The same state again would do to purge the log; but then it would be purged to its last frame, and a log without
    /// frames looks like a new one if all snapshots are lost.
    async fn nudge(&self) -> Result<(), Error> {
        if self.container.books.read().state.frame_number > self.marked.frame_number {
            return Ok(());
        }
        let entry = Entry::Collected { keys: Vec::new(), at: self.container.clock.now() };
        self.container.submit(entry, Timestamp::MAX, None).await.map(drop)
    }

    /// Writes a snapshot if anything changed since the last one, and purges what no restore can need.
    pub(crate) async fn snapshot(&mut self) -> Result<(), Error> {
        let (state, mark) = {
            let books = self.container.books.read();
            if matches!(books.phase, Phase::ReadOnly(_)) || books.state.frame_number == self.marked.frame_number {
                return Ok(());
            }
            let (frame_number, log_written) = (books.state.frame_number, books.log.written());
            (books.state.clone(), Mark { frame_number, log_written, at: self.container.clock.now() })
        };
        let bound = self.snapshots.write(state).await?;
        self.marked = mark;
        let Some(bound) = bound else { return Ok(()) };
        let below = bound.min(self.container.books.read().state.tail_seq());
        crash::point("before_purge");
        self.log
            .purge_below(below)
            .await
            .map_err(|e| Error::Unavailable { container: self.container.id, why: e.to_string() })?;
        crash::point("after_purge");
        self.purged = below;
        self.container.log_full.store(false, Ordering::Relaxed);
        self.container.books.write().log.purged_below(below);
        Ok(())
    }

    /// The restored state needs no new snapshot until it changes.
    pub(crate) fn mark_restored(&mut self, frame_number: u64) {
        self.marked.frame_number = frame_number;
    }
}
