//! The doors for transactions.

use actix::{Context, Handler, ResponseFuture};
use bus::Incoming;
use wire::{
    Problem,
    coordinator::{
        AbortTransaction, BeginTransaction, CommitTransaction, DescribeTransaction, PingTransaction, Transaction,
    },
};

use crate::actor::Desk;

impl Handler<Incoming<BeginTransaction>> for Desk {
    type Result = ResponseFuture<Result<Transaction, Problem>>;

    fn handle(&mut self, incoming: Incoming<BeginTransaction>, _: &mut Context<Self>) -> Self::Result {
        let commits = self.commits.clone();
        Box::pin(async move { commits.begin(incoming.request).await })
    }
}

impl Handler<Incoming<PingTransaction>> for Desk {
    type Result = ResponseFuture<Result<Transaction, Problem>>;

    fn handle(&mut self, incoming: Incoming<PingTransaction>, _: &mut Context<Self>) -> Self::Result {
        let (commits, ping) = (self.commits.clone(), incoming.request);
        Box::pin(async move { commits.ping(&ping.index, ping.transaction, ping.lease_ms).await })
    }
}

impl Handler<Incoming<CommitTransaction>> for Desk {
    type Result = ResponseFuture<Result<Transaction, Problem>>;

    fn handle(&mut self, incoming: Incoming<CommitTransaction>, _: &mut Context<Self>) -> Self::Result {
        let (commits, named) = (self.commits.clone(), incoming.request);
        Box::pin(async move { commits.commit(&named.index, named.transaction).await })
    }
}

impl Handler<Incoming<AbortTransaction>> for Desk {
    type Result = ResponseFuture<Result<Transaction, Problem>>;

    fn handle(&mut self, incoming: Incoming<AbortTransaction>, _: &mut Context<Self>) -> Self::Result {
        let (commits, named) = (self.commits.clone(), incoming.request);
        Box::pin(async move { commits.abort(&named.index, named.transaction).await })
    }
}

impl Handler<Incoming<DescribeTransaction>> for Desk {
    type Result = ResponseFuture<Result<Transaction, Problem>>;

    fn handle(&mut self, incoming: Incoming<DescribeTransaction>, _: &mut Context<Self>) -> Self::Result {
        let (commits, named) = (self.commits.clone(), incoming.request);
        Box::pin(async move { commits.describe(&named.index, named.transaction).await })
    }
}
