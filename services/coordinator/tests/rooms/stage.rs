//! A coordinator, and a segment-store that does what the real one promises and forgets it all with the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use bus::{Door, Doors};
use coordinator::Coordinator;
use host::{Host, InProcess, start_in_process};
use testkit::World;
use types::{ContainerId, IndexName, KeyRange, SegmentId};
use wire::{
    Empty, Problem, Service,
    coordinator::{CreateStream, DescribeStream, NewStream, Scale, ScaleStream, StreamDescription, StreamName},
    segment_store::{
        CreateSegment, DeleteSegment, DescribeSegment, Merge, MergeSegment, Merged, NewSegment, SealSegment,
        SegmentInfo, TruncateSegment,
    },
};

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Bytes of every event.
pub(crate) const EVENT_BYTES: u64 = 10;

pub(crate) async fn coordinator(world: &World, replica: &str, set: &[&str]) -> Result<InProcess> {
    let mut all = vec!["common.lease_ttl=1s", "coordinator.rebalance_min_interval=100ms"];
    all.extend(set);
    Ok(start_in_process::<Coordinator>(&world.settings(replica, &all)?, None).await?)
}

pub(crate) async fn caller(world: &World) -> Result<Host> {
    Ok(Host::connect(Service::Gateway, world.common("test", &[])?).await?)
}

#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) container: ContainerId,
    pub(crate) new: NewSegment,
    pub(crate) events: Vec<String>,
    pub(crate) start: u64,
    pub(crate) sealed: bool,
    merged: BTreeSet<SegmentId>,
}

/// The segment-store.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) segments: BTreeMap<SegmentId, Segment>,
    /// After so many effects nothing happens any more; `None`: no bound.
    pub(crate) patience: Option<usize>,
    /// Effects that happened within the bound; the answer of the last one is lost.
    pub(crate) effects: usize,
    /// How many effects were refused, or their answers lost.
    pub(crate) refused: usize,
}

impl Store {
    fn take<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        // Nothing transient: the caller shall learn it at once.
        let broken = || Err(Problem::conflict("Broken", "the store is out of order"));
        if self.patience == Some(0) {
            self.refused += 1;
            return broken();
        }
        self.patience = self.patience.map(|left| left - 1);
        let done = work(self)?;
        self.effects += 1;
        if self.patience == Some(0) {
            self.refused += 1;
            return broken();
        }
        Ok(done)
    }

    fn known(&mut self, segment: SegmentId) -> Result<&mut Segment, Problem> {
        self.segments.get_mut(&segment).ok_or_else(|| Problem::not_found("UnknownSegment", segment))
    }

    fn create(&mut self, container: ContainerId, new: NewSegment) {
        for before in &new.predecessors {
            let there = &self.segments[&before.segment];
            assert!(there.sealed && there.container == before.container, "{} begins before its time", new.segment);
        }
        let (events, start, sealed, merged) = (Vec::new(), 0, false, BTreeSet::new());
        let fresh = Segment { container, new: new.clone(), events, start, sealed, merged };
        let there = self.segments.entry(new.segment).or_insert(fresh);
        assert_eq!((&there.new, there.container), (&new, container), "a repeat is a repeat");
    }

    fn merge(&mut self, container: ContainerId, merge: Merge) -> Result<Merged, Problem> {
        let target = self.known(merge.segment)?;
        let from = u64::try_from(target.events.len()).unwrap();
        if target.merged.contains(&merge.source) {
            return Ok(Merged { from, count: 0, repeated: true });
        }
        if target.sealed {
            return Err(Problem::conflict("SegmentSealed", merge.segment));
        }
        let target_container = target.container;
        let source = self.known(merge.source)?.clone();
        assert_eq!((target_container, source.container), (container, container), "both lie in one container");
        assert!(source.new.transactional);
        self.segments.remove(&merge.source);
        let target = self.known(merge.segment)?;
        let count = u64::try_from(source.events.len()).unwrap();
        target.events.extend(source.events);
        target.merged.insert(merge.source);
        Ok(Merged { from, count, repeated: false })
    }

    /// Appends as a writer does.
    pub(crate) fn append(&mut self, segment: SegmentId, event: &str) {
        let there = self.segments.get_mut(&segment).unwrap();
        assert!(!there.sealed, "{segment} takes nothing");
        there.events.push(event.to_owned());
    }

    fn info(&mut self, segment: SegmentId) -> Result<SegmentInfo, Problem> {
        let known = self.known(segment)?.clone();
        let end = u64::try_from(known.events.len()).unwrap();
        Ok(SegmentInfo {
            segment,
            index: known.new.index,
            start: known.start,
            tail_from: known.start,
            end,
            sealed: known.sealed,
            chunks: Vec::new(),
            bytes: end * EVENT_BYTES,
            truncated_bytes: known.start * EVENT_BYTES,
            transactional: known.new.transactional,
        })
    }

    /// How many events of a stream can be read.
    pub(crate) fn readable(&self, stream: u32) -> u64 {
        let of_stream =
            self.segments.iter().filter(|(segment, there)| segment.stream == stream && !there.new.transactional);
        of_stream.map(|(_, there)| u64::try_from(there.events.len()).unwrap() - there.start).sum()
    }

    /// The segments of transactions.
    pub(crate) fn shadows(&self) -> usize {
        self.segments.values().filter(|there| there.new.transactional).count()
    }
}

