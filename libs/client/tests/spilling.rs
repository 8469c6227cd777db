//! What does not fit into memory while segments do not answer: it is in files, and outlives the program.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]
#![allow(clippy::disallowed_methods, reason = "a program is started and killed")]

mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use bus::{Bus, BusOptions};
use client::{Client, EventWriter, SpillOptions, WriteCause, WriterOptions};
use stage::{
    LONG,
    writing::{Writing, key},
};
use testkit::eventually;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Keys among which events are spread.
const KEYS: usize = 10;
/// Where the program that is killed finds what it needs.
const CHILD: &str = "LB_SPILLING_CHILD";

fn options(dir: &Path, bytes_max: usize) -> WriterOptions {
    let spill = SpillOptions { dir: dir.to_owned(), bytes_max: 256 << 20 };
    WriterOptions { bytes_max, spill: Some(spill), ..WriterOptions::new("w".parse().unwrap()) }
}

async fn open(client: &Client, options: WriterOptions) -> EventWriter {
    client.event_writer("shop".parse().unwrap(), options).await.unwrap()
}

/// Writes `numbers` for every key, one by one.
async fn write(writer: &EventWriter, keys: usize, numbers: std::ops::Range<usize>) {
    for number in numbers {
        for n in 0..keys {
            drop(writer.write(Some(&key(n)), format!("key-{n}:{number}").into()).await.unwrap());
        }
    }
}

/// How many spill files a directory has, and how long they are.
fn files(dir: &Path) -> (usize, u64) {
    let Ok(entries) = std::fs::read_dir(dir.join("shop.w.spill")) else { return (0, 0) };
    let lengths: Vec<u64> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name() != "lock")
        .map(|entry| entry.metadata().map_or(0, |metadata| metadata.len()))
        .collect();
    (lengths.len(), lengths.iter().sum())
}

