//! A coordinator, and a segment-store that keeps what segments are and no events.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use bus::{Bucket, Door, Doors};
use coordinator::Coordinator;
use host::{Host, InProcess, start_in_process};
use testkit::World;
use types::{Generation, IndexName, KeyRange, Offset, SegmentId};
use wire::{
    Empty, Problem, Service,
    coordinator::{DescribeStream, NewStream, Scale, StreamDescription, StreamName},
    decode,
    segment_store::{
        CreateSegment, DeleteSegment, DescribeSegment, NewSegment, SealSegment, SegmentInfo, TruncateSegment,
    },
    views::{VIEWS, stream_key},
};

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn coordinator(world: &World, replica: &str) -> Result<InProcess> {
    let settings = world.settings(replica, &["common.lease_ttl=1s", "coordinator.rebalance_min_interval=100ms"])?;
    Ok(start_in_process::<Coordinator>(&settings, None).await?)
}

pub(crate) async fn caller(world: &World) -> Result<Host> {
    Ok(Host::connect(Service::Gateway, world.common("test", &[])?).await?)
}

/// What a segment is to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) new: NewSegment,
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) sealed: bool,
}

/// What is done to segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    Create(SegmentId),
    Seal(SegmentId),
    Truncate(SegmentId),
    Delete(SegmentId),
}

/// The segment-store.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) segments: BTreeMap<SegmentId, Segment>,
    /// Effects in order, repeats included.
    pub(crate) log: Vec<Effect>,
    /// After so many effects nothing happens any more; `None`: no bound.
    pub(crate) patience: Option<usize>,
    /// Whether the last effect within the bound happens, but its answer is lost.
    pub(crate) mute: bool,
    /// How many effects were refused.
    pub(crate) refused: usize,
    /// The leaders on whose behalf effects were asked for.
    pub(crate) leaders: BTreeSet<Option<Generation>>,
}

impl Store {
    fn take(&mut self, effect: Effect, work: impl FnOnce(&mut Self) -> Result<(), Problem>) -> Result<(), Problem> {
        // Nothing transient: the caller shall learn it at once.
        let broken = || Err(Problem::conflict("Broken", "the store is out of order"));
        if self.patience == Some(0) {
            self.refused += 1;
            return broken();
        }
        self.patience = self.patience.map(|left| left - 1);
        work(self)?;
        self.log.push(effect);
        if self.mute && self.patience == Some(0) {
            self.refused += 1;
            return broken();
        }
        Ok(())
    }

    /// A segment whose predecessors are not sealed must not be created: it would begin without what writers have in them.
    fn create(&mut self, new: NewSegment) -> Result<(), Problem> {
        for before in &new.predecessors {
            let sealed = self.segments.get(&before.segment).is_some_and(|segment| segment.sealed);
            assert!(sealed, "{} begins before {} has ended", new.segment, before.segment);
        }
        let fresh = Segment { new: new.clone(), start: 0, end: 10, sealed: false };
        let there = self.segments.entry(new.segment).or_insert(fresh);
        assert_eq!(there.new, new, "a repeat is a repeat");
        Ok(())
    }

    fn known(&mut self, segment: SegmentId) -> Result<&mut Segment, Problem> {
        self.segments.get_mut(&segment).ok_or_else(|| Problem::not_found("UnknownSegment", segment))
    }

    fn info(&mut self, segment: SegmentId) -> Result<SegmentInfo, Problem> {
        let known = self.known(segment)?.clone();
        Ok(SegmentInfo {
            segment,
            index: known.new.index,
            start: known.start,
            tail_from: known.start,
            end: known.end,
            sealed: known.sealed,
            chunks: Vec::new(),
            bytes: 0,
            truncated_bytes: 0,
            transactional: false,
        })
    }

    pub(crate) fn names(&self) -> BTreeSet<SegmentId> {
        self.segments.keys().copied().collect()
    }
}

pub(crate) type Shared = Arc<Mutex<Store>>;

/// The doors of the segment-store, for every container.
pub(crate) async fn store_doors(host: &Host) -> Result<(Shared, Vec<Door>)> {
    let store = Shared::default();
    let doors = Doors::new(&host.bus, Service::SegmentStore, &host.replica);
    let (create, seal, cut, delete, look) = (store.clone(), store.clone(), store.clone(), store.clone(), store.clone());
    let open = vec![
        doors
            .serve::<CreateSegment, _, _>(None, move |incoming| {
                let (new, mut store) = (incoming.request, create.lock().unwrap());
                store.leaders.insert(incoming.leader);
                let done = store.take(Effect::Create(new.segment), |store| store.create(new));
                async { done.map(|()| Empty {}) }
            })
            .await?,
        doors
            .serve::<SealSegment, _, _>(None, move |incoming| {
                let (segment, mut store) = (incoming.request.segment, seal.lock().unwrap());
                store.leaders.insert(incoming.leader);
                let done = store.take(Effect::Seal(segment), |store| store.known(segment).map(|s| s.sealed = true));
                let info = done.and_then(|()| store.info(segment));
                async { info }
            })
            .await?,
        doors
            .serve::<TruncateSegment, _, _>(None, move |incoming| {
                let (request, mut store) = (incoming.request, cut.lock().unwrap());
                store.leaders.insert(incoming.leader);
                let (segment, before) = (request.segment, request.before);
                let done = store.take(Effect::Truncate(segment), |store| {
                    store.known(segment).map(|s| s.start = s.start.max(before))
                });
                let info = done.and_then(|()| store.info(segment));
                async { info }
            })
            .await?,
        doors
            .serve::<DeleteSegment, _, _>(None, move |incoming| {
                let (segment, mut store) = (incoming.request.segment, delete.lock().unwrap());
                store.leaders.insert(incoming.leader);
                let done = store.take(Effect::Delete(segment), |store| {
                    store.segments.remove(&segment);
                    Ok(())
                });
                async { done.map(|()| Empty {}) }
            })
            .await?,
        doors
            .serve::<DescribeSegment, _, _>(None, move |incoming| {
                let info = look.lock().unwrap().info(incoming.request.segment);
                async { info }
            })
            .await?,
    ];
    Ok((store, open))
}

pub(crate) async fn views(host: &Host) -> Result<Bucket> {
    Ok(host.bus.bucket(VIEWS, None, 1).await?)
}

/// What others read instead of asking.
pub(crate) async fn shown(host: &Host, index: &str) -> Option<StreamDescription> {
    let views = views(host).await.ok()?;
    let entry = views.get(&stream_key(&self::index(index))).await.ok()??;
    decode(&entry.value).ok()
}

pub(crate) fn new(scope: &str, index: &str, segment_count: u16) -> NewStream {
    let (scope, index) = (scope.parse().unwrap(), index.parse().unwrap());
    NewStream { retention_days: Some(7), ..NewStream::fixed(scope, index, segment_count) }
}

pub(crate) fn index(name: &str) -> IndexName {
    name.parse().unwrap()
}

pub(crate) fn name(name: &str) -> StreamName {
    StreamName { index: index(name) }
}

pub(crate) fn whole() -> KeyRange {
    KeyRange { first: 0, last: u64::MAX }
}

pub(crate) async fn described(host: &Host, index: &str) -> Result<StreamDescription, Problem> {
    host.bus.call_within::<DescribeStream>(&(), &name(index), SOON).await
}

/// A scale of all present segments into these.
pub(crate) fn everything(stream: &StreamDescription, ranges: &[KeyRange]) -> Scale {
    let seal = stream.segments.iter().map(|s| s.segment).collect();
    Scale { index: stream.index.clone(), seal, ranges: ranges.to_vec() }
}
