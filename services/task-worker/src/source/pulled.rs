//! A source whose splits are read when rows are wanted: files, generators, a stream.
//!
//! The split that is furthest behind in event time is read next. So the splits of a task stay together however they are cut, and
//! what waits for the slowest of them waits for little; what comes of the rows does not depend on it.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, TimestampNanosecondArray, UInt64Array},
    datatypes::{Field, Schema, TimestampNanosecondType},
};
use bytes::Bytes;
use flow::{
    Combined, Corrupt, DeadLetter, FaultKind, Hidden, INSTANT_TYPE, OFFSET_COLUMN, ROW_WATERMARK_COLUMN, SPLIT_COLUMN,
};
use formats::{Fault, Rows as Read};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use types::Timestamp;

use crate::{
    error::TaskError,
    metrics::rows,
    part::Part,
    run::{Cut, Fed, RowSource, Rows, SourceCounts},
    task::Context,
};

/// Rows of a piece.
pub(super) const PIECE_ROWS: usize = 8_192;

/// Which subtask of how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) subtask: u32,
    pub(super) parallelism: u32,
}

impl Share {
    pub(super) fn of(context: &Context) -> Self {
        Self { subtask: context.id.subtask, parallelism: context.parallelism }
    }

    /// Whether a split of that number is this subtask's.
    pub(super) fn has(self, number: u32) -> bool {
        number % self.parallelism.max(1) == self.subtask
    }
}

/// Reads one split.
pub(super) trait Reader: std::fmt::Debug + Send {
    /// The next rows, with `_time`, and the bytes that they took; nothing at the end. Cancel safe.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<(Read, u64)>, TaskError>>;

    /// Where to go on behind what was given out.
    fn position(&self) -> u64;
}

/// Where a split stands; a checkpoint stores exactly this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Where its reader goes on.
    pub(super) position: u64,
    /// The latest event time so far.
    #[serde(default)]
    pub(super) latest: Option<i64>,
    /// Whether it was read to its end.
    #[serde(default)]
    pub(super) ended: bool,
}

/// A split.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) name: String,
    /// As in `_split`.
    pub(super) number: u64,
    pub(super) place: Place,
    /// Nothing once it has ended.
    pub(super) reader: Option<Box<dyn Reader>>,
}

/// What is the same for all splits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// In nanoseconds.
    pub(super) delay: i64,
    pub(super) hidden: Hidden,
    pub(super) corrupt: Corrupt,
    /// How long a source without rows counts, where splits can fall silent; those have one split.
    pub(super) idle_after: Option<Duration>,
}

/// The source.
#[derive(Debug)]
pub(super) struct Pulled {
    splits: Vec<Split>,
    manner: Manner,
    combined: Combined,
    /// To be told next.
    risen: Option<Timestamp>,
    counts: SourceCounts,
    /// When the last rows came, and whether it was told that none do.
    fed: Instant,
    told_idle: bool,
}

impl Place {
    fn watermark(&self, delay: i64) -> i64 {
        self.latest.map_or(i64::MIN, |latest| latest.saturating_sub(delay))
    }
}

impl Pulled {
    pub(super) fn new(splits: Vec<Split>, manner: Manner) -> Self {
        let mut combined = Combined::new(splits.len());
        for (number, split) in splits.iter().enumerate() {
            combined.watermark(number, Timestamp::from_nanos(split.place.watermark(manner.delay)));
        }
        for (number, _) in splits.iter().enumerate().filter(|(_, split)| split.place.ended) {
            combined.finish(number);
        }
        let risen = Some(combined.current()).filter(|w| *w > Timestamp::MIN && *w < Timestamp::MAX);
        let (counts, fed, told_idle) = (SourceCounts::default(), Instant::now(), false);
        Self { splits, manner, combined, risen, counts, fed, told_idle }
    }

    async fn take(&mut self) -> Result<Fed, TaskError> {
        if let Some(risen) = self.risen.take() {
            return Ok(Fed::Watermark(risen));
        }
        loop {
            let delay = self.manner.delay;
            let open = self
                .splits
                .iter_mut()
                .enumerate()
                .filter_map(|(n, split)| Some((n, split.place, split.reader.as_mut()?)));
            let Some((number, _, reader)) = open.min_by_key(|(n, place, _)| (place.watermark(delay), *n)) else {
                return Ok(Fed::End);
            };
            let read = match self.manner.idle_after.filter(|_| !self.told_idle) {
                None => reader.next().await?,
                Some(after) => {
                    tokio::select! {
                        biased;
                        read = reader.next() => read?,
                        () = sleep_until(self.fed + after) => {
                            self.told_idle = true;
                            return Ok(Fed::Idle);
                        }
                    }
                }
            };
            if let Some((read, bytes)) = read {
                let position = reader.position();
                (self.fed, self.told_idle) = (Instant::now(), false);
                return self.rows(number, read, position, bytes);
            }
            let position = reader.position();
            let split = &mut self.splits[number];
            split.reader = None;
            split.place = Place { position, ended: true, ..split.place };
            // The last watermark of all is told by whoever sees the end.
            if let Some(risen) = self.combined.finish(number).filter(|risen| *risen < Timestamp::MAX) {
                return Ok(Fed::Watermark(risen));
            }
        }
    }

