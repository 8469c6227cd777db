//! A coordinator and a segment store for readers: what they know is a graph of segments with numbered events; tests append, scale
//! and truncate by plain calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{
    array::{Array, Int64Array, RecordBatch},
    ipc::writer::StreamWriter,
};
use bytes::Bytes;
use ingest::{RawEvent, to_batch};
use tokio::{sync::Notify, time::timeout};
use types::{ContainerId, GroupName, IndexName, KeyRange, Offset, SegmentId, StreamCut, Timestamp};
use wire::{
    Empty, Problem,
    coordinator::{
        Consumed, CreateGroup, CutKind, DeleteGroup, DescribeGroup, DescribeStream, GroupConfig, GroupDescription,
        ListSegments, ListSuccessors, ReportConsumed, ResetGroup, SegmentNode, SegmentNodes, SegmentRange,
        StreamDescription,
    },
    segment_store::{DescribeSegment, ReadFrom, ReadSegment, SegmentInfo, SegmentName, SegmentRead},
};

use super::Stage;

/// Bytes of an event, as the store counts them.
pub(crate) const EVENT_BYTES: u64 = 10;
/// Events answered at once: few, so that readers go back and forth.
const ANSWERED_MAX: u64 = 7;
pub(crate) struct Segment {
    node: SegmentNode,
    start: Offset,
    end: Offset,
    sealed: bool,
}

/// One stream.
pub(crate) struct Stream {
    number: u32,
    epoch: u32,
    sealed: bool,
    segments: BTreeMap<SegmentId, Segment>,
    head: StreamCut,
}

impl Stream {
    fn present(&self) -> Vec<SegmentRange> {
        let open = self.segments.values().filter(|s| s.node.successors.is_empty());
        open.map(|s| s.node.segment_range()).collect()
    }

    fn create(&mut self, epoch: u32, range: KeyRange, predecessors: Vec<SegmentId>) -> SegmentId {
        let number = u32::try_from(self.segments.len()).unwrap();
        let segment = SegmentId { stream: self.number, epoch, number };
        for before in &predecessors {
            self.segments.get_mut(before).unwrap().node.successors.push(segment);
        }
        let container = ContainerId(u16::try_from(number % 3).unwrap());
        let node = SegmentNode { segment, container, range, sealed_in: None, predecessors, successors: vec![] };
        self.segments.insert(segment, Segment { node, start: 0, end: 0, sealed: false });
        segment
    }
}

/// What coordinator and store know.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) streams: BTreeMap<IndexName, Stream>,
    pub(crate) groups: BTreeMap<GroupName, GroupDescription>,
    pub(crate) consumed: Vec<Consumed>,
    /// Whether nobody answers what follows a segment.
    pub(crate) away: bool,
}

impl Truth {
    fn stream(&self, index: &IndexName) -> Result<&Stream, Problem> {
        self.streams.get(index).ok_or_else(|| Problem::not_found("UnknownIndex", index))
    }

    fn segment(&self, segment: SegmentId) -> Result<(&IndexName, &Segment), Problem> {
        let all = self.streams.iter().flat_map(|(index, stream)| stream.segments.values().map(move |s| (index, s)));
        let mut found = all.filter(|(_, s)| s.node.segment == segment);
        found.next().ok_or_else(|| Problem::not_found("UnknownSegment", segment))
    }
}

/// A stage with streams to read.
pub(crate) struct Reading {
    stage: Stage,
    pub(crate) truth: Arc<Mutex<Truth>>,
    news: Arc<Notify>,
}

impl Deref for Reading {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DerefMut for Reading {
    fn deref_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

impl Reading {
    pub(crate) async fn new() -> Self {
        let mut stage = Stage::new().await;
        let (truth, news) = (Arc::new(Mutex::new(Truth::default())), Arc::new(Notify::new()));
        open_streams(&mut stage, &truth).await;
        open_groups(&mut stage, &truth).await;
        open_segments(&mut stage, &truth, &news).await;
        Self { stage, truth, news }
    }

