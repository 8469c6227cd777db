//! The lines of one request to their segments, whichever those are by the time they arrive.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::time::Instant;
use types::{IndexName, Timestamp, WriterId};
use wire::{
    Outcome, Problem,
    block::{BlockBuilder, EVENTS_MAX},
    coordinator::StreamDescription,
    segment_store::Append,
};

use crate::{
    api::Door,
    ingest_lines::{Run, by_segment},
};

/// The size at which a block is closed: a frame of the durable log.
const BLOCK_BYTES: usize = 512 << 10;
/// Segments that are written at once for one request.
const SEGMENTS_AT_ONCE: usize = 16;
/// How long lines of sealed segments may look for successors, over all scales that one request meets.
const SUCCESSORS_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked whether there are successors.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a request was not stored whole.
pub(super) struct Unfinished {
    pub(super) problem: Problem,
    /// Lines that are durable all the same.
    pub(super) stored: u64,
}

/// Appends the lines of all segments, each segment's in order, and returns when all are durable.
///
/// What a sealed segment did not take goes to its successors by the hashes of its keys. Each round has a writer of its own:
/// a block is stored whole or not at all, and a sealed segment recognises what it has, so that its refusal is certain and
/// the rest begins anew.
pub(super) async fn append(door: &Door, index: &IndexName, mut runs: Vec<Run<'_>>) -> Result<(), Unfinished> {
    let (received, until) = (door.clock.now(), Instant::now() + SUCCESSORS_WITHIN);
    let request = uuid::Uuid::new_v4().simple().to_string();
    let stored = &AtomicU64::new(0);
    let unfinished = |problem: Problem| Unfinished { problem, stored: stored.load(Ordering::Relaxed) };
    for round in 0u32.. {
        let writer: Result<WriterId, _> = format!("gw-{request}-{round}").parse();
        let writer = writer.map_err(|error| unfinished(Problem::internal(format_args!("writer id: {error}"))))?;
        let writes: Vec<_> =
            runs.into_iter().map(|run| append_run(door, writer.clone(), run, received, stored)).collect();
        // All come to their ends, so that what is answered about a part that failed is true of the whole.
        let ended: Vec<_> = stream::iter(writes).buffer_unordered(SEGMENTS_AT_ONCE).collect().await;
        let rests = ended.into_iter().collect::<Result<Vec<_>, _>>().map_err(unfinished)?;
        let rests: Vec<Run<'_>> = rests.into_iter().flatten().collect();
        if rests.is_empty() {
            break;
        }
        let stream = successors(door, index, &rests, until).await.map_err(unfinished)?;
        let lines = rests.into_iter().flat_map(|run| run.lines);
        runs = by_segment(&stream, lines).map_err(unfinished)?;
    }
    Ok(())
}

/// Appends the lines of one segment; answers those that it did not take because it is sealed.
async fn append_run<'a>(
    door: &Door,
    writer: WriterId,
    run: Run<'a>,
    received: Timestamp,
    stored: &AtomicU64,
) -> Result<Option<Run<'a>>, Problem> {
    let Run { segment, mut lines } = run;
    let mut at = 0;
    while at < lines.len() {
        let mut block = BlockBuilder::new();
        for line in &lines[at..] {
            let full =
                block.len() >= EVENTS_MAX || (!block.is_empty() && block.bytes() + line.payload.len() > BLOCK_BYTES);
            if full || !block.push(received, line.id, line.payload) {
                break;
            }
        }
        let count = block.len();
        if count == 0 {
            return Err(Problem::internal("a line that was accepted fits no block"));
        }
        let append = Append {
            segment: segment.segment,
            writer: writer.clone(),
            first_event_number: to_u64(at) + 1,
            block: block.finish(),
            expected_end: None,
        };
        match door.platform.append(segment.container, append).await {
            Ok(_) => {
                stored.fetch_add(to_u64(count), Ordering::Relaxed);
                at += count;
            }
            Err(problem) if takes_nothing(&problem) => {
                lines.drain(..at);
                return Ok(Some(Run { segment, lines }));
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok(None)
}

/// Whether the segment certainly has nothing of the block and never will: a sealed one recognises what it stored before,
/// of one that is gone nobody can say what became of an attempt whose answer was lost.
fn takes_nothing(problem: &Problem) -> bool {
    match problem.kind.as_str() {
        "SegmentSealed" => true,
        "UnknownSegment" => problem.outcome == Outcome::NotApplied,
        _ => false,
    }
}

/// The stream as soon as it holds none of these segments.
///
/// Errors: Conflict `StreamSealed`; NotFound `UnknownIndex`; Unavailable `NoSuccessor` when the time is over.
async fn successors(
    door: &Door,
    index: &IndexName,
    rests: &[Run<'_>],
    until: Instant,
) -> Result<StreamDescription, Problem> {
    let over = |stream: &StreamDescription| {
        let held = |run: &Run<'_>| stream.segments.iter().any(|known| known.segment == run.segment.segment);
        !rests.iter().any(held)
    };
    loop {
        match door.platform.stream_now(index).await {
            Ok(stream) if stream.sealed => return Err(sealed(index)),
            Ok(stream) if over(&stream) && Instant::now() < until => return Ok(stream),
            Err(problem) if !problem.is_transient() => return Err(problem),
            Ok(_) | Err(_) => {}
        }
        if Instant::now() >= until {
            let message = format!("segments of log index {index} were sealed and have no successors yet; send again");
            return Err(Problem::unavailable("NoSuccessor", message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The refusal of an index that takes nothing more.
pub(super) fn sealed(index: &IndexName) -> Problem {
    Problem::conflict("StreamSealed", format_args!("log index {index} is sealed: it takes no more events"))
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
