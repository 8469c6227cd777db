//! Object storage that does what it should not: what becomes of it, by name.
//!
//! 503, silence after a put and cut listings are in `crashes`; lost and damaged objects in `storage`.

use std::time::{Duration, Instant};

use client::{Client, SegmentReader};
use testkit::eventually;
use wire::{coordinator::SegmentRange, segment_store::SegmentInfo};

use crate::{
    bucket::Bucket,
    process::Process,
    stage::{LONG, Stage, assert_exact, events, read},
};

/// Longer than a request may take.
const TOO_LATE: Duration = Duration::from_secs(32);

struct Case {
    stage: Stage,
    bucket: std::sync::Arc<Bucket>,
    client: Client,
    segment: SegmentRange,
    generation: u64,
    count: u64,
    store: Option<Process>,
}

impl Case {
    async fn start() -> Self {
        let mut stage = Stage::empty().await;
        let bucket = Bucket::steady().await;
        let client = Client::new(stage.bus.clone(), bucket.objects());
        let store = Some(Process::on(&bucket, &stage.world, "a"));
        stage.place(|_| ("a".into(), 1)).await;
        let segment = stage.stream("shop", 1, 1).await.segments[0];
        Self { stage, bucket, client, segment, generation: 1, count: 0, store }
    }

    /// The store dies and another one takes over.
    async fn take_over(&mut self) {
        self.generation += 1;
        let replica = if self.generation.is_multiple_of(2) { "b" } else { "a" };
        self.store = Some(Process::on(&self.bucket, &self.stage.world, replica));
        let generation = self.generation;
        self.stage.place(|_| (replica.into(), generation)).await;
    }

    async fn append(&mut self, more: u64) {
        let writer = self.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
        let numbers = self.count..self.count + more;
        writer.append(self.segment, numbers.start + 1, &events("e", numbers)).await.unwrap();
        self.count += more;
    }

    async fn info(&self) -> SegmentInfo {
        self.client.describe(self.segment).await.unwrap()
    }

    fn reader(&self, from: u64) -> SegmentReader {
        self.client.reader(self.segment, from)
    }

    /// Everything is in Tier 2, and the objects are those that are named.
    async fn settled(&self) {
        eventually(2 * LONG, async || {
            let Ok(info) = self.client.describe(self.segment).await else { return false };
            let named: Vec<String> = info.chunks.iter().map(|chunk| chunk.key.clone()).collect();
            info.tail_from == self.count && self.bucket.keys("chunks/") == named
        })
        .await;
        assert_exact(&read(&mut self.reader(0), self.count).await, "e", self.count);
    }

    fn manifests(&self) -> Vec<String> {
        let folder = format!("snap/segment-store/{}/", self.segment.container);
        self.bucket.keys(&folder).into_iter().filter(|key| key.ends_with("manifest.lb")).collect()
    }
}

/// An answer that comes too late is a failed try: it is repeated, the repeat finds the object, and nothing else waits.
#[actix::test]
async fn an_answer_after_half_a_minute_holds_nobody_up_and_nothing_is_stored_twice() {
    let mut case = Case::start().await;
    case.bucket.delay_put("chunks/", TOO_LATE);
    let begun = Instant::now();
    case.append(3).await;
    eventually(LONG, async || case.bucket.late.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    for _ in 0..10 {
        case.append(3).await;
    }
    assert_exact(&read(&mut case.reader(0), case.count).await, "e", case.count);
    assert!(begun.elapsed() < TOO_LATE / 2, "appends and reads waited: {:?}", begun.elapsed());
    assert_eq!(case.info().await.tail_from, 0, "the put is not answered yet");
    case.settled().await;
}

/// Etags are not believed, here each is another one: objects carry their own checksums.
#[actix::test]
async fn an_object_in_the_place_of_another_is_named_and_not_read() {
    let mut case = Case::start().await;
    for n in 1..6 {
        case.append(1).await;
        eventually(LONG, async || case.info().await.tail_from == n).await;
    }
    case.settled().await;
    let chunks = case.info().await.chunks;
    assert!(chunks.len() > 2, "{chunks:?}");
    case.bucket.exchange(&chunks[1].key, &chunks[0].key);
    // One that has not read it before, for chunks never change.
    case.client = Client::new(case.stage.bus.clone(), case.bucket.objects());
    let mut reader = case.reader(chunks[1].from);
    let damaged = reader.next(Duration::ZERO).await.unwrap_err();
    assert!(damaged.message.contains(&chunks[1].key), "{damaged}");
    // Compaction works around it.
    for n in 6..20 {
        case.append(1).await;
        eventually(LONG, async || case.info().await.tail_from == n).await;
    }
    let now = case.info().await.chunks;
    assert!(now.contains(&chunks[1]), "it was merged with others: {now:?}");
    assert!(now.len() < 19, "nothing was merged: {now:?}");
    let from = now.iter().find(|chunk| chunk.from > chunks[1].from).map(|chunk| chunk.from).unwrap();
    let rest = read(&mut case.reader(from), case.count - from).await;
    assert_eq!((rest[0].clone(), rest.len() as u64), ((from, format!("e {from}")), case.count - from));
}

/// A listing that leaves out the newest snapshots makes a recovery longer; the log proves that nothing is missing.
#[actix::test]
async fn a_listing_that_leaves_out_the_newest_snapshot_costs_only_time() {
    let mut case = Case::start().await;
    while case.manifests().len() < 3 {
        case.append(1).await;
    }
    case.settled().await;
    let newest = case.manifests().pop().unwrap();
    case.bucket.hide(&newest, true);
    case.take_over().await;
    case.append(3).await;
    case.settled().await;
    case.bucket.hide(&newest, false);
    case.take_over().await;
    case.append(3).await;
    case.settled().await;
}

/// Where a listing leaves out all that the log can be joined to, the container takes nothing and says why.
#[actix::test]
async fn a_listing_that_leaves_out_every_snapshot_is_not_taken_for_a_new_container() {
    let mut case = Case::start().await;
    let purged = async |case: &Case| {
        let log = case.stage.log(case.segment.container).await;
        log.read(0, 1).await.unwrap().first().is_none_or(|record| record.seq > 10)
    };
    while !purged(&case).await {
        case.append(1).await;
    }
    case.settled().await;
    // It dies, so that it cannot write another one.
    case.store = None;
    let manifests = case.manifests();
    manifests.iter().for_each(|key| case.bucket.hide(key, true));
    case.take_over().await;
    let writer = case.client.writer("shop".parse().unwrap(), "w1".parse().unwrap());
    let refused = writer.append(case.segment, case.count + 1, &events("e", 0..1)).await.unwrap_err();
    assert_eq!(refused.kind, "ContainerReadOnly", "{refused}");
    manifests.iter().for_each(|key| case.bucket.hide(key, false));
    case.take_over().await;
    case.append(3).await;
    case.settled().await;
}
