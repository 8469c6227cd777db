//! A source task: reads its splits in turn, drops what is late, filters, projects and gives on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use client::SegmentReader;
use exchange::Message;
use flow::{Combined, TIME_COLUMN};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use tracing::info;
use types::{RoutingKey, SegmentId, StreamCut, Timestamp};
use wire::{Problem, coordinator::SegmentRange};

use crate::{
    chain::{SourceSpec, Stages},
    checkpoint::Checkpointer,
    edges::Edges,
    error::TaskError,
    metrics::{Meter, rows},
    part::Part,
    retry::{Pauses, is_final, persist},
    sink::{IndexSink, index::events_at},
    split::Split,
    task::Context,
};

/// Rows that are handled between two points at which other tasks can have the thread.
const BATCH_ROWS: usize = 8_192;
/// A read that brought fewer rows is followed by a pause, so that the tail comes in useful batches.
const LINGER_ROWS: usize = 1_024;
/// That pause.
const LINGER: Duration = Duration::from_millis(5);
/// The longest that a read is parked at the tail.
const PARK_MAX: Duration = Duration::from_secs(1);

/// Where a source's rows go.
#[derive(Debug)]
pub(crate) enum Output {
    Edges(Edges),
    Index(Box<IndexSink>),
}

/// One source task.
pub(crate) struct Source {
    spec: SourceSpec,
    stages: Arc<Stages>,
    splits: Vec<Reading>,
    combined: Combined,
    /// Whether the receivers know that nothing comes for a while.
    told_idle: bool,
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
    /// A source over the subtask's share of the segments, from the cut on or as `restored` says.
    pub(crate) async fn open(
        context: &Arc<Context>,
        spec: SourceSpec,
        stages: Arc<Stages>,
        cut: &StreamCut,
        restored: Option<Part>,
        output: Output,
    ) -> Result<Self, TaskError> {
        let client = &context.shared.client;
        let stream = persist("describing the source index", || client.stream(&spec.index)).await?;
        let checkpoint = restored.as_ref().map_or(0, |part| part.checkpoint);
        let known = restored.map(|part| part.splits).unwrap_or_default();
        let mut splits = Vec::new();
        for segment in share(stream.segments.clone(), context.id.subtask, context.parallelism) {
            let split = begin(&spec, segment.segment, cut, &known)?;
            splits.push(Reading { segment, split, fed: Instant::now(), idle: false, pauses: Pauses::default() });
        }
        let mut combined = Combined::new(splits.len());
        for (number, reading) in splits.iter().enumerate() {
            combined.watermark(number, reading.split.watermark());
        }
        info!(task = %context.label, index = %spec.index, splits = splits.len(), checkpoint, "source begins");
        let meter = Meter::of(&context.label);
        let checkpoints = Checkpointer::new(Arc::clone(context), checkpoint);
        Ok(Self { spec, stages, splits, combined, told_idle: false, output, checkpoints, meter })
    }

    /// Reads for ever; barriers come between batches.
    pub(crate) async fn run(
        mut self,
        client: client::Client,
        mut barriers: mpsc::Receiver<u64>,
    ) -> Result<(), TaskError> {
        let park = (self.spec.idle_after.0 / 2).clamp(Duration::from_millis(10), PARK_MAX);
        self.rose(Some(self.combined.current()).filter(|w| *w > Timestamp::MIN)).await?;
        self.tell_if_idle().await?;
        let mut reads = FuturesUnordered::new();
        for (number, reading) in self.splits.iter().enumerate() {
            reads.push(read(number, client.reader(reading.segment, reading.split.offset), Duration::ZERO, park));
        }
        loop {
            // A barrier first: rows are there without end, and a checkpoint has to end.
            let Read { split, reader, rows } = tokio::select! {
                biased;
                Some(checkpoint) = barriers.recv() => {
                    self.meter.waited();
                    self.barrier(checkpoint).await?;
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
                // Nothing will ever follow in a sealed segment. The task lives on for the barriers.
                let risen = self.combined.finish(split);
                self.rose(risen).await?;
                self.tell_if_idle().await?;
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
        self.meter.rows_in.add(rows(slice.num_rows()));
        self.meter.rows_late.add(rows(slice.num_rows() - in_time.num_rows()));
        self.meter.rows_out.add(rows(passed.num_rows()));
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

    async fn barrier(&mut self, checkpoint: u64) -> Result<(), TaskError> {
        if !self.checkpoints.is_new(checkpoint) {
            return Ok(());
        }
        self.tell(Message::Barrier(checkpoint)).await?;
        let mut part = self.checkpoints.part(checkpoint);
        part.splits = self.splits.iter().map(|r| (r.segment.segment, r.split.clone())).collect();
        if let Output::Index(sink) = &self.output {
            part.writers = sink.numbers();
        }
        let cut = StreamCut(part.splits.iter().map(|(segment, split)| (*segment, split.offset)).collect());
        self.checkpoints.store(&part, cut);
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

/// The subtask's share of a stream's segments: every subtask takes each `parallelism`-th.
fn share(mut segments: Vec<SegmentRange>, subtask: u32, parallelism: u32) -> Vec<SegmentRange> {
    segments.sort_unstable_by_key(|s| s.segment);
    let numbered = (0u32..).zip(segments);
    numbered.filter(|(i, _)| i % parallelism.max(1) == subtask).map(|(_, segment)| segment).collect()
}

/// Where a split begins: as a checkpoint left it, which must be where the job's cut says, or fresh at the cut.
fn begin(
    spec: &SourceSpec,
    segment: SegmentId,
    cut: &StreamCut,
    known: &BTreeMap<SegmentId, Split>,
) -> Result<Split, TaskError> {
    let offset = cut.offset(segment);
    match known.get(&segment) {
        None => Ok(Split::new(spec, offset)),
        Some(split) if split.offset == offset => Ok(split.clone()),
        Some(split) => Err(TaskError::Cut { segment, cut: offset, checkpoint: split.offset }),
    }
}

#[cfg(test)]
mod tests {
    use types::{ContainerId, KeyRange};

    use super::*;

    #[test]
    fn every_segment_is_read_by_one_subtask() {
        let segment = |number| SegmentRange {
            segment: SegmentId { stream: 1, epoch: 0, number },
            container: ContainerId(0),
            range: KeyRange { first: 0, last: 0 },
        };
        let numbers = |subtask, parallelism| -> Vec<u32> {
            let shuffled = [3, 0, 4, 1, 2].map(segment).to_vec();
            share(shuffled, subtask, parallelism).iter().map(|s| s.segment.number).collect()
        };
        assert_eq!((numbers(0, 2), numbers(1, 2)), (vec![0, 2, 4], vec![1, 3]));
        assert_eq!((numbers(0, 1), numbers(7, 8)), (vec![0, 1, 2, 3, 4], vec![]));
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_its_cut_is_refused() {
        let spec = SourceSpec {
            index: "shop".parse().unwrap(),
            delay: types::DurationText(Duration::ZERO),
            max_future_skew: types::DurationText(Duration::ZERO),
            idle_after: types::DurationText(Duration::ZERO),
            window: None,
        };
        let segment = SegmentId { stream: 1, epoch: 0, number: 0 };
        let cut = StreamCut([(segment, 7)].into());
        assert_eq!(begin(&spec, segment, &cut, &BTreeMap::new()).unwrap().offset, 7);
        let known = BTreeMap::from([(segment, Split::new(&spec, 7))]);
        assert_eq!(begin(&spec, segment, &cut, &known).unwrap().offset, 7);
        assert!(begin(&spec, segment, &StreamCut::default(), &known).is_err());
    }
}
