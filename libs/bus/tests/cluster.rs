//! Three servers: the same promises with three copies, and through the loss of a leader.
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::time::{Duration, Instant};

use bus::{AppendError, Bus, BusError, BusOptions, Journal, LogOptions, RecordKind};
use bytes::Bytes;
use support::{Server, free_ports};
use types::{ContainerId, Generation};
use wire::{Service, segment_store::OwnerRecord};

/// An election takes up to 9 s, and may have to be repeated.
const ELECTED: Duration = Duration::from_secs(40);

struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    fn begin() -> Self {
        let routes = free_ports::<3>();
        // Should another test come to listen on one of these ports, it must not be taken for a member.
        let name = format!("c{}_{}", std::process::id(), routes[0]);
        let list = routes.iter().map(|p| format!("\"nats://127.0.0.1:{p}\"")).collect::<Vec<_>>().join(", ");
        let servers = (0..3)
            .map(|n| {
                let top = format!(
                    "server_name: n{n}\ncluster {{ name: {name}, listen: \"127.0.0.1:{}\", routes: [{list}] }}\n",
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
    let end = Instant::now() + ELECTED;
    loop {
        let records = match journal.read(after, 1000).await {
            Ok(records) => records,
            // A position in a stream needs the leader of them all, who may have died too and is elected by itself.
            Err(BusError::Unavailable { .. }) if Instant::now() < end => continue,
            Err(error) => panic!("{error}"),
        };
        let Some(last) = records.last() else { return ids };
        after = last.seq;
        ids.extend(records.into_iter().map(|r| r.id));
    }
}

#[tokio::test]
async fn three_copies_keep_the_fences_and_survive_the_loss_of_a_leader() {
    let mut cluster = Cluster::begin();
    let bus = cluster.bus("a").await;
    let end = Instant::now() + ELECTED;
    let journal = loop {
        match bus.journal(Service::Coordinator, 3).await {
            Ok(journal) => break journal,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    };
    let zombie = cluster.bus("b").await.journal(Service::Coordinator, 3).await.unwrap();
    assert_eq!(journal.append(0, "e1", vec![1]).await, Ok(1));
    assert_eq!(journal.append(1, "e2", vec![1]).await, Ok(2));
    let refused = zombie.append(1, "z", vec![1]).await;
    assert_eq!(refused, Err(AppendError::Fenced { last: 2 }), "{:?}", journal.read(0, 1 << 20).await);
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
    assert_eq!(ids, (1..140).map(|n| format!("e{n}")).collect::<Vec<_>>());
}
