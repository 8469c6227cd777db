use std::sync::Arc;

use parking_lot::Mutex;
use testkit::World;
use types::{ContainerId, ManualClock};
use wire::segment_store::ChunkMeta;

use super::*;
use crate::container::{
    Container, Limits,
    books::Phase,
    columns::Answers,
    frame::Frame,
    state::{Effect, Garbage},
};

const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(second * 1_000)
}

fn key(from: u64, generation: u64, unique: &str) -> String {
    format!("chunks/shop/1-0-0/{from:020}-G{generation}-{unique}.parquet")
}

/// A segment with events up to 100, of which those below 50 are in one chunk.
fn state() -> State {
    let mut state = State::new(ContainerId(0));
    let entries = vec![Entry::create(SEGMENT, "shop".parse().unwrap())];
    let container = ContainerId(0);
    let frame = Frame { container, generation: Generation(3), number: 1, previous: 0, entries };
    state.apply(1, &frame, 0).unwrap();
    let segment = state.segments.get_mut(&SEGMENT).unwrap();
    let (time_min, time_max) = (at(0), at(0));
    segment.chunks.push(ChunkMeta { key: key(0, 3, "named"), from: 0, to: 50, bytes: 1, time_min, time_max });
    (segment.tail_from, segment.end) = (50, 100);
    state.garbage.insert(key(0, 3, "garbage"), Garbage { segment: SEGMENT, since: at(10) });
    state
}

#[test]
fn only_what_nobody_can_name_is_an_orphan() {
    let state = state();
    for (key, orphan) in [
        (key(0, 3, "named"), false),
        (key(0, 3, "garbage"), false),
        (key(0, 3, "lost"), true),
        (key(49, 3, "lost"), true),
        (key(50, 3, "being put"), false),
        (key(50, 2, "of a zombie"), true),
        (key(0, 4, "of a later owner"), false),
        ("chunks/shop/1-0-0/somebody's file".to_owned(), false),
    ] {
        let found = nameless(&state, SEGMENT, Generation(3), vec![key.clone()]);
        assert_eq!(!found.is_empty(), orphan, "{key}");
    }
    let unknown = SegmentId { number: 9, ..SEGMENT };
    assert!(nameless(&state, unknown, Generation(3), vec![key(0, 1, "x")]).is_empty());
}

#[test]
fn garbage_stays_for_its_delay() {
    let state = state();
    let old = |second| old_garbage(&state, at(second), Duration::from_secs(60)).len();
    assert_eq!((old(10), old(69), old(70)), (0, 0, 1));
}

#[test]
fn the_folder_of_a_deleted_segment_stays_for_its_time() {
    let mut state = state();
    let gone = SegmentId { number: 8, ..SEGMENT };
    let shop = || "shop".parse::<IndexName>().unwrap();
    state.deleted.insert(gone, shop());
    state.tombstones.insert(gone, at(10));
    let due = |state: &State, second| due_sweeps(state, at(second), Duration::from_secs(60));
    assert!(due(&state, 69).is_empty());
    assert_eq!(due(&state, 70), [(gone, shop())]);
    state.tombstones.clear();
    assert_eq!(due(&state, 0), [(gone, shop())], "a release before did not write down when");
}

#[test]
fn a_suspect_must_stay_one() {
    let (mut suspects, long) = (Suspects::default(), Duration::from_secs(10));
    let (a, b) = (key(0, 1, "a"), key(0, 1, "b"));
    let mut watch = |seen: &[&String], second| {
        suspects.watch("chunks/shop/1-0-0/", seen.iter().map(|&key| key.clone()).collect(), at(second), long)
    };
    assert!(watch(&[&a, &b], 0).is_empty());
    assert!(watch(&[&a], 9).is_empty(), "b is an orphan no more");
    assert_eq!(watch(&[&a, &b], 10), std::slice::from_ref(&a));
    assert_eq!(watch(&[&a, &b], 20), [a, b]);
}

#[test]
fn suspects_are_bounded_and_kept_apart_by_segment() {
    let mut suspects = Suspects::default();
    let many = (0..SUSPECTS_MAX as u64 + 5).map(|n| key(n, 1, "x")).collect();
    assert!(suspects.watch("chunks/shop/1-0-0/", many, at(0), Duration::from_secs(1)).is_empty());
    assert_eq!(suspects.0.len(), SUSPECTS_MAX);
    assert!(suspects.watch("chunks/shop/2-0-0/", Vec::new(), at(0), Duration::ZERO).is_empty());
    assert_eq!(suspects.0.len(), SUSPECTS_MAX, "another segment's folder says nothing of them");
    suspects.watch("chunks/shop/1-0-0/", Vec::new(), at(0), Duration::ZERO);
    assert!(suspects.0.is_empty());
}

