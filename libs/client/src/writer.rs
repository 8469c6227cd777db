//! Exactly-once writing: [`EventWriter`] follows the stream, [`Writer`] leaves numbers and routing to its owner.

mod answers;
mod block;
mod conditional;
mod drain;
mod engine;
mod event_writer;
mod lane;
mod note_time;
mod plan;
mod receipt;
mod routes;

use std::time::Duration;

use bus::SystemClock;
use bytes::Bytes;
use types::{Clock, EVENT_BYTES_MAX, IndexName, RoutingKey, WriterId};
use wire::{
    Problem,
    block::{BlockBuilder, EVENTS_MAX},
    coordinator::SegmentRange,
    segment_store::{Append, Appended, DescribeWriter, WriterName},
};

use crate::Client;

pub use event_writer::{Backlog, EventWriter, WriteBatch, WriterOptions};
pub use note_time::NoteTime;
pub use receipt::{BatchReceipt, Receipt};

pub(crate) use block::{Contents, EVENT_OVERHEAD};
pub(crate) use conditional::{Conditional, fresh_writer};
pub(crate) use engine::Shared;

/// How long an append is tried: longer than the 5 to 10 s of a JetStream election and the take-over of a container.
const APPEND_WITHIN: Duration = Duration::from_secs(30);
/// Blocks are closed at this size: a full frame of the default settings.
const BLOCK_BYTES_MAX: usize = 512 << 10;

/// A writer for those who keep the event numbers themselves, as a job does in its checkpoints.
///
/// Its owner numbers events from 1 in each segment and remembers them until they are acknowledged; whatever happens, he sends
/// them again under the same numbers. When a segment is sealed, [`Writer::append`] says `SegmentSealed`, and its owner decides
/// where the events go. Everybody else takes an [`EventWriter`].
#[derive(Clone)]
pub struct Writer {
    client: Client,
    index: IndexName,
    writer: WriterId,
}

impl Writer {
    pub(crate) fn new(client: Client, index: IndexName, writer: WriterId) -> Self {
        Self { client, index, writer }
    }

    /// The segment for a routing key.
    ///
    /// Errors: NotFound `UnknownIndex`; Unavailable `NoSegment` while the stream's description has a gap.
    pub async fn route(&self, key: Option<&RoutingKey>) -> Result<SegmentRange, Problem> {
        let stream = self.client.stream(&self.index).await?;
        let missing =
            || Problem::unavailable("NoSegment", format_args!("stream {} has no segment for the key", self.index));
        stream.route(key).ok_or_else(missing)
    }

    /// The number of the writer's last event in the segment; 0 if it has none. What lies above is to be sent.
    pub async fn resume(&self, segment: SegmentRange) -> Result<u64, Problem> {
        let name = WriterName { segment: segment.segment, writer: self.writer.clone() };
        let info = self.client.bus.call::<DescribeWriter>(&segment.container, &name).await?;
        Ok(info.last_event_number)
    }

    /// Appends events with the numbers `first_event_number ..`; durable when it returns.
    ///
    /// Order: as given, behind what was acknowledged before. Bounds: events of at most 1 MiB; tried for 30 s.
    /// Errors: `EventTooLarge`, `EventNumberGap`, `SegmentSealed`. After any error a part of the events may be stored:
    /// repeat with the same numbers, or [`Writer::resume`].
    pub async fn append(
        &self,
        segment: SegmentRange,
        first_event_number: u64,
        events: &[Bytes],
    ) -> Result<Appended, Problem> {
        if let Some(large) = events.iter().find(|event| event.len() > EVENT_BYTES_MAX) {
            let message = format!("event of {} bytes exceeds {EVENT_BYTES_MAX}", large.len());
            return Err(Problem::bad_request("EventTooLarge", message));
        }
        let mut all =
            Appended { offsets: Vec::with_capacity(events.len()), duplicate_count: 0, duplicates: Vec::new() };
        let mut rest = events;
        while !rest.is_empty() {
            let (block, count) = self.block(rest);
            rest = &rest[count..];
            let done = all.offsets.len();
            let append = Append {
                segment: segment.segment,
                writer: self.writer.clone(),
                first_event_number: first_event_number + u64::try_from(done).unwrap_or(u64::MAX),
                block,
                expected_end: None,
            };
            let part = self.client.append(segment.container, append, APPEND_WITHIN).await?;
            let done = u32::try_from(done).unwrap_or(u32::MAX);
            all.duplicate_count += part.duplicate_count;
            all.duplicates.extend(part.duplicates.iter().map(|place| place + done));
            all.offsets.extend(part.offsets);
        }
        Ok(all)
    }

    /// A block of the first events, at least one, and how many they are.
    fn block(&self, events: &[Bytes]) -> (Bytes, usize) {
        let received = SystemClock.now();
        let mut block = BlockBuilder::new();
        for event in events {
            let full = block.len() >= EVENTS_MAX || block.bytes() + event.len() > BLOCK_BYTES_MAX;
            if (full && !block.is_empty()) || !block.push(received, 0, event) {
                break;
            }
        }
        let count = block.len();
        (block.finish(), count)
    }
}
