//! A key that is changed all the time is there all the time, whatever happens to the connection of who watches it.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bus::{Bus, BusOptions, Change};
use testkit::NatsCluster;
use tokio::time::{Instant, timeout_at};

/// How often the watch has to begin again, and how long it is looked at each time.
const ROUNDS: u32 = 25;
const ROUND: Duration = Duration::from_millis(250);

async fn connect(nats: &NatsCluster, url: String) -> Bus {
    let creds = Some(nats.platform_creds().unwrap());
    Bus::connect(BusOptions { url, creds, name: "test/a".to_owned(), ..BusOptions::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_key_is_never_told_to_be_gone() {
    let nats = NatsCluster::start(1).await.unwrap();
    let link = nats.link().await.unwrap();
    let near = connect(&nats, nats.url()).await.bucket("kept", None, 1).await.unwrap();
    let far = connect(&nats, link.url()).await.bucket("kept", None, 1).await.unwrap();
    near.put("busy.1", "0").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for _ in 0..2 {
        let (near, stop) = (near.clone(), Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let mut number = 0u64;
            while !stop.load(Ordering::Relaxed) {
                near.put("busy.1", number.to_string()).await.unwrap();
                number += 1;
            }
        }));
    }
    let mut watch = far.watch("busy.");
    let mut gone = Vec::new();
    for round in 0..ROUNDS {
        link.cut();
        link.mend();
        let until = Instant::now() + ROUND;
        while let Ok(change) = timeout_at(until, watch.next()).await {
            if matches!(&change, Change::Key { entry: None, .. }) {
                gone.push(round);
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(gone.is_empty(), "in rounds {gone:?} of {ROUNDS} the key was told to be gone");
}
