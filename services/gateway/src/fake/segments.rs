//! Streams and segments in memory: they scale, are sealed and are truncated when a test says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::RecordBatch;
use engine::BatchStream;
use futures::{StreamExt, stream};
use ingest::RawEvent;
use parking_lot::Mutex;
use tokio::sync::watch;
use types::{ContainerId, IndexName, KeyRange, Offset, SegmentId, Timestamp};
use wire::{
    Problem,
    block::{Block, BlockEvent},
    coordinator::{SegmentNode, SegmentNodes, SegmentRange, StreamDescription},
    segment_store::{Append, ChunkMeta, SegmentInfo},
};

/// One segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    pub(crate) events: Vec<BlockEvent>,
    pub(crate) start: Offset,
    pub(crate) sealed: bool,
    pub(crate) chunks: Vec<ChunkMeta>,
    pub(crate) transactional: bool,
}

impl Segment {
    fn end(&self) -> Offset {
        u64::try_from(self.events.len()).unwrap()
    }

    /// Its rows from an offset on.
    pub(crate) fn rows(&self, segment: SegmentId, from: Offset) -> RecordBatch {
        let later = self.events.iter().skip(usize::try_from(from).unwrap());
        let raw = later.map(|event| RawEvent { payload: &event.payload, received: event.received });
        ingest::to_batch(segment, from, raw)
    }
}

/// A stream with all its epochs.
#[derive(Debug, Clone)]
pub(crate) struct FakeStream {
    pub(crate) description: StreamDescription,
    pub(crate) nodes: Vec<SegmentNode>,
}

/// Everything that a coordinator and the segment stores know; clones share it.
#[derive(Clone)]
pub(crate) struct Segments {
    pub(crate) streams: Arc<Mutex<BTreeMap<IndexName, FakeStream>>>,
    pub(crate) segments: Arc<Mutex<BTreeMap<SegmentId, Segment>>>,
    changes: watch::Sender<()>,
}

impl Default for Segments {
    /// The indexes `shop` and `other` with two segments each.
    fn default() -> Self {
        let (streams, segments) = (Arc::default(), Arc::default());
        let all = Self { streams, segments, changes: watch::Sender::new(()) };
        for (number, name) in [(1, "shop"), (2, "other")] {
            let index: IndexName = name.parse().unwrap();
            let origin = (number, Timestamp::default());
            let description = StreamDescription::new(origin, "team".parse().unwrap(), index.clone(), Vec::new());
            all.streams.lock().insert(index, FakeStream { description, nodes: Vec::new() });
            all.open(name, 0, &KeyRange::split_evenly(2), &[]);
        }
        all
    }
}

fn unknown_index(index: &IndexName) -> Problem {
    Problem::not_found("UnknownIndex", format_args!("there is no index {index}"))
}

fn unknown_segment(segment: SegmentId) -> Problem {
    Problem::not_found("UnknownSegment", format_args!("there is no segment {segment}"))
}

impl Segments {
    fn open(&self, index: &str, epoch: u32, ranges: &[KeyRange], sealed: &[SegmentId]) {
        let mut streams = self.streams.lock();
        let stream = streams.get_mut(&index.parse::<IndexName>().unwrap()).unwrap();
        let numbers = u32::try_from(stream.nodes.len()).unwrap()..;
        let ended: Vec<SegmentNode> =
            stream.nodes.iter().filter(|node| sealed.contains(&node.segment)).cloned().collect();
        for (number, range) in numbers.zip(ranges) {
            let segment = SegmentId { stream: stream.description.stream, epoch, number };
            let before = ended.iter().filter(|node| node.range.overlaps(*range));
            let predecessors: Vec<SegmentId> = before.map(|node| node.segment).collect();
            for node in stream.nodes.iter_mut().filter(|node| predecessors.contains(&node.segment)) {
                node.sealed_in = Some(epoch);
                node.successors.push(segment);
            }
            let (container, successors) = (ContainerId(u16::try_from(number % 2).unwrap()), Vec::new());
            let node = SegmentNode { segment, container, range: *range, sealed_in: None, predecessors, successors };
            stream.description.segments.push(node.segment_range());
            stream.nodes.push(node);
            self.segments.lock().insert(segment, Segment::default());
        }
        stream.description.segments.retain(|range| !sealed.contains(&range.segment));
        stream.description.epoch = epoch;
        self.changes.send_modify(|()| {});
    }

    /// Seals present segments and opens the next epoch with others in their place; answers those.
    pub(crate) fn scale(&self, index: &str, seal: &[SegmentId], ranges: &[KeyRange]) -> Vec<SegmentId> {
        seal.iter().for_each(|segment| self.seal(*segment));
        let epoch = self.description(index).epoch + 1;
        self.open(index, epoch, ranges, seal);
        let present = self.description(index).segments.into_iter().map(|range| range.segment);
        present.filter(|segment| segment.epoch == epoch).collect()
    }

    /// Seals a segment whose successors are not there yet.
    pub(crate) fn seal(&self, segment: SegmentId) {
        self.change(segment, |known| known.sealed = true);
    }

    /// Seals every segment for ever.
    pub(crate) fn seal_stream(&self, index: &str) {
        self.description(index).segments.iter().for_each(|range| self.seal(range.segment));
        self.streams.lock().get_mut(&index.parse::<IndexName>().unwrap()).unwrap().description.sealed = true;
    }

