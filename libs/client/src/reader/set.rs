//! Reading many segments at once: whatever comes first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};
use tracing::debug;
use types::{IndexName, Offset, SegmentId};
use wire::{Problem, segment_store::SegmentPlace};

use super::{GRACE, SegmentReader};
use crate::{Client, cut::Follows};

/// Segments asked at once; the rest take turns.
const ASKED_MAX: usize = 16;
/// How long a segment is asked when others wait for their turn.
const PARK_SHARED: Duration = Duration::from_millis(100);
/// How long a segment is asked when none waits.
const PARK: Duration = Duration::from_secs(2);
/// The pause before it is asked again what follows a sealed segment: a scale takes some hundred milliseconds.
const ASK_AGAIN: Duration = Duration::from_millis(100);

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
        /// What follows; never `NotYet`.
        follows: Follows,
    },
    /// It cannot be read; it is no longer in the set.
    Failed {
        /// The segment.
        segment: SegmentId,
        /// Why.
        problem: Problem,
    },
}

/// A segment that waits to be asked.
struct Turn {
    ticket: u64,
    reader: SegmentReader,
    /// The index, if what follows the segment is wanted.
    index: Option<IndexName>,
    /// Since when it cannot be found out what follows.
    trouble: Option<Instant>,
}

enum Outcome {
    Events(RecordBatch),
    Nothing,
    End(Follows),
}

/// Segments that are read side by side.
pub(crate) struct ReadSet {
    client: Client,
    /// Who is in the set. Who comes back from a read with another ticket was removed meanwhile.
    tickets: BTreeMap<SegmentId, u64>,
    last_ticket: u64,
    idle: VecDeque<Turn>,
    asked: FuturesUnordered<BoxFuture<'static, (Turn, Result<Outcome, Problem>)>>,
}

impl ReadSet {
    pub(crate) fn new(client: Client) -> Self {
        let (tickets, idle, asked) = (BTreeMap::new(), VecDeque::new(), FuturesUnordered::new());
        Self { client, tickets, last_ticket: 0, idle, asked }
    }

    /// Begins to read a segment; one that is in the set begins again there. With the index its end comes with what follows.
    pub(crate) fn add(&mut self, place: SegmentPlace, from: Offset, index: Option<&IndexName>) {
        self.last_ticket += 1;
        self.tickets.insert(place.segment, self.last_ticket);
        let reader = SegmentReader::new(self.client.clone(), place, from);
        self.idle.push_back(Turn { ticket: self.last_ticket, reader, index: index.cloned(), trouble: None });
    }

    /// Ends reading a segment; what is under way is thrown away.
    pub(crate) fn remove(&mut self, segment: SegmentId) {
        self.tickets.remove(&segment);
    }

    /// What comes next; waits for ever. Cancel safe.
    pub(crate) async fn next(&mut self) -> Found {
        loop {
            self.ask();
            let Some((turn, outcome)) = self.asked.next().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let (segment, at) = (turn.reader.position().segment, turn.reader.position().offset);
            if self.tickets.get(&segment) != Some(&turn.ticket) {
                continue;
            }
            match outcome {
                Ok(Outcome::Events(batch)) => {
                    self.idle.push_back(turn);
                    let first = at - u64::try_from(batch.num_rows()).unwrap_or(0);
                    return Found::Events { segment, first, batch };
                }
                Ok(Outcome::Nothing) => self.idle.push_back(turn),
                Ok(Outcome::End(follows)) => {
                    self.tickets.remove(&segment);
                    return Found::End { segment, at, follows };
                }
                Err(problem) => {
                    self.tickets.remove(&segment);
                    return Found::Failed { segment, problem };
                }
            }
        }
    }

    fn ask(&mut self) {
        while self.asked.len() < ASKED_MAX
            && let Some(mut turn) = self.idle.pop_front()
        {
            if self.tickets.get(&turn.reader.position().segment) != Some(&turn.ticket) {
                continue;
            }
            let park = if self.idle.is_empty() { PARK } else { PARK_SHARED };
            let client = self.client.clone();
            let read = async move {
                let outcome = turn.take(&client, park).await;
                (turn, outcome)
            };
            self.asked.push(read.boxed());
        }
    }
}

impl Turn {
    async fn take(&mut self, client: &Client, park: Duration) -> Result<Outcome, Problem> {
        match self.reader.next(park).await? {
            Some(batch) => return Ok(Outcome::Events(batch)),
            None if !self.reader.at_end() => return Ok(Outcome::Nothing),
            None => {}
        }
        let Some(index) = &self.index else { return Ok(Outcome::End(Follows::Nothing)) };
        let segment = self.reader.position().segment;
        match client.follows(index, segment).await {
            Ok(Follows::NotYet) => self.trouble = None,
            Ok(follows) => return Ok(Outcome::End(follows)),
            // Other segments are read meanwhile; but a coordinator that stays away has to be told.
            Err(problem) if problem.is_transient() => {
                debug!(%segment, %problem, "successors asked for again");
                if self.trouble.get_or_insert_with(Instant::now).elapsed() > GRACE {
                    return Err(problem);
                }
            }
            Err(problem) => return Err(problem),
        }
        sleep(ASK_AGAIN).await;
        Ok(Outcome::Nothing)
    }
}