    /// A stream of so many segments.
    pub(crate) fn stream(&self, index: &str, count: u32) -> IndexName {
        let index: IndexName = index.parse().unwrap();
        let mut truth = self.truth.lock().unwrap();
        let number = u32::try_from(truth.streams.len()).unwrap() + 1;
        let (segments, head) = (BTreeMap::new(), StreamCut::default());
        let mut stream = Stream { number, epoch: 0, sealed: false, segments, head };
        for range in KeyRange::split_evenly(count) {
            stream.create(0, range, vec![]);
        }
        truth.streams.insert(index.clone(), stream);
        index
    }

    /// The present segments in the order of their keys.
    pub(crate) fn present(&self, index: &IndexName) -> Vec<SegmentId> {
        let mut ranges = self.truth.lock().unwrap().streams[index].present();
        ranges.sort_by_key(|segment| segment.range);
        ranges.iter().map(|segment| segment.segment).collect()
    }

    pub(crate) fn append(&self, index: &IndexName, segment: SegmentId, count: u64) {
        let mut truth = self.truth.lock().unwrap();
        let segment = truth.streams.get_mut(index).unwrap().segments.get_mut(&segment).unwrap();
        assert!(!segment.sealed);
        segment.end += count;
        drop(truth);
        self.news.notify_waiters();
    }

    pub(crate) fn append_all(&self, index: &IndexName, count: u64) {
        self.present(index).into_iter().for_each(|segment| self.append(index, segment, count));
    }

    /// Seals segments whose successors come later, as in the middle of a scale.
    pub(crate) fn seal(&self, index: &IndexName, segments: &[SegmentId]) {
        let mut truth = self.truth.lock().unwrap();
        let stream = truth.streams.get_mut(index).unwrap();
        segments.iter().for_each(|segment| stream.segments.get_mut(segment).unwrap().sealed = true);
        drop(truth);
        self.news.notify_waiters();
    }

    /// Replaces neighbouring segments by so many that share their keys evenly.
    pub(crate) fn scale(&self, index: &IndexName, sealed: &[SegmentId], count: u64) -> Vec<SegmentId> {
        self.seal(index, sealed);
        let mut truth = self.truth.lock().unwrap();
        let stream = truth.streams.get_mut(index).unwrap();
        stream.epoch += 1;
        let ranges: Vec<KeyRange> = sealed.iter().map(|s| stream.segments[s].node.range).collect();
        let (first, last) =
            (ranges.iter().map(|r| r.first).min().unwrap(), ranges.iter().map(|r| r.last).max().unwrap());
        let step = (last - first) / count;
        let mut created = Vec::new();
        for part in 0..count {
            let end = if part + 1 == count { last } else { first + step * (part + 1) };
            let range = KeyRange { first: first + step * part + u64::from(part > 0), last: end };
            let before = sealed.iter().filter(|s| stream.segments[s].node.range.overlaps(range)).copied().collect();
            created.push(stream.create(stream.epoch, range, before));
        }
        drop(truth);
        self.news.notify_waiters();
        created
    }

    pub(crate) fn seal_stream(&self, index: &IndexName) {
        self.seal(index, &self.present(index));
        self.truth.lock().unwrap().streams.get_mut(index).unwrap().sealed = true;
    }

    /// Makes the stream begin at a cut.
    pub(crate) fn truncate(&self, index: &IndexName, cut: &StreamCut) {
        let mut truth = self.truth.lock().unwrap();
        let stream = truth.streams.get_mut(index).unwrap();
        let mut gone: BTreeSet<SegmentId> = BTreeSet::new();
        let mut next: Vec<SegmentId> = cut.0.keys().copied().collect();
        while let Some(segment) = next.pop() {
            for before in stream.segments.get(&segment).map(|s| s.node.predecessors.clone()).unwrap_or_default() {
                gone.insert(before);
                next.push(before);
            }
        }
        stream.segments.retain(|segment, _| !gone.contains(segment));
        for segment in stream.segments.values_mut() {
            segment.node.predecessors.retain(|before| !gone.contains(before));
        }
        for (segment, offset) in &cut.0 {
            stream.segments.get_mut(segment).unwrap().start = *offset;
        }
        stream.head = cut.clone();
        drop(truth);
        self.news.notify_waiters();
    }

