//! Container logs: Tier 1 of a segment container, fenced by its owner record.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::Mutex;
use types::ContainerId;
use wire::{segment_store::OwnerRecord, subjects};

use crate::{
    AppendError, Bus, BusError,
    append::{append_error, conditional, last_in},
    jetstream::{JETSTREAM_WITHIN, Pick, PublishError, WRONG_LAST_SEQUENCE, stream_config},
    origin::fresh_id,
    pull::Pull,
};

/// Room above `bytes_max` that frames cannot take: a full log must still accept the owner records and the operations
/// that lead to its purge. Some thirty thousand of them, or ten of the largest.
pub const LOG_HEADROOM_BYTES: u64 = 32 << 20;
/// What the server stores with each record besides its payload, generously.
pub const RECORD_OVERHEAD_BYTES: u64 = 512;
/// How often a claim is tried when others claim at the same time.
const CLAIM_ATTEMPTS: u32 = 5;

/// How a container log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Copies in the cluster: 1, 3 or 5.
    pub replicas: u8,
    /// Bytes after which frames are refused with `Full`; operations have [`LOG_HEADROOM_BYTES`] more. JetStream reserves the sum.
    pub bytes_max: u64,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Events of many segments.
    Frame,
    /// A segment was created, sealed, tiered or deleted.
    Operation,
}

/// One record of a container log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place; grows, with gaps where owners changed or others were purged.
    pub seq: u64,
    /// What it is.
    pub kind: RecordKind,
    /// The record.
    pub payload: Bytes,
}

/// Why a claim failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// A later generation, or the same one of another replica, owns the container.
    #[error("superseded by {} with generation {}", .0.replica, .0.generation)]
    Superseded(OwnerRecord),
    /// It is not known whether the claim was stored; claim again.
    #[error("the claim was not acknowledged: {0}")]
    Unavailable(String),
}

/// The log of one container; clones share it.
#[derive(Debug, Clone)]
pub struct ContainerLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bus: Bus,
    stream: String,
    frame: String,
    operation: String,
    owner: String,
    all: String,
    bytes_max: u64,
    /// Bytes in the stream: counted up by appends, set right by each purge and refusal.
    bytes: AtomicU64,
    reading: Mutex<Option<Pull>>,
}

impl Bus {
    /// Opens the log of a container, creating it where it is absent.
    ///
    /// Errors: `NoRoom` where JetStream cannot reserve the bytes for it. One that is there already keeps the room that it had if
    /// it holds more than it may now, or if the room cannot be changed.
    pub async fn container_log(&self, container: ContainerId, options: LogOptions) -> Result<ContainerLog, BusError> {
        let stream = format!("T1_{container}");
        let (frame, operation, owner) =
            (subjects::t1_frame(container), subjects::t1_op(container), subjects::t1_owner(container));
        let mut config =
            stream_config(stream.clone(), vec![frame.clone(), operation.clone(), owner.clone()], options.replicas);
        config.max_bytes = i64::try_from(options.bytes_max.saturating_add(LOG_HEADROOM_BYTES)).unwrap_or(i64::MAX);
        // Whatever room it has, some of it stays for operations.
        let room = u64::try_from(self.ensure_stream(&config).await?).unwrap_or(u64::MAX);
        let bytes_max = options.bytes_max.min(room.saturating_sub(LOG_HEADROOM_BYTES));
        let bytes = self.ends(&stream).await?.bytes;
        Ok(ContainerLog(Arc::new(Inner {
            bus: self.clone(),
            stream,
            all: format!("{}*", frame.trim_end_matches("frame")),
            frame,
            operation,
            owner,
            bytes_max,
            bytes: AtomicU64::new(bytes),
            reading: Mutex::new(None),
        })))
    }
}

impl ContainerLog {
    /// The present owner and the sequence of its record, from the stream's leader.
    pub async fn owner(&self) -> Result<Option<(u64, OwnerRecord)>, BusError> {
        let log = &*self.0;
        let Some(stored) = log.bus.stored(&log.stream, Pick::Last(&log.owner)).await? else { return Ok(None) };
        let record = wire::decode(&stored.payload)
            .map_err(|p| BusError::Malformed { what: format!("owner record of {}", log.stream), reason: p.message })?;
        Ok(Some((stored.seq, record)))
    }

