//! The doors for libraries, and the loop that takes out of object storage what no item names any more.

use std::time::Duration;

use actix::{Context, Handler, ResponseFuture};
use bus::Incoming;
use futures::{StreamExt, stream};
use host::{Host, Ledger};
use store::Objects;
use types::Clock;
use wire::{
    Empty, Problem,
    coordinator::{
        DeleteItem, DescribeItem, Item, ItemList, ItemPlace, ListItems, PutItem, ReserveUpload, UploadPlace,
    },
};

use super::{Command, Event};
use crate::{
    State,
    actor::Desk,
    page,
    state::{Command as StateCommand, Event as StateEvent},
};

/// How often it is looked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Objects that are deleted at once.
const DELETES_AT_ONCE: usize = 8;

/// Takes tables out of object storage that no item names; only a leader uses it.
///
/// A former leader that still deletes does no harm: what is leaving never comes back.
#[derive(Clone)]
pub(crate) struct Librarian {
    objects: Objects,
    ledger: Ledger<State>,
    clock: std::sync::Arc<dyn Clock>,
}

impl Librarian {
    pub(crate) fn new(host: &Host, ledger: Ledger<State>) -> Self {
        Self { objects: host.objects.clone(), ledger, clock: host.clock.clone() }
    }

    /// Looks every second, for ever; a table stays so long after it was named last, so that queries who were told of it can read it.
    pub(crate) async fn collect_for_ever(&self, delay: Duration) {
        loop {
            if let Err(problem) = self.collect(delay).await {
                tracing::warn!(%problem, "tables that no lookup names stay for now");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn collect(&self, delay: Duration) -> Result<(), Problem> {
        self.ledger.submit_own(StateCommand::Library(Command::Expire)).await?;
        let due = self.ledger.read(|state| state.library().due(self.clock.now(), delay));
        let delete = |place: UploadPlace| async move {
            let deleted = self.objects.delete(&place.key()).await;
            deleted
                .map(|()| place)
                .inspect_err(|error| tracing::warn!(key = place.key(), %error, "table stays for now"))
                .ok()
        };
        let gone: Vec<UploadPlace> = stream::iter(due.into_iter().map(delete))
            .buffer_unordered(DELETES_AT_ONCE)
            .filter_map(async |gone| gone)
            .collect()
            .await;
        if !gone.is_empty() {
            let tables = gone.len();
            self.ledger.submit_own(StateCommand::Library(Command::Collected(gone))).await?;
            tracing::info!(tables, "tables that no lookup names were deleted");
        }
        Ok(())
    }
}

async fn describe(ledger: &Ledger<State>, place: &ItemPlace) -> Result<Item, Problem> {
    ledger.look(|state| state.library().describe(state, place).map_err(Problem::from)).await
}

impl Handler<Incoming<ListItems>> for Desk {
    type Result = ResponseFuture<Result<ItemList, Problem>>;

    fn handle(&mut self, incoming: Incoming<ListItems>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, wanted) = (self.ledger.clone(), incoming.request);
        Box::pin(async move {
            ledger.whole().await?;
            ledger.look(|state| page::items(state, &wanted)).await
        })
    }
}

impl Handler<Incoming<DescribeItem>> for Desk {
    type Result = ResponseFuture<Result<Item, Problem>>;

    fn handle(&mut self, incoming: Incoming<DescribeItem>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, place) = (self.ledger.clone(), incoming.request);
        Box::pin(async move { describe(&ledger, &place).await })
    }
}

impl Handler<Incoming<PutItem>> for Desk {
    type Result = ResponseFuture<Result<Item, Problem>>;

    fn handle(&mut self, incoming: Incoming<PutItem>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, change) = (self.ledger.clone(), incoming.request);
        Box::pin(async move {
            let place = ItemPlace { index: change.index.clone(), name: change.name.clone() };
            ledger.submit(StateCommand::Library(Command::Put(change))).await?;
            describe(&ledger, &place).await
        })
    }
}

impl Handler<Incoming<DeleteItem>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<DeleteItem>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, removal) = (self.ledger.clone(), incoming.request);
        Box::pin(async move { ledger.submit(StateCommand::Library(Command::Delete(removal))).await.map(|_| Empty {}) })
    }
}

impl Handler<Incoming<ReserveUpload>> for Desk {
    type Result = ResponseFuture<Result<UploadPlace, Problem>>;

    fn handle(&mut self, incoming: Incoming<ReserveUpload>, _: &mut Context<Self>) -> Self::Result {
        let ledger = self.ledger.clone();
        Box::pin(async move {
            let reserved = ledger.submit(StateCommand::Library(Command::Reserve(incoming.request.index))).await?;
            let place = reserved.iter().find_map(|event| match event {
                StateEvent::Library(Event::Reserved { place }) => Some(*place),
                _ => None,
            });
            place.ok_or_else(|| Problem::internal("a place was reserved without an event"))
        })
    }
}
