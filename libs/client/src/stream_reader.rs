//! One reader over a whole stream, through every epoch.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use arrow::array::RecordBatch;
use tokio::time::Instant;
use types::{IndexName, Offset, SegmentId, StreamCut};
use wire::{Problem, segment_store::SegmentPlace};

use crate::{
    Client, CutError, SegmentGraph,
    cut::Follows,
    cut_to_text,
    frontier::Frontier,
    reader::set::{Found, ReadSet},
};

/// Reads a stream from a cut to its end, or to another cut: every event once, the events of a key in their order.
///
/// Segments are read side by side; the successors of a segment are read only after everything that they follow was read to
/// its end. [`StreamReader::position`] is a cut at any moment; another reader can start there.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), wire::Problem> {
/// use std::time::Duration;
///
/// let shop = "shop".parse().unwrap();
/// let mut reader = client.stream_reader(&shop, None, None).await?;
/// loop {
///     match reader.next(Duration::from_secs(1)).await {
///         Ok(Some((segment, batch))) => println!("{} events of segment {segment}", batch.num_rows()),
///         Ok(None) => break,
///         Err(problem) if problem.kind == "Truncated" => reader.skip_to_head().await?,
///         Err(problem) => return Err(problem),
///     }
/// }
/// println!("go on later from {}", client::cut_to_text(&reader.position()));
/// # Ok(())
/// # }
/// ```
pub struct StreamReader {
    client: Client,
    index: IndexName,
    reads: ReadSet,
    /// Segments that may be read, each with the offset after the last event given out.
    open: BTreeMap<SegmentId, (SegmentPlace, Offset)>,
    frontier: Frontier,
    ends: StreamCut,
    /// Segments whose reading failed; tried again with the next call.
    failed: BTreeSet<SegmentId>,
}

impl Client {
    /// A reader of a stream from a cut (`None`: its head) to a cut (`None`: for ever).
    ///
    /// Errors: `InvalidCut`; NotFound `UnknownIndex`; NotFound `Truncated` when `from` lies before the head.
    pub async fn stream_reader(
        &self,
        index: &IndexName,
        from: Option<StreamCut>,
        to: Option<StreamCut>,
    ) -> Result<StreamReader, Problem> {
        let from = match from {
            Some(from) => from,
            None => self.heads(index).await?,
        };
        let graph = self.graph(index).await?;
        checked(self, index, &graph, &from, to.as_ref()).await?;
        let (reads, open, frontier) = (ReadSet::new(self.clone()), BTreeMap::new(), Frontier::default());
        let (ends, failed, client) = (to.unwrap_or_default(), BTreeSet::new(), self.clone());
        let mut reader = StreamReader { client, index: index.clone(), reads, open, frontier, ends, failed };
        for (&segment, &offset) in &from.0 {
            reader.begin(graph.place(segment)?, offset);
        }
        Ok(reader)
    }
}

/// Checks the bounds of a reading against the graph.
pub(crate) async fn checked(
    client: &Client,
    index: &IndexName,
    graph: &SegmentGraph,
    from: &StreamCut,
    to: Option<&StreamCut>,
) -> Result<(), Problem> {
    match graph.check(from) {
        Ok(()) => {}
        Err(CutError::Unknown(_)) => return Err(truncated(index, &client.heads(index).await?)),
        Err(error) => return Err(error.into()),
    }
    if let Some(to) = to {
        graph.check(to)?;
        graph.between(from, to)?;
    }
    Ok(())
}

/// The failure of a reader that stands before the head of its stream.
pub(crate) fn truncated(index: &IndexName, head: &StreamCut) -> Problem {
    let head = cut_to_text(head);
    let message = format_args!("events of {index} at the reader's place are gone; the head is now {head}: skip to it");
    Problem::not_found("Truncated", message)
}

/// Whether a segment cannot be read because the stream begins later.
pub(crate) fn is_truncation(problem: &Problem) -> bool {
    problem.kind == "Truncated" || problem.kind == "UnknownSegment"
}

