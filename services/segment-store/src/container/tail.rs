//! The tail: events that are applied and not yet in Tier 2, kept in memory as the blocks in which they came.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;
use types::{Offset, SegmentId, Timestamp};
use wire::block::{Block, BlockEvent};

use crate::container::state::{Piece, Segment};

/// Events of one block, without the dropped ones.
#[derive(Debug)]
pub struct TailBlock {
    base: Offset,
    count: u32,
    dropped: Vec<u32>,
    block: Block,
    since: Timestamp,
}

impl TailBlock {
    /// The offset of the first event.
    pub fn base(&self) -> Offset {
        self.base
    }

    /// The offset after the last event.
    pub fn end(&self) -> Offset {
        self.base + u64::from(self.count)
    }

    /// Memory held.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.block.bytes().len()).unwrap_or(u64::MAX)
    }

    /// The events in order of offset.
    pub fn events(&self) -> impl Iterator<Item = BlockEvent> + '_ {
        let mut dropped = self.dropped.iter().peekable();
        (0u32..).zip(self.block.iter()).filter_map(move |(place, event)| {
            if dropped.next_if(|next| **next == place).is_some() { None } else { Some(event) }
        })
    }
}

/// The blocks of one segment.
#[derive(Debug, Default)]
struct Blocks {
    blocks: VecDeque<Arc<TailBlock>>,
    bytes: u64,
    wake: Arc<Notify>,
    /// Never due: they belong to an open transaction.
    withheld: bool,
}

/// The tails of a container's segments.
#[derive(Debug, Default)]
pub struct Tail {
    segments: BTreeMap<SegmentId, Blocks>,
    bytes: u64,
}

/// What the storage writer shall move to Tier 2 next.
#[derive(Debug, Clone)]
pub struct Due {
    /// Of which segment.
    pub segment: SegmentId,
    /// Its first blocks.
    pub blocks: Vec<Arc<TailBlock>>,
}

/// When events are due for Tier 2.
#[derive(Debug, Clone, Copy)]
pub struct FlushRule {
    /// A segment holds this many bytes.
    pub bytes: u64,
    /// Its oldest event is this old.
    pub age: Duration,
    /// Together they hold this many bytes: then the largest goes, whatever it holds.
    pub total: u64,
}

impl Tail {
    /// Bytes held by all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds events that were just applied.
    pub fn push(&mut self, segment: SegmentId, piece: &Piece, block: Block, since: Timestamp) {
        let last = self.segments.get(&segment).and_then(|blocks| blocks.blocks.back());
        // A hole is possible during recovery, where the log has no more what is in Tier 2 by its end.
        debug_assert!(last.is_none_or(|last| last.end() <= piece.base), "an offset is given once");
        self.put_back(segment, piece, block, since);
    }

    /// Adds events where their offsets belong: those of a merged transaction are older than what stands before them.
    pub fn put_back(&mut self, segment: SegmentId, piece: &Piece, block: Block, since: Timestamp) {
        let Piece { base, count, dropped, .. } = piece.clone();
        let block = TailBlock { base, count, dropped, block, since };
        self.insert(segment, block);
    }

    fn insert(&mut self, segment: SegmentId, block: TailBlock) {
        let blocks = self.segments.entry(segment).or_default();
        blocks.bytes += block.bytes();
        self.bytes += block.bytes();
        let at = blocks.blocks.partition_point(|before| before.base < block.base);
        blocks.blocks.insert(at, Arc::new(block));
    }

    /// Adds events where they are not yet: their block stands in the log once more.
    pub fn carry(&mut self, segment: SegmentId, piece: &Piece, block: Block, since: Timestamp) {
        if self.block(segment, piece.base).is_none() {
            self.put_back(segment, piece, block, since);
        }
    }

    /// The block that begins with this offset.
    pub fn block(&self, segment: SegmentId, base: Offset) -> Option<Block> {
        let blocks = &self.segments.get(&segment)?.blocks;
        let at = blocks.partition_point(|before| before.base < base);
        blocks.get(at).filter(|found| found.base == base).map(|found| found.block.clone())
    }

