//! The owner: gathers what is asked for into frames, appends one frame at a time, applies it, answers.
//!
//! One append in flight makes group commit come by itself: what arrives meanwhile is the next frame. Callers are told
//! only what is durable *and* applied.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering,
    time::{Duration, Instant as StdInstant},
};

use bus::{AppendError, ContainerLog, RecordKind};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::ReplicaId;

use crate::{
    container::{
        Container, Op,
        books::{Phase, Record},
        frame::{Encoded, Entry, Frame},
        recovery::{Ended, claim, read_only, replay},
        state::Effect,
    },
    crash,
    error::Error,
    metrics,
};

/// Entries of one frame: more than fit in a full one of the smallest useful blocks.
const ENTRIES_MAX: usize = 8_192;
/// Frames above this size are encoded off the service's thread: about 300 us of compression.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Serves the queue of one container.
pub(crate) struct Owner {
    pub(crate) container: Container,
    pub(crate) log: ContainerLog,
    pub(crate) replica: ReplicaId,
    pub(crate) queue: mpsc::Receiver<Op>,
    /// Where this owner's record stands; every append is conditional on it.
    pub(crate) owner_seq: u64,
}

/// What an append that did not succeed means for the owner.
enum Setback {
    /// Go on.
    Passing,
    /// Re-read the log: an append may or may not be in it.
    Unknown,
    /// Another owner took over.
    Fenced,
}

impl Owner {
    /// Serves until it is told to halt or another owner takes over; what waits in the queue then is not applied.
    pub(crate) async fn serve(mut self, halt: CancellationToken) -> Ended {
        let ended = loop {
            let first = tokio::select! {
                biased;
                () = halt.cancelled() => None,
                op = self.queue.recv() => op,
            };
            let Some(first) = first else { break Ended::Stopped };
            let ops = self.gather(first).await;
            let ops = self.settle(ops);
            if ops.is_empty() {
                continue;
            }
            match self.commit(ops).await {
                Ok(()) | Err(Setback::Passing) => {}
                Err(Setback::Fenced) => {
                    // At once: from here on everything that it knows may be out of date.
                    self.container.close();
                    break Ended::Superseded;
                }
                Err(Setback::Unknown) => {
                    if let Err(ended) = self.resync(&halt).await {
                        break ended;
                    }
                }
            }
        };
        self.queue.close();
        while let Ok(op) = self.queue.try_recv() {
            let why = match ended {
                Ended::Superseded => Error::Fenced(self.container.id),
                Ended::Stopped => self.container.unavailable("its owner stopped"),
            };
            answer(op, Err(why));
        }
        ended
    }

    /// Collects what is there, and what comes during the linger, up to a full frame; a frame that adds to a tail which
    /// is long already waits besides.
    async fn gather(&mut self, first: Op) -> Vec<Op> {
        let limits = &self.container.limits;
        let begun = Instant::now();
        let delay = if is_append(&first.entry) { self.container.delay() } else { Duration::ZERO };
        let until = begun + limits.frame_linger.max(delay);
        let mut bytes = first.entry.raw_bytes();
        let mut ops = vec![first];
        while bytes < limits.frame_bytes_max && ops.len() < ENTRIES_MAX {
            let Ok(Some(op)) = timeout_at(until, self.queue.recv()).await else { break };
            bytes += op.entry.raw_bytes();
            ops.push(op);
        }
        if !delay.is_zero() {
            metrics::THROTTLE_SECONDS.observe_duration(delay);
            sleep_until(begun + delay).await;
        }
        ops
    }

    /// Answers what needs no frame: refusals and repeats that the state knows already, and what nobody waits for any more.
    fn settle(&self, ops: Vec<Op>) -> Vec<Op> {
        let books = self.container.books.read();
        let now = self.container.clock.now();
        let mut rest: Vec<Op> = Vec::with_capacity(ops.len());
        // Segments that an entry before in this frame may create, seal, merge or delete, or append to.
        let (mut changing, mut growing) = (BTreeSet::new(), BTreeSet::new());
        for op in ops {
            let verdict = match &books.phase {
                Phase::ReadOnly(damage) => {
                    Some(Err(Error::ReadOnly { container: self.container.id, damage: damage.clone() }))
                }
                _ if op.deadline < now => Some(Err(Error::Deadline(self.container.id))),
                _ if op.entry.segment().is_none_or(|segment| changing.contains(&segment)) => None,
                _ if is_conditional(&op.entry) && op.entry.segment().is_some_and(|s| growing.contains(&s)) => None,
                _ => books.state.foresee(&op.entry).map(|f| f.map(|answer| Effect::Appended { answer, piece: None })),
            };
            match verdict {
                Some(verdict) => answer(op, verdict),
                None => {
                    let changes = if is_append(&op.entry) { &mut growing } else { &mut changing };
                    changes.extend(op.entry.segment());
                    if let Entry::Merge { source, .. } = &op.entry {
                        changing.insert(*source);
                    }
                    rest.push(op);
                }
            }
        }
        rest
    }