/// A collector whose owner is played by the test: `owner` answers each entry.
struct Play {
    collector: Collector,
    clock: Arc<ManualClock>,
    objects: store::Objects,
    asked: Arc<Mutex<Vec<Entry>>>,
    _world: World,
}

impl Play {
    async fn start(owner: impl Fn(&Container) -> Result<Effect, Error> + Send + 'static) -> Self {
        let world = World::start().await.unwrap();
        let common = world.common("a", &["common.lease_ttl=1s"]).unwrap();
        let host = host::Host::connect(wire::Service::SegmentStore, common).await.unwrap();
        let config = world.settings("a", &["segment_store.garbage_delay=10s"]).unwrap().section().unwrap();
        let limits = Limits::of(&config, Duration::from_secs(60));
        let clock = Arc::new(ManualClock::at(at(100)));
        let name = (ContainerId(0), Generation(3));
        let (container, mut queue) = Container::new(name, "a".parse().unwrap(), limits, clock.clone(), Answers::new());
        {
            let mut books = container.books.write();
            (books.state, books.phase) = (state(), Phase::Serving);
        }
        let objects = host.objects.clone();
        for key in [key(0, 3, "named"), key(0, 3, "garbage"), key(7, 3, "lost")] {
            objects.put_if_absent(&key, bytes::Bytes::from_static(b"x")).await.unwrap();
        }
        let asked: Arc<Mutex<Vec<Entry>>> = Arc::default();
        let (seen, playing) = (asked.clone(), container.clone());
        tokio::spawn(async move {
            while let Some(op) = queue.recv().await {
                seen.lock().push(op.entry);
                op.reply.send(owner(&playing)).ok();
            }
        });
        let collector = Collector::new(Tier2::new(container, host));
        Self { collector, clock, objects, asked, _world: world }
    }

    /// Two looks at the only segment, with the whole watch between.
    async fn look_twice(&mut self) -> Result<(), Error> {
        self.collector.orphans().await?;
        assert!(self.asked.lock().is_empty(), "seen for the first time");
        self.clock.advance(Duration::from_secs(12));
        self.collector.orphans().await?;
        // The walk through the segments begins again.
        self.collector.orphans().await
    }

    async fn left(&self) -> Vec<String> {
        self.objects.list("chunks", 10).await.unwrap().into_iter().map(|object| object.key).collect()
    }
}

fn three() -> Vec<String> {
    vec![key(0, 3, "garbage"), key(0, 3, "named"), key(7, 3, "lost")]
}

#[tokio::test]
async fn an_orphan_goes_when_the_log_has_confirmed_the_owner() {
    let mut play = Play::start(|_| Ok(Effect::Collected)).await;
    play.look_twice().await.unwrap();
    assert_eq!(play.left().await, three()[..2]);
    let asked = play.asked.lock();
    assert!(matches!(&asked[..], [Entry::Collected { keys, .. }] if *keys == [key(7, 3, "lost")]), "{asked:?}");
}

#[tokio::test]
async fn a_zombie_deletes_nothing() {
    let mut play = Play::start(|container| Err(Error::Fenced(container.id))).await;
    assert_eq!(play.look_twice().await, Err(Error::Fenced(ContainerId(0))));
    assert_eq!(play.left().await, three());
    assert_eq!(play.asked.lock().len(), 1, "it had made up its mind to");
}

#[tokio::test]
async fn what_is_named_while_the_log_is_asked_stays() {
    let name_it = |container: &Container| {
        let mut books = container.books.write();
        let segment = books.state.segments.get_mut(&SEGMENT).unwrap();
        segment.chunks[0].key = key(7, 3, "lost");
        Ok(Effect::Collected)
    };
    let mut play = Play::start(name_it).await;
    play.look_twice().await.unwrap();
    assert_eq!(play.left().await, three());
}

#[tokio::test]
async fn garbage_whose_removal_is_not_committed_stays_garbage() {
    let play = Play::start(|container| Err(Error::AppendUnknown(container.id))).await;
    assert_eq!(play.collector.collect().await, Err(Error::AppendUnknown(ContainerId(0))));
    let container = &play.collector.tier2.container;
    assert_eq!(container.books.read().state.garbage.len(), 1, "it is tried again");
    assert!(!play.left().await.contains(&key(0, 3, "garbage")));
    assert_eq!(play.collector.collect().await, Err(Error::AppendUnknown(ContainerId(0))), "what is gone is fine");
}