    /// Keeps a segment's events out of Tier 2 until they are merged into another one.
    pub fn withhold(&mut self, segment: SegmentId) {
        self.segments.entry(segment).or_default().withheld = true;
    }

    /// Moves the events of `source` to the end of `into`, where the first gets the offset `from`.
    pub fn merge(&mut self, into: SegmentId, source: SegmentId, from: Offset, since: Timestamp) {
        let Some(gone) = self.segments.remove(&source) else { return };
        self.bytes -= gone.bytes;
        for block in gone.blocks {
            let TailBlock { base, count, dropped, block, .. } = &*block;
            let (base, dropped, block) = (base + from, dropped.clone(), block.clone());
            self.insert(into, TailBlock { base, count: *count, dropped, block, since });
        }
        gone.wake.notify_waiters();
    }

    /// Frees what is in Tier 2 now.
    pub fn drop_below(&mut self, segment: SegmentId, to: Offset) {
        let Some(blocks) = self.segments.get_mut(&segment) else { return };
        while let Some(block) = blocks.blocks.front().filter(|block| block.end() <= to) {
            blocks.bytes -= block.bytes();
            self.bytes -= block.bytes();
            blocks.blocks.pop_front();
        }
    }

    /// Forgets a segment and wakes whoever waits for it.
    pub fn remove(&mut self, segment: SegmentId) {
        if let Some(gone) = self.segments.remove(&segment) {
            self.bytes -= gone.bytes;
            gone.wake.notify_waiters();
        }
    }

    /// What is told when the segment changes; ask only for segments that exist.
    pub fn wake(&mut self, segment: SegmentId) -> Arc<Notify> {
        self.segments.entry(segment).or_default().wake.clone()
    }

    /// Wakes whoever waits for the segment.
    pub fn notify(&self, segment: SegmentId) {
        if let Some(blocks) = self.segments.get(&segment) {
            blocks.wake.notify_waiters();
        }
    }

    /// The blocks from the one that holds `from` on, up to about `bytes_max`, at least one.
    pub fn blocks(&self, segment: SegmentId, from: Offset, bytes_max: u64) -> Vec<Arc<TailBlock>> {
        let Some(blocks) = self.segments.get(&segment) else { return Vec::new() };
        let first = blocks.blocks.partition_point(|block| block.end() <= from);
        take(blocks.blocks.iter().skip(first), bytes_max)
    }

    /// Bytes of open transactions: they cannot go to Tier 2.
    pub fn withheld_bytes(&self) -> u64 {
        self.segments.values().filter(|blocks| blocks.withheld).map(|blocks| blocks.bytes).sum()
    }

    /// Wakes everybody.
    pub fn notify_all(&self) {
        self.segments.values().for_each(|blocks| blocks.wake.notify_waiters());
    }

    /// What is due for Tier 2 by the rule, the longest overdue first; segments that are `urgent` are due at once, withheld
    /// ones and those that `wait` never.
    ///
    /// At most `bytes_max` at a time, so that a chunk stays of a size that can be read whole.
    pub fn due(
        &self,
        now: Timestamp,
        rule: FlushRule,
        bytes_max: u64,
        urgent: impl Fn(SegmentId) -> bool,
        wait: impl Fn(SegmentId) -> bool,
    ) -> Option<Due> {
        let full = self.bytes - self.withheld_bytes() >= rule.total;
        let open = || self.segments.iter().filter(|(id, blocks)| !blocks.withheld && !wait(**id));
        let largest = open().max_by_key(|(_, b)| b.bytes).map(|(id, _)| *id);
        let due = |id: SegmentId, blocks: &Blocks| {
            let old = blocks.blocks.front().is_some_and(|b| now.since(b.since) >= rule.age);
            old || blocks.bytes >= rule.bytes || (full && largest == Some(id)) || urgent(id)
        };
        let (segment, blocks) = open()
            .filter(|(id, blocks)| !blocks.blocks.is_empty() && due(**id, blocks))
            .min_by_key(|(_, blocks)| blocks.blocks.front().map(|b| b.since))?;
        Some(Due { segment: *segment, blocks: take(blocks.blocks.iter(), bytes_max) })
    }

