//! An index as a source of any chain: its segments, as the old source reads them, with hidden columns instead of a window.

use std::{sync::Arc, time::Duration};

use arrow::{array::RecordBatch, buffer::ScalarBuffer};
use client::SegmentReader;
use flow::{Combined, SourceSpec, TIME_COLUMN};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use query::RESERVED_COLUMNS;
use tokio::time::Instant;
use tracing::info;
use types::{DurationText, IndexName, StreamCut, Timestamp};
use wire::{
    coordinator::SegmentRange,
    job_manager::{SourceCut, TaskStatus},
};

use super::{BATCH_ROWS, LINGER, LINGER_ROWS, PARK_MAX, Read, begin, end, pulled::with_hidden, read};
use crate::{
    chain,
    error::TaskError,
    metrics::rows,
    part::Part,
    retry::{Pauses, is_final},
    run::{Begin, Cut, Fed, RowSource, Rows, SourceCounts},
    split::{RECEIVED_COLUMN, Split},
    task::Context,
};

/// How long a split without rows counts where idleness is off: for ever, nearly.
const NEVER: Duration = Duration::from_secs(1 << 40);

/// The source.
pub(super) struct Segments {
    context: Arc<Context>,
    index: IndexName,
    spec: SourceSpec,
    idle_after: Duration,
    park: Duration,
    splits: Vec<Reading>,
    combined: Combined,
    reads: FuturesUnordered<BoxFuture<'static, Read>>,
    ends: FuturesUnordered<BoxFuture<'static, (usize, bool)>>,
    /// What is left of a read, to be given out in pieces, and its reader.
    left: Option<Left>,
    risen: Option<Timestamp>,
    told_idle: bool,
    /// Whether the job manager knows that a split was read to its end.
    told_end: bool,
    /// Splits that nothing follows.
    over: usize,
}

/// A split and how it goes on.
struct Reading {
    segment: SegmentRange,
    split: Split,
    fed: Instant,
    idle: bool,
    pauses: Pauses,
}

struct Left {
    split: usize,
    batch: RecordBatch,
    reader: SegmentReader,
    pause: Duration,
}

impl std::fmt::Debug for Segments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segments")
            .field("index", &self.index)
            .field("splits", &self.splits.len())
            .finish_non_exhaustive()
    }
}

impl Segments {
    /// The subtask's share of exactly the segments that the job's cut names.
    pub(super) async fn open(
        context: &Arc<Context>,
        index: &IndexName,
        spec: &SourceSpec,
        begin: Begin<'_>,
    ) -> Result<Self, TaskError> {
        let time = &spec.time;
        if time.column.as_deref().is_some_and(|column| column != TIME_COLUMN) {
            return Err(TaskError::Plan(format!("the event time of an index is {TIME_COLUMN}")));
        }
        let Some(SourceCut::Index { cut, .. }) = begin.cut else {
            return Err(TaskError::Plan(format!("it is not said where to begin in index {index}")));
        };
        let idle_after = time.idle_after.map_or(NEVER, |idle_after| idle_after.0);
        let skew = time.max_future_skew.map_or(NEVER, |skew| skew.0);
        let old = chain::SourceSpec {
            index: index.clone(),
            delay: time.delay,
            max_future_skew: DurationText(skew),
            idle_after: DurationText(idle_after),
            window: None,
        };
        let splits = begin::splits(context, &old, cut, begin.parts).await?;
        let (fed, pauses) = (Instant::now(), Pauses::default());
        let splits = splits.into_iter().map(|(segment, split)| Reading { segment, split, fed, idle: false, pauses });
        let splits: Vec<Reading> = splits.collect();
        let mut combined = Combined::new(splits.len());
        for (number, reading) in splits.iter().enumerate() {
            combined.watermark(number, reading.split.watermark());
        }
        let risen = Some(combined.current()).filter(|risen| *risen > Timestamp::MIN);
        info!(task = %context.label, %index, splits = splits.len(), "source begins");
        let mut source = Self {
            context: Arc::clone(context),
            index: index.clone(),
            spec: spec.clone(),
            idle_after,
            park: (idle_after / 2).clamp(Duration::from_millis(10), PARK_MAX),
            splits,
            combined,
            reads: FuturesUnordered::new(),
            ends: FuturesUnordered::new(),
            left: None,
            risen,
            told_idle: false,
            told_end: false,
            over: 0,
        };
        source.begin_reads();
        Ok(source)
    }

    fn begin_reads(&mut self) {
        for (number, Reading { segment, split, .. }) in self.splits.iter().enumerate() {
            let reader = self.context.shared.client.reader(*segment, split.offset);
            let reader = match &self.spec.columns {
                Some(columns) => {
                    let always = [TIME_COLUMN, RECEIVED_COLUMN].map(str::to_owned);
                    reader.with_columns(columns.iter().cloned().chain(always).collect())
                }
                None => reader,
            };
            self.reads.push(Box::pin(read(number, reader, Duration::ZERO, self.park)));
        }
    }

    async fn take(&mut self) -> Result<Fed, TaskError> {
        loop {
            if let Some(risen) = self.risen.take() {
                return Ok(Fed::Watermark(risen));
            }
            if self.combined.is_idle() && !std::mem::replace(&mut self.told_idle, true) {
                return Ok(Fed::Idle);
            }
            if let Some(left) = self.left.take() {
                return self.piece(left);
            }
            // Without segments there may be some in the next attempt.
            if self.over > 0 && self.over == self.splits.len() {
                return Ok(Fed::End);
            }
            tokio::select! {
                biased;
                Some((split, last)) = self.ends.next() => self.ended(split, last),
                Some(read) = self.reads.next() => self.came(read)?,
                else => std::future::pending().await,
            }
        }
    }

