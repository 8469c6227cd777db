//! Cuts: reading between them, truncating at them, walking along them.

use std::{collections::BTreeSet, time::Duration};

use client::{EventPointer, WriteCause, cut_from_text, cut_to_text};
use logboom_tests::Seen;
use types::{EVENT_BYTES_MAX, Position, StreamCut, Timestamp};
use wire::Outcome;

use crate::{
    numbered::{Counts, Numbered, assert_exact, event, in_order, key, read, try_read, witness},
    shared::Stage,
};

fn texts(seen: &[Seen]) -> BTreeSet<String> {
    seen.iter().map(|one| one.text.clone()).collect()
}

#[tokio::test]
async fn s11_every_pair_of_cuts_gives_exactly_what_lies_between() {
    let mut pairs = 0;
    for index in ["between-a", "between-b"] {
        let stage = Stage::new(index, 2).await;
        let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
        let mut cuts = vec![(stage.client.tails(&stage.streams.index).await.unwrap(), Counts::new())];
        for round in 0..6 {
            numbered.write("k", 8, 5).await;
            cuts.push((stage.client.tails(&stage.streams.index).await.unwrap(), numbered.counts.clone()));
            match round {
                1 => drop(stage.streams.split(0).await.unwrap()),
                3 => drop(stage.streams.merge(1).await.unwrap()),
                _ => {}
            }
        }
        for (from, (first, before)) in cuts.iter().enumerate() {
            for (last, after) in &cuts[from + 1..] {
                let first = cut_from_text(&cut_to_text(first)).unwrap();
                let mut reader =
                    stage.client.stream_reader(&stage.streams.index, Some(first), Some(last.clone())).await.unwrap();
                let seen = read(&mut reader, u64::MAX).await;
                let due: BTreeSet<String> = after
                    .iter()
                    .flat_map(|(key, &end)| {
                        (before.get(key).copied().unwrap_or(0)..end).map(move |number| format!("{key} {number}"))
                    })
                    .collect();
                assert_eq!((texts(&seen), seen.len()), (due.clone(), due.len()));
                pairs += 1;
            }
        }
        // The wrong way round is refused.
        let (first, last) = (cuts[0].0.clone(), cuts[3].0.clone());
        let wrong = stage.client.stream_reader(&stage.streams.index, Some(last), Some(first)).await;
        assert_eq!(wrong.err().unwrap().kind, "InvalidCut");
    }
    assert_eq!(pairs, 42);
}

#[tokio::test]
async fn s12_a_lagging_reader_is_told_once_and_goes_on_with_the_rest() {
    let stage = Stage::new("truncated", 2).await;
    let index = &stage.streams.index;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    numbered.write("k", 6, 20).await;
    let before = numbered.counts.clone();
    let mut lagging = stage.client.stream_reader(index, None, None).await.unwrap();
    let cut = stage.client.tails(index).await.unwrap();
    stage.streams.split(0).await.unwrap();
    numbered.write("k", 6, 10).await;
    stage.streams.truncate(cut.clone()).await.unwrap();
    // Back before the head changes nothing.
    let head = stage.streams.describe().await.unwrap().head;
    let back = StreamCut(cut.0.keys().map(|segment| (*segment, 0)).collect());
    assert_eq!(stage.streams.truncate(back).await.unwrap().head, head);

    let (mut told, mut seen) = (0, Vec::new());
    while seen.len() < 60 {
        match lagging.next(Duration::from_secs(1)).await {
            Ok(Some((segment, batch))) => seen.extend(Seen::of(segment, &batch).unwrap()),
            Ok(None) => {}
            Err(problem) if problem.kind == "Truncated" => {
                told += 1;
                lagging.skip_to_head().await.unwrap();
            }
            Err(problem) => panic!("{problem}"),
        }
    }
    assert_eq!(told, 1, "the truncation is told once");
    let mut due = before;
    for one in &seen {
        let (key, number) = one.numbered().unwrap();
        let next = due.get_mut(key).unwrap();
        assert_eq!(number, *next, "{one:?}");
        *next += 1;
    }
    assert_eq!(due, numbered.counts);
    let stale =
        stage.client.stream_reader(index, Some(StreamCut(head.0.keys().map(|s| (*s, 0)).collect())), None).await;
    let problem = match stale {
        Ok(mut reader) => try_read(&mut reader, 1).await.unwrap_err(),
        Err(problem) => problem,
    };
    assert_eq!(problem.kind, "Truncated");
}