pub(crate) type Shared = Arc<Mutex<Store>>;

/// The doors of the segment-store, one for each container so that a call to the wrong one finds nothing.
pub(crate) async fn store_doors(host: &Host) -> Result<(Shared, Vec<Door>)> {
    let store = Shared::default();
    let doors = Doors::new(&host.bus, Service::SegmentStore, &host.replica);
    let mut open = Vec::new();
    for container in (0..8).map(ContainerId) {
        let key = Some(&container);
        let (create, seal, cut) = (store.clone(), store.clone(), store.clone());
        let (merge, delete, look) = (store.clone(), store.clone(), store.clone());
        open.push(
            doors
                .serve::<CreateSegment, _, _>(key, move |incoming| {
                    let done = create.lock().unwrap().take(|store| {
                        store.create(container, incoming.request);
                        Ok(Empty {})
                    });
                    async { done }
                })
                .await?,
        );
        open.push(
            doors
                .serve::<SealSegment, _, _>(key, move |incoming| {
                    let segment = incoming.request.segment;
                    let done = seal.lock().unwrap().take(|store| {
                        store.known(segment)?.sealed = true;
                        store.info(segment)
                    });
                    async { done }
                })
                .await?,
        );
        open.push(
            doors
                .serve::<TruncateSegment, _, _>(key, move |incoming| {
                    let (segment, before) = (incoming.request.segment, incoming.request.before);
                    let done = cut.lock().unwrap().take(|store| {
                        let known = store.known(segment)?;
                        assert!(before <= u64::try_from(known.events.len()).unwrap(), "beyond the end");
                        known.start = known.start.max(before);
                        store.info(segment)
                    });
                    async { done }
                })
                .await?,
        );
        open.push(
            doors
                .serve::<MergeSegment, _, _>(key, move |incoming| {
                    let done = merge.lock().unwrap().take(|store| store.merge(container, incoming.request));
                    async { done }
                })
                .await?,
        );
        open.push(
            doors
                .serve::<DeleteSegment, _, _>(key, move |incoming| {
                    let done = delete.lock().unwrap().take(|store| {
                        store.segments.remove(&incoming.request.segment);
                        Ok(Empty {})
                    });
                    async { done }
                })
                .await?,
        );
        open.push(
            doors
                .serve::<DescribeSegment, _, _>(key, move |incoming| {
                    let info = look.lock().unwrap().info(incoming.request.segment);
                    async { info }
                })
                .await?,
        );
    }
    Ok((store, open))
}

pub(crate) fn index(name: &str) -> IndexName {
    name.parse().unwrap()
}

pub(crate) fn new(index: &str, segment_count: u16) -> NewStream {
    NewStream::fixed("team".parse().unwrap(), index.parse().unwrap(), segment_count)
}

pub(crate) async fn create(host: &Host, new: &NewStream) -> Result<StreamDescription, Problem> {
    host.bus.call_within::<CreateStream>(&(), new, SOON).await
}

pub(crate) async fn described(host: &Host, index: &str) -> Result<StreamDescription, Problem> {
    host.bus.call_within::<DescribeStream>(&(), &StreamName { index: self::index(index) }, SOON).await
}

/// Splits the first present segment in two.
pub(crate) async fn split_first(host: &Host, stream: &StreamDescription) -> Result<StreamDescription, Problem> {
    let first = stream.segments[0];
    let half = first.range.first + (first.range.last - first.range.first) / 2;
    let ranges =
        vec![KeyRange { first: first.range.first, last: half }, KeyRange { first: half + 1, last: first.range.last }];
    let scale = Scale { index: stream.index.clone(), seal: vec![first.segment], ranges };
    host.bus.call_within::<ScaleStream>(&(), &scale, SOON).await
}
