//! A world with segment stores, and a test in the coordinator's place.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use arrow::{array::AsArray, array::RecordBatch, datatypes::Int64Type};
use bus::{Bucket, Bus, BusOptions, Door, Doors, keys};
use bytes::Bytes;
use client::{Client, SegmentReader};
use host::{InProcess, start_in_process};
use segment_store::SegmentStore;
use testkit::World;
use types::{Clock, ContainerId, Generation, IndexName, KeyRange, Offset, SegmentId, Timestamp};
use wire::{
    Service,
    coordinator::{DescribeStream, SegmentRange, StreamDescription},
    segment_store::{CreateSegment, NewSegment},
    views::{Assignment, PLACEMENT_KEY, Placement, Role, VIEWS, stream_key},
};

const CONTAINERS: u16 = 8;
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Settings under which nothing goes to Tier 2 by itself.
pub(crate) const TAIL_ONLY: &[&str] = &["segment_store.flush_interval=1h"];
/// Settings under which everything goes to Tier 2 at once, and snapshots are frequent.
pub(crate) const EAGER: &[&str] =
    &["segment_store.flush_interval=100ms", "segment_store.snapshot_frames=5", "common.snapshot_interval=1s"];

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) bus: Bus,
    pub(crate) client: Client,
    pub(crate) objects: store::Objects,
    pub(crate) stores: BTreeMap<String, InProcess>,
    views: Bucket,
    placement: Placement,
    _doors: Vec<Door>,
}

impl Stage {
    /// One store `a` that owns every container with generation 1.
    pub(crate) async fn with_store(set: &[&str]) -> Self {
        let mut stage = Self::empty().await;
        stage.start("a", set).await;
        stage.place(|_| ("a".into(), 1)).await;
        stage
    }

    pub(crate) async fn empty() -> Self {
        let world = World::start().await.unwrap();
        let options = BusOptions {
            url: world.nats.url(),
            creds: Some(world.nats.platform_creds().unwrap()),
            name: "test/stage".into(),
            ..BusOptions::default()
        };
        let bus = Bus::connect(options).await.unwrap();
        let objects = store::Objects::open(&world.objects_url()).unwrap();
        let client = Client::new(bus.clone(), objects.clone());
        let views = bus.bucket(VIEWS, None, 1).await.unwrap();
        let doors = Doors::new(&bus, Service::Coordinator, &"stage".parse().unwrap());
        let known = views.clone();
        let describe = doors
            .serve::<DescribeStream, _, _>(None, move |incoming| {
                let known = known.clone();
                async move {
                    let entry = known.get(&stream_key(&incoming.request.index)).await?;
                    let entry = entry.ok_or_else(|| wire::Problem::not_found("UnknownIndex", "no such index"))?;
                    wire::decode(&entry.value)
                }
            })
            .await
            .unwrap();
        let placement = Placement { version: 0, container_count: CONTAINERS, assignments: vec![] };
        Self { world, bus, client, objects, stores: BTreeMap::new(), views, placement, _doors: vec![describe] }
    }

    pub(crate) async fn start(&mut self, replica: &str, set: &[&str]) {
        let settings = self.world.settings(replica, set).unwrap();
        let store = start_in_process::<SegmentStore>(&settings, None).await.unwrap();
        self.stores.insert(replica.into(), store);
    }

    pub(crate) async fn stop(&mut self, replica: &str) {
        self.stores.remove(replica).unwrap().stop().await.unwrap();
    }

    /// Publishes where every container is.
    pub(crate) async fn place(&mut self, of: impl Fn(u16) -> (String, u64)) {
        self.placement.version += 1;
        let assign = |n| {
            let (replica, generation) = of(n);
            Assignment {
                container: ContainerId(n),
                replica: replica.parse().unwrap(),
                generation: Generation(generation),
            }
        };
        self.placement.assignments = (0..CONTAINERS).map(assign).collect();
        self.views.put(PLACEMENT_KEY, wire::encode(&self.placement)).await.unwrap();
    }

    /// A stream with segments as the coordinator would make it.
    pub(crate) async fn stream(&self, name: &str, number: u32, segments: u32) -> StreamDescription {
        let index: IndexName = name.parse().unwrap();
        let ranges = KeyRange::split_evenly(segments).into_iter();
        let segments = ranges.zip(0u32..).map(|(range, n)| {
            let segment = SegmentId { stream: number, epoch: 0, number: n };
            SegmentRange { segment, container: segment.container(CONTAINERS), range }
        });
        let (scope, created) = ("team".parse().unwrap(), Timestamp::default());
        let stream = StreamDescription::new((number, created), scope, index.clone(), segments.collect());
        for range in &stream.segments {
            let (predecessors, transactional) = (Vec::new(), false);
            let (segment, origin) = (range.segment, None);
            let new = NewSegment { segment, index: index.clone(), predecessors, transactional, origin };
            self.bus.call_within::<CreateSegment>(&range.container, &new, LONG).await.unwrap();
        }
        self.views.put(&stream_key(&index), wire::encode(&stream)).await.unwrap();
        stream
    }