/// A log loses its leader for up to 10 s; meanwhile producers go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_a_leader_costs_disk_and_not_memory_or_events() {
    const PAUSE: Duration = Duration::from_secs(8);
    const MEMORY: usize = 4 << 20;
    let stage = Writing::new(2).await;
    let dir = tempfile::tempdir().unwrap();
    let writer = open(&stage.client, options(dir.path(), MEMORY)).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    // 10 MB/s: 200 events of 1 000 bytes every 20 ms.
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, filler) = (Instant::now(), "x".repeat(980));
    let (mut rounds, mut spilled_max) = (0, 0);
    while begun.elapsed() < PAUSE {
        ticks.tick().await;
        let texts: Vec<_> =
            (0..200).map(|n| (key(n % 20), format!("key-{}:{} {filler}", n % 20, rounds * 10 + n / 20))).collect();
        drop(writer.write_batch(texts.iter().map(|(key, text)| (Some(key), text))).await.unwrap());
        let backlog = writer.backlog();
        assert!(backlog.memory_bytes <= MEMORY + 2_000, "{backlog:?}");
        spilled_max = spilled_max.max(backlog.spilled_bytes);
        rounds += 1;
    }
    assert!(spilled_max > 2 * u64::try_from(MEMORY).unwrap(), "{spilled_max} bytes were spilled");
    assert!(files(dir.path()).0 > 1, "{:?}", files(dir.path()));
    stage.store.paused.store(false, Ordering::Relaxed);
    timeout(LONG, writer.close()).await.unwrap().unwrap();
    stage.store.assert_exact(20, rounds * 10);
    assert_eq!(files(dir.path()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spilled_finds_its_successors() {
    let stage = Writing::new(1).await;
    let dir = tempfile::tempdir().unwrap();
    let writer = open(&stage.client, options(dir.path(), 1 << 20)).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    write(&writer, 50, 0..1_000).await;
    assert!(writer.backlog().spilled_bytes > 1 << 20, "{:?}", writer.backlog());
    stage.store.scale(4)();
    stage.store.paused.store(false, Ordering::Relaxed);
    write(&writer, 50, 1_000..1_100).await;
    timeout(LONG, writer.close()).await.unwrap().unwrap();
    stage.store.assert_exact(50, 1_100);
    assert_eq!(files(dir.path()), (0, 0));
}

/// The program that is killed: writes for ever. Does nothing unless it is started for that.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let [url, creds, objects, dir] = given.split('|').collect::<Vec<_>>()[..] else { panic!("{given}") };
    let creds = Some(std::fs::read_to_string(creds).unwrap());
    let bus = Bus::connect(BusOptions { url: url.to_owned(), creds, ..BusOptions::default() }).await.unwrap();
    let client = Client::new(bus, store::Objects::open(objects).unwrap());
    let writer = open(&client, options(Path::new(dir), 256 << 10)).await;
    write(&writer, KEYS, 0..usize::MAX).await;
}

/// Kills the program, also when a test ends before it should.
struct Program(Child);

impl Program {
    fn start(stage: &Writing, dir: &Path) -> Self {
        let creds = dir.join("platform.creds");
        std::fs::write(&creds, stage.world.nats.platform_creds().unwrap()).unwrap();
        let given = format!(
            "{}|{}|{}|{}",
            stage.world.nats.url(),
            creds.display(),
            stage.world.objects_url(),
            dir.join("spill").display()
        );
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(CHILD, given).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn kill9(mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "it ended before it was killed");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Events of every key, in order, none twice; gaps where the program died with events in memory.
fn assert_ordered(stage: &Writing) -> usize {
    let (mut last, mut seen): (BTreeMap<String, usize>, BTreeSet<String>) = Default::default();
    for event in stage.store.events() {
        let text = String::from_utf8(event.to_vec()).unwrap();
        assert!(seen.insert(text.clone()), "{text} is there twice");
        let (key, number) = text.split_once(':').unwrap();
        let number = number.parse().unwrap();
        let before = last.insert(key.to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "{key}: {number} behind {before:?}");
    }
    seen.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_that_was_killed_had_spilled_is_stored_once() {
    for scaled in [false, true] {
        let stage = Writing::new(2).await;
        let dir = tempfile::tempdir().unwrap();
        let spill = dir.path().join("spill");
        // Whatever is sent is stored, and nobody is told: every block is sent again and again, and the killed one most of all.
        stage.store.lose_one_in.store(1, Ordering::Relaxed);
        let program = Program::start(&stage, dir.path());
        eventually(LONG, async || files(&spill).1 > 2 << 20).await;
        program.kill9();
        stage.store.lose_one_in.store(0, Ordering::Relaxed);
        if scaled {
            stage.store.scale(3)();
        }
        // Nobody but the one that is open may have the directory.
        let writer = open(&stage.client, options(&spill, 256 << 10)).await;
        let second = stage.client.event_writer("shop".parse().unwrap(), options(&spill, 256 << 10)).await.unwrap_err();
        assert!(matches!(&second.cause, WriteCause::Spill(why) if why.contains("in use")), "{second}");
        let recovered = writer.recovered();
        assert!(recovered.len() > 10_000, "{} events were spilled", recovered.len());
        let before = stage.store.events().len();
        // Newer events of the same keys stay behind.
        write(&writer, KEYS, 1_000_000..1_000_010).await;
        let count = usize::try_from(recovered.len()).unwrap();
        timeout(LONG, recovered).await.unwrap().unwrap();
        timeout(LONG, writer.close()).await.unwrap().unwrap();
        let stored = assert_ordered(&stage);
        // What was stored already of what was spilled is stored once: only the first block of each segment was ever sent.
        assert!(stored > count && stored <= count + before + KEYS * 10, "{stored} of {count} and {before}");
        assert_eq!(files(&spill), (0, 0));
        let again = open(&stage.client, options(&spill, 256 << 10)).await;
        assert!(again.recovered().is_empty());
        again.close().await.unwrap();
        assert_eq!(stage.store.events().len(), stored);
    }
}

/// A program that ends without having got rid of what it spilled, and nothing crashed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_not_sent_later() {
    let stage = Writing::new(1).await;
    let dir = tempfile::tempdir().unwrap();
    let short = WriterOptions { give_up_after: Duration::from_secs(4), ..options(dir.path(), 256 << 10) };
    let writer = open(&stage.client, short).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    let receipt = writer.write(None, "never".into()).await.unwrap();
    write(&writer, KEYS, 0..2_000).await;
    assert!(files(dir.path()).1 > 0);
    timeout(LONG, receipt).await.unwrap().unwrap_err();
    assert!(writer.close().await.is_err());
    // Everybody was told that it is not stored, so that it must not be.
    assert_eq!(files(dir.path()), (0, 0));
    stage.store.paused.store(false, Ordering::Relaxed);
    let again = open(&stage.client, options(dir.path(), 256 << 10)).await;
    assert!(again.recovered().is_empty());
    again.close().await.unwrap();
    assert!(stage.store.events().is_empty());
}
