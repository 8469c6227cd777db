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
        Box::pin(async move { work.delete_index(incoming.request.instance).await.map(|()| Empty {}) })
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
    type Result = Result<IndexList, Problem>;

    fn handle(&mut self, _: Incoming<ListIndexes>, _: &mut Context<Self>) -> Self::Result {
        let mut indexes: Vec<_> = self
            .ledger
            .read(|state| state.indexes().filter(|i| i.phase == Phase::Live).map(|i| i.description.clone()).collect());
        indexes.sort_by_key(|index| index.created);
        Ok(IndexList { indexes })
    }
}

impl Handler<Incoming<ListBindings>> for Desk {
    type Result = Result<BindingList, Problem>;

    fn handle(&mut self, _: Incoming<ListBindings>, _: &mut Context<Self>) -> Self::Result {
        let mut bindings: Vec<_> = self.ledger.read(|state| {
            state.bindings().filter(|b| b.phase == BindingPhase::Live).map(|b| b.description.clone()).collect()
        });
        bindings.sort_by_key(|binding| binding.created);
        Ok(BindingList { bindings })
    }
}
