//! Blocks to columns: what readers of the tail get, and what a chunk holds. CPU only; off the hot path.

use std::sync::Arc;

use arrow::{array::RecordBatch, ipc::writer::StreamWriter};
use bytes::Bytes;
use chunk::Origin;
use ingest::{BatchBuilder, RawEvent, conform, merge_schemas, to_batch};
use types::{Offset, SegmentId, Timestamp};
use wire::{block::BlockEvent, segment_store::ChunkMeta};

use crate::{container::tail::TailBlock, error::Error};

/// Memory for answers to tail readers, over all containers: those who follow the same tail ask for the same rows.
const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// Bytes that a row costs in columns besides its payload, about: times, offset, segment, offsets of texts.
const ROW_OVERHEAD: usize = 64;

/// Cells of the inferred columns of a chunk, the empty ones included: 256 MiB of 8 bytes. Events with too many different fields
/// for their number keep those that come later in the rest column.
pub(crate) const CELLS_MAX: usize = 1 << 25;

/// Rows as one Arrow IPC stream.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The offset after the last row.
    pub(crate) next: Offset,
    /// The stream.
    pub(crate) columns: Bytes,
}

/// Answers given of late, by segment, first offset and size asked for. An answer is rows that never change, so that it is
/// right for ever, if perhaps shorter than what could be answered by now; unless a segment was deleted and comes back.
#[derive(Clone)]
pub(crate) struct Answers(moka::sync::Cache<(SegmentId, Offset, u32), Answer>);

impl Answers {
    pub(crate) fn new() -> Self {
        let weigh = |_: &(SegmentId, Offset, u32), answer: &Answer| {
            u32::try_from(answer.columns.len()).unwrap_or(u32::MAX).saturating_add(128)
        };
        Self(moka::sync::Cache::builder().weigher(weigh).max_capacity(ANSWERS_BYTES_MAX).build())
    }

    pub(crate) fn get(&self, segment: SegmentId, from: Offset, bytes_max: u32) -> Option<Answer> {
        self.0.get(&(segment, from, bytes_max))
    }

    /// Forgets every answer.
    pub(crate) fn forget(&self) {
        self.0.invalidate_all();
    }

    pub(crate) fn put(&self, segment: SegmentId, from: Offset, bytes_max: u32, answer: Answer) {
        self.0.insert((segment, from, bytes_max), answer);
    }
}

/// The rows from `from` on as one stream of at most about `bytes_max`, at least one row.
///
/// `blocks` begin with the one that holds `from`.
pub(crate) fn answer(
    segment: SegmentId,
    from: Offset,
    blocks: &[Arc<TailBlock>],
    bytes_max: u32,
) -> Result<Answer, Error> {
    let budget = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut events = Vec::new();
    let mut bytes = 0;
    for (offset, event) in blocks.iter().flat_map(|block| (block.base()..).zip(block.events())) {
        if offset < from {
            continue;
        }
        bytes += event.payload.len() + ROW_OVERHEAD;
        if bytes > budget && !events.is_empty() {
            break;
        }
        events.push(event);
    }
    fit(&to_batch(segment, from, events.iter().map(raw)), from, bytes_max)
}

/// The first rows of a batch, which begins at `from`, as one stream of at most about `bytes_max`, at least one row.
pub(crate) fn fit(batch: &RecordBatch, from: Offset, bytes_max: u32) -> Result<Answer, Error> {
    let budget = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut rows = batch.num_rows();
    loop {
        // A slice is written without what is around it, so that no event is understood twice.
        let columns = stream(&batch.slice(0, rows))?;
        if columns.len() <= budget || rows <= 1 {
            return Ok(Answer { next: from + u64::try_from(rows).unwrap_or(u64::MAX), columns });
        }
        // Inferred columns took more than the payloads; a tenth less than in proportion, so that it ends soon.
        rows = (rows * budget / columns.len() * 9 / 10).clamp(1, rows - 1);
    }
}

fn raw(event: &BlockEvent) -> RawEvent<'_> {
    RawEvent { payload: &event.payload, received: event.received }
}

fn stream(batch: &RecordBatch) -> Result<Bytes, Error> {
    let failed = |e: arrow::error::ArrowError| Error::Columns(e.to_string());
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(failed)?;
    writer.write(batch).map_err(failed)?;
    writer.into_inner().map(Bytes::from).map_err(failed)
}

/// Events as a chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    pub(crate) time_min: Timestamp,
    pub(crate) time_max: Timestamp,
}

/// Writes consecutive blocks as one chunk.
pub(crate) fn chunk(segment: SegmentId, origin: Option<&Origin>, blocks: &[Arc<TailBlock>]) -> Result<Chunk, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Columns(e.to_string());
    let from = blocks.first().map(|block| block.base()).ok_or_else(|| failed(&"a chunk needs events"))?;
    let events: Vec<BlockEvent> = blocks.iter().flat_map(|block| block.events()).collect();
    unite(segment, origin, from, batches(segment, from, &events, CELLS_MAX))
}

