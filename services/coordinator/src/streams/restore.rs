//! Streams that come back: a number is taken, containers adopt the segments, and then the stream is there.

use wire::{
    Problem,
    coordinator::{Reservation, StreamDescription, StreamRestore},
};

use super::Streams;
use crate::state::{Command, Event};

impl Streams {
    /// Takes a stream number, so that whoever restores can let containers adopt its segments.
    ///
    /// A key for a stream that never comes back opens nothing and does no harm.
    pub(crate) async fn reserve(&self, wanted: Reservation) -> Result<Reservation, Problem> {
        self.check_master(wanted.encrypted)?;
        let events = self.ledger.submit(Command::ReserveStream(wanted)).await?;
        let given = events.iter().find_map(|event| match event {
            Event::StreamReserved { stream } => Some(*stream),
            _ => None,
        });
        let reserved = Reservation { stream: given.or(wanted.stream), ..wanted };
        if let Some(stream) = reserved.stream.filter(|_| wanted.encrypted) {
            self.keys.create(stream, self.clock.now()).await?;
        }
        Ok(reserved)
    }

    /// Makes a stream of segments that their containers have adopted; it can be used when this returns.
    pub(crate) async fn restore(&self, restore: StreamRestore) -> Result<StreamDescription, Problem> {
        let (index, stream) = (restore.index.clone(), restore.stream);
        let there = self.change(&index, Command::RestoreStream(restore)).await?;
        tracing::info!(%index, stream, epoch = there.epoch, segments = there.segments.len(), "stream restored");
        Ok(there)
    }
}
