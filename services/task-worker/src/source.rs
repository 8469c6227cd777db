//! A source task: reads its splits in turn, drops what is late, filters, projects and gives on.

mod begin;
mod files;
pub(crate) mod folder;
mod generated;
mod jetstream;
mod nexmark;
mod open;
mod parquet;
mod pulled;
mod segments;

use std::{sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use client::{Client, SegmentReader};
use exchange::Message;
use flow::{Combined, TIME_COLUMN};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use tracing::info;
use types::{IndexName, RoutingKey, SegmentId, StreamCut, Timestamp};
use wire::{Problem, coordinator::SegmentRange, job_manager::TaskStatus, task_worker::BarrierKind};

use crate::{
    chain::{SourceSpec, Stages},
    checkpoint::{Checkpointer, Snapshot},
    edges::Edges,
    error::TaskError,
    metrics::{Meter, rows},
    part::Part,
    retry::{Pauses, is_final},
    sink::{IndexSink, index::events_at},
    split::Split,
    task::{Context, Order},
};

/// Rows that are handled between two points at which other tasks can have the thread.
const BATCH_ROWS: usize = 8_192;
/// A read that brought fewer rows is followed by a pause, so that the tail comes in useful batches.
const LINGER_ROWS: usize = 1_024;
/// That pause.
const LINGER: Duration = Duration::from_millis(5);
/// The longest that a read is parked at the tail.
const PARK_MAX: Duration = Duration::from_secs(1);

pub(crate) use open::open;

/// From where a source goes on.
pub(crate) struct Beginning<'a> {
    /// Names exactly the segments that the job reads.
    pub(crate) cut: &'a StreamCut,
    /// The parts of all subtasks, whatever their number was.
    pub(crate) parts: &'a [Part],
}

/// Where a source's rows go.
#[derive(Debug)]
pub(crate) enum Output {
    Edges(Edges),
    Index(Box<IndexSink>),
}

/// One source task.
pub(crate) struct Source {
    context: Arc<Context>,
    spec: SourceSpec,
    stages: Arc<Stages>,
    splits: Vec<Reading>,
    combined: Combined,
    /// Whether the receivers know that nothing comes for a while.
    told_idle: bool,
    /// Whether the job manager knows that a split was read to its end.
    told_end: bool,
    output: Output,
    checkpoints: Checkpointer,
    meter: Meter,
}

/// A split and how it goes on.
struct Reading {
    segment: SegmentRange,
    split: Split,
    /// When its last rows came.
    fed: Instant,
    idle: bool,
    pauses: Pauses,
}

/// A read that has ended.
struct Read {
    split: usize,
    reader: SegmentReader,
    rows: Result<Option<RecordBatch>, Problem>,
}

impl Source {
    /// A source over the subtask's share of the cut, from there on or as the checkpoint says.
    pub(crate) async fn open(
        context: Arc<Context>,
        spec: SourceSpec,
        stages: Arc<Stages>,
        beginning: Beginning<'_>,
        output: Output,
    ) -> Result<Self, TaskError> {
        let Beginning { cut, parts } = beginning;
        let checkpoint = parts.iter().map(|part| part.checkpoint).max().unwrap_or(0);
        let splits = begin::splits(&context, &spec, cut, parts).await?;
        let reading = |(segment, split)| {
            let (fed, idle, pauses) = (Instant::now(), false, Pauses::default());
            Reading { segment, split, fed, idle, pauses }
        };
        let splits: Vec<Reading> = splits.into_iter().map(reading).collect();
        let mut combined = Combined::new(splits.len());
        for (number, reading) in splits.iter().enumerate() {
            combined.watermark(number, reading.split.watermark());
        }
        info!(task = %context.label, index = %spec.index, splits = splits.len(), checkpoint, "source begins");
        let meter = Meter::of(&context);
        let checkpoints = Checkpointer::new(Arc::clone(&context), checkpoint);
        let (told_idle, told_end) = (false, false);
        Ok(Self { context, spec, stages, splits, combined, told_idle, told_end, output, checkpoints, meter })
    }