    /// How many events a stream has ever had that are still there.
    pub(crate) fn event_count(&self, index: &IndexName) -> u64 {
        self.truth.lock().unwrap().streams[index].segments.values().map(|s| s.end - s.start).sum()
    }

    /// Every event that is still there.
    pub(crate) fn events(&self, index: &IndexName) -> BTreeSet<(SegmentId, Offset)> {
        let truth = self.truth.lock().unwrap();
        let all = truth.streams[index].segments.values();
        all.flat_map(|s| (s.start..s.end).map(|offset| (s.node.segment, offset))).collect()
    }

    /// Checks that events come after all that their segments follow.
    pub(crate) fn assert_ordered(&self, index: &IndexName, events: &[(SegmentId, Offset)]) {
        let truth = self.truth.lock().unwrap();
        let mut seen: BTreeMap<SegmentId, Offset> = BTreeMap::new();
        for (segment, offset) in events {
            let node = &truth.streams[index].segments[segment].node;
            let next = seen.entry(*segment).or_insert_with(|| *offset);
            assert_eq!(*next, *offset, "{segment}: a gap or a repeat");
            *next += 1;
            for before in &node.predecessors {
                let read = seen.get(before).copied().unwrap_or(0);
                let whole = truth.streams[index].segments[before].end;
                assert!(read == whole || whole == 0, "{segment} came before the end of {before}");
            }
        }
    }
}

/// The events of a batch.
pub(crate) fn events(segment: SegmentId, batch: &RecordBatch) -> Vec<(SegmentId, Offset)> {
    let offsets = batch.column_by_name("_offset").unwrap().as_any().downcast_ref::<Int64Array>().unwrap();
    offsets.iter().map(|offset| (segment, u64::try_from(offset.unwrap()).unwrap())).collect()
}

async fn open_segments(stage: &mut Stage, truth: &Arc<Mutex<Truth>>, news: &Arc<Notify>) {
    let known = truth.clone();
    let described = move |request: SegmentName| {
        let truth = known.lock().unwrap();
        let (index, segment) = truth.segment(request.segment)?;
        Ok(info(index, segment))
    };
    stage.serve::<DescribeSegment>(None, described).await;
    let (known, news) = (truth.clone(), news.clone());
    let read = move |request| {
        let (known, news) = (known.clone(), news.clone());
        async move { read(&known, &news, request).await }
    };
    stage.serve_slowly::<ReadSegment, _, _>(None, read).await;
}

async fn open_streams(stage: &mut Stage, truth: &Arc<Mutex<Truth>>) {
    let known = truth.clone();
    stage
        .serve::<DescribeStream>(None, move |request| {
            let truth = known.lock().unwrap();
            let stream = truth.stream(&request.index)?;
            let (number, scope) = ((stream.number, Timestamp::default()), "test".parse().unwrap());
            let description = StreamDescription::new(number, scope, request.index, stream.present());
            let (epoch, sealed, head) = (stream.epoch, stream.sealed, stream.head.clone());
            Ok(StreamDescription { epoch, sealed, head, ..description })
        })
        .await;
    let known = truth.clone();
    stage
        .serve::<ListSegments>(None, move |request| {
            let truth = known.lock().unwrap();
            let all = truth.stream(&request.index)?.segments.values().map(|s| &s.node);
            let mut rest = all.filter(|node| request.after.is_none_or(|after| node.segment > after));
            let segments = rest.by_ref().take(request.limit as usize).cloned().collect();
            Ok(SegmentNodes { segments, more: rest.next().is_some() })
        })
        .await;
    let known = truth.clone();
    stage
        .serve::<ListSuccessors>(None, move |request| {
            let truth = known.lock().unwrap();
            if truth.away {
                return Err(Problem::unavailable("NoLeader", "away"));
            }
            let stream = truth.stream(&request.index)?;
            let unknown = || Problem::not_found("UnknownSegment", request.segment);
            let node = &stream.segments.get(&request.segment).ok_or_else(unknown)?.node;
            let segments = node.successors.iter().map(|s| stream.segments[s].node.clone()).collect();
            Ok(SegmentNodes { segments, more: false })
        })
        .await;
}

async fn open_groups(stage: &mut Stage, truth: &Arc<Mutex<Truth>>) {
    fn describe(truth: &mut Truth, mut config: GroupConfig, generation: u64) -> GroupDescription {
        for bounds in [&mut config.from, &mut config.to] {
            for (index, kind) in bounds.iter_mut().filter(|(_, kind)| **kind == CutKind::Tail) {
                let stream = &truth.streams[index];
                let tails = stream.present().into_iter().map(|s| (s.segment, stream.segments[&s.segment].end));
                *kind = CutKind::At(StreamCut(tails.collect()));
            }
        }
        let description =
            GroupDescription { config, generation, created: Timestamp::default(), consumed: BTreeMap::new() };
        truth.groups.insert(description.config.group.clone(), description.clone());
        description
    }
    let known = truth.clone();
    stage
        .serve::<CreateGroup>(None, move |config| {
            let mut truth = known.lock().unwrap();
            match truth.groups.get(&config.group) {
                Some(there) => Ok(there.clone()),
                None => Ok(describe(&mut truth, config, 1)),
            }
        })
        .await;
    let known = truth.clone();
    stage
        .serve::<ResetGroup>(None, move |config| {
            let mut truth = known.lock().unwrap();
            let generation = truth.groups[&config.group].generation + 1;
            Ok(describe(&mut truth, config, generation))
        })
        .await;
    let known = truth.clone();
    stage
        .serve::<DescribeGroup>(None, move |name| {
            let there = known.lock().unwrap().groups.get(&name.group).cloned();
            there.ok_or_else(|| Problem::not_found("UnknownGroup", name.group))
        })
        .await;
    let known = truth.clone();
    stage
        .serve::<DeleteGroup>(None, move |name| {
            known.lock().unwrap().groups.remove(&name.group);
            Ok(Empty {})
        })
        .await;
    let known = truth.clone();
    stage
        .serve::<ReportConsumed>(None, move |consumed| {
            known.lock().unwrap().consumed.push(consumed);
            Ok(Empty {})
        })
        .await;
}

fn info(index: &IndexName, segment: &Segment) -> SegmentInfo {
    SegmentInfo {
        segment: segment.node.segment,
        index: index.clone(),
        start: segment.start,
        tail_from: segment.start,
        end: segment.end,
        sealed: segment.sealed,
        chunks: vec![],
        bytes: segment.end * EVENT_BYTES,
        truncated_bytes: segment.start * EVENT_BYTES,
        transactional: false,
    }
}

async fn read(truth: &Mutex<Truth>, news: &Notify, request: ReadFrom) -> Result<SegmentRead, Problem> {
    let ReadFrom { segment, from, wait_ms, .. } = request;
    let until = tokio::time::Instant::now() + Duration::from_millis(u64::from(wait_ms));
    loop {
        let told = news.notified();
        tokio::pin!(told);
        told.as_mut().enable();
        let (start, end, sealed) = {
            let truth = truth.lock().unwrap();
            let (_, there) = truth.segment(segment)?;
            (there.start, there.end, there.sealed)
        };
        if from < start {
            return Err(Problem::not_found("Truncated", format_args!("{segment} begins at {start}")));
        }
        let next = end.min(from + ANSWERED_MAX);
        let over = sealed || tokio::time::Instant::now() >= until;
        if next > from || over {
            let columns = if next > from { columns(segment, from, next) } else { Bytes::new() };
            return Ok(SegmentRead { from, next: next.max(from), end: end.max(from), sealed, chunks: vec![], columns });
        }
        timeout(until.saturating_duration_since(tokio::time::Instant::now()), told).await.ok();
    }
}

fn columns(segment: SegmentId, from: Offset, to: Offset) -> Bytes {
    let texts: Vec<String> = (from..to).map(|offset| format!("{segment} {offset}")).collect();
    let raw = |text| RawEvent { payload: String::as_bytes(text), received: Timestamp::from_millis(1) };
    let batch = to_batch(segment, from, texts.iter().map(raw));
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    Bytes::from(writer.into_inner().unwrap())
}