    /// A connection as a producer of the index has it.
    pub(crate) async fn producer(&self, index: &IndexName) -> Bus {
        let binding = "binding-1".parse().unwrap();
        let seed = &self.world.nats.keyring().tenants_seed;
        let now = bus::SystemClock.now();
        let creds = keys::issue_creds(|key| keys::UserSpec::binding(index, &binding, Role::Write, key), seed, now);
        let options = BusOptions {
            url: self.world.nats.url(),
            creds: Some(creds.unwrap()),
            name: "app/1".into(),
            inbox_prefix: Some(wire::subjects::inbox_prefix(&binding)),
            ..BusOptions::default()
        };
        Bus::connect(options).await.unwrap()
    }

    /// The lane to which a subject is mapped.
    pub(crate) async fn lane_of(&self, producer: &Bus, subject: &str) -> u16 {
        let options = BusOptions {
            url: self.world.nats.url(),
            creds: Some(self.world.nats.tenants_creds().unwrap()),
            name: "test/lanes".into(),
            ..BusOptions::default()
        };
        let tenants = Bus::connect(options).await.unwrap();
        let mut seen = tenants.subscribe_raw("lane.>").await.unwrap();
        // Whatever is answered: the message passed by.
        producer.publish_record(subject, "probe", Bytes::from_static(b"probe")).await.ok();
        let message = seen.next().await.unwrap();
        message.subject.split('.').nth(1).unwrap().parse().unwrap()
    }

    /// Keys of objects under a prefix.
    pub(crate) async fn objects(&self, prefix: &str) -> Vec<String> {
        self.objects.list(prefix, 10_000).await.unwrap().into_iter().map(|o| o.key).collect()
    }

    /// The containers' logs, from their first record that is left.
    pub(crate) async fn log(&self, container: ContainerId) -> bus::ContainerLog {
        self.bus.container_log(container, bus::LogOptions { replicas: 1, bytes_max: 1 << 30 }).await.unwrap()
    }
}

/// `n` events that name themselves.
pub(crate) fn events(what: &str, numbers: std::ops::Range<u64>) -> Vec<Bytes> {
    numbers.map(|n| format!("{{\"msg\":\"{what} {n}\",\"n\":{n}}}").into()).collect()
}

/// Offsets and messages of batches.
pub(crate) fn rows(batches: &[RecordBatch]) -> Vec<(Offset, String)> {
    let mut rows = Vec::new();
    for batch in batches {
        let offsets = batch["_offset"].as_primitive::<Int64Type>().values();
        let messages = batch["_msg"].as_string::<i32>();
        rows.extend(offsets.iter().zip(messages.iter()).map(|(o, m)| (*o as u64, m.unwrap().to_owned())));
    }
    rows
}

/// Reads until `count` events are there.
pub(crate) async fn read(reader: &mut SegmentReader, count: u64) -> Vec<(Offset, String)> {
    let begun = Instant::now();
    let mut seen = Vec::new();
    while (seen.len() as u64) < count {
        assert!(begun.elapsed() < LONG, "{} of {count} events after {LONG:?}", seen.len());
        if let Some(batch) = reader.next(Duration::from_secs(5)).await.unwrap() {
            seen.extend(rows(&[batch]));
        }
    }
    seen
}

/// Asserts that these are the events of `what`, each once, in order, from offset 0.
#[track_caller]
pub(crate) fn assert_exact(seen: &[(Offset, String)], what: &str, count: u64) {
    let expected: Vec<_> = (0..count).map(|n| (n, format!("{what} {n}"))).collect();
    if seen == expected {
        return;
    }
    let at = seen.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(seen.len().min(expected.len()));
    panic!("{} events instead of {count}; from {at} on: {:?}", seen.len(), &seen[at..seen.len().min(at + 5)]);
}

/// An event that names itself and that zstd can hardly shrink.
pub(crate) fn noise(n: u64, bytes: usize) -> Bytes {
    let mut x = n + 1;
    let letters = (0..bytes).map(|_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'#' + u8::try_from((x >> 33) % 57).unwrap())
    });
    Bytes::from(format!("{{\"msg\":\"e {n}\",\"pad\":\"{}\"}}", letters.collect::<String>()))
}

/// What a counter of this process stands at.
pub(crate) fn counter(name: &str) -> u64 {
    let page = telemetry::render();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0)
}