/// Events as columns, with so many cells at most; one batch, unless their texts are too long for it.
pub(crate) fn batches(segment: SegmentId, from: Offset, events: &[BlockEvent], cells_max: usize) -> Vec<RecordBatch> {
    let mut raw_events = events.iter().map(raw).peekable();
    let mut batches = Vec::new();
    let mut next = from;
    while raw_events.peek().is_some() {
        let mut builder = BatchBuilder::new(segment, next).with_inferred_max(cells_max / events.len());
        builder.extend(&mut raw_events);
        let batch = builder.finish();
        next += u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
        batches.push(batch);
    }
    batches
}

/// Writes consecutive batches of any columns as one chunk.
pub(crate) fn unite(
    segment: SegmentId,
    origin: Option<&Origin>,
    from: Offset,
    mut batches: Vec<RecordBatch>,
) -> Result<Chunk, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Columns(e.to_string());
    if batches.len() > 1 {
        let schemas: Vec<_> = batches.iter().map(RecordBatch::schema).collect();
        let schema = Arc::new(merge_schemas(schemas.iter().map(AsRef::as_ref)));
        let conformed: Result<Vec<_>, _> = batches.iter().map(|batch| conform(batch, &schema)).collect();
        batches = conformed.map_err(|e| failed(&e))?;
    }
    let encoded = chunk::write_of(segment, origin, from, &batches).map_err(|e| failed(&e))?;
    let meta = encoded.meta;
    Ok(Chunk { bytes: encoded.bytes, from, to: meta.last + 1, time_min: meta.time_min, time_max: meta.time_max })
}

impl Chunk {
    /// What the state says of it once it is stored under this key.
    pub(crate) fn meta(&self, key: String) -> ChunkMeta {
        let bytes = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        ChunkMeta { key, from: self.from, to: self.to, bytes, time_min: self.time_min, time_max: self.time_max }
    }
}

#[cfg(test)]
#[path = "columns_tests.rs"]
mod bad_input;

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray, datatypes::Int64Type, ipc::reader::StreamReader};
    use wire::block::{Block, BlockBuilder};

    use super::*;
    use crate::container::{state::Piece, tail::Tail};

    const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

    fn blocks(sizes: &[usize]) -> Vec<Arc<TailBlock>> {
        let mut tail = Tail::default();
        let mut base = 0;
        for size in sizes {
            let mut builder = BlockBuilder::new();
            for n in 0..*size {
                let text = format!("{{\"msg\":\"event {base}+{n}\",\"field-{n}\":{n}}}");
                assert!(builder.push(Timestamp::from_millis(1), 0, text.as_bytes()));
            }
            let count = u32::try_from(*size).unwrap();
            let piece = Piece { seq: 1, base, count, ..Piece::default() };
            tail.push(SEGMENT, &piece, Block::open(builder.finish()).unwrap(), Timestamp::MIN);
            base += u64::from(count);
        }
        tail.blocks(SEGMENT, 0, u64::MAX)
    }

    fn offsets(answer: &Answer) -> Vec<i64> {
        let reader = StreamReader::try_new(&answer.columns[..], None).unwrap();
        let batches = reader.map(Result::unwrap);
        batches.flat_map(|b| b["_offset"].as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn an_answer_holds_the_rows_from_an_offset_in_the_middle() {
        let answer = answer(SEGMENT, 2, &blocks(&[4, 3]), 1 << 20).unwrap();
        assert_eq!((offsets(&answer), answer.next), (vec![2, 3, 4, 5, 6], 7));
    }

    #[test]
    fn an_answer_keeps_to_its_size_and_a_reader_still_sees_each_row_once() {
        let blocks = blocks(&[30, 1, 20]);
        let mut seen = Vec::new();
        while seen.len() < 51 {
            let from = seen.len() as u64;
            let answer = answer(SEGMENT, from, &blocks, 16 << 10).unwrap();
            assert!(answer.columns.len() <= 16 << 10 || answer.next == from + 1);
            seen.extend(offsets(&answer));
            assert_eq!(seen.len() as u64, answer.next);
        }
        assert_eq!(seen, (0..51).collect::<Vec<_>>());
    }

    #[test]
    fn a_chunk_is_answered_in_parts_and_a_reader_sees_each_row_once() {
        let chunk = chunk(SEGMENT, None, &blocks(&[30, 1, 20])).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 51 {
            let from = seen.len() as u64;
            let batches = chunk::read_rows(chunk.bytes.clone(), SEGMENT, from..51, 17).unwrap();
            assert!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() <= 17);
            let answer = fit(&batches[0], from, 16 << 10).unwrap();
            assert!(answer.columns.len() <= 16 << 10 || answer.next == from + 1);
            seen.extend(offsets(&answer));
            assert_eq!(seen.len() as u64, answer.next);
        }
        assert_eq!(seen, (0..51).collect::<Vec<_>>());
        assert!(chunk::read_rows(chunk.bytes, SEGMENT, 51..51, 17).unwrap().is_empty());
    }

    #[test]
    fn a_chunk_holds_all_rows() {
        let chunk = chunk(SEGMENT, None, &blocks(&[4, 3])).unwrap();
        assert_eq!((chunk.from, chunk.to), (0, 7));
        let rows: usize = chunk::read(chunk.bytes).unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 7);
    }
}
