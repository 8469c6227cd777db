//! Segments of encrypted streams: what lies in object storage, and what becomes of events whose key cannot be had.

use std::path::Path;

use client::Client;
use host::Host;
use testkit::eventually;
use types::{ContainerId, KeyRange, SegmentId};
use wire::{
    Service,
    coordinator::SegmentRange,
    segment_store::{CreateSegment, NewSegment, SegmentOrigin},
};

use crate::stage::{LONG, Stage, read};

const WORDS: &str = "pomegranate";

async fn create(stage: &Stage, index: &str, segment: SegmentId, encrypted: bool) -> SegmentRange {
    let range = KeyRange { first: 0, last: u64::MAX };
    let origin = Some(SegmentOrigin { scope: "team".parse().unwrap(), range, encrypted });
    let (index, predecessors, transactional) = (index.parse().unwrap(), Vec::new(), false);
    let new = NewSegment { segment, index, predecessors, transactional, origin };
    let container: ContainerId = segment.container(8);
    stage.bus.call_within::<CreateSegment>(&container, &new, LONG).await.unwrap();
    SegmentRange { segment, container, range }
}

/// Writes one event at a time, each a chunk of its own.
async fn append(stage: &Stage, index: &str, segment: SegmentRange, numbers: std::ops::Range<u64>) {
    let writer = stage.client.writer(index.parse().unwrap(), "w1".parse().unwrap());
    for n in numbers {
        let event = format!("{{\"time\":\"2026-01-02T03:04:05Z\",\"msg\":\"{WORDS} {n}\"}}");
        writer.append(segment, n + 1, &[event.into()]).await.unwrap();
        if n > 0 {
            moved(stage, segment, n + 1).await;
        }
    }
}

async fn moved(stage: &Stage, segment: SegmentRange, to: u64) {
    eventually(LONG, async || stage.client.describe(segment).await.unwrap().tail_from == to).await;
}

fn masters(path: &Path, ids: &[(&str, u8)]) {
    let line = |(id, byte): &(&str, u8)| format!("{id}:{}\n", data_encoding::BASE64.encode(&[*byte; 32]));
    std::fs::write(path, ids.iter().map(line).collect::<String>()).unwrap();
}

#[actix::test]
async fn an_encrypted_segment_waits_for_its_key_and_never_lies_open() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let set = format!("common.encryption_keys=file:{}", file.path().display());
    let stage = Stage::with_store(&["segment_store.flush_interval=100ms", &set]).await;
    let host = Host::connect(Service::Coordinator, stage.world.common("keys", &[&set]).unwrap()).await.unwrap();
    let of = |stream| SegmentId { stream, epoch: 0, number: 0 };
    let beside = (8..).map(of).find(|segment| segment.container(8) == of(7).container(8)).unwrap();
    let vault = create(&stage, "vault", of(7), true).await;
    let shelf = create(&stage, "shelf", beside, false).await;

    // There is no key, not even a master key: what is beside it in the container is moved all the same.
    append(&stage, "vault", vault, 0..1).await;
    append(&stage, "shelf", shelf, 0..1).await;
    moved(&stage, shelf, 1).await;
    assert_eq!(stage.client.describe(vault).await.unwrap().tail_from, 0);
    assert!(stage.objects("chunks/vault").await.is_empty(), "nothing is written open");

    masters(file.path(), &[("k1", 1)]);
    host.index_keys.create(7, host.clock.now()).await.unwrap();
    moved(&stage, vault, 1).await;
    host.index_keys.rotate(7, host.clock.now()).await.unwrap();
    append(&stage, "vault", vault, 1..12).await;

    // Compaction opens what it merges, and seals what comes of it.
    eventually(LONG, async || stage.client.describe(vault).await.unwrap().chunks.len() < 8).await;
    let keyed = Client::new(stage.bus.clone(), host.objects.clone());
    let events = read(&mut keyed.reader(vault, 0), 12).await;
    assert_eq!(events.len(), 12);
    let lying = stage.objects.as_they_lie();
    for key in stage.objects("chunks/vault").await {
        let bytes = lying.get(&key).await.unwrap();
        let holds = |words: &str| bytes.windows(words.len()).any(|part| part == words.as_bytes());
        assert!(key.ends_with(".parquet.sealed") && bytes.ends_with(b"LBSEALED"), "{key}");
        assert!(!holds(WORDS) && !holds("PAR1") && !holds("_msg"), "{key}");
    }
    for key in stage.objects("chunks/shelf").await {
        let bytes = lying.get(&key).await.unwrap();
        assert!(key.ends_with(".parquet") && bytes.starts_with(b"PAR1"), "{key}");
    }

    // Destroyed is destroyed, also for who has the objects.
    let key = stage.objects("chunks/vault").await.remove(0);
    assert!(host.objects.get(&key).await.is_ok());
    host.index_keys.destroy(7).await.unwrap();
    let gone = host.objects.get(&key).await.unwrap_err().to_string();
    assert!(gone.contains("destroyed"), "{gone}");
}