    /// Reads until a barrier says that nothing follows it; barriers come between batches.
    pub(crate) async fn run(mut self, client: Client, mut barriers: mpsc::Receiver<Order>) -> Result<(), TaskError> {
        let park = (self.spec.idle_after.0 / 2).clamp(Duration::from_millis(10), PARK_MAX);
        self.rose(Some(self.combined.current()).filter(|w| *w > Timestamp::MIN)).await?;
        self.tell_if_idle().await?;
        let (mut reads, mut ends) = (FuturesUnordered::new(), FuturesUnordered::new());
        for (number, reading) in self.splits.iter().enumerate() {
            reads.push(read(number, client.reader(reading.segment, reading.split.offset), Duration::ZERO, park));
        }
        loop {
            // A barrier first: rows are there without end, and a checkpoint has to end.
            let Read { split, reader, rows } = tokio::select! {
                biased;
                Some(order) = barriers.recv() => {
                    self.meter.waited();
                    if self.barrier(order).await? {
                        return self.end().await;
                    }
                    continue;
                }
                Some((split, last)) = ends.next() => {
                    self.meter.waited();
                    self.over(split, last).await?;
                    continue;
                }
                Some(read) = reads.next() => read,
                else => std::future::pending().await,
            };
            self.meter.waited();
            let pause = match rows {
                Ok(Some(batch)) => self.rows(split, &batch, reader.position().offset).await?,
                Ok(None) => {
                    self.silent(split).await?;
                    Duration::ZERO
                }
                Err(problem) if is_final(&problem) => {
                    return Err(TaskError::Call { what: "reading the source index", problem });
                }
                Err(problem) => {
                    let pause = self.splits[split].pauses.next();
                    info!(segment = %self.splits[split].segment.segment, %problem, ?pause, "read failed; it will be repeated");
                    pause
                }
            };
            if reader.at_end() {
                // The task lives on for the barriers.
                if !std::mem::replace(&mut self.told_end, true) {
                    self.context.report(TaskStatus::EndOfSplit);
                }
                let segment = self.splits[split].segment.segment;
                ends.push(end(split, client.clone(), self.spec.index.clone(), segment));
            } else {
                reads.push(read(split, reader, pause, park));
            }
        }
    }

    /// Gives on the next rows of a split, and says how long to wait before the next read.
    async fn rows(&mut self, number: usize, batch: &RecordBatch, next: u64) -> Result<Duration, TaskError> {
        self.speaks(number).await?;
        for from in (0..batch.num_rows()).step_by(BATCH_ROWS) {
            let slice = batch.slice(from, BATCH_ROWS.min(batch.num_rows() - from));
            self.slice(number, &slice).await?;
            tokio::task::yield_now().await;
        }
        let reading = &mut self.splits[number];
        reading.split.offset = next;
        reading.fed = Instant::now();
        reading.pauses.reset();
        Ok(if batch.num_rows() < LINGER_ROWS { LINGER } else { Duration::ZERO })
    }

    async fn slice(&mut self, number: usize, slice: &RecordBatch) -> Result<(), TaskError> {
        let segment = self.splits[number].segment.segment;
        let in_time = self.splits[number].split.take(slice, self.spec.window)?;
        let passed = self.stages.apply_and_shed(&in_time)?;
        self.meter.took(rows(slice.num_rows()), 0);
        self.meter.late(rows(slice.num_rows() - in_time.num_rows()));
        self.meter.gave_rows(rows(passed.num_rows()), 0);
        self.meter.ran();
        if passed.num_rows() > 0 {
            self.give(segment, &passed).await?;
        }
        // The watermark after the rows that led to it: none of them can be late further on.
        let risen = self.combined.watermark(number, self.splits[number].split.watermark());
        self.rose(risen).await?;
        self.meter.gave();
        Ok(())
    }

    async fn give(&mut self, segment: SegmentId, passed: &RecordBatch) -> Result<(), TaskError> {
        match &mut self.output {
            Output::Edges(edges) => edges.rows(passed).await,
            Output::Index(sink) => {
                let time = passed.column_by_name(TIME_COLUMN).ok_or(TaskError::Column(TIME_COLUMN))?;
                // All rows of a split meet in one segment, so that their order holds there too.
                let key = RoutingKey::new(&segment.to_string()).ok();
                let events = events_at(time, passed)?.into_iter().map(|event| (key.clone(), event));
                sink.append(Some(segment), events.collect()).await
            }
        }
    }

