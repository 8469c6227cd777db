//! Chunks of an archived index land in its bucket too, whoever owns the container and however the bucket does.

use std::sync::Arc;

use bytes::Bytes;
use store::Objects;
use testkit::{S3Faults, S3Server, eventually};
use types::Offset;
use wire::{
    coordinator::SegmentRange,
    segment_store::{CreateSegment, NewSegment, SegmentOrigin, Truncate, TruncateSegment},
    views::{ARCHIVES, ArchivePlace},
};

use crate::{
    process::Process,
    stage::{LONG, Stage, assert_exact, counter, events, rows},
};

const REGION: &str = "eu-central-1";
const BUCKET: &str = "logboom-cold";

/// Settings with the key of an account.
fn settings(stage: &Stage, server: &S3Server) -> Vec<String> {
    std::fs::create_dir_all(stage.world.data_dir()).unwrap();
    let file = |name: &str, text: &str| {
        let path = stage.world.data_dir().join(name);
        std::fs::write(&path, text).unwrap();
        format!("file:{}", path.display())
    };
    let (id, secret) = server.admin();
    vec![
        "segment_store.flush_interval=100ms".to_owned(),
        "segment_store.garbage_delay=100ms".to_owned(),
        "segment_store.archive.interval=100ms".to_owned(),
        format!("segment_store.archive.access_key_id={}", file("archive.id", id)),
        format!("segment_store.archive.access_secret={}", file("archive.secret", secret)),
    ]
}

async fn start(stage: &mut Stage, replica: &str, set: &[String]) {
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    stage.start(replica, &set).await;
}

/// As the provisioner tells it.
async fn archive(stage: &Stage, server: &S3Server, index: &str) {
    let view = stage.bus.bucket(ARCHIVES, None, 1).await.unwrap();
    let (bucket, endpoint) = (BUCKET.to_owned(), server.endpoint().to_owned());
    let scope = "team".parse().ok();
    let place = ArchivePlace { bucket, endpoint, region: REGION.to_owned(), scope };
    view.put(index, wire::encode(&place)).await.unwrap();
}

/// A stream of one segment, which is described as a coordinator does.
async fn stream(stage: &Stage, name: &str, number: u32) -> SegmentRange {
    let stream = stage.stream(name, number, 1).await;
    let there = stream.segments[0];
    let origin = Some(SegmentOrigin { scope: stream.scope, range: there.range, encrypted: false });
    let (segment, index, predecessors) = (there.segment, stream.index, Vec::new());
    let new = NewSegment { segment, index, predecessors, transactional: false, origin };
    stage.bus.call_within::<CreateSegment>(&there.container, &new, LONG).await.unwrap();
    there
}

fn bucket(server: &S3Server) -> Objects {
    let (id, secret) = server.admin();
    Objects::open_s3(&format!("s3://{BUCKET}"), server.options(id, secret)).unwrap()
}

/// Which events the copies hold, by their names.
fn copies(server: &S3Server, index: &str) -> Vec<(Offset, Offset)> {
    let there = server.bucket(BUCKET).map(|bucket| bucket.objects).unwrap_or_default();
    let home = format!("chunks/{index}/");
    there.keys().filter(|key| key.starts_with(&home)).map(|key| chunk::copied_range(key).unwrap()).collect()
}

/// Whether every event up to here is there; asserts that none is there twice.
fn holds(server: &S3Server, index: &str, end: Offset) -> bool {
    let copies = copies(server, index);
    assert!(copies.windows(2).all(|pair| pair[0].1 == pair[1].0), "without doubles and holes: {copies:?}");
    copies.first().is_some_and(|first| first.0 == 0) && copies.last().is_some_and(|last| last.1 == end)
}

