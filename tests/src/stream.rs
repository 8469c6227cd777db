//! Streams through the coordinator's own calls: what no client of ours stands between.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, bail, ensure};
use bus::Bus;
use tokio::time::{Instant, sleep};
use types::{IndexName, KeyRange, SegmentId, StreamCut};
use wire::{
    Call, Problem,
    coordinator::{
        CreateStream, DescribeStream, EpochRecord, EpochsOf, ListEpochs, ListSegments, NewStream, Scale, ScaleStream,
        SegmentNode, SegmentsOf, StreamDescription, StreamName, TruncateAt, TruncateStream,
    },
};

/// How long something that fails for the moment is repeated: longer than two elections of JetStream and a take-over.
const WITHIN: Duration = Duration::from_secs(60);
/// One attempt.
const TRY_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
/// How often segments are chosen again that were replaced meanwhile.
const CHOICES_MAX: u32 = 20;
/// Nodes and epochs asked for at once.
const PAGE: u32 = 1_000;

/// Calls, and repeats for a minute while the reason may pass.
pub async fn patiently<C: Call>(bus: &Bus, key: &C::Key, request: &C::Request) -> Result<C::Reply, Problem> {
    let begun = Instant::now();
    loop {
        match bus.call_within::<C>(key, request, TRY_WITHIN).await {
            Err(problem) if problem.is_transient() && begun.elapsed() < WITHIN => sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// A segment and its two halves.
fn halves(stream: &StreamDescription, pick: usize) -> (Vec<SegmentId>, Vec<KeyRange>) {
    let segment = stream.segments[pick % stream.segments.len()];
    let KeyRange { first, last } = segment.range;
    let middle = first + (last - first) / 2;
    (vec![segment.segment], vec![KeyRange { first, last: middle }, KeyRange { first: middle + 1, last }])
}

/// Two present segments whose ranges touch.
pub fn neighbours(stream: &StreamDescription, pick: usize) -> Option<(SegmentId, SegmentId, KeyRange)> {
    let mut sorted = stream.segments.clone();
    sorted.sort_by_key(|segment| segment.range.first);
    let pairs: Vec<_> = sorted.windows(2).collect();
    let pair = pairs.get(pick % pairs.len().max(1))?;
    Some((pair[0].segment, pair[1].segment, KeyRange { first: pair[0].range.first, last: pair[1].range.last }))
}

/// The coordinator's calls about one stream.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The connection.
    pub bus: Bus,
    /// The index that owns the stream.
    pub index: IndexName,
}

impl Streams {
    /// Creates the stream of an index in the scope `tests`.
    pub async fn create(bus: &Bus, index: &str, segments: u16) -> Result<Self> {
        let index: IndexName = index.parse()?;
        patiently::<CreateStream>(bus, &(), &NewStream::fixed("tests".parse()?, index.clone(), segments)).await?;
        Ok(Self { bus: bus.clone(), index })
    }

    /// A stream that exists.
    pub fn of(bus: &Bus, index: &str) -> Result<Self> {
        Ok(Self { bus: bus.clone(), index: index.parse()? })
    }

    /// The stream with its present segments.
    pub async fn describe(&self) -> Result<StreamDescription> {
        Ok(patiently::<DescribeStream>(&self.bus, &(), &StreamName { index: self.index.clone() }).await?)
    }

    /// Replaces segments by others.
    pub async fn scale(&self, seal: Vec<SegmentId>, ranges: Vec<KeyRange>) -> Result<StreamDescription, Problem> {
        let scale = Scale { index: self.index.clone(), seal, ranges };
        patiently::<ScaleStream>(&self.bus, &(), &scale).await
    }

    /// Splits a present segment into two halves.
    pub async fn split(&self, pick: usize) -> Result<StreamDescription> {
        self.rescale(|stream| halves(stream, pick)).await
    }

    /// Merges two present segments; a stream of one segment is split instead.
    pub async fn merge(&self, pick: usize) -> Result<StreamDescription> {
        let merged = |stream: &StreamDescription| match neighbours(stream, pick) {
            Some((first, second, range)) => (vec![first, second], vec![range]),
            None => halves(stream, pick),
        };
        self.rescale(merged).await
    }

    /// Scales what is there; chooses again when the commit of a transaction has replaced it meanwhile.
    async fn rescale(
        &self,
        choose: impl Fn(&StreamDescription) -> (Vec<SegmentId>, Vec<KeyRange>),
    ) -> Result<StreamDescription> {
        for _ in 0..CHOICES_MAX {
            let stream = self.describe().await?;
            let (seal, ranges) = choose(&stream);
            match self.scale(seal, ranges).await {
                Err(problem) if problem.kind == "InvalidScale" && self.describe().await?.epoch != stream.epoch => {}
                answer => return Ok(answer?),
            }
        }
        bail!("{CHOICES_MAX} times the stream changed between its description and the scale")
    }

    /// Makes the stream begin at a cut.
    pub async fn truncate(&self, cut: StreamCut) -> Result<StreamDescription> {
        Ok(patiently::<TruncateStream>(&self.bus, &(), &TruncateAt { index: self.index.clone(), cut }).await?)
    }

    /// Every segment that is left, in order of their ids.
    pub async fn nodes(&self) -> Result<Vec<SegmentNode>> {
        let mut all: Vec<SegmentNode> = Vec::new();
        loop {
            let after = all.last().map(|node| node.segment);
            let page = SegmentsOf { index: self.index.clone(), after, limit: PAGE };
            let nodes = patiently::<ListSegments>(&self.bus, &(), &page).await?;
            all.extend(nodes.segments);
            if !nodes.more {
                return Ok(all);
            }
        }
    }

    /// Fails unless every epoch of which the stream still has all segments covers the key space once, the present one among
    /// them; answers how many they are.
    pub async fn check_epochs(&self) -> Result<u32> {
        let nodes: BTreeMap<SegmentId, KeyRange> =
            self.nodes().await?.into_iter().map(|node| (node.segment, node.range)).collect();
        let described = self.describe().await?;
        let mut present: BTreeMap<SegmentId, KeyRange> =
            described.segments.iter().map(|segment| (segment.segment, segment.range)).collect();
        let mut checked = 0;
        let mut epoch = described.epoch;
        for record in self.epochs().await?.iter().rev() {
            ensure!(record.epoch == epoch, "epoch {} is listed where {epoch} is due", record.epoch);
            let ranges: Vec<KeyRange> = present.values().copied().collect();
            ensure!(KeyRange::cover_once(&ranges), "epoch {epoch} does not cover the key space once: {present:?}");
            checked += 1;
            for created in &record.created {
                let there = present.remove(&created.segment);
                ensure!(there == Some(created.range), "epoch {epoch} began {created:?}, which was {there:?}");
            }
            for sealed in &record.sealed {
                // What a truncation left behind is no longer known.
                let Some(range) = nodes.get(sealed) else { return Ok(checked) };
                present.insert(*sealed, *range);
            }
            epoch = epoch.saturating_sub(1);
        }
        Ok(checked)
    }

    async fn epochs(&self) -> Result<Vec<EpochRecord>> {
        let mut all: Vec<EpochRecord> = Vec::new();
        loop {
            let from = all.last().map_or(0, |record| record.epoch + 1);
            let page = EpochsOf { index: self.index.clone(), from, limit: PAGE };
            let page = patiently::<ListEpochs>(&self.bus, &(), &page).await?;
            all.extend(page.epochs);
            if !page.more {
                return Ok(all);
            }
        }
    }
}
