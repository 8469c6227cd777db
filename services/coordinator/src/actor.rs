//! The actor that answers the coordinator's calls, one handler per call.

use actix::{Actor, Context, Handler, ResponseFuture};
use bus::Incoming;
use host::Ledger;
use wire::{
    Empty, Problem,
    coordinator::{
        CreateStream, DeleteStream, DescribePlacement, DescribeStream, ListStreams, StreamDescription, StreamList,
    },
    views::Placement,
};

use crate::{state::State, streams::Streams};

/// Answers calls while this replica leads; its doors are closed otherwise.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger<State>,
    pub(crate) streams: Streams,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<Incoming<CreateStream>> for Desk {
    type Result = ResponseFuture<Result<StreamDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<CreateStream>, _: &mut Context<Self>) -> Self::Result {
        let streams = self.streams.clone();
        Box::pin(async move { streams.create(incoming.request).await })
    }
}

impl Handler<Incoming<DeleteStream>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<DeleteStream>, _: &mut Context<Self>) -> Self::Result {
        let streams = self.streams.clone();
        Box::pin(async move { streams.delete(incoming.request.index).await.map(|()| Empty {}) })
    }
}

impl Handler<Incoming<DescribeStream>> for Desk {
    type Result = Result<StreamDescription, Problem>;

    fn handle(&mut self, incoming: Incoming<DescribeStream>, _: &mut Context<Self>) -> Self::Result {
        Ok(self.ledger.read(|state| state.describe(&incoming.request.index))?)
    }
}

impl Handler<Incoming<ListStreams>> for Desk {
    type Result = Result<StreamList, Problem>;

    fn handle(&mut self, _: Incoming<ListStreams>, _: &mut Context<Self>) -> Self::Result {
        Ok(StreamList { streams: self.ledger.read(|state| state.live().cloned().collect()) })
    }
}

impl Handler<Incoming<DescribePlacement>> for Desk {
    type Result = Result<Placement, Problem>;

    fn handle(&mut self, _: Incoming<DescribePlacement>, _: &mut Context<Self>) -> Self::Result {
        Ok(self.ledger.read(State::placement))
    }
}
