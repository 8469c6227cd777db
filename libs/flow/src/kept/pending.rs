//! Rows that wait until the watermark has passed them.

use arrow::{array::RecordBatch, buffer::ScalarBuffer, compute::concat_batches};

use super::{Stamps, form::times, joins, order};
use crate::Error;

/// Rows as they came, in batches by time.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    runs: Vec<Run>,
    bytes: usize,
}

#[derive(Debug)]
struct Run {
    batch: RecordBatch,
    times: ScalarBuffer<i64>,
    stamp: u64,
    bytes: usize,
}

/// The bytes that the rows of a batch take, without those that lie beside them in shared buffers.
pub(super) fn bytes_of(batch: &RecordBatch) -> usize {
    let of = |array: &arrow::array::ArrayRef| {
        array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
    };
    batch.columns().iter().map(of).sum()
}

impl Run {
    fn new(batch: RecordBatch, stamp: u64) -> Result<Self, Error> {
        let batch = order::by_time(batch)?;
        Ok(Self { times: times(&batch)?, bytes: bytes_of(&batch), batch, stamp })
    }
}

impl Pending {
    /// Takes rows as [`Form`](super::Form) keeps them.
    pub(crate) fn push(&mut self, kept: RecordBatch, stamps: &mut Stamps) -> Result<(), Error> {
        if kept.num_rows() == 0 {
            return Ok(());
        }
        let mut run = Run::new(kept, stamps.next())?;
        while let Some(before) = self.runs.pop_if(|before| joins(before.times.len(), run.times.len())) {
            self.bytes -= before.bytes;
            let schema = before.batch.schema();
            run = Run::new(concat_batches(&schema, [&before.batch, &run.batch])?, run.stamp)?;
        }
        self.bytes += run.bytes;
        self.runs.push(run);
        Ok(())
    }

    /// Takes out the rows before that instant, in their order.
    pub(crate) fn ready(
        &mut self,
        until: i64,
        placed: bool,
        stamps: &mut Stamps,
    ) -> Result<Option<RecordBatch>, Error> {
        let mut ready = Vec::new();
        for run in self.runs.iter_mut().filter(|run| run.times.first().is_some_and(|first| *first < until)) {
            let count = run.times.partition_point(|time| *time < until);
            ready.push(run.batch.slice(0, count));
            let left = run.times.len() - count;
            (run.batch, run.times) = (run.batch.slice(count, left), run.times.slice(count, left));
            self.bytes -= run.bytes;
            run.bytes = if left == 0 { 0 } else { bytes_of(&run.batch) };
            run.stamp = stamps.next();
            self.bytes += run.bytes;
        }
        self.runs.retain(|run| !run.times.is_empty());
        let Some(first) = ready.first() else { return Ok(None) };
        let all = if let [only] = ready.as_slice() { only.clone() } else { concat_batches(&first.schema(), &ready)? };
        Ok(Some(order::in_order(all, placed)?))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batches, each with its stamp.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (&RecordBatch, u64)> {
        self.runs.iter().map(|run| (&run.batch, run.stamp))
    }
}
