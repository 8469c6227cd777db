//! Reading whole streams: through epochs, between cuts, behind truncation, in parallel, by event time.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod stage;

use std::{cmp::Ordering, collections::BTreeSet, time::Duration};

use client::{EventPointer, SegmentRangeBounds, StreamReader, TimeWindow};
use stage::{
    LONG,
    reading::{Reading, events},
};
use testkit::eventually;
use types::{IndexName, Offset, Position, SegmentId, StreamCut, Timestamp};

type Events = Vec<(SegmentId, Offset)>;

/// What a reader gives until it has given so many events.
async fn read(reader: &mut StreamReader, count: usize) -> Events {
    let mut all = Vec::new();
    while all.len() < count {
        let (segment, batch) = reader.next(LONG).await.unwrap().expect("an event");
        all.extend(events(segment, &batch));
    }
    all
}

/// Everything between two cuts, from a reader of its own.
async fn read_between(stage: &Reading, index: &IndexName, from: &StreamCut, to: &StreamCut) -> Events {
    let mut reader = stage.client.stream_reader(index, Some(from.clone()), Some(to.clone())).await.unwrap();
    let mut all = Vec::new();
    while let Some((segment, batch)) = reader.next(LONG).await.unwrap() {
        all.extend(events(segment, &batch));
    }
    assert!(reader.is_finished());
    assert_eq!(reader.position(), *to);
    all
}

#[tokio::test]
async fn a_reader_follows_splits_and_merges_and_can_be_replaced_at_any_moment() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 3);
    stage.append_all(&shop, 20);
    let [a, b, c] = stage.present(&shop)[..] else { panic!() };
    // Three become two, so that both follow the middle one; then one of them splits.
    let two = stage.scale(&shop, &[a, b, c], 2);
    stage.append_all(&shop, 15);
    stage.scale(&shop, &two[..1], 3);
    stage.append_all(&shop, 9);
    let graph = stage.client.graph(&shop).await.unwrap();

    let mut reader = stage.client.stream_reader(&shop, None, None).await.unwrap();
    let mut all = Vec::new();
    while all.len() < 60 + 30 + 36 {
        let (segment, batch) = reader.next(LONG).await.unwrap().expect("an event");
        all.extend(events(segment, &batch));
        graph.check(&reader.position()).unwrap();
        if all.len() % 3 == 0 {
            reader = stage.client.stream_reader(&shop, Some(reader.position()), None).await.unwrap();
        }
    }
    stage.assert_ordered(&shop, &all);
    assert_eq!(all.iter().copied().collect::<BTreeSet<_>>(), stage.events(&shop));
    assert_eq!(reader.position(), stage.client.tails(&shop).await.unwrap());
    assert!(reader.next(Duration::ZERO).await.unwrap().is_none() && !reader.is_finished());

    // What comes while it waits, also of a scale whose epoch opens later, and then the stream's end.
    let last = stage.present(&shop)[0];
    stage.append(&shop, last, 2);
    stage.seal(&shop, &[last]);
    assert_eq!(read(&mut reader, 2).await, [(last, 9), (last, 10)]);
    assert!(reader.next(Duration::from_millis(300)).await.unwrap().is_none() && !reader.is_finished());
    let opened = stage.scale(&shop, &[last], 1)[0];
    stage.append(&shop, opened, 3);
    assert_eq!(read(&mut reader, 3).await.len(), 3);
    stage.seal_stream(&shop);
    assert!(reader.next(LONG).await.unwrap().is_none() && reader.is_finished());
    assert_eq!(reader.position(), stage.client.tails(&shop).await.unwrap());
}

#[tokio::test]
async fn between_any_two_cuts_lie_exactly_their_events_one_by_one_and_in_ranges() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    let mut cuts = vec![stage.client.heads(&shop).await.unwrap()];
    let mut counts = vec![0];
    for step in 0..5 {
        let present = stage.present(&shop);
        if step == 1 {
            stage.scale(&shop, &present, 1);
        } else if step == 3 {
            stage.scale(&shop, &present, 3);
        }
        stage.append_all(&shop, 11);
        cuts.push(stage.client.tails(&shop).await.unwrap());
        counts.push(stage.event_count(&shop));
    }
    let graph = stage.client.graph(&shop).await.unwrap();
    for i in 0..cuts.len() {
        for j in i..cuts.len() {
            let ordering = if i == j { Ordering::Equal } else { Ordering::Less };
            assert_eq!(graph.compare(&cuts[i], &cuts[j]), Ok(Some(ordering)));
            let one_by_one = read_between(&stage, &shop, &cuts[i], &cuts[j]).await;
            let set: BTreeSet<_> = one_by_one.iter().copied().collect();
            assert_eq!((one_by_one.len() as u64, set.len()), (counts[j] - counts[i], one_by_one.len()), "{i} to {j}");
            let ranges = stage.client.segment_ranges(&shop, Some(&cuts[i]), Some(&cuts[j])).await.unwrap();
            assert_eq!(read_ranges(&stage, &ranges).await, set, "{i} to {j}");
        }
    }
    let backwards = stage.client.stream_reader(&shop, Some(cuts[3].clone()), Some(cuts[1].clone())).await;
    assert_eq!(backwards.err().unwrap().kind, "InvalidCut");
    let partial = StreamCut(cuts[0].0.iter().take(1).map(|(s, o)| (*s, *o)).collect());
    assert_eq!(stage.client.check_cut(&shop, &partial).await.unwrap_err().kind, "InvalidCut");
}

