//! The actor that answers the provisioner's calls, one handler per call.

use actix::{Actor, Context, Handler, ResponseFuture};
use bus::Incoming;
use host::Ledger;
use wire::{
    Empty, Problem,
    index_provisioner::{
        BindingList, CreateIndex, Credentials, DeleteIndex, IndexDescription, IndexList, IssueCredentials,
        ListBindings, ListIndexes, RevokeCredentials, UpdateIndex,
    },
};

use crate::{
    state::{BindingPhase, Phase, State},
    work::Work,
};

/// Answers calls while this replica leads; its doors are closed otherwise.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger<State>,
    pub(crate) work: Work,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<Incoming<CreateIndex>> for Desk {
    type Result = ResponseFuture<Result<IndexDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<CreateIndex>, _: &mut Context<Self>) -> Self::Result {
        let work = self.work.clone();
        Box::pin(async move { work.create_index(incoming.request).await })
    }
}

impl Handler<Incoming<UpdateIndex>> for Desk {
    type Result = ResponseFuture<Result<IndexDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<UpdateIndex>, _: &mut Context<Self>) -> Self::Result {
        let work = self.work.clone();
        Box::pin(async move { work.update_index(incoming.request).await })
    }
}

impl Handler<Incoming<DeleteIndex>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<DeleteIndex>, _: &mut Context<Self>) -> Self::Result {
        let work = self.work.clone();
        Box::pin(async move { work.delete_index(incoming.request).await.map(|()| Empty {}) })
    }
}

impl Handler<Incoming<IssueCredentials>> for Desk {
    type Result = ResponseFuture<Result<Credentials, Problem>>;

    fn handle(&mut self, incoming: Incoming<IssueCredentials>, _: &mut Context<Self>) -> Self::Result {
        let work = self.work.clone();
        Box::pin(async move { work.issue(incoming.request).await })
    }
}

impl Handler<Incoming<RevokeCredentials>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<RevokeCredentials>, _: &mut Context<Self>) -> Self::Result {
        let work = self.work.clone();
        Box::pin(async move { work.revoke(incoming.request).await.map(|()| Empty {}) })
    }
}

impl Handler<Incoming<ListIndexes>> for Desk {
    type Result = ResponseFuture<Result<IndexList, Problem>>;

    fn handle(&mut self, incoming: Incoming<ListIndexes>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, wanted) = (self.ledger.clone(), incoming.request);
        Box::pin(async move {
            ledger.whole().await?;
            ledger.read(|state| {
                let live = state.indexes_behind(wanted.after.as_ref()).filter(|index| index.phase == Phase::Live);
                let (indexes, more) = wanted.limit.fill(live.map(|index| index.description.clone()))?;
                Ok(IndexList { indexes, more })
            })
        })
    }
}

impl Handler<Incoming<ListBindings>> for Desk {
    type Result = ResponseFuture<Result<BindingList, Problem>>;

    fn handle(&mut self, incoming: Incoming<ListBindings>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, wanted) = (self.ledger.clone(), incoming.request);
        Box::pin(async move {
            ledger.whole().await?;
            ledger.read(|state| {
                let behind = state.bindings_behind(wanted.after.as_ref());
                let live = behind.filter(|binding| binding.phase == BindingPhase::Live);
                let (bindings, more) = wanted.limit.fill(live.map(|binding| binding.description.clone()))?;
                Ok(BindingList { bindings, more })
            })
        })
    }
}
