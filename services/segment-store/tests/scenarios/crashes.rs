//! A store in a process of its own dies at every named point; another one takes over.
//!
//! What must hold each time: acknowledged is readable, everything exactly once and in order, and nothing stays behind that
//! nothing names.

use std::{
    os::unix::process::ExitStatusExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arrow::datatypes::Schema;
use bus::Bus;
use bytes::Bytes;
use client::Client;
use segment_store::crash::POINTS;
use testkit::eventually;
use tokio_util::task::AbortOnDropHandle;
use types::Timestamp;
use wire::{
    block::BlockBuilder,
    coordinator::SegmentRange,
    segment_store::{Append, AppendEvents, Fragment, RowRun, RunFragment},
};

use crate::{
    bucket::Bucket,
    process::{LIVELY, Process},
    stage::{LONG, Stage, assert_exact, events, read},
};

const SIGABRT: i32 = 6;
/// Events of one append.
const BLOCK: u64 = 3;

/// A writer that repeats each block, with the same numbers, until it is acknowledged.
struct Load {
    acked: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Load {
    fn start(bus: Bus, segment: SegmentRange, from: u64) -> Self {
        let (acked, enough) = (Arc::new(AtomicU64::new(from)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(write(bus, segment, acked.clone(), enough.clone()));
        Self { acked, enough, task }
    }

    fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Lets it finish its block, and answers how many events were acknowledged in all.
    async fn finish(self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.acked.load(Ordering::Relaxed)
    }
}

async fn write(bus: Bus, segment: SegmentRange, acked: Arc<AtomicU64>, enough: Arc<AtomicBool>) {
    while !enough.load(Ordering::Relaxed) {
        let from = acked.load(Ordering::Relaxed);
        let mut block = BlockBuilder::new();
        for event in events("e", from..from + BLOCK) {
            assert!(block.push(Timestamp::from_millis(1), 0, &event));
        }
        let append = Append {
            segment: segment.segment,
            writer: "w1".parse().unwrap(),
            first_event_number: from + 1,
            block: block.finish(),
            expected_end: None,
        };
        let begun = Instant::now();
        loop {
            match bus.call_within::<AppendEvents>(&segment.container, &append, Duration::from_millis(500)).await {
                Ok(answer) => {
                    let expected: Vec<_> = (from..from + BLOCK).map(Some).collect();
                    assert_eq!(answer.offsets, expected, "offsets are the same for every owner");
                    break;
                }
                Err(problem) => {
                    assert_ne!(problem.kind, "EventNumberGap", "an acknowledged event was forgotten");
                    assert!(begun.elapsed() < LONG, "{problem}");
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        acked.store(from + BLOCK, Ordering::Relaxed);
    }
}

/// Asks about the first event until nobody wants to know any more: one point is met by queries alone.
async fn ask(bus: Bus, segment: SegmentRange) {
    let schema = Bytes::from(engine::schema_to_ipc(&Schema::empty()).unwrap());
    let runs = vec![RowRun { container: segment.container, segment: segment.segment, from: 0, to: 1 }];
    for number in 0.. {
        let fragment = Fragment {
            id: number.to_string(),
            index: "shop".parse().unwrap(),
            text: "SELECT max(_msg) AS m FROM shop".to_owned(),
            schema: schema.clone(),
            runs: runs.clone(),
            scan_bytes: u64::MAX,
            within_ms: 10_000,
            wait_ms: 100,
        };
        // Whoever does not own the container yet refuses, and the dead do not answer.
        drop(bus.call_within::<RunFragment>(&segment.container, &fragment, Duration::from_millis(500)).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How often the point is passed before it kills: what is passed often is not met at its first time only.
fn passing(point: &str) -> u64 {
    match point {
        "after_frame_append" => 9,
        "after_apply" => 6,
        "before_ack" => 11,
        "after_chunk_put" => 3,
        "after_chunk_committed" | "after_snapshot_part" | "after_manifest" => 2,
        _ => 1,
    }
}

#[actix::test]
async fn what_was_acknowledged_survives_a_crash_at_every_point() {
    let mut stage = Stage::empty().await;
    stage.start("a", LIVELY).await;
    stage.place(|_| ("a".into(), 1)).await;
    let segment = stage.stream("shop", 1, 1).await.segments[0];
    let (mut generation, mut count) = (1, 0);
    for point in POINTS {
        let set = [format!("segment_store.crash_point={point}:{}", passing(point))];
        let mut doomed = Process::start(&stage.world, "b", &set, &[]);
        stage.stop("a").await;
        generation += 1;
        stage.place(|_| ("b".into(), generation)).await;
        let load = Load::start(stage.bus.clone(), segment, count);
        let _asked = (point == "fragment_begun")
            .then(|| tokio::spawn(ask(stage.bus.clone(), segment)))
            .map(AbortOnDropHandle::new);
        assert_eq!(doomed.ended().await.signal(), Some(SIGABRT), "{point}");
        stage.start("a", LIVELY).await;
        generation += 1;
        stage.place(|_| ("a".into(), generation)).await;
        let before = load.acked();
        eventually(LONG, async || load.acked() > before + 5 * BLOCK).await;
        count = load.finish().await;
        let info = stage.client.describe(segment).await.unwrap();
        assert_eq!(info.end, count, "{point}: as many as were acknowledged, and each once");
        assert_exact(&read(&mut stage.client.reader(segment, 0), count).await, "e", count);
    }
    // Whatever the dead have left behind is found and goes.
    eventually(LONG, async || {
        let info = stage.client.describe(segment).await.unwrap();
        let named: Vec<String> = info.chunks.into_iter().map(|chunk| chunk.key).collect();
        stage.objects("chunks/shop").await == named
    })
    .await;
    assert_exact(&read(&mut stage.client.reader(segment, 0), count).await, "e", count);
}

/// What a producer was told must be readable whatever object storage does: it answers 503, keeps silent after it has
/// stored, and lists three keys at a time.
#[actix::test]
async fn a_bucket_that_fails_now_and_then_costs_nothing_but_time() {
    let mut stage = Stage::empty().await;
    let bucket = Bucket::unreliable().await;
    let client = Client::new(stage.bus.clone(), bucket.objects());
    let mut count = 0;
    let mut segment = None;
    // The second one restores what the first one left when it was killed.
    for (generation, replica) in [(1, "a"), (2, "b")] {
        let process = Process::on(&bucket, &stage.world, replica);
        stage.place(|_| (replica.into(), generation)).await;
        let segment = match segment {
            Some(known) => known,
            None => *segment.insert(stage.stream("shop", 1, 1).await.segments[0]),
        };
        let load = Load::start(stage.bus.clone(), segment, count);
        let wanted = count + 60 * BLOCK;
        eventually(LONG, async || load.acked() >= wanted).await;
        count = load.finish().await;
        assert_exact(&read(&mut client.reader(segment, 0), count).await, "e", count);
        eventually(LONG, async || {
            let Ok(info) = client.describe(segment).await else { return false };
            let named: Vec<String> = info.chunks.into_iter().map(|chunk| chunk.key).collect();
            info.tail_from == count && bucket.keys("chunks/") == named
        })
        .await;
        drop(process);
    }
    for (fault, times) in [("503", &bucket.busy), ("silence", &bucket.silent), ("pages", &bucket.cut)] {
        assert!(times.load(Ordering::Relaxed) > 0, "{fault} never happened");
    }
}
