//! Appends that succeed only if nothing else came first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus::SystemClock;
use bytes::Bytes;
use types::{Clock, EVENT_BYTES_MAX, Offset, SegmentId, WriterId};
use wire::{
    Outcome,
    block::{BlockBuilder, EVENTS_MAX},
    coordinator::SegmentRange,
    segment_store::{Append, Appended, DescribeWriter, WriterName},
};

use crate::{
    Client,
    error::{WriteCause, WriteError},
};

/// How long a conditional append is tried.
const APPEND_WITHIN: Duration = Duration::from_secs(30);
/// The largest block of one.
const BLOCK_BYTES_MAX: usize = (1 << 20) + (64 << 10);
/// Segments of which the last number is remembered; beyond it those that are not in use are asked again.
const SEGMENTS_MAX: usize = 10_000;

/// The client's own writers of conditional appends; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Conditional {
    segments: Arc<Mutex<HashMap<SegmentId, Numbers>>>,
}

/// The writer in a segment with its last number; held while an append is under way, because numbers have no gaps.
///
/// `None` where something is in doubt: an append that may still arrive must not meet another one with its numbers, which
/// would be taken for its repeat. So the next one has a writer of its own.
type Numbers = Arc<tokio::sync::Mutex<Option<(WriterId, u64)>>>;

impl Conditional {
    fn numbers(&self, segment: SegmentId) -> Numbers {
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if segments.len() >= SEGMENTS_MAX {
            segments.retain(|_, numbers| Arc::strong_count(numbers) > 1);
        }
        segments.entry(segment).or_default().clone()
    }
}

/// A writer id that nobody else has.
pub(crate) fn fresh_writer(purpose: &str) -> WriterId {
    let id = format!("{purpose}-{:032x}", rand::random::<u128>());
    id.parse().expect("a word, a dash and hexadecimal digits make a token")
}

impl Client {
    /// Appends events if the segment ends at `expected_end`, all of them or none; durable when it returns.
    ///
    /// Exactly once: repeated by itself for 30 s, which is recognised. Appends of one client to one segment go one after
    /// another. Bounds: one block, about 1 MiB and 65 536 events.
    /// Errors: `ConditionFailed` with the real end, not applied: read on and decide again; `EventTooLarge`, `BlockTooLarge`;
    /// `Refused` with `SegmentSealed` and others.
    pub async fn append_if(
        &self,
        segment: SegmentRange,
        expected_end: Offset,
        events: &[Bytes],
    ) -> Result<Appended, WriteError> {
        let block = block_of(events)?;
        if events.is_empty() {
            return Ok(Appended { offsets: Vec::new(), duplicate_count: 0, duplicates: Vec::new() });
        }
        let numbers = self.conditional.numbers(segment.segment);
        let mut last = numbers.lock().await;
        // Taken until it is known what became of this append, also if nobody waits for it any more.
        let (writer, known) = last.take().unwrap_or_else(|| (fresh_writer("conditional"), 0));
        let name = WriterName { segment: segment.segment, writer: writer.clone() };
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let append = Append {
            segment: segment.segment,
            writer: writer.clone(),
            first_event_number: known + 1,
            block,
            expected_end: Some(expected_end),
        };
        match self.append(segment.container, append, APPEND_WITHIN).await {
            Ok(appended) => {
                *last = Some((writer, known + count));
                Ok(appended)
            }
            Err(problem) if problem.kind == "ConditionFailed" => {
                // A repeat of what is stored succeeds; asked for all the same, where an earlier attempt may be stored and this
                // answer may come from an owner that has not yet noticed that it is one no more.
                if problem.outcome == Outcome::Unknown {
                    let stored = self.bus.call::<DescribeWriter>(&segment.container, &name).await?.last_event_number;
                    if stored >= known + count {
                        *last = Some((writer, stored));
                        let offsets = (expected_end..expected_end + count).map(Some).collect();
                        return Ok(Appended { offsets, duplicate_count: 0, duplicates: Vec::new() });
                    }
                }
                // A fresh writer where an earlier attempt may still arrive.
                *last = (problem.outcome == Outcome::NotApplied).then_some((writer, known));
                let end = self.describe(segment).await?.end;
                let (segment, expected) = (segment.segment, expected_end);
                Err(WriteError::not_applied(WriteCause::ConditionFailed { segment, expected, end }))
            }
            Err(problem) => {
                let certain = problem.outcome == Outcome::NotApplied && problem.kind != "EventNumberGap";
                *last = certain.then_some((writer, known));
                Err(problem.into())
            }
        }
    }
}

fn block_of(events: &[Bytes]) -> Result<Bytes, WriteError> {
    let received = SystemClock.now();
    let mut block = BlockBuilder::new();
    for event in events {
        if event.len() > EVENT_BYTES_MAX {
            return Err(WriteError::not_applied(WriteCause::EventTooLarge { bytes: event.len() }));
        }
        if block.len() >= EVENTS_MAX || block.bytes() + event.len() > BLOCK_BYTES_MAX || !block.push(received, 0, event)
        {
            let bytes = events.iter().map(Bytes::len).sum();
            return Err(WriteError::not_applied(WriteCause::BlockTooLarge { events: events.len(), bytes }));
        }
    }
    Ok(block.finish())
}