    pub(crate) fn change(&self, segment: SegmentId, change: impl FnOnce(&mut Segment)) {
        change(self.segments.lock().get_mut(&segment).unwrap());
        self.changes.send_modify(|()| {});
    }

    /// Forgets a segment that a truncation left behind.
    pub(crate) fn forget(&self, index: &str, segment: SegmentId) {
        let mut streams = self.streams.lock();
        let nodes = &mut streams.get_mut(&index.parse::<IndexName>().unwrap()).unwrap().nodes;
        nodes.retain(|node| node.segment != segment);
        nodes.iter_mut().for_each(|node| node.predecessors.retain(|before| *before != segment));
        self.segments.lock().remove(&segment);
        self.changes.send_modify(|()| {});
    }

    pub(crate) fn description(&self, index: &str) -> StreamDescription {
        self.stream(&index.parse().unwrap()).unwrap().description
    }

    pub(crate) fn stream(&self, index: &IndexName) -> Result<FakeStream, Problem> {
        self.streams.lock().get(index).cloned().ok_or_else(|| unknown_index(index))
    }

    /// Events by segment, without empty segments.
    pub(crate) fn events(&self) -> BTreeMap<SegmentId, Vec<BlockEvent>> {
        let all = self.segments.lock();
        let some = all.iter().filter(|(_, segment)| !segment.events.is_empty());
        some.map(|(id, segment)| (*id, segment.events.clone())).collect()
    }

    pub(crate) fn page(&self, index: &IndexName, after: Option<SegmentId>) -> Result<SegmentNodes, Problem> {
        let nodes = self.stream(index)?.nodes;
        let mut later = nodes.into_iter().filter(|node| after.is_none_or(|after| node.segment > after));
        let segments = later.by_ref().take(1_000).collect();
        Ok(SegmentNodes { segments, more: later.next().is_some() })
    }

    pub(crate) fn successors(&self, index: &IndexName, segment: SegmentId) -> Result<SegmentNodes, Problem> {
        let nodes = self.stream(index)?.nodes;
        let node = nodes.iter().find(|node| node.segment == segment);
        let of: BTreeSet<SegmentId> = node.iter().flat_map(|node| node.successors.iter().copied()).collect();
        Ok(SegmentNodes { segments: nodes.into_iter().filter(|n| of.contains(&n.segment)).collect(), more: false })
    }

    /// Answers how many events the block has, and which of them were there before.
    pub(crate) fn append(&self, append: &Append) -> Result<(usize, Vec<u32>), Problem> {
        let block = Block::open(append.block.clone()).unwrap();
        let mut all = self.segments.lock();
        if all.get(&append.segment).ok_or_else(|| unknown_segment(append.segment))?.sealed {
            let message = format!("segment {} is sealed", append.segment);
            return Err(Problem::conflict("SegmentSealed", message));
        }
        let known: BTreeSet<u128> = all.values().flat_map(|s| s.events.iter().map(|event| event.id)).collect();
        let is_known = |event: &BlockEvent| event.id != 0 && known.contains(&event.id);
        let repeats = (0u32..).zip(block.iter()).filter(|(_, event)| is_known(event)).map(|(place, _)| place).collect();
        all.get_mut(&append.segment).unwrap().events.extend(block.iter().filter(|event| !is_known(event)));
        drop(all);
        self.changes.send_modify(|()| {});
        Ok((block.len(), repeats))
    }

    pub(crate) fn describe(&self, index: &IndexName, segment: SegmentId) -> Result<SegmentInfo, Problem> {
        let all = self.segments.lock();
        let known = all.get(&segment).ok_or_else(|| unknown_segment(segment))?;
        Ok(SegmentInfo {
            segment,
            index: index.clone(),
            start: known.start,
            tail_from: known.chunks.last().map_or(0, |chunk| chunk.to),
            end: known.end(),
            sealed: known.sealed,
            chunks: known.chunks.iter().filter(|chunk| chunk.to > known.start).cloned().collect(),
            bytes: 0,
            truncated_bytes: 0,
            transactional: known.transactional,
        })
    }

    /// The rows from an offset on that are there; the offset after them; whether there will be more.
    fn read(&self, segment: SegmentId, from: Offset) -> Result<(Option<RecordBatch>, bool), Problem> {
        let all = self.segments.lock();
        let known = all.get(&segment).ok_or_else(|| unknown_segment(segment))?;
        if from < known.start {
            let message = format!("offset {from} was truncated: the first is {}", known.start);
            return Err(Problem::not_found("Truncated", message));
        }
        let rows = (from < known.end()).then(|| known.rows(segment, from));
        Ok((rows, !known.sealed))
    }

    pub(crate) fn follow(&self, segment: SegmentRange, from: Offset) -> BatchStream {
        let begin = Some((self.clone(), self.changes.subscribe(), from));
        stream::unfold(begin, move |state| async move {
            let (all, mut changes, at) = state?;
            loop {
                changes.borrow_and_update();
                match all.read(segment.segment, at) {
                    Err(problem) => return Some((Err(problem), None)),
                    Ok((Some(rows), _)) => {
                        let next = at + u64::try_from(rows.num_rows()).unwrap();
                        return Some((Ok(rows), Some((all, changes, next))));
                    }
                    Ok((None, true)) => changes.changed().await.ok()?,
                    Ok((None, false)) => return None,
                }
            }
        })
        .boxed()
    }
}
