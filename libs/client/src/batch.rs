//! Reading history in any order: ranges of segments between two cuts, for many workers at once.

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use types::{IndexName, Offset, SegmentId, StreamCut};
use wire::{Problem, segment_store::SegmentPlace};

use crate::{
    Client,
    cut::Follows,
    frontier::Frontier,
    reader::set::{Found, ReadSet},
    stream_reader::up_to,
};

/// How long nothing may come although something must be there.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Rounds over the open segments that one step of [`Client::next_cut`] makes at most: one for each epoch that it passes.
const ROUNDS_MAX: u32 = 10_000;

/// A part of a segment, for one worker. Goes over the wire as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentRangeBounds {
    /// The segment.
    pub segment: SegmentPlace,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
}

/// Reads ranges side by side in no order but that of the offsets of each.
pub struct BatchReader {
    reads: ReadSet,
    open: BTreeMap<SegmentId, (Offset, SegmentRangeBounds)>,
}

impl Client {
    /// The parts of segments between two cuts; without them from the head, and to the tail as it is now.
    ///
    /// Errors: `InvalidCut`; NotFound `UnknownIndex`.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), wire::Problem> {
    /// let ranges = client.segment_ranges(&"shop".parse().unwrap(), None, None).await?;
    /// // Anywhere else, with a part of the ranges:
    /// let mut reader = client.read_ranges(&ranges);
    /// while let Some((segment, batch)) = reader.next().await? {
    ///     println!("{} events of {segment}", batch.num_rows());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn segment_ranges(
        &self,
        index: &IndexName,
        from: Option<&StreamCut>,
        to: Option<&StreamCut>,
    ) -> Result<Vec<SegmentRangeBounds>, Problem> {
        let to = match to {
            Some(to) => to.clone(),
            None => self.tails(index).await?,
        };
        let from = match from {
            Some(from) => from.clone(),
            None => self.heads(index).await?,
        };
        let graph = self.graph(index).await?;
        graph.check(&from)?;
        graph.check(&to)?;
        let parts = graph.between(&from, &to)?;
        let open = parts.iter().filter(|(_, _, end)| end.is_none()).map(|(place, ..)| *place);
        let infos = self.describe_all(open).await?;
        let ends: BTreeMap<SegmentId, Offset> = infos.iter().map(|info| (info.segment, info.end)).collect();
        let whole = parts.into_iter().map(|(segment, from, to)| SegmentRangeBounds {
            segment,
            from,
            to: to.or_else(|| ends.get(&segment.segment).copied()).unwrap_or(from),
        });
        Ok(whole.filter(|part| part.from < part.to).collect())
    }

    /// Reads one range.
    pub fn read_range(&self, range: SegmentRangeBounds) -> BatchReader {
        self.read_ranges(&[range])
    }

    /// Reads ranges of different segments side by side.
    pub fn read_ranges(&self, ranges: &[SegmentRangeBounds]) -> BatchReader {
        let mut reader = BatchReader { reads: ReadSet::new(self.clone()), open: BTreeMap::new() };
        for range in ranges.iter().filter(|range| range.from < range.to) {
            reader.reads.add(range.segment, range.from, None);
            reader.open.insert(range.segment.segment, (range.from, *range));
        }
        reader
    }

    /// A cut about so many payload bytes behind another one; at the tail it stays there.
    ///
    /// The bytes are spread evenly over the segments, in whole events of average size, at least one event where there is one.
    /// Behind the end of a sealed segment it goes on in what follows. Errors: `InvalidCut`; NotFound `UnknownIndex`.
    pub async fn next_cut(
        &self,
        index: &IndexName,
        from: &StreamCut,
        approximate_bytes: u64,
    ) -> Result<StreamCut, Problem> {
        let graph = self.graph(index).await?;
        graph.check(from)?;
        let (mut open, mut frontier) = (BTreeMap::new(), Frontier::default());
        for (&segment, &offset) in &from.0 {
            open.insert(segment, (graph.place(segment)?, offset));
        }
        let mut left = approximate_bytes.max(1);
        for _ in 0..ROUNDS_MAX {
            let (moved, ended) = self.step(&mut open, left).await?;
            left = left.saturating_sub(moved);
            let mut passed = false;
            for (segment, end) in ended {
                match self.follows(index, segment).await? {
                    Follows::Segments(successors) => {
                        open.remove(&segment);
                        passed = true;
                        let ready = frontier.complete(segment, end, &successors);
                        open.extend(ready.into_iter().map(|place| (place.segment, (place, 0))));
                    }
                    Follows::Nothing | Follows::NotYet | Follows::Gone => {}
                }
            }
            if left == 0 || (moved == 0 && !passed) {
                break;
            }
        }
        let places = open.iter().map(|(segment, (_, offset))| (*segment, *offset));
        Ok(StreamCut(places.chain(frontier.ends()).collect()))
    }

    /// Moves every open segment by its share; answers how many bytes that was, and which sealed segments are at their ends.
    async fn step(
        &self,
        open: &mut BTreeMap<SegmentId, (SegmentPlace, Offset)>,
        bytes: u64,
    ) -> Result<(u64, Vec<(SegmentId, Offset)>), Problem> {
        let infos = self.describe_all(open.values().map(|(place, _)| *place)).await?;
        let unread = infos.iter().filter(|i| open.get(&i.segment).is_some_and(|(_, offset)| *offset < i.end)).count();
        let share = (bytes / u64::try_from(unread).unwrap_or(1).max(1)).max(1);
        let (mut moved, mut ended) = (0, Vec::new());
        for info in infos {
            let Some((_, offset)) = open.get_mut(&info.segment) else { continue };
            let average = (info.bytes / info.end.max(1)).max(1);
            let events = (share / average).max(1);
            let next = (*offset).max(info.start).saturating_add(events).min(info.end).max(*offset);
            moved += (next - *offset) * average;
            *offset = next;
            if info.sealed && next == info.end {
                ended.push((info.segment, next));
            }
        }
        Ok((moved, ended))
    }
}

impl BatchReader {
    /// The next events of any range; `None` when all were given out.
    ///
    /// Cancel safe. Errors: NotFound `Truncated`, `UnknownSegment`; Unavailable `RangeSilent` when a range lies behind the end of
    /// its segment. After an error the other ranges can still be read.
    pub async fn next(&mut self) -> Result<Option<(SegmentId, RecordBatch)>, Problem> {
        let until = Instant::now() + SILENCE_MAX;
        while !self.open.is_empty() {
            let found = tokio::select! {
                found = self.reads.next() => found,
                () = tokio::time::sleep_until(until) => {
                    let names: Vec<String> = self.open.keys().take(3).map(ToString::to_string).collect();
                    let message = format_args!("nothing comes of {}: ranges go to what was stored", names.join(", "));
                    return Err(Problem::unavailable("RangeSilent", message));
                }
            };
            match found {
                Found::Events { segment, first, batch } => {
                    let Some((offset, range)) = self.open.get_mut(&segment) else { continue };
                    let (batch, next) = up_to(batch, first, Some(range.to));
                    *offset = next;
                    if next.cmp(&range.to) != Ordering::Less {
                        self.open.remove(&segment);
                        self.reads.remove(segment);
                    }
                    return Ok(Some((segment, batch)));
                }
                Found::End { segment, at, .. } => {
                    self.open.remove(&segment);
                    let message = format_args!("segment {segment} ends at {at}, before its range does");
                    return Err(Problem::bad_request("BeyondEnd", message));
                }
                Found::Failed { segment, problem } => {
                    self.open.remove(&segment);
                    return Err(problem);
                }
            }
        }
        Ok(None)
    }
}
