//! The actor that answers the alerter's calls, one handler per call.

use actix::{Actor, Context, Handler, ResponseFuture};
use bus::Incoming;
use host::Ledger;
use wire::{
    Empty, Problem,
    alerter::{DeleteRule, ListRules, ObserveRows, PutRule, Rule, RuleDescription, RuleList},
};

use crate::{
    condition::Condition,
    jobs::Jobs,
    metrics::TRANSITIONS,
    state::{Command, Event, State},
};

/// Answers calls while this replica leads; its doors are closed otherwise.
pub(crate) struct Desk {
    pub(crate) ledger: Ledger<State>,
    pub(crate) jobs: Jobs,
}

impl Actor for Desk {
    type Context = Context<Self>;
}

/// Answers when the rule's job is taken: what is published afterwards is observed.
async fn put(ledger: Ledger<State>, jobs: Jobs, rule: Rule) -> Result<RuleDescription, Problem> {
    Condition::of(&rule)?;
    let name = rule.rule.clone();
    ledger.submit(Command::Put(rule)).await?;
    jobs.settle(&name).await?;
    let deleted = || Problem::conflict("RuleDeleted", format_args!("rule {name} was deleted meanwhile"));
    ledger.look(|state| state.describe(&name).ok_or_else(deleted)).await
}

impl Handler<Incoming<PutRule>> for Desk {
    type Result = ResponseFuture<Result<RuleDescription, Problem>>;

    fn handle(&mut self, incoming: Incoming<PutRule>, _: &mut Context<Self>) -> Self::Result {
        Box::pin(put(self.ledger.clone(), self.jobs.clone(), incoming.request))
    }
}

impl Handler<Incoming<DeleteRule>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<DeleteRule>, _: &mut Context<Self>) -> Self::Result {
        let (ledger, jobs) = (self.ledger.clone(), self.jobs.clone());
        Box::pin(async move {
            ledger.submit(Command::Delete(incoming.request)).await?;
            jobs.cancel_orphans().await;
            Ok(Empty {})
        })
    }
}

impl Handler<Incoming<ListRules>> for Desk {
    type Result = ResponseFuture<Result<RuleList, Problem>>;

    fn handle(&mut self, incoming: Incoming<ListRules>, _: &mut Context<Self>) -> Self::Result {
        let ledger = self.ledger.clone();
        Box::pin(async move {
            ledger.whole().await?;
            ledger.read(|state| state.page(&incoming.request))
        })
    }
}

impl Handler<Incoming<ObserveRows>> for Desk {
    type Result = ResponseFuture<Result<Empty, Problem>>;

    fn handle(&mut self, incoming: Incoming<ObserveRows>, _: &mut Context<Self>) -> Self::Result {
        let ledger = self.ledger.clone();
        Box::pin(async move {
            // Its sender forgets the rows with this answer. A leader whose time is over may not know the rule, or that it fires: what
            // changes nothing here is answered only after the journal was asked.
            let events = ledger.submit(Command::Observe(incoming.request)).await?;
            let changed = events.iter().filter(|e| matches!(e, Event::Changed { .. })).count();
            TRANSITIONS.add(u64::try_from(changed).unwrap_or(u64::MAX));
            Ok(Empty {})
        })
    }
}