    /// Takes the container over and returns the sequence that every append must name.
    ///
    /// Durable. From then on each append of an earlier owner is fenced. The same replica may claim its generation
    /// again: that fences whatever its former process still has under way.
    pub async fn claim(&self, record: &OwnerRecord) -> Result<u64, ClaimError> {
        let log = &*self.0;
        let unavailable = |e: BusError| ClaimError::Unavailable(e.to_string());
        let payload = Bytes::from(wire::encode(record));
        for _ in 0..CLAIM_ATTEMPTS {
            let present = self.owner().await.map_err(unavailable)?;
            if let Some((_, owner)) = &present {
                let same = owner.generation == record.generation && owner.replica == record.replica;
                if owner.generation >= record.generation && !same {
                    return Err(ClaimError::Superseded(owner.clone()));
                }
            }
            let id = fresh_id();
            let headers = conditional(&id, present.map_or(0, |(seq, _)| seq), None);
            match log.bus.publish_stored(&log.owner, &headers, &payload, JETSTREAM_WITHIN).await {
                Ok(published) => return Ok(published.seq),
                Err(PublishError::Rejected { error, .. }) if error.err_code == WRONG_LAST_SEQUENCE => {
                    let last = log.bus.stored(&log.stream, Pick::Last(&log.owner)).await.map_err(unavailable)?;
                    if let Some(stored) = last.filter(|s| s.id.as_deref() == Some(&id)) {
                        return Ok(stored.seq);
                    }
                }
                Err(error) => return Err(ClaimError::Unavailable(append_error(error).to_string())),
            }
        }
        Err(ClaimError::Unavailable(format!("{CLAIM_ATTEMPTS} claims were overtaken by others; claim again")))
    }

    /// Appends one record on the condition that the owner is still the one of `owner_seq`, and returns its sequence.
    ///
    /// Durable: stored by JetStream when it returns. Order: one append in flight is the caller's duty. `id` must be new
    /// for each record: it makes repeats harmless. Bounds: tried for about 10 s.
    /// Errors: `Fenced`, `Full`, `Refused` not applied; `Unknown` unknown - give the container up and replay.
    pub async fn append(&self, owner_seq: u64, kind: RecordKind, id: &str, payload: Bytes) -> Result<u64, AppendError> {
        let log = &*self.0;
        let bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX).saturating_add(RECORD_OVERHEAD_BYTES);
        if kind == RecordKind::Frame && log.bytes.load(Ordering::Relaxed).saturating_add(bytes) > log.bytes_max {
            self.recount().await.map_err(|e| AppendError::Refused(e.to_string()))?;
            if log.bytes.load(Ordering::Relaxed).saturating_add(bytes) > log.bytes_max {
                return Err(AppendError::Full);
            }
        }
        let subject = match kind {
            RecordKind::Frame => &log.frame,
            RecordKind::Operation => &log.operation,
        };
        let headers = conditional(id, owner_seq, Some(&log.owner));
        match log.bus.publish_stored(subject, &headers, &payload, JETSTREAM_WITHIN).await {
            Ok(published) => {
                log.bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(published.seq)
            }
            Err(PublishError::Rejected { error, repeated }) if error.err_code == WRONG_LAST_SEQUENCE => {
                // An earlier attempt may have been stored just before the new owner came.
                Err(if repeated {
                    AppendError::Unknown(format!("the owner changed while the answer was lost: {error}"))
                } else {
                    AppendError::Fenced { last: last_in(&error.description) }
                })
            }
            Err(error) => Err(append_error(error)),
        }
    }

    async fn recount(&self) -> Result<(), BusError> {
        let bytes = self.0.bus.ends(&self.0.stream).await?.bytes;
        self.0.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Reads records after a sequence, in order, up to a number of bytes but at least one; empty only at the end.
    ///
    /// Owner records are left out: no record of a former owner can stand behind a later owner's.
    pub async fn read(&self, after: u64, bytes_max: usize) -> Result<Vec<LogRecord>, BusError> {
        let log = &*self.0;
        let mut reading = log.reading.lock().await;
        let mut pull = reading
            .take()
            .filter(|pull| pull.after() == after)
            .unwrap_or_else(|| Pull::new(&log.bus, &log.stream, &log.all, after));
        loop {
            let found = pull.read(bytes_max).await?;
            if found.is_empty() {
                return Ok(Vec::new());
            }
            let records: Vec<LogRecord> = found
                .into_iter()
                .filter_map(|stored| {
                    let kind = match stored.subject.as_str() {
                        s if s == log.frame => RecordKind::Frame,
                        s if s == log.operation => RecordKind::Operation,
                        _ => return None,
                    };
                    Some(LogRecord { seq: stored.seq, kind, payload: stored.payload })
                })
                .collect();
            // Only when the last record found is one that the caller sees does it ask for what follows.
            if records.last().is_some_and(|last| last.seq == pull.after()) {
                *reading = Some(pull);
                return Ok(records);
            }
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    /// The sequence of the last record of any kind; 0 before the first.
    pub async fn last_seq(&self) -> Result<u64, BusError> {
        Ok(self.0.bus.ends(&self.0.stream).await?.last_seq)
    }

    /// Removes frames and operations below a sequence; owner records stay, for they are the fence.
    pub async fn purge_below(&self, seq: u64) -> Result<(), BusError> {
        if seq <= 1 {
            return Ok(());
        }
        let log = &*self.0;
        log.bus.purge(&log.stream, Some(&log.frame), seq).await?;
        log.bus.purge(&log.stream, Some(&log.operation), seq).await?;
        self.recount().await
    }
}
