//! Reading many segments at once: whatever comes first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use types::{Offset, SegmentId};
use wire::{Problem, segment_store::SegmentPlace};

use super::SegmentReader;
use crate::Client;

/// Segments asked at once; the rest take turns.
const ASKED_MAX: usize = 16;
/// How long a segment is asked when others wait for their turn.
const PARK_SHARED: Duration = Duration::from_millis(100);
/// How long a segment is asked when none waits.
const PARK: Duration = Duration::from_secs(2);

/// What a segment gave.
pub(crate) enum Found {
    /// Events from an offset on.
    Events {
        /// The segment.
        segment: SegmentId,
        /// The offset of the first.
        first: Offset,
        /// The events.
        batch: RecordBatch,
    },
    /// It is sealed and was read to its end; it is no longer in the set.
    End {
        /// The segment.
        segment: SegmentId,
        /// Its end.
        at: Offset,
    },
    /// It cannot be read; it is no longer in the set.
    Failed {
        /// The segment.
        segment: SegmentId,
        /// Where it would have been read.
        at: Offset,
        /// Why.
        problem: Problem,
    },
}

struct Read {
    ticket: u64,
    reader: SegmentReader,
    outcome: Result<Option<RecordBatch>, Problem>,
}

/// Segments that are read side by side.
pub(crate) struct ReadSet {
    client: Client,
    /// Who is in the set. Who comes back from a read with another ticket was removed meanwhile.
    tickets: BTreeMap<SegmentId, u64>,
    last_ticket: u64,
    idle: VecDeque<(u64, SegmentReader)>,
    asked: FuturesUnordered<BoxFuture<'static, Read>>,
}

impl ReadSet {
    pub(crate) fn new(client: Client) -> Self {
        let (tickets, idle, asked) = (BTreeMap::new(), VecDeque::new(), FuturesUnordered::new());
        Self { client, tickets, last_ticket: 0, idle, asked }
    }

    /// Begins to read a segment; one that is in the set begins again there.
    pub(crate) fn add(&mut self, place: SegmentPlace, from: Offset) {
        self.last_ticket += 1;
        self.tickets.insert(place.segment, self.last_ticket);
        let reader = SegmentReader::new(self.client.clone(), place, from);
        self.idle.push_back((self.last_ticket, reader));
    }

    /// Ends reading a segment; what is under way is thrown away.
    pub(crate) fn remove(&mut self, segment: SegmentId) {
        self.tickets.remove(&segment);
    }

    /// What comes next; waits for ever. Cancel safe.
    pub(crate) async fn next(&mut self) -> Found {
        loop {
            self.ask();
            let Some(Read { ticket, reader, outcome }) = self.asked.next().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let (segment, at) = (reader.position().segment, reader.position().offset);
            if self.tickets.get(&segment) != Some(&ticket) {
                continue;
            }
            match outcome {
                Ok(Some(batch)) => {
                    self.idle.push_back((ticket, reader));
                    let first = at - u64::try_from(batch.num_rows()).unwrap_or(0);
                    return Found::Events { segment, first, batch };
                }
                Ok(None) if reader.at_end() => {
                    self.tickets.remove(&segment);
                    return Found::End { segment, at };
                }
                Ok(None) => self.idle.push_back((ticket, reader)),
                Err(problem) => {
                    self.tickets.remove(&segment);
                    return Found::Failed { segment, at, problem };
                }
            }
        }
    }

    fn ask(&mut self) {
        while self.asked.len() < ASKED_MAX
            && let Some((ticket, mut reader)) = self.idle.pop_front()
        {
            if self.tickets.get(&reader.position().segment) != Some(&ticket) {
                continue;
            }
            let park = if self.idle.is_empty() { PARK } else { PARK_SHARED };
            let read = async move {
                let outcome = reader.next(park).await;
                Read { ticket, reader, outcome }
            };
            self.asked.push(read.boxed());
        }
    }
}