impl StreamReader {
    /// The next events of one segment; `None` when none came within `wait`, or at the end ([`StreamReader::is_finished`]).
    ///
    /// Cancel safe. Bounds: 16 segments are asked at once, the rest take turns; with them as many chunks are in memory.
    /// Errors: NotFound `Truncated` with the new head, until [`StreamReader::skip_to_head`]; whatever is transient and lasts:
    /// a later call goes on.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<(SegmentId, RecordBatch)>, Problem> {
        let until = Instant::now() + wait;
        for segment in std::mem::take(&mut self.failed) {
            if let Some((place, offset)) = self.open.get(&segment) {
                self.reads.add(*place, *offset, Some(&self.index));
            }
        }
        while !self.is_finished() {
            let found = tokio::select! {
                biased;
                found = self.reads.next() => found,
                () = tokio::time::sleep_until(until) => return Ok(None),
            };
            let problem = match found {
                Found::Events { segment, first, batch } => {
                    if let Some(batch) = self.take(segment, first, batch) {
                        return Ok(Some((segment, batch)));
                    }
                    continue;
                }
                Found::End { segment, at, follows } => {
                    if self.go_on(segment, at, follows) {
                        continue;
                    }
                    self.failed.insert(segment);
                    None
                }
                Found::Failed { segment, problem } => {
                    self.failed.insert(segment);
                    Some(problem).filter(|problem| !is_truncation(problem))
                }
            };
            return Err(match problem {
                Some(problem) => problem,
                None => truncated(&self.index, &self.client.heads(&self.index).await?),
            });
        }
        Ok(None)
    }

    /// The cut behind the last events given out.
    pub fn position(&self) -> StreamCut {
        let open = self.open.iter().map(|(segment, (_, offset))| (*segment, *offset));
        StreamCut(open.chain(self.frontier.ends()).collect())
    }

    /// Whether everything up to the end cut, or of a sealed stream, was given out.
    pub fn is_finished(&self) -> bool {
        self.open.is_empty()
    }

    /// Leaves out what was truncated: goes on at the later of its position and the stream's head.
    pub async fn skip_to_head(&mut self) -> Result<(), Problem> {
        let head = self.client.heads(&self.index).await?;
        let graph = self.client.graph(&self.index).await?;
        let mut next = graph.join(&self.position(), &head);
        for (segment, (place, _)) in &self.open {
            // The store may have truncated what the coordinator is about to tell.
            if let Some(offset) = next.0.get_mut(segment)
                && self.failed.contains(segment)
            {
                *offset = (*offset).max(self.client.describe_place(*place).await?.start);
            }
        }
        self.frontier.keep(next.0.keys().next().map_or(0, |s| s.stream), &next);
        self.reads = ReadSet::new(self.client.clone());
        self.open.clear();
        self.failed.clear();
        for (segment, offset) in next.0 {
            if self.frontier.is_done(segment) {
                continue;
            }
            if graph.is_behind(segment, &self.ends) && !self.ends.0.is_empty() {
                self.frontier.complete(segment, offset, &[]);
            } else {
                self.begin(graph.place(segment)?, offset);
            }
        }
        Ok(())
    }

    fn begin(&mut self, place: SegmentPlace, offset: Offset) {
        if self.ends.0.get(&place.segment).is_some_and(|end| offset >= *end) {
            self.frontier.complete(place.segment, offset, &[]);
            return;
        }
        self.open.insert(place.segment, (place, offset));
        self.reads.add(place, offset, Some(&self.index));
    }

    /// Takes what is not behind the end; `None` if nothing is left of it.
    fn take(&mut self, segment: SegmentId, first: Offset, batch: RecordBatch) -> Option<RecordBatch> {
        let (_, offset) = self.open.get_mut(&segment)?;
        let (batch, next) = up_to(batch, first, self.ends.0.get(&segment).copied());
        *offset = next;
        if self.ends.0.get(&segment).is_some_and(|end| next >= *end) {
            self.reads.remove(segment);
            self.open.remove(&segment);
            self.frontier.complete(segment, next, &[]);
        }
        (batch.num_rows() > 0).then_some(batch)
    }

    /// Goes on behind the end of a segment; false if what follows is gone.
    fn go_on(&mut self, segment: SegmentId, at: Offset, follows: Follows) -> bool {
        let successors = match follows {
            // Sealed before the end of the range: the range goes further than the segment does.
            _ if self.ends.0.contains_key(&segment) => Vec::new(),
            Follows::Segments(successors) => successors,
            Follows::Nothing => Vec::new(),
            Follows::NotYet | Follows::Gone => return false,
        };
        self.open.remove(&segment);
        for place in self.frontier.complete(segment, at, &successors) {
            self.begin(place, 0);
        }
        true
    }
}

/// The rows before an end, and the offset after them.
pub(crate) fn up_to(batch: RecordBatch, first: Offset, end: Option<Offset>) -> (RecordBatch, Offset) {
    let rows = u64::try_from(batch.num_rows()).unwrap_or(u64::MAX);
    match end {
        Some(end) if first + rows > end => {
            let kept = end.saturating_sub(first);
            (batch.slice(0, usize::try_from(kept).unwrap_or(0)), end.max(first))
        }
        _ => (batch, first + rows),
    }
}