async fn read_ranges(stage: &Reading, ranges: &[SegmentRangeBounds]) -> BTreeSet<(SegmentId, Offset)> {
    let mut found = BTreeSet::new();
    // Two workers, each with every other range.
    for worker in 0..2 {
        let own: Vec<_> = ranges.iter().skip(worker).step_by(2).copied().collect();
        let mut reader = stage.client.read_ranges(&own);
        while let Some((segment, batch)) = reader.next().await.unwrap() {
            for event in events(segment, &batch) {
                assert!(found.insert(event), "{event:?} twice");
            }
        }
    }
    found
}

#[tokio::test]
async fn steps_of_about_so_many_bytes_are_cuts_and_leave_nothing_out() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 40);
    let merged = stage.scale(&shop, &stage.present(&shop), 1);
    stage.append_all(&shop, 40);
    stage.scale(&shop, &merged, 4);
    stage.append_all(&shop, 10);
    let graph = stage.client.graph(&shop).await.unwrap();
    let mut at = stage.client.heads(&shop).await.unwrap();
    let (mut found, mut steps) = (BTreeSet::new(), Vec::new());
    loop {
        let next = stage.client.next_cut(&shop, &at, 200).await.unwrap();
        graph.check(&next).unwrap();
        if next == at {
            break;
        }
        let ranges = stage.client.segment_ranges(&shop, Some(&at), Some(&next)).await.unwrap();
        let part = read_ranges(&stage, &ranges).await;
        steps.push(part.len());
        found.extend(part);
        at = next;
    }
    assert_eq!(found, stage.events(&shop));
    // 200 bytes are 20 events; a step that ends in the middle of an event is rounded up for each segment.
    assert!(steps.iter().all(|step| (1..=24).contains(step)) && steps.len() >= 8, "{steps:?}");
    assert_eq!(at, stage.client.tails(&shop).await.unwrap());
}

#[tokio::test]
async fn truncation_is_told_once_and_then_only_the_rest_is_read() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 30);
    let [a, b] = stage.present(&shop)[..] else { panic!() };
    let merged = stage.scale(&shop, &[a, b], 1)[0];
    stage.append(&shop, merged, 30);
    let begin = stage.client.heads(&shop).await.unwrap();
    let mut reader = stage.client.stream_reader(&shop, None, None).await.unwrap();
    let before = read(&mut reader, 10).await;
    assert!(before.len() < 30);

    // First within the segments that it reads, then beyond them.
    stage.truncate(&shop, &StreamCut([(a, 28), (b, 30)].into()));
    let mut rest = BTreeSet::new();
    let problem = loop {
        match reader.next(LONG).await {
            Ok(found) => rest.extend(found.map(|(segment, batch)| events(segment, &batch)).unwrap()),
            Err(problem) => break problem,
        }
    };
    assert_eq!(problem.kind, "Truncated");
    let head = stage.client.heads(&shop).await.unwrap();
    assert!(problem.message.contains(&client::cut_to_text(&head)), "{problem}");
    reader.skip_to_head().await.unwrap();
    assert!(reader.position().offset(a) >= 28 && reader.position().offset(b) == 30);

    stage.truncate(&shop, &StreamCut([(merged, 25)].into()));
    let mut reader = {
        let begin = stage.client.stream_reader(&shop, Some(begin), None).await;
        assert_eq!(begin.err().unwrap().kind, "Truncated");
        reader
    };
    let mut found = Vec::new();
    let mut skipped = 0;
    while found.len() < 5 {
        match reader.next(LONG).await {
            Ok(Some((segment, batch))) => found.extend(events(segment, &batch)),
            Ok(None) => panic!("the rest does not come"),
            Err(problem) => {
                assert_eq!(problem.kind, "Truncated");
                reader.skip_to_head().await.unwrap();
                skipped += 1;
            }
        }
    }
    found.retain(|(segment, _)| *segment == merged);
    assert_eq!((found, skipped), ((25..30).map(|offset| (merged, offset)).collect(), 1));
    assert_eq!(stage.client.heads(&shop).await.unwrap(), StreamCut([(merged, 25)].into()));
}

