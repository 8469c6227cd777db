//! Three servers: the same promises with three copies, and through the loss of a leader.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::{collections::BTreeSet, time::Duration};

use bus::{AppendError, Bus, BusOptions, Journal, LogOptions, RecordKind};
use bytes::Bytes;
use support::{Server, eventually, free_port};
use types::{ContainerId, Generation};
use wire::{Service, segment_store::OwnerRecord};

struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    fn begin() -> Self {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let list = routes.iter().map(|p| format!("\"nats://127.0.0.1:{p}\"")).collect::<Vec<_>>().join(", ");
        let servers = (0..3)
            .map(|n| {
                let top = format!(
                    "server_name: n{n}\ncluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{list}] }}\n",
                    routes[n]
                );
                Server::with(&top, "")
            })
            .collect();
        Self { servers }
    }

    fn url(&self) -> String {
        self.servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    async fn bus(&self, name: &str) -> Bus {
        Bus::connect(BusOptions { url: self.url(), name: name.to_owned(), ..Default::default() }).await.unwrap()
    }

    async fn leader_of(&self, stream: &str) -> usize {
        let client = async_nats::connect(self.url().split(',').collect::<Vec<_>>()).await.unwrap();
        let answer = client.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        info["cluster"]["leader"].as_str().unwrap().trim_start_matches('n').parse().unwrap()
    }
}

async fn ids(journal: &Journal) -> Vec<String> {
    let (mut after, mut ids) = (0, Vec::new());
    loop {
        let records = journal.read(after, 1000).await.unwrap();
        let Some(last) = records.last() else { return ids };
        after = last.seq;
        ids.extend(records.into_iter().map(|r| r.id));
    }
}

#[tokio::test]
async fn three_copies_keep_the_fences_and_survive_the_loss_of_a_leader() {
    let mut cluster = Cluster::begin();
    let bus = cluster.bus("a").await;
    eventually("the cluster is formed", async || bus.journal(Service::Coordinator, 3).await.is_ok()).await;
    let journal = bus.journal(Service::Coordinator, 3).await.unwrap();
    let zombie = cluster.bus("b").await.journal(Service::Coordinator, 3).await.unwrap();
    assert_eq!(journal.append(0, "e1", vec![1]).await, Ok(1));
    assert_eq!(journal.append(1, "e2", vec![1]).await, Ok(2));
    assert_eq!(zombie.append(1, "z", vec![1]).await, Err(AppendError::Fenced { last: 2 }));
    assert_eq!(journal.append(1, "e2", vec![1]).await, Ok(2), "a repeat is stored once");
    // Everything acknowledged is seen at once, whichever copy a reader stands beside.
    let mut last = 2;
    for n in 3..40u64 {
        last = journal.append(last, &format!("e{n}"), vec![1]).await.unwrap();
        assert_eq!(zombie.read(last - 1, 1000).await.unwrap().len(), 1, "{n}");
    }

    let log = bus.container_log(ContainerId(1), LogOptions { replicas: 3, bytes_max: 1 << 30 }).await.unwrap();
    let first = log.claim(&OwnerRecord { generation: Generation(1), replica: "a".parse().unwrap() }).await.unwrap();
    let append = async |owner, id: &str| log.append(owner, RecordKind::Frame, id, Bytes::from_static(b"x")).await;
    let seq = append(first, "f1").await.unwrap();
    assert_eq!(append(first, "f1").await, Ok(seq));
    let second = log.claim(&OwnerRecord { generation: Generation(2), replica: "b".parse().unwrap() }).await.unwrap();
    assert_eq!(append(first, "f2").await, Err(AppendError::Fenced { last: second }));

    let bucket = bus.bucket("lb_test", Some(Duration::from_secs(5)), 3).await.unwrap();
    for n in 0..50 {
        let revision = bucket.put("k", format!("{n}")).await.unwrap();
        assert_eq!(bucket.get("k").await.unwrap().unwrap().revision, revision);
        assert_eq!(bucket.list("").await.unwrap()[0].1.revision, revision);
    }

    // The leader of the journal dies while events are appended, one after another.
    let leader = cluster.leader_of("JOURNAL_coordinator").await;
    let appending = tokio::spawn({
        let journal = journal.clone();
        async move {
            let mut last = last;
            let mut slowest = Duration::ZERO;
            for n in 40..140u64 {
                let started = tokio::time::Instant::now();
                last = loop {
                    match journal.append(last, &format!("e{n}"), vec![1]).await {
                        Ok(seq) => break seq,
                        // Not known or not yet possible: the same again.
                        Err(AppendError::Unknown(_) | AppendError::Refused(_)) => {}
                        Err(error) => panic!("{n}: {error}"),
                    }
                };
                slowest = slowest.max(started.elapsed());
            }
            slowest
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.servers[leader].kill();
    let slowest = tokio::time::timeout(Duration::from_secs(25), appending).await.unwrap().unwrap();
    eprintln!("slowest append through the loss of the leader: {slowest:?}");
    let ids = ids(&journal).await;
    assert_eq!(ids.len(), 139);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 139);
}
