//! The one way in: whatever door lines came through, they are admitted, counted and stored here.

use std::sync::Arc;

use host::Place;
use types::IndexName;
use wire::{Outcome, Problem, coordinator::StreamDescription};

use super::{Line, append, by_segment, to_u64};
use crate::{api::Door, auth::Principal, error::HttpError, metrics::EVENTS};

/// A request that may write, and its place at the door.
pub(crate) struct Entry {
    principal: Principal,
    _place: Place,
}

impl Entry {
    /// Lets a request in, to an index where that is known already. Errors: 403; 429 `TooManyIngests`.
    pub(crate) fn new(door: &Door, principal: Principal, index: Option<&IndexName>) -> Result<Self, HttpError> {
        index.map_or(Ok(()), |index| principal.may_write(index))?;
        let place = door.ingests.take(index).ok_or_else(|| {
            Problem::throttled("TooManyIngests", "too many ingest requests at once; try again in a moment")
        })?;
        Ok(Self { principal, _place: place })
    }

    /// The stream of an index that takes events. Errors: 403; 404 `UnknownIndex`; 409 `StreamSealed`.
    pub(crate) async fn stream(&self, door: &Door, index: &IndexName) -> Result<Arc<StreamDescription>, HttpError> {
        self.principal.may_write(index)?;
        let stream = door.platform.stream(index).await?;
        if stream.sealed {
            return Err(append::sealed(index).into());
        }
        Ok(stream)
    }

    /// Stores lines: all of them are durable when this returns.
    ///
    /// `repeatable`: some have ids, so that they may be there already.
    /// Errors: 429 `QuotaBytes`, `QuotaRate`, and no line is stored. A problem while appending may leave a part of the lines
    /// stored: `stored` says how many certainly are; where the outcome is unknown, others may be stored as well.
    pub(crate) async fn store(
        &self,
        door: &Door,
        stream: &StreamDescription,
        lines: Vec<Line>,
        repeatable: bool,
    ) -> Result<(), HttpError> {
        let index = &stream.index;
        let (count, bytes) = (to_u64(lines.len()), lines.iter().map(|line| to_u64(line.payload.len())).sum::<u64>());
        let runs = by_segment(stream, lines)?;
        let taken = door.take(&self.principal, index, (count, bytes))?;
        let ended = append::append(door, index, runs).await;
        let stored = ended.tally.lines;
        EVENTS.with("accepted").add(stored);
        if repeatable {
            // Without an id nobody else can have stored them before.
            taken.give_back(0, ended.tally.repeated_bytes);
        }
        let Some(problem) = ended.problem else { return Ok(()) };
        if problem.outcome == Outcome::NotApplied {
            taken.give_back(count - stored, bytes - ended.tally.bytes);
        }
        let part = stored > 0 && problem.outcome == Outcome::NotApplied;
        let problem = if part { problem.unknown() } else { problem };
        Err(HttpError::from(problem).with("stored", stored))
    }
}