    /// A read has ended.
    fn came(&mut self, Read { split, reader, rows }: Read) -> Result<(), TaskError> {
        let reading = &mut self.splits[split];
        let pause = match rows {
            Ok(Some(batch)) => {
                let pause = if batch.num_rows() < LINGER_ROWS { LINGER } else { Duration::ZERO };
                if std::mem::take(&mut reading.idle) {
                    self.combined.active(split);
                    self.told_idle = false;
                }
                self.left = Some(Left { split, batch, reader, pause });
                return Ok(());
            }
            Ok(None) => {
                reading.pauses.reset();
                if !reading.idle && reading.fed.elapsed() >= self.idle_after {
                    reading.idle = true;
                    self.risen = self.combined.idle(split);
                }
                Duration::ZERO
            }
            Err(problem) if is_final(&problem) => {
                return Err(TaskError::Call { what: "reading the source index", problem });
            }
            Err(problem) => {
                let pause = reading.pauses.next();
                info!(segment = %reading.segment.segment, %problem, ?pause, "read failed; it will be repeated");
                pause
            }
        };
        self.read_on(split, reader, pause);
        Ok(())
    }

    fn read_on(&mut self, split: usize, reader: SegmentReader, pause: Duration) {
        if !reader.at_end() {
            return self.reads.push(Box::pin(read(split, reader, pause, self.park)));
        }
        // The task lives on for the barriers.
        if !std::mem::replace(&mut self.told_end, true) {
            self.context.report(TaskStatus::EndOfSplit);
        }
        let segment = self.splits[split].segment.segment;
        self.ends.push(Box::pin(end(split, self.context.shared.client.clone(), self.index.clone(), segment)));
    }

    /// Gives out the next rows of a read.
    fn piece(&mut self, left: Left) -> Result<Fed, TaskError> {
        let Left { split, batch, reader, pause } = left;
        let count = batch.num_rows().min(BATCH_ROWS);
        let (piece, rest) = (batch.slice(0, count), batch.slice(count, batch.num_rows() - count));
        let reading = &mut self.splits[split];
        let before = reading.split.mark(&piece)?;
        let segment = reading.segment.segment;
        let next = reader.position().offset - rows(rest.num_rows());
        let first = next - rows(count);
        reading.split.offset = next;
        reading.fed = Instant::now();
        reading.pauses.reset();
        self.risen = self.combined.watermark(split, reading.split.watermark());
        if rest.num_rows() > 0 {
            self.left = Some(Left { split, batch: rest, reader, pause });
        } else {
            self.read_on(split, reader, pause);
        }
        let number = (u64::from(segment.epoch) << 32) | u64::from(segment.number);
        let bytes = crate::metrics::rows(piece.get_array_memory_size());
        let batch = self.shaped(&piece, before, (number, first))?;
        Ok(Fed::Rows(Rows { batch, split: number, dead: Vec::new(), read: rows(count), bytes }))
    }

    /// The columns of the plan, and the hidden ones that it wants.
    fn shaped(
        &self,
        piece: &RecordBatch,
        before: Vec<i64>,
        (split, first): (u64, u64),
    ) -> Result<RecordBatch, TaskError> {
        let schema = piece.schema();
        let hidden = self.spec.hidden;
        let kept = |name: &str| match &self.spec.columns {
            _ if name == TIME_COLUMN => true,
            _ if name == flow::OFFSET_COLUMN && hidden.place => false,
            Some(columns) => columns.iter().any(|column| column == name),
            None => !RESERVED_COLUMNS.contains(&name),
        };
        let kept: Vec<usize> = (0..piece.num_columns()).filter(|i| kept(schema.field(*i).name())).collect();
        let offsets = || -> ScalarBuffer<i64> {
            let first = i64::try_from(first).unwrap_or(i64::MAX);
            (0i64..).map(|row| first.saturating_add(row)).take(piece.num_rows()).collect::<Vec<_>>().into()
        };
        let place = hidden.place.then(|| (split, offsets()));
        with_hidden(&piece.project(&kept)?, hidden.watermark.then_some(before), place)
    }

    /// What follows a segment that was read to its end is read by the next attempt, and no window may close without that: so the
    /// split holds the watermark where it is. The last of its keys holds nothing back.
    fn ended(&mut self, split: usize, last: bool) {
        if !last {
            info!(segment = %self.splits[split].segment.segment, "segment read to its end; the next attempt goes on");
            return;
        }
        self.over += 1;
        self.risen = self.combined.finish(split).filter(|risen| *risen < Timestamp::MAX);
    }
}

impl RowSource for Segments {
    fn next(&mut self) -> BoxFuture<'_, Result<Fed, TaskError>> {
        Box::pin(self.take())
    }

    fn note(&self, part: &mut Part) -> Cut {
        part.splits = self.splits.iter().map(|r| (r.segment.segment, r.split.clone())).collect();
        let index = StreamCut(part.splits.iter().map(|(segment, split)| (*segment, split.offset)).collect());
        Cut { index, ..Cut::default() }
    }

    fn counts(&self) -> SourceCounts {
        let skewed = self.splits.iter().map(|reading| reading.split.skewed()).sum();
        SourceCounts { skewed, ..SourceCounts::default() }
    }
}
