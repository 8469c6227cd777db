//! Writers that note time by themselves, and clients whose clocks are wrong.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]
#![allow(clippy::disallowed_methods, reason = "a program with a wrong clock is started")]

mod stage;

use std::{
    path::Path,
    process::{Child, Command},
    sync::atomic::Ordering,
    time::Duration,
};

use bus::{Bus, BusOptions};
use client::{Client, Delivered, GroupOptions, NoteTime, WriterOptions};
use stage::{
    LONG, Stage,
    reading::Reading,
    writing::{Writing, key},
};
use testkit::eventually;
use tokio::time::timeout;
use types::{IndexName, Timestamp};
use wire::{
    Outcome,
    coordinator::{CutKind, GroupConfig, GroupRetention},
};

/// Where the program with the wrong clock finds what it needs.
const CHILD: &str = "LB_TIMES_CHILD";
/// By how much its clock is wrong: a day.
const MISTAKE_MS: i64 = 86_400_000;

fn millis(event: &[u8]) -> Option<Timestamp> {
    Some(Timestamp::from_millis(std::str::from_utf8(event).ok()?.split(' ').next()?.parse().ok()?))
}

fn noting(writer: &str, note_time: NoteTime) -> WriterOptions {
    let note_time = Some(note_time.every(Duration::from_millis(50)));
    WriterOptions { note_time, ..WriterOptions::new(writer.parse().unwrap()) }
}

