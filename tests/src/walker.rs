//! Reads a whole stream by following its graph: the independent witness for what readers of ours answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use arrow::{array::AsArray, array::RecordBatch, datatypes::Int64Type};
use client::{Client, SegmentReader};
use tokio::time::{Instant, sleep};
use types::{KeyRange, Offset, SegmentId, StreamCut};
use wire::{
    coordinator::{ListSuccessors, SegmentNode, SuccessorsOf},
    segment_store::{DescribeSegment, SegmentName},
};

use crate::stream::{Streams, patiently};

/// How long failures that may pass are repeated beyond what the reader itself repeats.
const WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// One event where it was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Its segment.
    pub segment: SegmentId,
    /// Its offset there.
    pub offset: Offset,
    /// Its message.
    pub text: String,
}

/// One reader for every segment, each opened when all that it follows was read to its end.
pub struct Walker {
    client: Client,
    streams: Streams,
    open: BTreeMap<SegmentId, SegmentReader>,
    /// Segments read to their ends whose successors are not all open.
    ended: BTreeMap<SegmentId, Offset>,
    done: BTreeMap<SegmentId, Offset>,
    ranges: BTreeMap<SegmentId, KeyRange>,
}

impl Walker {
    /// Begins at the first events that the stream still has.
    pub async fn from_head(client: &Client, streams: &Streams) -> Result<Self> {
        let (open, ended, done, ranges) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut walker = Self { client: client.clone(), streams: streams.clone(), open, ended, done, ranges };
        let nodes = streams.nodes().await?;
        for node in nodes.iter().filter(|node| node.predecessors.is_empty()) {
            walker.begin(node).await?;
        }
        ensure!(!walker.open.is_empty(), "stream {} has no beginning", streams.index);
        Ok(walker)
    }

    async fn begin(&mut self, node: &SegmentNode) -> Result<()> {
        let name = SegmentName { segment: node.segment };
        let info = patiently::<DescribeSegment>(&self.streams.bus, &node.container, &name).await?;
        self.open.insert(node.segment, self.client.reader(node.segment_range(), info.start));
        self.ranges.insert(node.segment, node.range);
        Ok(())
    }

    /// Reads what is there in every open segment, in no order between segments that do not follow one another.
    pub async fn poll(&mut self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        let open: Vec<SegmentId> = self.open.keys().copied().collect();
        for segment in open {
            let Some(reader) = self.open.get_mut(&segment) else { continue };
            loop {
                let batch = next(reader).await.with_context(|| format!("segment {segment}"))?;
                let Some(batch) = batch else { break };
                rows(segment, &batch, &mut seen)?;
            }
            if reader.at_end() {
                let end = reader.position().offset;
                self.open.remove(&segment);
                self.ended.insert(segment, end);
                self.done.insert(segment, end);
                self.follow().await?;
            }
        }
        // What a repeat of the coordinator's answer was too early for.
        if !self.ended.is_empty() {
            self.follow().await?;
        }
        Ok(seen)
    }

    /// Opens successors of ended segments whose predecessors have all ended.
    async fn follow(&mut self) -> Result<()> {
        let ended: Vec<SegmentId> = self.ended.keys().copied().collect();
        for segment in ended {
            let request = SuccessorsOf { index: self.streams.index.clone(), segment };
            let successors = patiently::<ListSuccessors>(&self.streams.bus, &(), &request).await?.segments;
            let mut all = !successors.is_empty();
            for node in &successors {
                let known = self.open.contains_key(&node.segment) || self.done.contains_key(&node.segment);
                if !known && node.predecessors.iter().all(|before| self.done.contains_key(before)) {
                    self.begin(node).await?;
                } else if !known {
                    all = false;
                }
            }
            if all {
                self.ended.remove(&segment);
            }
        }
        Ok(())
    }

    /// Where it stands: positions that cover the key space once.
    pub fn cut(&self) -> StreamCut {
        let open = self.open.iter().map(|(segment, reader)| (*segment, reader.position().offset));
        let all: BTreeMap<SegmentId, Offset> = open.chain(self.ended.iter().map(|(s, end)| (*s, *end))).collect();
        // Older ones first: what follows an ended segment only in part would cover some keys twice.
        let mut cut: Vec<(SegmentId, Offset)> = Vec::new();
        for (segment, offset) in all {
            if !cut.iter().any(|(taken, _)| self.ranges[taken].overlaps(self.ranges[&segment])) {
                cut.push((segment, offset));
            }
        }
        StreamCut(cut.into_iter().collect())
    }

    /// Segments that lie wholly before [`Walker::cut`].
    pub fn past(&self) -> BTreeSet<SegmentId> {
        self.done.keys().filter(|segment| !self.ended.contains_key(segment)).copied().collect()
    }

    /// Reads on until `enough`, at most a minute.
    pub async fn read_until(&mut self, mut enough: impl FnMut(&[Seen]) -> bool) -> Result<Vec<Seen>> {
        let begun = Instant::now();
        let mut all = Vec::new();
        loop {
            all.extend(self.poll().await?);
            if enough(&all) {
                return Ok(all);
            }
            ensure!(begun.elapsed() < WITHIN, "{} events after {WITHIN:?}, which is not enough", all.len());
            sleep(PAUSE).await;
        }
    }

    /// Reads until every open segment's present end is reached and nothing more follows.
    pub async fn read_all(&mut self) -> Result<Vec<Seen>> {
        let mut all = Vec::new();
        loop {
            let before = (all.len(), self.done.len());
            all.extend(self.poll().await?);
            if before == (all.len(), self.done.len()) && self.at_tail().await? {
                return Ok(all);
            }
        }
    }

    async fn at_tail(&self) -> Result<bool> {
        let stream = self.streams.describe().await?;
        for segment in &stream.segments {
            let name = SegmentName { segment: segment.segment };
            let info = patiently::<DescribeSegment>(&self.streams.bus, &segment.container, &name).await?;
            let here = self.open.get(&segment.segment).map(|reader| reader.position().offset);
            if here.or(self.done.get(&segment.segment).copied()) != Some(info.end) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The next batch that is there at once; what may pass is repeated.
async fn next(reader: &mut SegmentReader) -> Result<Option<RecordBatch>> {
    let begun = Instant::now();
    loop {
        match reader.next(Duration::ZERO).await {
            Ok(batch) => return Ok(batch),
            Err(problem) if problem.is_transient() && begun.elapsed() < WITHIN => sleep(PAUSE).await,
            Err(problem) => bail!(problem),
        }
    }
}

impl Seen {
    /// The events of a batch that a reader has given.
    pub fn of(segment: SegmentId, batch: &RecordBatch) -> Result<Vec<Self>> {
        let mut seen = Vec::new();
        rows(segment, batch, &mut seen)?;
        Ok(seen)
    }

    /// Key and number, for an event whose text is `<key> <number>`.
    pub fn numbered(&self) -> Option<(&str, u64)> {
        let (key, number) = self.text.split_once(' ')?;
        Some((key, number.parse().ok()?))
    }
}

fn rows(segment: SegmentId, batch: &RecordBatch, seen: &mut Vec<Seen>) -> Result<()> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("there is no column {name}"));
    let offsets = column("_offset")?.as_primitive::<Int64Type>().values();
    let texts = column("_msg")?.as_string::<i32>();
    for (offset, text) in offsets.iter().zip(texts) {
        let offset = Offset::try_from(*offset)?;
        seen.push(Seen { segment, offset, text: text.unwrap_or_default().to_owned() });
    }
    Ok(())
}
