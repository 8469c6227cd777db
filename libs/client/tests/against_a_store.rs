//! The client against a segment store that misbehaves on purpose: the test answers its calls.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

mod stage;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow::{array::RecordBatch, ipc::writer::StreamWriter};
use bytes::Bytes;
use ingest::{RawEvent, to_batch};
use stage::Stage;
use types::{ContainerId, KeyRange, Offset, SegmentId, Timestamp};
use wire::{
    Call, Outcome, Problem,
    coordinator::SegmentRange,
    segment_store::{Append, AppendEvents, Appended, ChunkMeta, ReadFrom, ReadSegment, SegmentRead},
};

const SEGMENT: SegmentId = SegmentId { stream: 1, epoch: 0, number: 0 };
const RANGE: SegmentRange =
    SegmentRange { segment: SEGMENT, container: ContainerId(3), range: KeyRange { first: 0, last: u64::MAX } };

/// Answers calls with what is given, in turn, and remembers what was asked.
async fn script<C: Call<Key = ContainerId>>(
    stage: &mut Stage,
    answers: Vec<Result<C::Reply, Problem>>,
) -> Arc<Mutex<Vec<C::Request>>> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (noted, answers) = (asked.clone(), Mutex::new(VecDeque::from(answers)));
    let answer = move |request| {
        noted.lock().unwrap().push(request);
        let next = answers.lock().unwrap().pop_front();
        next.unwrap_or_else(|| Err(Problem::bad_request("Unexpected", "no more calls")))
    };
    stage.serve::<C>(Some(&RANGE.container), answer).await;
    asked
}

async fn chunk(stage: &Stage, key: &str, from: Offset, to: Offset) -> ChunkMeta {
    let chunk = chunk::write(SEGMENT, from, &[batch(from, to)]).unwrap();
    stage.objects.put_if_absent(key, chunk.bytes).await.unwrap();
    meta(key, from, to)
}

fn meta(key: &str, from: Offset, to: Offset) -> ChunkMeta {
    let time = Timestamp::default();
    ChunkMeta { key: key.into(), from, to, bytes: 1, time_min: time, time_max: time }
}

fn batch(from: Offset, to: Offset) -> RecordBatch {
    let texts: Vec<String> = (from..to).map(|n| format!("event {n}")).collect();
    let raw = |text| RawEvent { payload: String::as_bytes(text), received: Timestamp::from_millis(1) };
    to_batch(SEGMENT, from, texts.iter().map(raw))
}

fn tail(from: Offset, to: Offset) -> SegmentRead {
    let batch = batch(from, to);
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let columns = Bytes::from(writer.into_inner().unwrap());
    SegmentRead { from, next: to, end: to, sealed: false, chunks: vec![], columns }
}

fn chunks(from: Offset, chunks: Vec<ChunkMeta>) -> SegmentRead {
    SegmentRead { from, next: from, end: 100, sealed: false, chunks, columns: Bytes::new() }
}

fn asked_from(asked: &Mutex<Vec<ReadFrom>>) -> Vec<Offset> {
    asked.lock().unwrap().iter().map(|request| request.from).collect()
}

#[tokio::test]
async fn chunks_come_first_then_the_tail_and_a_chunk_that_was_replaced_is_asked_for_again() {
    let mut stage = Stage::new().await;
    let first = chunk(&stage, "chunks/a", 0, 10).await;
    let merged = chunk(&stage, "chunks/merged", 5, 30).await;
    let answers = vec![
        Ok(chunks(3, vec![first, meta("chunks/gone", 10, 20)])),
        Ok(chunks(10, vec![merged])),
        Err(Problem::throttled("Throttled", "busy")),
        Ok(tail(30, 33)),
    ];
    let asked = script::<ReadSegment>(&mut stage, answers).await;
    let mut reader = stage.client.reader(RANGE, 3);
    let mut rows = Vec::new();
    while reader.position().offset < 33 {
        let begin = reader.position().offset;
        let batch = reader.next(Duration::ZERO).await.unwrap().unwrap();
        assert_eq!(reader.position().offset, begin + batch.num_rows() as u64);
        rows.push((begin, batch.num_rows()));
    }
    assert_eq!(rows, [(3, 7), (10, 20), (30, 3)]);
    assert_eq!(asked_from(&asked), [3, 10, 30, 30]);
}