/// The lower bound of whoever has read everything.
async fn lower(client: &Client, index: &IndexName) -> Option<Timestamp> {
    let tails = client.tails(index).await.unwrap();
    client.time_window(index, &tails).await.unwrap().lower
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_tells_by_itself_how_far_its_events_are_when_they_are_durable() {
    let stage = Writing::new(2).await;
    let (client, index): (_, IndexName) = (&stage.client, "shop".parse().unwrap());
    let late_by = Duration::from_millis(10);
    let options = noting("events", NoteTime::of_events(millis, late_by));
    let writer = client.event_writer(index.clone(), options).await.unwrap();
    for n in 0..20 {
        drop(writer.write(Some(&key(n)), format!("{} event", 1_000 + n).into()).await.unwrap());
    }
    // One without a time, and one that comes late.
    let last = [(Some(&key(1)), "of no time"), (Some(&key(2)), "900 late")];
    drop(writer.write_batch(last).await.unwrap());
    eventually(LONG, async || lower(client, &index).await == Some(Timestamp::from_millis(1_009))).await;

    // What is not stored yet is not told of.
    stage.store.paused.store(true, Ordering::Relaxed);
    let receipt = writer.write(Some(&key(1)), "5000 waits".into()).await.unwrap();
    let appends = stage.store.appends.load(Ordering::Relaxed);
    eventually(LONG, async || stage.store.appends.load(Ordering::Relaxed) > appends + 3).await;
    assert_eq!(lower(client, &index).await, Some(Timestamp::from_millis(1_009)));
    stage.store.paused.store(false, Ordering::Relaxed);
    eventually(LONG, async || lower(client, &index).await == Some(Timestamp::from_millis(4_990))).await;
    assert!(receipt.now().is_some_and(|fate| fate.is_ok()), "it was told before it was stored");

    // Another one that goes by the clock waits for the first, until that is closed.
    let begun = bus::SystemClock;
    let options = noting("clock", NoteTime::of_clock(Duration::from_secs(1)));
    let other = client.event_writer(index.clone(), options).await.unwrap();
    other.write(None, "now".into()).await.unwrap().await.unwrap();
    writer.write(Some(&key(1)), "6000 last".into()).await.unwrap().await.unwrap();
    timeout(LONG, writer.close()).await.unwrap().unwrap();
    let day = Duration::from_secs(86_400);
    let recent = |time: Timestamp| types::Clock::now(&begun).since(time) < day;
    eventually(LONG, async || lower(client, &index).await.is_some_and(recent)).await;
    timeout(LONG, other.close()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_fails_tells_nothing_more() {
    let stage = Writing::new(1).await;
    let (client, index): (_, IndexName) = (&stage.client, "shop".parse().unwrap());
    let short = Duration::from_secs(1);
    let options =
        WriterOptions { give_up_after: short, ..noting("events", NoteTime::of_events(millis, Duration::ZERO)) };
    let writer = client.event_writer(index.clone(), options).await.unwrap();
    writer.write(None, "1000 stored".into()).await.unwrap().await.unwrap();
    eventually(LONG, async || lower(client, &index).await == Some(Timestamp::from_millis(1_000))).await;
    stage.store.paused.store(true, Ordering::Relaxed);
    let lost = writer.write(None, "2000 lost".into()).await.unwrap();
    let error = timeout(LONG, lost).await.unwrap().unwrap_err();
    assert!(matches!(error.outcome, Outcome::NotApplied | Outcome::Unknown));
    assert!(timeout(LONG, writer.close()).await.unwrap().is_err());
    assert_eq!(lower(client, &index).await, Some(Timestamp::from_millis(1_000)));
}

fn group(index: &IndexName) -> GroupConfig {
    GroupConfig {
        group: "g".parse().unwrap(),
        scope: "test".parse().unwrap(),
        from: [(index.clone(), CutKind::Unbounded)].into(),
        to: Default::default(),
        checkpoint_ms: 200,
        retention: GroupRetention::None,
    }
}

/// Takes silent readers for dead after ten times what a reader is silent.
fn watchful() -> GroupOptions {
    GroupOptions { refresh: Duration::from_millis(50), reader_timeout: Some(Duration::from_millis(1_500)) }
}

/// The program with the wrong clock: notes a time, and reads with the group for a while. Does nothing unless it is started for that.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let [url, creds, objects] = given.split('|').collect::<Vec<_>>()[..] else { panic!("{given}") };
    let now = types::Clock::now(&bus::SystemClock);
    assert!(now.since(Timestamp::from_millis(0)) > Duration::ZERO);
    let creds = Some(std::fs::read_to_string(creds).unwrap());
    let bus = Bus::connect(BusOptions { url: url.to_owned(), creds, ..BusOptions::default() }).await.unwrap();
    let client = Client::new(bus, store::Objects::open(objects).unwrap());
    let index: IndexName = "shop".parse().unwrap();
    client.note_time(&index, &"ahead".parse().unwrap(), Timestamp::from_millis(100)).await.unwrap();
    let group = client.create_group(&group(&index)).await.unwrap();
    let mut reader = group.reader("ahead".parse().unwrap(), watchful()).await.unwrap();
    let mut checkpoints = 0;
    while checkpoints < 5 {
        let delivered = reader.next(Duration::from_millis(20)).await.unwrap();
        checkpoints += u32::from(matches!(delivered, Some(Delivered::Checkpoint(_))));
    }
    reader.close().await.unwrap();
}

fn start(stage: &Stage, dir: &Path) -> Child {
    let (creds, offset) = (dir.join("platform.creds"), dir.join("offset"));
    std::fs::write(&creds, stage.world.nats.platform_creds().unwrap()).unwrap();
    std::fs::write(&offset, MISTAKE_MS.to_string()).unwrap();
    let given = format!("{}|{}|{}", stage.world.nats.url(), creds.display(), stage.world.objects_url());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, given).env("LB_CLOCK_OFFSET_FILE", offset);
    command.spawn().unwrap()
}

/// Whoever is a day ahead of the others neither takes them for dead nor stops their checkpoints, and overtakes no writer.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_clock_is_far_off_harms_nobody() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 10);
    stage.client.note_time(&shop, &"right".parse().unwrap(), Timestamp::from_millis(10)).await.unwrap();
    let group = stage.client.create_group(&group(&shop)).await.unwrap();
    let mut reader = group.reader("right".parse().unwrap(), watchful()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut program = start(&stage, dir.path());
    let status = loop {
        reader.next(Duration::from_millis(20)).await.unwrap();
        if let Some(status) = program.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success());
    assert_eq!(lower(&stage.client, &shop).await, Some(Timestamp::from_millis(10)), "the slower writer is waited for");
    // Automatic checkpoints go on although the last one may be dated a day ahead.
    let mut checkpoints = 0;
    let more = async {
        while checkpoints < 3 {
            let delivered = reader.next(Duration::from_millis(20)).await.unwrap();
            checkpoints += u32::from(matches!(delivered, Some(Delivered::Checkpoint(_))));
        }
    };
    timeout(LONG, more).await.unwrap();
    assert!(group.readers().await.unwrap().contains_key(&"right".parse().unwrap()));
    reader.close().await.unwrap();
}

/// A URL may name several servers; one that is away is passed over.
#[tokio::test]
async fn several_servers_may_be_named() {
    let stage = Stage::new().await;
    let away = testkit::free_port().unwrap();
    let bus = stage.connect_to(format!("nats://127.0.0.1:{away}, {}", stage.world.nats.url())).await;
    assert!(bus.is_connected());
}