    /// The first offset of the segment's tail that is missing here, by what the state says.
    pub fn missing(&self, segment: SegmentId, state: &Segment) -> Option<Offset> {
        let mut next = state.tail_from;
        if let Some(blocks) = self.segments.get(&segment) {
            for block in &blocks.blocks {
                if block.base > next {
                    return Some(next);
                }
                next = next.max(block.end());
            }
        }
        (next < state.end).then_some(next)
    }
}

fn take<'a>(blocks: impl Iterator<Item = &'a Arc<TailBlock>>, bytes_max: u64) -> Vec<Arc<TailBlock>> {
    let mut bytes = 0;
    let fits = |block: &&Arc<TailBlock>| {
        bytes += block.bytes();
        bytes <= bytes_max || bytes == block.bytes()
    };
    blocks.take_while(fits).cloned().collect()
}

#[cfg(test)]
mod tests {
    use wire::block::BlockBuilder;

    use super::*;

    const A: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };
    const B: SegmentId = SegmentId { stream: 1, epoch: 0, number: 1 };
    const RULE: FlushRule = FlushRule { bytes: 1_000, age: Duration::from_secs(10), total: 1_500 };

    fn push(tail: &mut Tail, segment: SegmentId, base: Offset, payloads: &[&str], dropped: &[u32], second: i64) {
        let mut builder = BlockBuilder::new();
        payloads.iter().for_each(|p| assert!(builder.push(Timestamp::from_nanos(0), 0, p.as_bytes())));
        let count = u32::try_from(payloads.len() - dropped.len()).unwrap();
        let piece = Piece { seq: 1, entry: 0, base, count, dropped: dropped.to_vec(), bytes: 0 };
        let since = Timestamp::from_millis(second * 1_000);
        tail.push(segment, &piece, Block::open(builder.finish()).unwrap(), since);
    }

    fn bases(blocks: &[Arc<TailBlock>]) -> Vec<Offset> {
        blocks.iter().map(|b| b.base()).collect()
    }

    #[test]
    fn dropped_events_are_not_there() {
        let mut tail = Tail::default();
        push(&mut tail, A, 5, &["a", "b", "c", "d"], &[0, 2], 0);
        let blocks = tail.blocks(A, 5, 1);
        let payloads: Vec<_> = blocks[0].events().map(|e| e.payload).collect();
        assert_eq!(payloads, ["b", "d"]);
        assert_eq!((blocks[0].base(), blocks[0].end()), (5, 7));
    }

    #[test]
    fn a_read_begins_in_the_block_that_holds_its_offset() {
        let mut tail = Tail::default();
        for base in [0u64, 2, 4, 6] {
            push(&mut tail, A, base, &["a", "b"], &[], 0);
        }
        assert_eq!(bases(&tail.blocks(A, 3, 1_000)), [2, 4, 6]);
        assert_eq!(bases(&tail.blocks(A, 3, 1)), [2], "at least one");
        assert_eq!(bases(&tail.blocks(A, 8, 1_000)), [0u64; 0]);
        let held = tail.bytes();
        tail.drop_below(A, 4);
        assert_eq!((bases(&tail.blocks(A, 0, 1_000)), tail.bytes()), (vec![4, 6], held / 2));
        tail.remove(A);
        assert_eq!(tail.bytes(), 0);
    }

    #[test]
    fn the_rule_says_what_is_due() {
        let big = "x".repeat(700);
        let at = |second: i64| Timestamp::from_millis(second * 1_000);
        let due = |tail: &Tail, second| tail.due(at(second), RULE, 10_000, |_| false, |_| false).map(|d| d.segment);
        let mut tail = Tail::default();
        assert_eq!(due(&tail, 0), None);
        push(&mut tail, A, 0, &["small"], &[], 0);
        assert_eq!(due(&tail, 9), None);
        assert_eq!(due(&tail, 10), Some(A), "old");
        assert_eq!(tail.due(at(0), RULE, 10_000, |id| id == A, |_| false).map(|d| d.segment), Some(A), "sealed");
        assert!(tail.due(at(0), RULE, 10_000, |id| id == A, |id| id == A).is_none_or(|d| d.segment != A), "it waits");
        push(&mut tail, B, 0, &[&big, &big], &[], 1);
        assert_eq!(due(&tail, 5), Some(B), "large");
        assert_eq!(due(&tail, 20), Some(A), "the oldest first");
        let mut crowded = Tail::default();
        push(&mut crowded, A, 0, &[&big], &[], 0);
        push(&mut crowded, B, 0, &[&format!("{big}{big}")[..900]], &[], 0);
        assert_eq!(due(&crowded, 1), Some(B), "too much together: the largest");
    }

    #[test]
    fn a_transaction_is_due_only_when_it_is_merged() {
        let at = |second: i64| Timestamp::from_millis(second * 1_000);
        let big = "x".repeat(2_000);
        let mut tail = Tail::default();
        push(&mut tail, A, 0, &["a", "b"], &[], 0);
        tail.withhold(B);
        push(&mut tail, B, 0, &[&big], &[], 0);
        push(&mut tail, B, 1, &["c", "d", "e"], &[1], 0);
        let due = |tail: &Tail, second| tail.due(at(second), RULE, 10_000, |_| false, |_| false).map(|d| d.segment);
        assert_eq!(tail.withheld_bytes(), tail.segments[&B].bytes);
        assert_eq!(due(&tail, 5), None, "what cannot go makes nothing else due");
        assert_eq!(due(&tail, 10), Some(A));
        tail.drop_below(A, 2);
        assert_eq!(due(&tail, 3_600), None);
        let held = tail.bytes();
        tail.merge(A, B, 2, at(3_600));
        assert_eq!(tail.bytes(), held);
        assert_eq!((bases(&tail.blocks(A, 0, 10_000)), tail.blocks(B, 0, 10_000).len()), (vec![2, 3], 0));
        assert_eq!(tail.blocks(A, 3, 1)[0].events().map(|e| e.payload).collect::<Vec<_>>(), ["c", "e"]);
        assert_eq!(due(&tail, 3_600), Some(A));
    }

    #[test]
    fn what_is_put_back_stands_by_offset() {
        let mut tail = Tail::default();
        for base in [4u64, 0, 2] {
            let mut builder = BlockBuilder::new();
            (0..2).for_each(|_| assert!(builder.push(Timestamp::from_nanos(0), 0, b"x")));
            let piece = Piece { seq: 1, base, count: 2, ..Piece::default() };
            tail.put_back(A, &piece, Block::open(builder.finish()).unwrap(), Timestamp::MIN);
        }
        assert_eq!(bases(&tail.blocks(A, 0, 1_000)), [0, 2, 4]);
    }

    #[test]
    fn holes_are_found() {
        let mut state = crate::container::state::State::new(types::ContainerId(0));
        let create = crate::container::frame::Entry::create(A, "shop".parse().unwrap());
        let frame = crate::container::frame::Frame {
            container: types::ContainerId(0),
            generation: types::Generation(1),
            number: 1,
            previous: 0,
            entries: vec![create],
        };
        state.apply(1, &frame, 0).unwrap();
        let segment = state.segments.get_mut(&A).unwrap();
        (segment.tail_from, segment.end) = (2, 6);
        let mut tail = Tail::default();
        assert_eq!(tail.missing(A, segment), Some(2));
        push(&mut tail, A, 0, &["a", "b", "c"], &[], 0);
        assert_eq!(tail.missing(A, segment), Some(3), "the beginning of the block is in Tier 2");
        push(&mut tail, A, 3, &["a", "b", "c"], &[], 0);
        assert_eq!(tail.missing(A, segment), None);
    }
}
