//! Segments made of chunks that are there, and objects put aside.

use types::{ContainerId, IndexName, KeyRange, SegmentId};
use wire::{
    coordinator::SegmentRange,
    segment_store::{
        AdoptSegment, Adoption, ChunkMeta, DescribeSegment, GarbageOf, ListGarbage, Quarantine, QuarantineObjects,
        SegmentName, SegmentOrigin,
    },
};

use crate::stage::{LONG, Stage, TAIL_ONLY, events, read};

const SEGMENT: SegmentId = SegmentId { stream: 7, epoch: 0, number: 0 };

fn shop() -> IndexName {
    "shop".parse().unwrap()
}

fn place() -> SegmentRange {
    SegmentRange { segment: SEGMENT, container: SEGMENT.container(8), range: KeyRange::split_evenly(1)[0] }
}

/// A chunk of `old` events from an offset on, stored under a key.
async fn put(stage: &Stage, name: &str, from: u64, count: u64) -> ChunkMeta {
    let payloads = events("old", from..from + count);
    let raw = payloads.iter().map(|payload| ingest::RawEvent { payload, received: types::Timestamp::from_nanos(5) });
    let batch = ingest::to_batch(SEGMENT, from, raw);
    let encoded = chunk::write(SEGMENT, from, &[batch]).unwrap();
    let key = format!("chunks/shop/{SEGMENT}/{name}");
    let bytes = encoded.bytes.len() as u64;
    stage.objects.put_if_absent(&key, encoded.bytes).await.unwrap();
    let (time_min, time_max) = (encoded.meta.time_min, encoded.meta.time_max);
    ChunkMeta { key, from, to: from + count, bytes, time_min, time_max }
}

fn adoption(chunks: Vec<ChunkMeta>) -> Adoption {
    let origin = SegmentOrigin { scope: "team".parse().unwrap(), range: place().range, encrypted: false };
    let start = chunks.first().map_or(0, |chunk| chunk.from);
    Adoption { segment: SEGMENT, index: shop(), origin: Some(origin), start, sealed: false, bytes: 500, chunks }
}

async fn adopt(stage: &Stage, adoption: &Adoption) -> Result<(), String> {
    let container = place().container;
    stage.bus.call_within::<AdoptSegment>(&container, adoption, LONG).await.map(drop).map_err(|problem| problem.kind)
}

#[actix::test]
async fn an_adopted_segment_is_read_written_and_outlives_its_owner() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    let chunks = vec![put(&stage, "a-R-1.parquet", 10, 5).await, put(&stage, "b-R-2.parquet", 15, 5).await];
    let mut missing = adoption(chunks.clone());
    missing.chunks[1].key += ".gone";
    assert_eq!(adopt(&stage, &missing).await.unwrap_err(), "ChunkMissing");
    let mut torn = adoption(chunks.clone());
    torn.chunks[1].bytes += 1;
    assert_eq!(adopt(&stage, &torn).await.unwrap_err(), "ChunkMissing");
    let mut strange = adoption(chunks.clone());
    strange.chunks[0].key = "chunks/web/7-0-0/a".into();
    assert_eq!(adopt(&stage, &strange).await.unwrap_err(), "InvalidRestore");
    adopt(&stage, &adoption(chunks.clone())).await.unwrap();
    adopt(&stage, &adoption(chunks.clone())).await.unwrap();
    assert_eq!(adopt(&stage, &adoption(chunks[..1].to_vec())).await.unwrap_err(), "SegmentDiffers");

    let writer = stage.client.writer(shop(), "w1".parse().unwrap());
    let appended = writer.append(place(), 1, &events("new", 20..23)).await.unwrap();
    assert_eq!(appended.offsets, [Some(20), Some(21), Some(22)]);
    let whole: Vec<_> =
        (10..20).map(|n| (n, format!("old {n}"))).chain((20..23).map(|n| (n, format!("new {n}")))).collect();
    assert_eq!(read(&mut stage.client.reader(place(), 10), 13).await, whole);
    stage.stop("a").await;
    stage.start("b", TAIL_ONLY).await;
    stage.place(|_| ("b".into(), 2)).await;
    assert_eq!(read(&mut stage.client.reader(place(), 10), 13).await, whole);
    adopt(&stage, &adoption(chunks)).await.unwrap();
    let info =
        stage.bus.call_within::<DescribeSegment>(&place().container, &SegmentName { segment: SEGMENT }, LONG).await;
    assert_eq!((info.as_ref().unwrap().start, info.unwrap().end), (10, 23), "twice is once");
}

#[actix::test]
async fn only_objects_that_nobody_can_name_are_put_aside() {
    let stage = Stage::with_store(TAIL_ONLY).await;
    let named = put(&stage, "a-R-1.parquet", 0, 5).await;
    adopt(&stage, &adoption(vec![named.clone()])).await.unwrap();
    let old = put(&stage, "00000000000000000000-G0-old.parquet", 0, 5).await.key;
    let own = put(&stage, "00000000000000000005-G1-own.parquet", 5, 5).await.key;
    let keys = vec![named.key.clone(), old.clone(), own.clone(), "snap/segment-store/0/x".into()];
    let container: ContainerId = place().container;
    let aside = |keys| {
        let bus = stage.bus.clone();
        async move {
            let request = Quarantine { segment: SEGMENT, keys };
            bus.call_within::<QuarantineObjects>(&container, &request, LONG).await.unwrap().moved
        }
    };
    assert_eq!(aside(keys.clone()).await, std::slice::from_ref(&old));
    assert_eq!(aside(keys).await, [] as [String; 0], "twice is once");
    assert_eq!(stage.objects("quarantine/").await, [format!("quarantine/{old}")]);
    assert_eq!(stage.objects("chunks/").await, [own, named.key]);
    let garbage = stage.bus.call_within::<ListGarbage>(&container, &GarbageOf { after: None, limit: 10 }, LONG).await;
    assert!(garbage.unwrap().keys.is_empty());
}
