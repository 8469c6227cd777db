//! A JetStream without room for every log: what is served, and what is said.

use std::time::Duration;

use bus::{BusError, LOG_HEADROOM_BYTES, LogOptions};
use testkit::eventually;
use types::ContainerId;
use wire::{
    Empty, Service,
    segment_store::{ContainerInfo, DescribeContainer},
    views::{MEMBERS, Member},
};

use crate::stage::{LONG, Stage, TAIL_ONLY};

/// What the log of a container reserves by the default settings.
const LOG_BYTES: u64 = (512 << 20) + LOG_HEADROOM_BYTES;
/// The filler that is given back in part.
const FILLER: ContainerId = ContainerId(900);
const FILLER_BYTES: u64 = 8 << 30;

async fn reserve(stage: &Stage, container: ContainerId, bytes: u64) -> Result<(), BusError> {
    let options = LogOptions { replicas: 1, bytes_max: bytes - LOG_HEADROOM_BYTES };
    stage.bus.container_log(container, options).await.map(drop)
}

/// Reserves everything that JetStream has, except for less than half of a log.
async fn reserve_all(stage: &Stage) {
    reserve(stage, FILLER, FILLER_BYTES).await.unwrap();
    let (mut container, mut bytes) = (FILLER.0, 1u64 << 42);
    while bytes > LOG_BYTES / 2 {
        container += 1;
        match reserve(stage, ContainerId(container), bytes).await {
            Ok(()) => {}
            Err(BusError::NoRoom { .. }) => bytes /= 2,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn served(stage: &Stage) -> Vec<ContainerInfo> {
    let asked = (0..8).map(|n| async move {
        let within = Duration::from_millis(300);
        stage.bus.call_within::<DescribeContainer>(&ContainerId(n), &Empty {}, within).await.ok()
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

async fn member(stage: &Stage) -> Member {
    let members = stage.bus.bucket(MEMBERS, Some(Duration::from_millis(2_500)), 1).await.unwrap();
    let entry = members.get(&format!("{}.a", Service::SegmentStore)).await.unwrap().unwrap();
    wire::decode(&entry.value).unwrap()
}

#[actix::test]
async fn logs_without_room_are_named_and_the_others_are_served() {
    let mut stage = Stage::empty().await;
    reserve_all(&stage).await;
    reserve(&stage, FILLER, FILLER_BYTES - 5 * LOG_BYTES).await.unwrap();
    stage.start("a", TAIL_ONLY).await;
    let host = stage.stores["a"].host().clone();
    let reasons = || host.unready_reasons();
    assert!(reasons()["containers"].contains("not placed"), "{:?}", reasons());
    // One after the other: the server checks and reserves at different moments.
    for last in 0..8 {
        stage.place(|n| (if n <= last { "a" } else { "nobody" }.into(), 1)).await;
        let (fit, named) = (usize::from(last + 1).min(5), last >= 5);
        eventually(LONG, async || served(&stage).await.len() == fit).await;
        eventually(LONG, async || reasons().contains_key("log_space") == named).await;
    }
    eventually(LONG, async || reasons()["log_space"].contains("container 5, and 2 more")).await;
    let why = reasons()["log_space"].clone();
    for part in ["544 MiB", "reserved by others", "10047", "max_file_store", "segment_store.tail_bytes_max"] {
        assert!(why.contains(part), "{part} is not in {why}");
    }
    eventually(LONG, async || member(&stage).await.unready.get("log_space") == Some(&why)).await;
    // As soon as there is room they go on by themselves.
    reserve(&stage, FILLER, FILLER_BYTES - 8 * LOG_BYTES).await.unwrap();
    eventually(LONG, async || reasons().is_empty()).await;
    eventually(LONG, async || served(&stage).await.len() == 8).await;
    eventually(LONG, async || member(&stage).await.unready.is_empty()).await;
}

#[actix::test]
async fn a_move_does_not_make_a_replica_unready() {
    let mut stage = Stage::with_store(TAIL_ONLY).await;
    stage.start("b", TAIL_ONLY).await;
    let host = |replica: &str| stage.stores[replica].host().clone();
    let (a, b) = (host("a"), host("b"));
    eventually(LONG, async || a.unready_reasons().is_empty() && b.unready_reasons().is_empty()).await;
    let (watched, moved) = (b.clone(), tokio_util::sync::CancellationToken::new());
    let over = moved.clone();
    let watch = tokio::spawn(async move {
        while !over.is_cancelled() {
            assert_eq!(watched.unready_reasons(), <_>::default());
            tokio::task::yield_now().await;
        }
    });
    stage.place(|n| (if n < 4 { "a" } else { "b" }.into(), 2)).await;
    let at_b = async || served(&stage).await.iter().filter(|info| info.replica.as_str() == "b").count() == 4;
    eventually(LONG, at_b).await;
    moved.cancel();
    watch.await.unwrap();
}