#[tokio::test]
async fn s17_the_batch_reader_gives_every_event_once() {
    let stage = Stage::new("batch", 3).await;
    let index = &stage.streams.index;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    for _ in 0..3 {
        numbered.write("k", 12, 10).await;
        stage.streams.split(1).await.unwrap();
    }
    stage.streams.merge(2).await.unwrap();
    numbered.write("k", 12, 10).await;
    let ranges = stage.client.segment_ranges(index, None, None).await.unwrap();
    assert!(ranges.len() > 5, "{ranges:?}");
    // Two workers that know nothing of each other.
    let mut seen = Vec::new();
    for half in ranges.chunks(ranges.len().div_ceil(2)) {
        let mut reader = stage.client.read_ranges(half);
        while let Some((segment, batch)) = reader.next().await.unwrap() {
            seen.extend(Seen::of(segment, &batch).unwrap());
        }
    }
    seen.sort();
    let mut expected = witness(&stage.client, &stage.streams).await;
    assert_exact(&expected, &numbered.counts);
    expected.sort();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn s18_cuts_at_a_distance_are_valid_and_leave_nothing_out() {
    let stage = Stage::new("distance", 2).await;
    let index = &stage.streams.index;
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    for round in 0..4 {
        numbered.write("k", 10, 20).await;
        if round % 2 == 0 {
            stage.streams.split(round).await.unwrap()
        } else {
            stage.streams.merge(0).await.unwrap()
        };
    }
    let tails = stage.client.tails(index).await.unwrap();
    let mut at = stage.client.heads(index).await.unwrap();
    let mut seen = Vec::new();
    let mut steps = 0;
    loop {
        let next = stage.client.next_cut(index, &at, 2_000).await.unwrap();
        stage.client.check_cut(index, &next).await.unwrap();
        if next == at {
            break;
        }
        let mut reader = stage.client.stream_reader(index, Some(at), Some(next.clone())).await.unwrap();
        seen.extend(read(&mut reader, u64::MAX).await);
        at = next;
        steps += 1;
    }
    assert_eq!(at, tails, "the last cut is the tail");
    assert!(steps > 4, "800 events of about 20 bytes in steps of 2,000 bytes: {steps}");
    assert_exact(&seen, &numbered.counts);
}

#[tokio::test]
async fn s20_a_large_event_is_whole_or_absent() {
    let stage = Stage::new("large", 1).await;
    let numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    // One byte that is no letter at either end, so that a cut-off would show.
    let text = format!("<{}>", "x".repeat(EVENT_BYTES_MAX - 2));
    let receipt = numbered.writer.write(None, text.clone().into()).await.unwrap();
    receipt.await.unwrap();
    let refused = numbered.writer.write(None, vec![b'y'; EVENT_BYTES_MAX + 1].into()).await.unwrap_err();
    assert_eq!(refused.outcome, Outcome::NotApplied);
    assert!(
        matches!(refused.cause, WriteCause::EventTooLarge { bytes } if bytes == EVENT_BYTES_MAX + 1),
        "{refused:?}"
    );
    numbered.writer.write(None, event("after 0")).await.unwrap().await.unwrap();
    let seen = witness(&stage.client, &stage.streams).await;
    assert_eq!(seen.len(), 2);
    assert!(seen[0].text == text, "{} bytes came back", seen[0].text.len());
    assert_eq!(seen[1].text, "after 0");
}

#[tokio::test]
async fn s21_watermarks_never_go_back_and_claim_nothing_false_while_the_stream_scales() {
    let stage = Stage::new("watermarks", 2).await;
    let index = &stage.streams.index;
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    let mut numbered = Numbered::open(&stage.client, &stage.streams, "writer").await;
    let mut reader = stage.client.stream_reader(index, None, None).await.unwrap();
    let at = |seconds: u64| Timestamp::from_millis(i64::try_from(seconds).unwrap() * 1_000);
    let (mut last, mut seen, mut claims) = (None, Vec::new(), 0);
    for second in 1..8u64 {
        // Events of this second are written, then said to be complete; writer b is always a second behind.
        numbered.write("k", 6, 1).await;
        stage.client.note_time(index, &a, at(second)).await.unwrap();
        stage.client.note_time(index, &b, at(second - 1)).await.unwrap();
        match second {
            2 => drop(stage.streams.split(0).await.unwrap()),
            5 => drop(stage.streams.merge(0).await.unwrap()),
            _ => {}
        }
        // The reader stays one second behind.
        if second > 1 {
            seen.extend(read(&mut reader, 6).await);
        }
        let window = stage.client.time_window(index, &reader.position()).await.unwrap();
        assert!(window.lower >= last, "{:?} after {last:?}", window.lower);
        last = window.lower;
        if let Some(lower) = window.lower {
            claims += 1;
            // It says that everything before this time was read: event number n of a key is of second n + 1.
            let read_to = in_order(&seen).values().copied().min().unwrap_or(0);
            assert!(lower <= at(read_to), "all before {lower:?} is claimed, {read_to} s were read");
        }
    }
    assert!(claims > 2, "a bound that is never known is no bound");
}

#[tokio::test]
async fn a_pointer_finds_its_event_until_that_is_truncated() {
    let stage = Stage::new("pointers", 1).await;
    let index = &stage.streams.index;
    let writer = Numbered::open(&stage.client, &stage.streams, "writer").await.writer;
    let mut positions: Vec<Position> = Vec::new();
    for number in 0..5 {
        let receipt = writer.write(Some(&key("k")), event(&format!("k {number}"))).await.unwrap();
        positions.extend(receipt.await.unwrap());
    }
    assert_eq!(positions.len(), 5, "fresh events are told where they are");
    let pointer = |position| EventPointer { index: index.clone(), position };
    let batch = stage.client.fetch_event(&pointer(positions[3])).await.unwrap();
    assert_eq!(Seen::of(positions[3].segment, &batch).unwrap()[0].text, "k 3");
    stage.streams.truncate(StreamCut([(positions[2].segment, positions[2].offset)].into())).await.unwrap();
    let gone = stage.client.fetch_event(&pointer(positions[1])).await.unwrap_err();
    assert_eq!(gone.kind, "NoSuchEvent");
    let never = Position { offset: 99, ..positions[4] };
    assert_eq!(stage.client.fetch_event(&pointer(never)).await.unwrap_err().kind, "NoSuchEvent");
    assert!(stage.client.fetch_event(&pointer(positions[2])).await.is_ok());
}