#[tokio::test]
async fn an_answer_that_does_not_hold_what_it_says_is_never_given_out() {
    let mut stage = Stage::new().await;
    let short = SegmentRead { next: 5, end: 5, ..tail(0, 3) };
    let mut wrong_chunk = chunk(&stage, "chunks/short", 0, 4).await;
    wrong_chunk.to = 9;
    let gone = || Ok(chunks(0, vec![meta("chunks/gone", 0, 9)]));
    let other = SegmentId { number: 7, ..SEGMENT };
    let foreign = chunk::write(other, 0, &[to_batch(other, 0, [RawEvent { payload: b"x", received: Timestamp::MIN }])]);
    stage.objects.put_if_absent("chunks/foreign", foreign.unwrap().bytes).await.unwrap();
    let foreign = Ok(chunks(0, vec![meta("chunks/foreign", 0, 1)]));
    let wrong = Ok(chunks(0, vec![wrong_chunk]));
    let answers = vec![Ok(short), Ok(tail(2, 4)), wrong, foreign, gone(), gone(), gone(), gone()];
    let _ = script::<ReadSegment>(&mut stage, answers).await;
    for case in ["too few rows", "other rows", "a short chunk", "another segment's chunk", "a chunk that is nowhere"] {
        let problem = stage.client.reader(RANGE, 0).next(Duration::ZERO).await.unwrap_err();
        assert_eq!(problem.kind, "Internal", "{case}: {problem}");
    }
}

#[tokio::test]
async fn the_end_of_a_sealed_segment_is_told_at_once() {
    let mut stage = Stage::new().await;
    let sealed = |read: SegmentRead| Ok(SegmentRead { sealed: true, ..read });
    let nothing = SegmentRead { next: 2, end: 2, columns: Bytes::new(), ..tail(2, 2) };
    let _ = script::<ReadSegment>(&mut stage, vec![sealed(tail(0, 2)), sealed(nothing)]).await;
    let mut reader = stage.client.reader(RANGE, 0);
    assert_eq!(reader.next(Duration::from_secs(60)).await.unwrap().unwrap().num_rows(), 2);
    assert!(reader.at_end());
    assert!(reader.next(Duration::from_secs(60)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_store_that_answers_too_early_is_not_asked_without_a_pause() {
    let mut stage = Stage::new().await;
    let nothing = || SegmentRead { columns: Bytes::new(), ..tail(2, 2) };
    let beyond = SegmentRead { sealed: true, end: 1, ..nothing() };
    let mut answers: Vec<_> = (0..1_000).map(|_| Ok(nothing())).collect();
    answers[0] = Ok(beyond);
    let asked = script::<ReadSegment>(&mut stage, answers).await;
    let mut reader = stage.client.reader(RANGE, 2);
    assert!(reader.next(Duration::from_secs(60)).await.unwrap().is_none(), "nothing ever comes behind a sealed end");
    assert!(reader.next(Duration::from_millis(200)).await.unwrap().is_none());
    assert!(asked.lock().unwrap().len() <= 1 + 5, "{}", asked.lock().unwrap().len());
}

#[tokio::test]
async fn an_append_is_repeated_with_the_same_numbers_and_its_outcome_is_remembered() {
    let mut stage = Stage::new().await;
    let append = Append {
        segment: SEGMENT,
        writer: "w".parse().unwrap(),
        first_event_number: 7,
        block: Bytes::from_static(b"b"),
        expected_end: None,
    };
    let done = Appended { offsets: vec![Some(4)], duplicate_count: 0, duplicates: vec![] };
    let unknown = || Err(Problem::new(wire::Code::Deadline, "AppendUnknown", "no answer").unknown());
    let fenced = || Err(Problem::new(wire::Code::Fenced, "Fenced", "another owner"));
    let sealed = || Err(Problem::conflict("SegmentSealed", "sealed"));
    let answers = vec![unknown(), fenced(), Ok(done.clone()), unknown(), sealed(), sealed()];
    let asked = script::<AppendEvents>(&mut stage, answers).await;
    let within = Duration::from_secs(20);
    assert_eq!(stage.client.append(RANGE.container, append.clone(), within).await.unwrap(), done);
    assert!(asked.lock().unwrap().iter().all(|request| *request == append));
    let problem = stage.client.append(RANGE.container, append.clone(), within).await.unwrap_err();
    assert_eq!((problem.kind.as_str(), problem.outcome), ("SegmentSealed", Outcome::Unknown));
    let problem = stage.client.append(RANGE.container, append, within).await.unwrap_err();
    assert_eq!((problem.kind.as_str(), problem.outcome), ("SegmentSealed", Outcome::NotApplied));
}