#[tokio::test]
async fn a_pointer_gives_its_event_until_it_is_truncated() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 1);
    let segment = stage.present(&shop)[0];
    stage.append(&shop, segment, 20);
    let successor = stage.scale(&shop, &[segment], 1)[0];
    stage.append(&shop, successor, 5);
    let at = |segment, offset| EventPointer { index: shop.clone(), position: Position { segment, offset } };
    for pointer in [at(segment, 0), at(segment, 13), at(successor, 4)] {
        let pointer: EventPointer = pointer.to_string().parse().unwrap();
        let event = stage.client.fetch_event(&pointer).await.unwrap();
        assert_eq!(events(pointer.position.segment, &event), [(pointer.position.segment, pointer.position.offset)]);
    }
    stage.truncate(&shop, &StreamCut([(segment, 15)].into()));
    let stranger = SegmentId { number: 77, ..segment };
    for pointer in [at(segment, 13), at(successor, 5), at(stranger, 0)] {
        assert_eq!(stage.client.fetch_event(&pointer).await.unwrap_err().kind, "NoSuchEvent");
    }
    stage.truncate(&shop, &StreamCut([(successor, 0)].into()));
    assert_eq!(stage.client.fetch_event(&at(segment, 16)).await.unwrap_err().kind, "NoSuchEvent");
    let unknown = EventPointer { index: "none".parse().unwrap(), ..at(segment, 16) };
    assert_eq!(stage.client.fetch_event(&unknown).await.unwrap_err().kind, "UnknownIndex");
}

#[tokio::test]
async fn the_tail_is_behind_everything_also_right_after_a_scale_and_a_deleted_stream_says_so() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    stage.append_all(&shop, 3);
    // From here on the client remembers the stream as it was.
    stage.client.tails(&shop).await.unwrap();
    let merged = stage.scale(&shop, &stage.present(&shop), 1)[0];
    stage.append(&shop, merged, 4);
    assert_eq!(stage.client.tails(&shop).await.unwrap(), StreamCut([(merged, 4)].into()));

    let mut reader = stage.client.stream_reader(&shop, None, None).await.unwrap();
    read(&mut reader, 10).await;
    stage.truth.lock().unwrap().streams.clear();
    let problem = eventually_fails(&mut reader).await;
    assert_eq!(problem.kind, "UnknownIndex");
}

async fn eventually_fails(reader: &mut StreamReader) -> wire::Problem {
    let mut failed = None;
    eventually(LONG, async || {
        failed = reader.next(Duration::from_millis(100)).await.err();
        failed.is_some()
    })
    .await;
    failed.unwrap()
}

#[tokio::test]
async fn a_reader_learns_between_which_times_it_stands_also_across_a_scale() {
    let stage = Reading::new().await;
    let shop = stage.stream("shop", 2);
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    let client = &stage.client;
    let window = async |cut: &StreamCut| client.time_window(&shop, cut).await.unwrap();
    let between = |lower: Option<i64>, upper: Option<i64>| TimeWindow {
        lower: lower.map(Timestamp::from_nanos),
        upper: upper.map(Timestamp::from_nanos),
    };
    let begin = client.heads(&shop).await.unwrap();
    assert_eq!(window(&begin).await, between(None, None));
    stage.append_all(&shop, 5);
    client.note_time(&shop, &b, Timestamp::from_nanos(70)).await.unwrap();
    client.note_time(&shop, &a, Timestamp::from_nanos(100)).await.unwrap();
    let first = client.tails(&shop).await.unwrap();
    stage.scale(&shop, &stage.present(&shop), 1);
    stage.append_all(&shop, 5);
    client.note_time(&shop, &b, Timestamp::from_nanos(300)).await.unwrap();
    let second = client.tails(&shop).await.unwrap();
    assert_eq!(window(&begin).await, between(None, Some(100)));
    assert_eq!(window(&first).await, between(Some(70), Some(300)));
    assert_eq!(window(&second).await, between(Some(100), None));
    client.forget_writer(&shop, &a).await.unwrap();
    stage.append_all(&shop, 1);
    client.note_time(&shop, &b, Timestamp::from_nanos(310)).await.unwrap();
    assert_eq!(window(&client.tails(&shop).await.unwrap()).await, between(Some(310), None));
    assert_eq!(window(&second).await, between(Some(100), Some(310)), "what was told stays");
}
