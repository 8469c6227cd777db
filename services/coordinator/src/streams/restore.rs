//! Streams that come back: a number is taken, containers adopt the segments, and then the stream is there.

use wire::{
    Problem,
    coordinator::{Reservation, StreamDescription, StreamRestore},
};

use super::Streams;
use crate::state::{Command, Event};

impl Streams {
    /// Takes a stream number, so that whoever restores can let containers adopt its segments.
    pub(crate) async fn reserve(&self, wanted: Reservation) -> Result<Reservation, Problem> {
        let events = self.ledger.submit(Command::ReserveStream(wanted)).await?;
        let given = events.iter().find_map(|event| match event {
            Event::StreamReserved { stream } => Some(*stream),
            _ => None,
        });
        Ok(Reservation { stream: given.or(wanted.stream) })
    }

    /// Makes a stream of segments that their containers have adopted; it can be used when this returns.
    pub(crate) async fn restore(&self, restore: StreamRestore) -> Result<StreamDescription, Problem> {
        let (index, stream) = (restore.index.clone(), restore.stream);
        let there = self.change(&index, Command::RestoreStream(restore)).await?;
        tracing::info!(%index, stream, epoch = there.epoch, segments = there.segments.len(), "stream restored");
        Ok(there)
    }
}
