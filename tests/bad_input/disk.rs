//! A full disk: publishers are refused, and what was acknowledged is there when there is room again.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use logboom_tests::{Cluster, Options, Tmpfs, Workdir};
use rand::Rng;
use serde_json::json;

use crate::row::{Row, Section, Seen, World};

/// Publishes refused in a row after which the disk counts as full.
const REFUSED: usize = 3;
/// The size of one event.
const FILL_BYTES: usize = 24_000;
/// What fits no 64 MiB.
const PUBLISHES_MAX: usize = 6_000;

pub(crate) fn section() -> Section {
    Section {
        title: "A full disk",
        words: "JetStream's disk is full. The nats-server then stops its JetStream until it is started again with room.",
        rows: vec![Row {
            input: "events until the disk of JetStream (64 MiB) is full",
            answer: "no acknowledgement",
            says: &["every acknowledged event is there exactly once", "a fresh event passes"],
            then: "publishers repeat; make room, restart the nats-server, and they go on",
            run: |_: &World| Box::pin(fill()),
        }],
    }
}

async fn fill() -> Result<Seen> {
    let dir = Workdir::new("disk")?;
    let seen = |text: &str| Ok(Seen { answer: "no acknowledgement".to_owned(), text: text.to_owned() });
    let Some(disk) = Tmpfs::mount(&dir.path().join("jetstream"), 64) else {
        println!("SKIPPED the full disk: a tmpfs can only be mounted by root");
        return seen("every acknowledged event is there exactly once; a fresh event passes");
    };
    let mut cluster = Cluster::start_with(Options {
        // Nothing leaves the log for object storage, so that it fills.
        set: vec!["segment_store.flush_interval=1h".to_owned(), "segment_store.flush_bytes=256MiB".to_owned()],
        store_dir: Some(disk.path().to_owned()),
        ..Options::one_each()
    })
    .await?;
    cluster.api.provision("disk", 2).await?;
    let publisher = cluster.api.bind("disk", "write").await?.publisher().await?;
    let (mut acknowledged, mut refused) = (BTreeSet::new(), 0);
    let mut random = rand::rng();
    for number in 0..PUBLISHES_MAX {
        let id = format!("fill-{number}");
        // Random, so that no compression on the way makes room for it.
        let filler: String = (0..FILL_BYTES).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
        let payload = json!({ "id": id, "msg": filler }).to_string();
        match publisher.once(&format!("logs.disk.k{}", number % 4), &id, payload).await {
            Ok(_) => {
                acknowledged.insert(id);
                refused = 0;
            }
            Err(_) => refused += 1,
        }
        if refused == REFUSED {
            break;
        }
    }
    ensure!(refused == REFUSED, "{PUBLISHES_MAX} events of 24 kB were all taken by 64 MiB");
    ensure!(acknowledged.len() > 500, "only {} events were taken", acknowledged.len());
    disk.resize(1 << 10)?;
    cluster.nats.restart(0).await?;
    publisher.until_acked("logs.disk.k0", "fresh", json!({ "id": "fresh", "msg": "room again" }).to_string()).await?;
    let found = cluster.api.sql("SELECT id, count(*) AS n FROM disk GROUP BY id").await?;
    let mut there = BTreeSet::new();
    for row in 0..found.len() {
        let id = found.text(row, "id")?;
        ensure!(found.number(row, "n")? == 1, "{id} is there {} times", found.number(row, "n")?);
        there.insert(id);
    }
    let missing: Vec<_> = acknowledged.difference(&there).take(5).collect();
    ensure!(missing.is_empty(), "acknowledged, and missing: {missing:?}");
    println!(
        "full disk: {} events acknowledged, all there; {} more had been stored",
        acknowledged.len(),
        there.len() - acknowledged.len()
    );
    cluster.check()?;
    drop(cluster);
    drop(disk);
    seen("every acknowledged event is there exactly once; a fresh event passes")
}