    fn rows(&mut self, number: usize, read: Read, position: u64, bytes: u64) -> Result<Fed, TaskError> {
        let Read { batch, offsets, faults } = read;
        let (count, dead) = (batch.num_rows() + faults.len(), self.faults(&faults, number)?);
        let Manner { delay, hidden, .. } = self.manner;
        let split = &mut self.splits[number];
        let times = batch.column_by_name(flow::TIME_COLUMN).ok_or(TaskError::Column(flow::TIME_COLUMN))?;
        let times = times.as_primitive::<TimestampNanosecondType>().values();
        let before = latest(&mut split.place, times, delay, hidden.watermark);
        split.place.position = position;
        let batch = with_hidden(&batch, before, hidden.place.then_some((split.number, offsets)))?;
        let fed = Rows { batch, split: split.number, dead, read: rows(count), bytes };
        let watermark = Timestamp::from_nanos(split.place.watermark(delay));
        self.risen = self.combined.watermark(number, watermark);
        Ok(Fed::Rows(fed))
    }

    /// What becomes of the rows that could not be read.
    fn faults(&mut self, faults: &[Fault], number: usize) -> Result<Vec<DeadLetter>, TaskError> {
        let Some(first) = faults.first() else { return Ok(Vec::new()) };
        let name = &self.splits[number].name;
        let kind = |fault: &Fault| match fault.kind {
            formats::FaultKind::Undated => FaultKind::Undated,
            formats::FaultKind::Corrupt | formats::FaultKind::TooLong => FaultKind::Corrupt,
        };
        let detail = |fault: &Fault| format!("{name} at {}: {}", fault.offset, fault.problem);
        self.counts.faults += rows(faults.len());
        self.counts.fault.get_or_insert_with(|| format!("{}: {}", kind(first), detail(first)));
        let operator = || "source".to_owned();
        match self.manner.corrupt {
            Corrupt::Drop => Ok(Vec::new()),
            Corrupt::Fail => {
                Err(flow::Error::Fault { operator: operator(), kind: kind(first), detail: detail(first) }.into())
            }
            Corrupt::DeadLetter => Ok(faults
                .iter()
                .map(|fault| DeadLetter {
                    time: None,
                    kind: kind(fault),
                    detail: detail(fault),
                    operator: operator(),
                    row: fault.text.clone(),
                })
                .collect()),
        }
    }
}

/// Takes the times of the next rows of a split; if they are wanted, the watermark before each of them.
fn latest(place: &mut Place, times: &[i64], delay: i64, wanted: bool) -> Option<Vec<i64>> {
    let mut latest = place.latest.unwrap_or(i64::MIN);
    let mut watermark = place.watermark(delay);
    let mut before = Vec::with_capacity(if wanted { times.len() } else { 0 });
    for &time in times {
        if wanted {
            before.push(watermark);
        }
        if time > latest {
            latest = time;
            watermark = time.saturating_sub(delay);
        }
    }
    place.latest = Some(latest).filter(|latest| *latest > i64::MIN);
    wanted.then_some(before)
}

/// The rows with the hidden columns that are wanted.
pub(super) fn with_hidden(
    batch: &RecordBatch,
    watermarks: Option<Vec<i64>>,
    place: Option<(u64, arrow::buffer::ScalarBuffer<i64>)>,
) -> Result<RecordBatch, TaskError> {
    if watermarks.is_none() && place.is_none() {
        return Ok(batch.clone());
    }
    let (mut fields, mut columns) = (batch.schema().fields().to_vec(), batch.columns().to_vec());
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), false)));
        columns.push(column);
    };
    if let Some(watermarks) = watermarks {
        add(ROW_WATERMARK_COLUMN, Arc::new(TimestampNanosecondArray::from(watermarks).with_data_type(INSTANT_TYPE)));
    }
    if let Some((split, offsets)) = place {
        add(SPLIT_COLUMN, Arc::new(UInt64Array::from(vec![split; batch.num_rows()])));
        add(OFFSET_COLUMN, Arc::new(Int64Array::new(offsets, None)));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

impl RowSource for Pulled {
    fn next(&mut self) -> BoxFuture<'_, Result<Fed, TaskError>> {
        Box::pin(self.take())
    }

    fn note(&self, part: &mut Part) -> Cut {
        let mut cut = Cut::default();
        for Split { name, place, .. } in &self.splits {
            part.positions.insert(name.clone(), Bytes::from(wire::encode(place)));
            cut.splits.insert(name.clone(), place.position);
        }
        cut
    }

    fn counts(&self) -> SourceCounts {
        self.counts.clone()
    }
}

#[cfg(test)]
#[path = "pulled_tests.rs"]
mod tests;
