//! Events that name themselves, `<key> <number>`, and the check that each is there once and in order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use client::{Client, EventWriter, StreamReader, WriterOptions};
use logboom_tests::{Seen, Streams, Walker};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use types::RoutingKey;
use wire::Problem;

/// Longer than two elections and a take-over.
pub(crate) const LONG: Duration = Duration::from_secs(60);
/// Events that a background writer has under way at once.
const BURST: u64 = 20;

pub(crate) fn key(name: &str) -> RoutingKey {
    RoutingKey::new(name).unwrap()
}

pub(crate) fn event(text: &str) -> Bytes {
    format!("{{\"msg\":\"{text}\"}}").into()
}

/// How many events each key has.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Writes to several keys and remembers how far each is.
pub(crate) struct Numbered {
    pub(crate) writer: EventWriter,
    pub(crate) counts: Counts,
}

impl Numbered {
    pub(crate) async fn open(client: &Client, streams: &Streams, id: &str) -> Self {
        let options = WriterOptions::new(id.parse().unwrap());
        let writer = client.event_writer(streams.index.clone(), options).await.unwrap();
        Self { writer, counts: Counts::new() }
    }

    /// `count` further events of each of the keys `<prefix>0`, `<prefix>1`, …; acknowledged when it returns.
    pub(crate) async fn write(&mut self, prefix: &str, keys: u64, count: u64) {
        let mut events = Vec::new();
        for _ in 0..count {
            for number in 0..keys {
                let name = format!("{prefix}{number}");
                let next = self.counts.entry(name.clone()).or_default();
                events.push((key(&name), event(&format!("{name} {next}"))));
                *next += 1;
            }
        }
        let batch: Vec<_> = events.iter().map(|(key, event)| (Some(key), event)).collect();
        let receipt = self.writer.write_batch(batch).await.unwrap();
        tokio::time::timeout(LONG, receipt).await.expect("acknowledged within a minute").unwrap();
    }
}

/// Writers that go on until they are stopped.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Counts>>,
}

impl Background {
    /// Writer `w<n>` writes to the keys `w<n>.0`, `w<n>.1`, ….
    pub(crate) async fn start(client: &Client, streams: &Streams, writers: u64, keys: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for writer in 0..writers {
            let name = format!("w{writer}");
            let mut numbered = Numbered::open(client, streams, &name).await;
            let stop = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    numbered.write(&format!("{name}."), keys, BURST / keys).await;
                    sleep(Duration::from_millis(20)).await;
                }
                numbered.counts
            }));
        }
        Self { stop, writers: tasks }
    }

    pub(crate) async fn finish(self) -> Counts {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Counts::new();
        for writer in self.writers {
            all.extend(writer.await.unwrap());
        }
        all
    }
}

/// Asserts that these are all events of all keys, each once, each key in order.
#[track_caller]
pub(crate) fn assert_exact(seen: &[Seen], counts: &Counts) {
    let found = in_order(seen);
    assert_eq!(found, *counts, "every acknowledged event is there, and nothing else");
}

/// How many events of each key were seen; panics where one is missing, repeated or out of order.
#[track_caller]
pub(crate) fn in_order(seen: &[Seen]) -> Counts {
    let mut next = Counts::new();
    for one in seen {
        let (key, number) = one.numbered().unwrap_or_else(|| panic!("{one:?} is not an event of this test"));
        let due = next.entry(key.to_owned()).or_default();
        assert_eq!(number, *due, "key {key}: {one:?} where number {due} was due");
        *due += 1;
    }
    next
}

/// Everything that is in the stream, by the witness that uses no reader of streams.
pub(crate) async fn witness(client: &Client, streams: &Streams) -> Vec<Seen> {
    Walker::from_head(client, streams).await.unwrap().read_all().await.unwrap()
}

/// Reads until `count` events came, at most a minute.
pub(crate) async fn read(reader: &mut StreamReader, count: u64) -> Vec<Seen> {
    try_read(reader, count).await.unwrap()
}

/// The same; the first failure ends it.
pub(crate) async fn try_read(reader: &mut StreamReader, count: u64) -> Result<Vec<Seen>, Problem> {
    let begun = Instant::now();
    let mut seen = Vec::new();
    while (seen.len() as u64) < count {
        assert!(begun.elapsed() < LONG, "{} of {count} events after {LONG:?}", seen.len());
        if let Some((segment, batch)) = reader.next(Duration::from_secs(1)).await? {
            seen.extend(Seen::of(segment, &batch).unwrap());
        } else if reader.is_finished() {
            break;
        }
    }
    Ok(seen)
}