    /// A split has nothing at the moment.
    async fn silent(&mut self, number: usize) -> Result<(), TaskError> {
        let reading = &mut self.splits[number];
        reading.pauses.reset();
        if reading.idle || reading.fed.elapsed() < self.spec.idle_after.0 {
            return Ok(());
        }
        reading.idle = true;
        let risen = self.combined.idle(number);
        self.rose(risen).await?;
        self.tell_if_idle().await
    }

    /// A split was read to its end.
    ///
    /// What follows it is read by the next attempt, and no window may close without that: so the split holds the watermark
    /// where it is, however long that takes. The last of its keys holds nothing back.
    async fn over(&mut self, number: usize, last: bool) -> Result<(), TaskError> {
        if !last {
            info!(segment = %self.splits[number].segment.segment, "segment read to its end; the next attempt goes on");
            return Ok(());
        }
        let risen = self.combined.finish(number);
        self.rose(risen).await?;
        self.tell_if_idle().await
    }

    /// A split has rows again: it counts from now on, here and at the receivers.
    async fn speaks(&mut self, number: usize) -> Result<(), TaskError> {
        if !std::mem::take(&mut self.splits[number].idle) {
            return Ok(());
        }
        self.combined.active(number);
        if std::mem::take(&mut self.told_idle) {
            self.tell(Message::Watermark(self.combined.current())).await?;
        }
        Ok(())
    }

    async fn rose(&mut self, risen: Option<Timestamp>) -> Result<(), TaskError> {
        if let Some(watermark) = risen {
            self.meter.watermark(watermark);
        }
        match risen {
            Some(watermark) => self.tell(Message::Watermark(watermark)).await,
            None => Ok(()),
        }
    }

    async fn tell_if_idle(&mut self) -> Result<(), TaskError> {
        if self.combined.is_idle() && !self.told_idle {
            self.told_idle = true;
            self.tell(Message::Idle).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, message: Message) -> Result<(), TaskError> {
        match &mut self.output {
            Output::Edges(edges) => edges.tell(&message).await,
            // What is appended is acknowledged, and an index knows no watermarks.
            Output::Index(_) => Ok(()),
        }
    }

    /// Takes an order; true if nothing follows its barrier.
    async fn barrier(&mut self, order: Order) -> Result<bool, TaskError> {
        let Order { checkpoint, kind, .. } = order;
        if !self.checkpoints.is_new(checkpoint) {
            return Ok(false);
        }
        if kind == BarrierKind::Drain {
            self.tell(Message::Watermark(Timestamp::MAX)).await?;
        }
        self.tell(Message::Barrier(checkpoint)).await?;
        let mut part = self.checkpoints.part(checkpoint);
        part.splits = self.splits.iter().map(|r| (r.segment.segment, r.split.clone())).collect();
        if let Output::Index(sink) = &self.output {
            sink.note(&mut part);
        }
        let cut = StreamCut(part.splits.iter().map(|(segment, split)| (*segment, split.offset)).collect());
        self.checkpoints.store(checkpoint, Snapshot { cut: cut.into(), ..Snapshot::of(part) });
        Ok(matches!(kind, BarrierKind::Stop | BarrierKind::Drain))
    }

    async fn end(&mut self) -> Result<(), TaskError> {
        self.tell(Message::Eos).await?;
        self.checkpoints.reported().await;
        Ok(())
    }
}

async fn read(split: usize, mut reader: SegmentReader, pause: Duration, park: Duration) -> Read {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    let rows = reader.next(park).await;
    Read { split, reader, rows }
}

/// Waits until it is known whether a segment that was read to its end is the last of its keys: its stream is sealed.
async fn end(split: usize, client: Client, index: IndexName, segment: SegmentId) -> (usize, bool) {
    let mut pauses = Pauses::default();
    loop {
        // First the stream: once it is sealed nothing can follow any more.
        let sealed = client.stream(&index).await.is_ok_and(|stream| stream.sealed);
        match client.locate(&index, segment).await {
            Ok(Some(node)) if node.successors.is_empty() && sealed => return (split, true),
            Ok(Some(node)) if node.successors.is_empty() => {}
            Ok(_) => return (split, false),
            Err(problem) => info!(%segment, %problem, "what follows a segment is not known; it will be asked again"),
        }
        tokio::time::sleep(pauses.next()).await;
    }
}
