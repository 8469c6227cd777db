//! A coordinator of a few lines: streams with policies and tags, and segments with as many events as a test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use bus::{Door, Doors};
use host::Host;
use types::{ContainerId, IndexName, KeyRange, SegmentId, Timestamp};
use wire::{
    Empty, Problem, Service,
    coordinator::{
        CreateStream, DeleteStream, DescribeStream, ListSegments, NewStream, RetentionChange, SegmentNode,
        SegmentNodes, SegmentRange, StreamDescription, StreamUpdate, UpdateStream,
    },
    segment_store::{DescribeSegment, SegmentInfo},
};

/// The container of every segment.
const CONTAINER: ContainerId = ContainerId(0);

#[derive(Debug, Clone)]
struct Stream {
    asked: NewStream,
    description: StreamDescription,
}

#[derive(Debug, Default)]
struct Inner {
    streams: BTreeMap<IndexName, Stream>,
    /// Events that every segment holds.
    events: u64,
    /// So many changes fail.
    failing: u32,
    /// Changes and deletions that were made.
    changes: u32,
}

/// Its doors; they close with this value. The index name `taken` belongs to another scope.
pub(crate) struct Coordinator {
    inner: Arc<Mutex<Inner>>,
    _doors: Vec<Door>,
}

impl Inner {
    fn create(&mut self, new: NewStream) -> Result<StreamDescription, Problem> {
        if new.index.as_str() == "taken" {
            return Err(Problem::conflict("IndexNameTaken", "index taken exists in another scope"));
        }
        if let Some(there) = self.streams.get(&new.index) {
            let same = there.asked == new;
            let differs = || Problem::conflict("StreamDiffers", "the stream exists with other policies or tags");
            return if same { Ok(there.description.clone()) } else { Err(differs()) };
        }
        let ranges = KeyRange::split_evenly(new.segment_count.into());
        let segment = |(number, range)| {
            let segment = SegmentId { stream: 0, epoch: 0, number };
            SegmentRange { segment, container: CONTAINER, range }
        };
        let segments = (0..).zip(ranges).map(segment).collect();
        let created = (0, Timestamp::from_nanos(1));
        let described = StreamDescription::new(created, new.scope.clone(), new.index.clone(), segments);
        let (retention, tags) = (new.retention, new.tags.clone());
        let description = StreamDescription { scaling: new.scaling, retention, tags, ..described };
        self.streams.insert(new.index.clone(), Stream { asked: new, description: description.clone() });
        Ok(description)
    }

    fn find(&mut self, index: &IndexName) -> Result<&mut StreamDescription, Problem> {
        let found = self.streams.get_mut(index).map(|stream| &mut stream.description);
        found.ok_or_else(|| Problem::not_found("UnknownIndex", "there is no such index"))
    }

    fn update(&mut self, update: StreamUpdate) -> Result<StreamDescription, Problem> {
        if self.failing > 0 {
            self.failing -= 1;
            return Err(Problem::unavailable("JournalRefused", "not now"));
        }
        self.changes += 1;
        let there = self.find(&update.index)?;
        there.scaling = update.scaling.unwrap_or(there.scaling);
        there.retention = update.retention.map_or(there.retention, RetentionChange::policy);
        there.tags = update.tags.unwrap_or_else(|| there.tags.clone());
        Ok(there.clone())
    }

    fn nodes(&mut self, index: &IndexName) -> Result<SegmentNodes, Problem> {
        let node = |there: &SegmentRange| SegmentNode {
            segment: there.segment,
            container: there.container,
            range: there.range,
            sealed_in: None,
            predecessors: Vec::new(),
            successors: Vec::new(),
        };
        Ok(SegmentNodes { segments: self.find(index)?.segments.iter().map(node).collect(), more: false })
    }

    fn info(&self, segment: SegmentId) -> SegmentInfo {
        SegmentInfo {
            segment,
            index: "any".parse().unwrap(),
            start: 10,
            tail_from: 10,
            end: 10 + self.events,
            sealed: false,
            chunks: Vec::new(),
            bytes: 0,
            truncated_bytes: 0,
            transactional: false,
        }
    }
}

impl Coordinator {
    pub(crate) async fn open(host: &Host) -> Result<Self> {
        let inner = Arc::<Mutex<Inner>>::default();
        let doors = Doors::new(&host.bus, Service::Coordinator, &host.replica);
        let stores = Doors::new(&host.bus, Service::SegmentStore, &host.replica);
        macro_rules! serve {
            ($doors:ident, $call:ty, |$inner:ident, $request:ident| $answer:expr) => {{
                let shared = inner.clone();
                let answer = move |incoming: bus::Incoming<$call>| {
                    let ($request, mut guard) = (incoming.request, shared.lock().unwrap());
                    let $inner = &mut *guard;
                    std::future::ready($answer)
                };
                $doors.serve::<$call, _, _>(None, answer).await?
            }};
        }
        let open = vec![
            serve!(doors, CreateStream, |inner, new| inner.create(new)),
            serve!(doors, DescribeStream, |inner, name| inner.find(&name.index).map(|there| there.clone())),
            serve!(doors, UpdateStream, |inner, update| inner.update(update)),
            serve!(doors, DeleteStream, |inner, name| {
                inner.changes += 1;
                inner.streams.remove(&name.index);
                Ok(Empty {})
            }),
            serve!(doors, ListSegments, |inner, of| inner.nodes(&of.index)),
            serve!(stores, DescribeSegment, |inner, name| Ok(inner.info(name.segment))),
        ];
        Ok(Self { inner, _doors: open })
    }

    /// A stream that nobody's index is.
    pub(crate) fn put(&self, new: NewStream) {
        self.inner.lock().unwrap().create(new).unwrap();
    }

    pub(crate) fn stream(&self, index: &str) -> Option<StreamDescription> {
        let inner = self.inner.lock().unwrap();
        inner.streams.get(&index.parse::<IndexName>().unwrap()).map(|stream| stream.description.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().unwrap().streams.is_empty()
    }

    /// From now on every segment holds so many events.
    pub(crate) fn hold(&self, events: u64) {
        self.inner.lock().unwrap().events = events;
    }

    /// So many changes of streams fail.
    pub(crate) fn fail(&self, times: u32) {
        self.inner.lock().unwrap().failing = times;
    }

    pub(crate) fn changes(&self) -> u32 {
        self.inner.lock().unwrap().changes
    }
}