/// Appends a few events and waits until they are in Tier 2.
async fn append(stage: &Stage, index: &str, segment: SegmentRange, numbers: std::ops::Range<u64>) {
    let writer = stage.client.writer(index.parse().unwrap(), "w1".parse().unwrap());
    for n in numbers.step_by(2) {
        writer.append(segment, n + 1, &events("e", n..n + 2)).await.unwrap();
        eventually(LONG, async || stage.client.describe(segment).await.is_ok_and(|info| info.tail_from == n + 2)).await;
    }
}

async fn assert_archived(server: &Arc<S3Server>, index: &str, count: u64) {
    eventually(LONG, async || holds(server, index, count)).await;
    let objects = bucket(server);
    let mut seen = Vec::new();
    for found in objects.list(&format!("chunks/{index}/"), 1_000).await.unwrap() {
        let bytes: Bytes = objects.get(&found.key).await.unwrap();
        seen.extend(rows(&chunk::read(bytes).unwrap()));
    }
    assert_exact(&seen, "e", count);
}

#[actix::test]
async fn the_next_owner_goes_on_where_a_killed_one_was() {
    let server = S3Server::serve(REGION).await.unwrap();
    server.change(BUCKET, |_| {});
    let mut stage = Stage::empty().await;
    let set = settings(&stage, &server);
    for index in ["shop", "nameless"] {
        archive(&stage, &server, index).await;
    }
    let first = Process::start(&stage.world, "a", &set, &[]);
    stage.place(|_| ("a".into(), 1)).await;
    let segment = stream(&stage, "shop", 1).await;
    let other = stream(&stage, "other", 2).await;
    // Nobody has said whose it is.
    let nameless = stage.stream("nameless", 3, 1).await.segments[0];
    append(&stage, "nameless", nameless, 0..2).await;
    append(&stage, "other", other, 0..2).await;
    append(&stage, "shop", segment, 0..6).await;
    eventually(LONG, async || !copies(&server, "shop").is_empty()).await;
    drop(first);
    start(&mut stage, "b", &set).await;
    stage.place(|_| ("b".into(), 2)).await;
    append(&stage, "shop", segment, 6..16).await;
    let (gets, deletes) = (server.count("s3:GetObject"), server.count("s3:DeleteObject"));
    assert_eq!((gets, deletes), (0, 0), "its key need not be allowed more than to list and to put");
    assert_archived(&server, "shop", 16).await;
    assert_eq!(copies(&server, "other"), [], "nobody asked for it");
    assert_eq!(copies(&server, "nameless"), [], "it may be another tenant's");
    stage.stop("b").await;
}

#[actix::test]
async fn a_bucket_that_is_down_holds_nothing_back_and_is_caught_up_with() {
    let server = S3Server::serve(REGION).await.unwrap();
    let mut stage = Stage::empty().await;
    let set = settings(&stage, &server);
    start(&mut stage, "a", &set).await;
    stage.place(|_| ("a".into(), 1)).await;
    let segment = stream(&stage, "shop", 1).await;
    // Chunks that are there before the index has an archive belong to it too.
    append(&stage, "shop", segment, 0..4).await;
    let failures = || counter("lb_segment_store_archive_failures_total");
    let before = failures();
    archive(&stage, &server, "shop").await;
    eventually(LONG, async || failures() > before).await;
    // There is no such bucket; events are stored, moved to Tier 2, merged and read nevertheless.
    append(&stage, "shop", segment, 4..16).await;
    server.change(BUCKET, |_| {});
    // It lists and does not store.
    let refused = (403, "AccessDenied", "Access Denied");
    server.set(S3Faults { refuse: [("s3:PutObject", refused)].into(), ..S3Faults::default() });
    let before = failures();
    eventually(LONG, async || failures() > before).await;
    server.set(S3Faults::default());
    assert_archived(&server, "shop", 16).await;
    // What is archived stays when retention has taken it.
    let before = Truncate { segment: segment.segment, before: 10 };
    stage.bus.call::<TruncateSegment>(&segment.container, &before).await.unwrap();
    append(&stage, "shop", segment, 16..20).await;
    assert_archived(&server, "shop", 20).await;
    stage.stop("a").await;
}
