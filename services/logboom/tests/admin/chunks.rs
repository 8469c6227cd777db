//! JetStream and local state are lost, the chunks are there.

use std::{fs, process::Command};

use super::installation::{Installation, lose_jetstream_and_local_state, sum};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indexes_come_back_from_their_chunks_alone() {
    let mut there = Installation::start().await;
    there.create("shop");
    there.create("web");
    there.write("shop", "w1", 0..300).await;
    there.admin(&["flush", "--all"]);
    there.admin(&["scale", "shop", "--ranges", "split"]);
    there.write("shop", "w1", 300..600).await;
    there.write("web", "w1", 0..50).await;
    there.admin(&["flush", "--all"]);
    let (shop, web) = (there.events("shop").await, there.events("web").await);
    let graph = there.admin(&["segments", "shop"]);
    assert!(there.refused(1, &["set-aside-snapshots", "--yes"]).contains("JetStream is not lost"));
    there.stop().await;

    lose_jetstream_and_local_state(&there.data());
    let unreachable = there.refused(4, &["set-aside-snapshots", "--yes"]);
    assert!(unreachable.contains("--nats-is-gone"), "{unreachable}");
    let moved = there.admin(&["set-aside-snapshots", "--yes", "--nats-is-gone"]);
    assert!(moved["moved"].as_u64() > Some(0));
    there.run().await;
    let dry = there.admin(&["restore", "shop", "--from-chunks", "--dry-run"]);
    assert_eq!((dry["events"].as_u64(), dry["lost"].as_u64()), (Some(600), Some(0)));
    assert!(there.refused(3, &["segments", "shop"]).contains("no index shop"), "a dry run changes nothing");
    let keys = there.chunk_keys("shop").await;
    there.admin(&["restore", "--from-chunks", "--all"]);
    assert_eq!(there.chunk_keys("shop").await, keys, "chunks stay where they are");
    assert_eq!(there.events("shop").await, shop);
    assert_eq!(there.events("web").await, web);
    let shape = |rows: &serde_json::Value| {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|r| (r["segment"].clone(), r["range"].clone(), r["predecessors"].clone(), r["sealed_in"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(shape(&there.admin(&["segments", "shop"])), shape(&graph), "ranges and order");
    there.assert_key_order("shop", 600).await;
    there.create("shop");
    assert_eq!(there.count("shop"), 600);
    there.admin(&["restore", "--from-chunks", "--all"]);
    there.write("shop", "w2", 600..700).await;
    assert_eq!(there.count("shop"), 700);
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_chunk_is_named_and_its_events_say_that_they_are_lost() {
    let mut there = Installation::start().await;
    there.create("shop");
    // Every key as often in each part, so that chunks are of one size and stay as they are.
    for part in 0..3 {
        there.write("shop", "w1", part * 160..part * 160 + 160).await;
        there.admin(&["flush", "--all"]);
    }
    let truth = there.events("shop").await;
    there.stop().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let from = elsewhere.path().join("objects");
    assert!(Command::new("cp").arg("-r").arg(there.objects_dir()).arg(&from).status().unwrap().success());
    let (segment, events) = truth.iter().find(|(_, events)| !events.is_empty()).unwrap();
    let part = events.len() / 3;
    let of_segment = format!("/{segment}/{part:020}-");
    let damaged = there.chunk_keys("shop").await.into_iter().find(|key| key.contains(&of_segment)).unwrap();
    let mut bytes = fs::read(from.join(&damaged)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(from.join(&damaged), bytes).unwrap();
    drop(there);

    let mut fresh = Installation::start().await;
    let place = from.display().to_string();
    let base = ["restore", "shop", "--from-chunks", "--from", &place];
    let said = fresh.refused(1, &base);
    assert!(said.contains(&damaged) && said.contains("--allow-gaps"), "{said}");
    assert!(said.contains(&format!("segment {segment}: offsets {part} to {}", 2 * part)), "{said}");
    let restored = fresh.admin(&[&base[..], &["--allow-gaps"]].concat());
    assert_eq!((restored["events"].as_u64(), restored["lost"].as_u64()), (Some(480), Some(part as u64)));
    let back = fresh.events("shop").await;
    assert_eq!(sum(&back), 480, "offsets have no hole");
    for ((_, was), (_, is)) in truth[segment].iter().zip(&back[segment]) {
        assert!(was == is || is.starts_with("lost:"), "{was} came back as {is}");
    }
    let lost = back[segment].iter().filter(|(_, message)| message.starts_with("lost:"));
    let lost: Vec<i64> = lost.map(|(offset, _)| *offset).collect();
    assert_eq!(lost, (part as i64..2 * part as i64).collect::<Vec<_>>());
    assert_eq!(fresh.admin(&[&base[..], &["--allow-gaps"]].concat())["state"], "was there");
    fresh.stop().await;
}
