//! The doors for reader groups, and what has to be asked of segment-store behind them.

use std::collections::BTreeMap;

use actix::{Context, Handler, ResponseFuture};
use bus::{Bucket, Bus};
use host::Ledger;
use types::{GroupName, IndexName, StreamCut};
use wire::{
    Code, Empty, Problem,
    coordinator::{
        CreateGroup, CutKind, DeleteGroup, DescribeGroup, GroupConfig, GroupDescription, ReportConsumed, ResetGroup,
    },
};

use super::{Command, Wanted};
use crate::{State, actor::Desk, retention::tail, state::Command as StateCommand};

/// The work on reader groups; only a leader uses it.
#[derive(Clone)]
pub(crate) struct Readers {
    bus: Bus,
    ledger: Ledger<State>,
    documents: Bucket,
}

impl Readers {
    /// `documents` is the bucket in which readers write down what they hold.
    pub(crate) fn new(bus: Bus, ledger: Ledger<State>, documents: Bucket) -> Self {
        Self { bus, ledger, documents }
    }

    async fn create(&self, config: GroupConfig) -> Result<GroupDescription, Problem> {
        // A repeat is answered without asking for tails, which are others by now.
        let tails = match self.ledger.read(|state| state.groups().describe(&config.group)) {
            Ok(_) => BTreeMap::new(),
            Err(_) => self.tails(&config).await?,
        };
        let group = config.group.clone();
        self.submit(Command::Create(Wanted { config, tails })).await?;
        self.describe(&group).await
    }

    async fn reset(&self, config: GroupConfig) -> Result<GroupDescription, Problem> {
        let group = config.group.clone();
        let before = self.describe(&group).await?;
        let tails = self.tails(&config).await?;
        self.submit(Command::Reset(Wanted { config, tails })).await?;
        self.drop_document(&group, before.generation).await;
        self.describe(&group).await
    }

    async fn delete(&self, group: GroupName) -> Result<(), Problem> {
        let before = match self.describe(&group).await {
            Ok(before) => before,
            Err(problem) if problem.code == Code::NotFound => return Ok(()),
            Err(problem) => return Err(problem),
        };
        self.submit(Command::Delete(group.clone())).await?;
        self.drop_document(&group, before.generation).await;
        Ok(())
    }

    async fn describe(&self, group: &GroupName) -> Result<GroupDescription, Problem> {
        self.ledger.look(|state| state.groups().describe(group).map_err(|error| Problem::from(&error))).await
    }

    async fn submit(&self, command: Command) -> Result<(), Problem> {
        self.ledger.submit(StateCommand::Groups(command)).await.map(drop)
    }

    /// The present end of every index that is named with a bound of kind `Tail`.
    async fn tails(&self, config: &GroupConfig) -> Result<BTreeMap<IndexName, StreamCut>, Problem> {
        let bounds = config.from.iter().chain(&config.to);
        let mut tails = BTreeMap::new();
        for (index, _) in bounds.filter(|(_, bound)| **bound == CutKind::Tail).take(2 * super::INDEXES_MAX) {
            let present = self.ledger.look(|state| state.live_stream(index).map(|s| tail::present(s.graph()))).await?;
            let measured = tail::measure(&self.bus, &present).await?;
            tails.insert(index.clone(), measured.iter().map(|one| (one.segment, one.end)).collect());
        }
        Ok(tails.into_iter().map(|(index, cut)| (index, StreamCut(cut))).collect())
    }

    /// Nobody reads under this generation any more; what stays behind costs a row and harms nobody.
    async fn drop_document(&self, group: &GroupName, generation: u64) {
        if let Err(error) = self.documents.delete(&format!("{group}.{generation}")).await {
            tracing::warn!(%group, generation, %error, "document of a former generation stays");
        }
    }
}

impl Handler<bus::Incoming<CreateGroup>> for Desk {
    type Result = ResponseFuture<Result<GroupDescription, Problem>>;

    fn handle(&mut self, incoming: bus::Incoming<CreateGroup>, _: &mut Context<Self>) -> Self::Result {
        let readers = self.readers.clone();
        Box::pin(async move { readers.create(incoming.request).await })
    }
}

impl Handler<bus::Incoming<ResetGroup>> for Desk {
    type Result = ResponseFuture<Result<GroupDescription, Problem>>;

    fn handle(&mut self, incoming: bus::Incoming<ResetGroup>, _: &mut Context<Self>) -> Self::Result {
        let readers = self.readers.clone();
        Box::pin(async move { readers.reset(incoming.request).await })
    }
}

impl Handler<bus::Incoming<DeleteGroup>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: bus::Incoming<DeleteGroup>, _: &mut Context<Self>) -> Self::Result {
        let readers = self.readers.clone();
        Box::pin(async move { readers.delete(incoming.request.group).await.map(|()| Empty {}) })
    }
}

impl Handler<bus::Incoming<ReportConsumed>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: bus::Incoming<ReportConsumed>, _: &mut Context<Self>) -> Self::Result {
        let readers = self.readers.clone();
        Box::pin(async move { readers.submit(Command::Report(incoming.request)).await.map(|()| Empty {}) })
    }
}

impl Handler<bus::Incoming<DescribeGroup>> for Desk {
    type Result = ResponseFuture<Result<GroupDescription, Problem>>;

    fn handle(&mut self, incoming: bus::Incoming<DescribeGroup>, _: &mut Context<Self>) -> Self::Result {
        let readers = self.readers.clone();
        Box::pin(async move { readers.describe(&incoming.request.group).await })
    }
}
