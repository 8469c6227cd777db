//! Keeps one job of the job manager for each rule, and none for rules that are gone.

use bus::Bus;
use host::Ledger;
use tracing::warn;
use types::RuleId;
use wire::{
    Problem,
    job_manager::{CancelJob, JobName, NewJob, Sink, StartAt, SubmitJob},
};

use crate::{
    condition::Condition,
    state::{Command, State},
};

/// Submits and cancels the jobs of rules; every step is idempotent and journaled when it is done.
#[derive(Clone)]
pub(crate) struct Jobs {
    pub(crate) bus: Bus,
    pub(crate) ledger: Ledger<State>,
}

impl Jobs {
    /// Submits the rule's job if the job manager does not have it yet.
    pub(crate) async fn settle(&self, rule: &RuleId) -> Result<(), Problem> {
        let known =
            self.ledger.read(|state| state.rules.get(rule).map(|r| (r.rule.clone(), r.job.clone(), r.submitted)));
        let Some((rule, job, false)) = known else { return Ok(()) };
        let early = Condition::of(&rule)?.early();
        let new = NewJob {
            job: job.clone(),
            text: rule.query.clone(),
            sink: Some(Sink::Alerts(rule.rule.clone())),
            start: StartAt::Latest,
            parallelism: 0,
            early,
            options: wire::job_manager::JobOptions::default(),
        };
        self.bus.call::<SubmitJob>(&(), &new).await?;
        self.ledger.submit(Command::JobTaken(rule.rule, job)).await.map(drop)
    }

    /// Does everything that is still to be done; what fails is done next time.
    pub(crate) async fn settle_all(&self) {
        let waiting: Vec<RuleId> = self
            .ledger
            .read(|state| state.rules.values().filter(|r| !r.submitted).map(|r| r.rule.rule.clone()).collect());
        for rule in waiting {
            if let Err(problem) = self.settle(&rule).await {
                warn!(%rule, %problem, "job of a rule not submitted yet");
            }
        }
        self.cancel_orphans().await;
    }

    /// Cancels the jobs of rules that were replaced or deleted.
    pub(crate) async fn cancel_orphans(&self) {
        let orphans: Vec<_> = self.ledger.read(|state| state.orphans.iter().cloned().collect());
        for job in orphans {
            let cancelled = self.bus.call::<CancelJob>(&(), &JobName { job: job.clone() }).await;
            let settled = match cancelled {
                Ok(_) => self.ledger.submit(Command::JobGone(job.clone())).await.map(drop),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = settled {
                warn!(%job, %problem, "job of a deleted rule not cancelled yet");
            }
        }
    }
}
