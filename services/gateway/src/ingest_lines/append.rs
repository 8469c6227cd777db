//! The lines of one request to their segments, whichever those are by the time they arrive.

use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::Instant;
use types::{IndexName, Timestamp, WriterId};
use wire::{
    Outcome, Problem,
    block::{BlockBuilder, EVENTS_MAX},
    coordinator::StreamDescription,
    segment_store::{Append, Appended},
};

use crate::{
    api::Door,
    ingest_lines::{Line, Run, by_segment, to_u64},
};

/// The size at which a block is closed: a frame of the durable log.
const BLOCK_BYTES: usize = 512 << 10;
/// Segments that are written at once for one request.
const SEGMENTS_AT_ONCE: usize = 16;
/// How long lines of sealed segments may look for successors, over all scales that one request meets.
const SUCCESSORS_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked whether there are successors.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What is durable of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    /// The bytes of those lines that were there before.
    pub(super) repeated_bytes: u64,
}

impl Tally {
    fn add(&mut self, lines: &[Line], appended: &Appended) {
        self.lines += to_u64(lines.len());
        for (place, line) in (0u32..).zip(lines) {
            self.bytes += to_u64(line.payload.len());
            if appended.duplicates.binary_search(&place).is_ok() {
                self.repeated_bytes += to_u64(line.payload.len());
            }
        }
    }
}

/// What became of a request.
pub(super) struct Ended {
    pub(super) tally: Tally,
    /// Why it was not stored whole. Of what the tally does not count nothing is stored, unless the outcome is unknown.
    pub(super) problem: Option<Problem>,
}

/// Appends the lines of all segments, each segment's in order, and returns when all are durable.
///
/// What a sealed segment did not take goes to its successors by the hashes of its keys. Each round has a writer of its own:
/// a block is stored whole or not at all, and a sealed segment recognises what it has, so that its refusal is certain and
/// the rest begins anew.
pub(super) async fn append(door: &Door, index: &IndexName, runs: Vec<Run>) -> Ended {
    let tally = Mutex::default();
    let problem = append_all(door, index, runs, &tally).await.err();
    Ended { tally: tally.into_inner(), problem }
}

async fn append_all(door: &Door, index: &IndexName, mut runs: Vec<Run>, tally: &Mutex<Tally>) -> Result<(), Problem> {
    let (received, until) = (door.clock.now(), Instant::now() + SUCCESSORS_WITHIN);
    let request = uuid::Uuid::new_v4().simple().to_string();
    for round in 0u32.. {
        let writer: Result<WriterId, _> = format!("gw-{request}-{round}").parse();
        let writer = writer.map_err(|error| Problem::internal(format_args!("writer id: {error}")))?;
        let writes: Vec<_> =
            runs.into_iter().map(|run| append_run(door, writer.clone(), run, received, tally)).collect();
        // All come to their ends, so that what is answered about a part that failed is true of the whole.
        let ended: Vec<_> = stream::iter(writes).buffer_unordered(SEGMENTS_AT_ONCE).collect().await;
        let rests = all_of(ended)?;
        let rests: Vec<Run> = rests.into_iter().flatten().collect();
        if rests.is_empty() {
            break;
        }
        let stream = successors(door, index, &rests, until).await?;
        let lines = rests.into_iter().flat_map(|run| run.lines);
        runs = by_segment(&stream, lines)?;
    }
    Ok(())
}

/// What all ended with, or the problem that says what is true of the whole: where the outcome of one is unknown, that one.
fn all_of<T>(ended: Vec<Result<T, Problem>>) -> Result<Vec<T>, Problem> {
    let is_unknown = |end: &Result<T, Problem>| matches!(end, Err(problem) if problem.outcome == Outcome::Unknown);
    let (unknown, certain): (Vec<_>, Vec<_>) = ended.into_iter().partition(is_unknown);
    unknown.into_iter().chain(certain).collect()
}

/// Appends the lines of one segment; answers those that it did not take because it is sealed.
async fn append_run(
    door: &Door,
    writer: WriterId,
    run: Run,
    received: Timestamp,
    tally: &Mutex<Tally>,
) -> Result<Option<Run>, Problem> {
    let Run { segment, mut lines } = run;
    let mut at = 0;
    while at < lines.len() {
        let mut block = BlockBuilder::new();
        for line in &lines[at..] {
            let full =
                block.len() >= EVENTS_MAX || (!block.is_empty() && block.bytes() + line.payload.len() > BLOCK_BYTES);
            if full || !block.push(received, line.id, &line.payload) {
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
            Ok(appended) => {
                tally.lock().add(&lines[at..at + count], &appended);
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
    rests: &[Run],
    until: Instant,
) -> Result<StreamDescription, Problem> {
    let over = |stream: &StreamDescription| {
        let held = |run: &Run| stream.segments.iter().any(|known| known.segment == run.segment.segment);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_outcome_makes_the_whole_unknown() {
        let (sure, maybe) = (Problem::throttled("Throttled", "x"), Problem::unavailable("NoAnswer", "x").unknown());
        type Case = (Vec<Result<u8, Problem>>, Result<usize, &'static str>);
        let cases: [Case; 5] = [
            (vec![Ok(1), Ok(2)], Ok(2)),
            (vec![Ok(1), Err(sure.clone())], Err("Throttled")),
            (vec![Err(sure.clone()), Err(maybe.clone())], Err("NoAnswer")),
            (vec![Err(maybe.clone()), Err(sure.clone())], Err("NoAnswer")),
            (vec![Err(maybe), Ok(1), Err(sure)], Err("NoAnswer")),
        ];
        for (ended, expected) in cases {
            let whole = all_of(ended);
            assert_eq!(whole.map(|all| all.len()).map_err(|problem| problem.kind), expected.map_err(str::to_owned));
        }
    }
}
