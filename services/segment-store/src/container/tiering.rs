//! The storage writer: moves events to Tier 2, commits that to the log, snapshots, and frees Tier 1.

use std::time::Duration;

use bus::ContainerLog;
use host::Host;
use store::Objects;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use types::{IndexName, SegmentId, Timestamp};
use wire::segment_store::ChunkMeta;

use crate::{
    container::{
        Container, books::Phase, columns, frame::Entry, recovery::jittered, snapshots::Snapshots, state::Effect,
        tail::Due,
    },
    error::Error,
    metrics,
};

/// Chunks written in one round before snapshots get their turn again.
const CHUNKS_PER_ROUND_MAX: usize = 64;
/// Objects of a deleted segment removed in one round.
const SWEEP_MAX: usize = 1_000;
/// Tries of one step before the round is given up and begun again later.
const TRIES_MAX: u32 = 3;
/// The first pause after a failed round; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The storage writer of one container.
pub(crate) struct Tiering {
    container: Container,
    log: ContainerLog,
    host: Host,
    objects: Objects,
    snapshots: Snapshots,
    marked: Mark,
}

/// Where the last snapshot stood.
#[derive(Debug, Clone, Copy)]
struct Mark {
    frame_number: u64,
    log_written: u64,
    at: Timestamp,
}

impl Tiering {
    pub(crate) fn new(container: Container, log: ContainerLog, host: Host, snapshots: Snapshots) -> Self {
        let marked = Mark { frame_number: 0, log_written: 0, at: container.clock.now() };
        let objects = host.objects.clone();
        Self { container, log, host, objects, snapshots, marked }
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
        for _ in 0..CHUNKS_PER_ROUND_MAX {
            let Some((due, index)) = self.due() else { break };
            self.flush(due, index).await?;
        }
        self.sweep().await?;
        if self.snapshot_is_due() {
            self.snapshot().await?;
        }
        Ok(())
    }

    fn due(&self) -> Option<(Due, IndexName)> {
        let books = self.container.books.read();
        let sealed = |id| books.state.segments.get(&id).is_some_and(|s| s.sealed);
        let limits = &self.container.limits;
        let due = books.tail.due(self.container.clock.now(), limits.flush, limits.chunk_bytes_max, sealed)?;
        let index = books.state.segments.get(&due.segment)?.index.clone();
        Some((due, index))
    }

    async fn flush(&self, due: Due, index: IndexName) -> Result<(), Error> {
        let Due { segment, blocks } = due;
        let chunk = self.host.cpu(move || columns::chunk(segment, &blocks)).await?;
        let generation = self.container.generation;
        let key =
            format!("{}{:020}-G{generation}-{}.parquet", folder(&index, segment), chunk.from, uuid::Uuid::new_v4());
        let bytes = u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
        let meta = ChunkMeta {
            key,
            from: chunk.from,
            to: chunk.to,
            bytes,
            time_min: chunk.time_min,
            time_max: chunk.time_max,
        };
        self.put(&meta.key, chunk.bytes).await?;
        if self.commit_chunk(segment, &meta).await? {
            metrics::CHUNKS.inc();
            metrics::CHUNK_BYTES.observe(bytes as f64);
            debug!(%segment, from = meta.from, to = meta.to, bytes, "chunk committed");
        } else {
            self.objects.delete(&meta.key).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn put(&self, key: &str, bytes: bytes::Bytes) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.objects.put_if_absent(key, bytes.clone()).await {
                // The key holds a fresh uuid: what exists is this very object, stored by a try whose answer was lost.
                Ok(store::Put::Stored | store::Put::Exists) => return Ok(()),
                Err(error) if tries >= TRIES_MAX => return Err(failed(error)),
                Err(_) => tokio::time::sleep(jittered(PAUSE_MIN)).await,
            }
        }
    }

    /// Commits a chunk until it is certain whether the state names it.
    async fn commit_chunk(&self, segment: SegmentId, meta: &ChunkMeta) -> Result<bool, Error> {
        loop {
            let entry = Entry::ChunkCommitted { segment, meta: meta.clone() };
            match self.container.submit(entry, Timestamp::MAX, None).await {
                Ok(Effect::Tiered(_)) => return Ok(true),
                Ok(_) | Err(Error::ChunkOutOfPlace { .. } | Error::UnknownSegment(_)) => {
                    let books = self.container.books.read();
                    let named = |s: &crate::container::state::Segment| s.chunks.iter().any(|c| c.key == meta.key);
                    return Ok(books.state.segments.get(&segment).is_some_and(named));
                }
                // Its outcome is decided by the log, which the owner reads again before it takes the next entry.
                Err(Error::AppendUnknown(_) | Error::Throttled { .. }) => {
                    tokio::time::sleep(jittered(PAUSE_MIN)).await;
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Removes the objects of deleted segments, committed or not.
    async fn sweep(&self) -> Result<(), Error> {
        let gone = self.container.books.read().state.deleted.clone();
        for (segment, index) in gone {
            let objects = self.objects.list(&folder(&index, segment), SWEEP_MAX).await.map_err(failed)?;
            for object in &objects {
                self.objects.delete(&object.key).await.map_err(failed)?;
            }
            if objects.len() < SWEEP_MAX {
                self.container.submit(Entry::Swept { segment }, Timestamp::MAX, None).await?;
                info!(%segment, %index, objects = objects.len(), "deleted segment swept");
            }
        }
        Ok(())
    }

    fn snapshot_is_due(&self) -> bool {
        let books = self.container.books.read();
        let limits = &self.container.limits;
        let frames = books.state.frame_number.saturating_sub(self.marked.frame_number);
        let bytes = books.log.written() - self.marked.log_written;
        let age = self.container.clock.now().since(self.marked.at);
        frames >= limits.snapshot_frames
            || bytes >= limits.snapshot_bytes
            || (frames > 0 && age >= limits.snapshot_interval)
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
        let bound = self.snapshots.write(&state).await?;
        self.marked = mark;
        let Some(bound) = bound else { return Ok(()) };
        let below = bound.min(self.container.books.read().state.tail_seq());
        self.log
            .purge_below(below)
            .await
            .map_err(|e| Error::Unavailable { container: self.container.id, why: e.to_string() })?;
        self.container.books.write().log.purged_below(below);
        Ok(())
    }

    /// The restored state needs no new snapshot until it changes.
    pub(crate) fn mark_restored(&mut self, frame_number: u64) {
        self.marked.frame_number = frame_number;
    }
}

/// Where the chunks of a segment are.
fn folder(index: &IndexName, segment: SegmentId) -> String {
    format!("chunks/{index}/{segment}/")
}

fn failed(error: store::StoreError) -> Error {
    Error::Objects(error.to_string())
}