    async fn commit(&mut self, ops: Vec<Op>) -> Result<(), Setback> {
        let kind = if ops.iter().any(|op| has_events(&op.entry)) { RecordKind::Frame } else { RecordKind::Operation };
        let (frame, encoded) = self.encode(&ops).await;
        let id = format!("{}-{}-{}-{}", frame.container, frame.generation, self.owner_seq, frame.number);
        let begun = StdInstant::now();
        let appended = self.log.append(self.owner_seq, kind, &id, encoded.bytes.clone()).await;
        let seq = match appended {
            Ok(seq) => seq,
            Err(error) => return Err(self.fail(ops, error)),
        };
        crash::point("after_frame_append");
        metrics::FRAME_SECONDS.observe_duration(begun.elapsed());
        metrics::FRAMES.inc();
        let bytes = u64::try_from(encoded.bytes.len()).unwrap_or(u64::MAX);
        metrics::FRAME_BYTES.observe(bytes as f64);
        let record = Record { seq, bytes, frame, link: encoded.link };
        let now = self.container.clock.now();
        let applied = self.container.books.write().apply(&record, now);
        let effects = match applied {
            Ok(Some(effects)) => effects,
            // The log says that this frame stands where another one was applied: only reading it again helps.
            Ok(None) => return Err(self.fail(ops, AppendError::Unknown(format!("sequence {seq} was applied before")))),
            Err(damage) => {
                read_only(&self.container, damage);
                return Err(self.fail(ops, AppendError::Unknown("the log is damaged".into())));
            }
        };
        crash::point("after_apply");
        self.after_commit();
        crash::point("before_ack");
        ops.into_iter().zip(effects).for_each(|(op, effect)| answer(op, Ok(effect)));
        Ok(())
    }

    async fn encode(&self, ops: &[Op]) -> (Frame, Encoded) {
        let entries: Vec<Entry> = ops.iter().map(|op| op.entry.clone()).collect();
        let frame = {
            let books = self.container.books.read();
            Frame {
                container: self.container.id,
                generation: self.container.generation,
                number: books.state.frame_number + 1,
                previous: books.state.previous,
                entries,
            }
        };
        if frame.entries.iter().map(Entry::raw_bytes).sum::<usize>() <= INLINE_BYTES_MAX {
            let encoded = frame.encode();
            return (frame, encoded);
        }
        let encoding = tokio::task::spawn_blocking(move || {
            let encoded = frame.encode();
            (frame, encoded)
        });
        encoding.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn after_commit(&self) {
        let (tail, held) = {
            let books = self.container.books.read();
            (books.tail.bytes(), books.log.held())
        };
        metrics::TAIL_BYTES.with(&self.container.id.to_string()).set(tail);
        let limits = &self.container.limits;
        if tail >= limits.flush.bytes || held >= limits.snapshot_bytes {
            self.container.kick.notify_one();
        }
    }

    fn fail(&self, ops: Vec<Op>, error: AppendError) -> Setback {
        let container = self.container.id;
        let (why, setback) = match error {
            AppendError::Fenced { last } => {
                info!(%container, generation = %self.container.generation, last, "owner fenced by a newer one");
                (Error::Fenced(container), Setback::Fenced)
            }
            AppendError::Unknown(reason) => {
                warn!(%container, reason, "append without answer, the log is read again");
                (Error::AppendUnknown(container), Setback::Unknown)
            }
            AppendError::Full => {
                self.container.log_full.store(true, Ordering::Relaxed);
                self.container.kick.notify_one();
                (
                    Error::Throttled { container, limit: "its log is full and waits for object storage" },
                    Setback::Passing,
                )
            }
            AppendError::Refused(reason) => {
                warn!(%container, reason, "append refused by the log");
                (Error::Unavailable { container, why: reason }, Setback::Passing)
            }
        };
        metrics::REFUSALS.with(reason_of(&why)).add(u64::try_from(ops.len()).unwrap_or(u64::MAX));
        ops.into_iter().for_each(|op| answer(op, Err(why.clone())));
        setback
    }

    /// Claims once more, so that nothing sent before can still arrive, and applies what did arrive.
    async fn resync(&mut self, halt: &CancellationToken) -> Result<(), Ended> {
        metrics::RESYNCS.inc();
        self.owner_seq = claim(&self.container, &self.log, &self.replica, halt).await?;
        let applied = self.container.books.read().state.applied_seq;
        replay(&self.container, &self.log, applied, halt).await?;
        let generation = self.container.generation;
        self.container.books.write().state.apply_owner(self.owner_seq, generation);
        info!(container = %self.container.id, owner_seq = self.owner_seq, "log read again after an append without answer");
        Ok(())
    }
}

fn is_append(entry: &Entry) -> bool {
    matches!(entry, Entry::Append { .. })
}

fn has_events(entry: &Entry) -> bool {
    is_append(entry) || matches!(entry, Entry::Carry { .. })
}

fn is_conditional(entry: &Entry) -> bool {
    matches!(entry, Entry::Append { expected_end: Some(_), .. })
}

fn reason_of(error: &Error) -> &'static str {
    match error {
        Error::Fenced(_) => "fenced",
        Error::AppendUnknown(_) => "unknown",
        Error::Throttled { .. } => "full",
        _ => "refused",
    }
}

fn answer(op: Op, with: Result<Effect, Error>) {
    // Whoever asked may have stopped waiting; what was done stays done.
    op.reply.send(with).ok();
}
