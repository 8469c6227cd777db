//! What a request takes of its index's quota.
//!
//! Quotas bind whoever comes with a binding. The admin token is not bound: whoever runs the platform must be able to look.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use host::QueryPermit;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};
use types::{IndexName, JobId, RuleId, Timestamp, hash64};
use wire::{
    Problem,
    alerter::RuleDescription,
    job_manager::{JobDescription, JobStatus, Sink},
};

use crate::{api::Door, auth::Principal};

/// Locks under which continuous queries begin; indexes that share one wait for each other.
const TURNS: u32 = 64;
/// How long somebody waits for the turn, which lasts as long as job-manager needs to answer twice.
const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Whose turn it is to begin a continuous query; clones share it.
#[derive(Clone)]
pub(crate) struct Turns(Arc<[Arc<Mutex<()>>]>);

/// The right to begin a continuous query: nobody else of this gateway counts those of the index meanwhile.
#[must_use = "the turn is over when it is dropped"]
pub(crate) struct Turn {
    /// Nobody without a limit waits for anybody.
    _guard: Option<OwnedMutexGuard<()>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self((0..TURNS).map(|_| Arc::default()).collect())
    }
}

impl Turns {
    /// Errors: Throttled `TooManyQueries` after [`TURN_WITHIN`].
    async fn take(&self, index: &IndexName) -> Result<Turn, Problem> {
        let place = usize::try_from(hash64(index.as_str().as_bytes()) % u64::from(TURNS)).unwrap_or(0);
        let turn = timeout(TURN_WITHIN, Arc::clone(&self.0[place]).lock_owned()).await;
        let late =
            |_| Problem::throttled("TooManyQueries", "too many jobs and rules begin at once; try again in a moment");
        turn.map(|guard| Turn { _guard: Some(guard) }).map_err(late)
    }
}

/// What is to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begun<'a> {
    /// A job.
    Job(&'a JobId),
    /// A rule, which will have a job.
    Rule(&'a RuleId),
}

/// Lines of a request on their way.
pub(crate) struct Taken<'a> {
    door: &'a Door,
    index: &'a IndexName,
    /// When they were counted; `None`: they were not.
    at: Option<Timestamp>,
}

impl Taken<'_> {
    /// Takes note that so many events, and bytes, added nothing to the index.
    pub(crate) fn give_back(&self, events: u64, bytes: u64) {
        if let Some(at) = self.at.filter(|_| events > 0 || bytes > 0) {
            self.door.quotas.give_back(self.index, [(events, bytes, at)]);
        }
    }
}

impl Door {
    /// Lets the lines of a request pass, all of them or none. Errors: Throttled `QuotaBytes`, `QuotaRate`.
    pub(crate) fn take<'a>(
        &'a self,
        principal: &Principal,
        index: &'a IndexName,
        (events, bytes): (u64, u64),
    ) -> Result<Taken<'a>, Problem> {
        let at = if is_bound(principal) { Some(self.quotas.take(index, events, bytes)?) } else { None };
        Ok(Taken { door: self, index, at })
    }

    /// Opens a query or tail of these indexes. Errors: Throttled `QuotaQueries`.
    pub(crate) async fn open_queries(
        &self,
        principal: &Principal,
        indexes: impl IntoIterator<Item = &IndexName>,
    ) -> Result<Vec<QueryPermit>, Problem> {
        let mut permits = Vec::new();
        for index in indexes.into_iter().collect::<BTreeSet<_>>().into_iter().filter(|_| is_bound(principal)) {
            let running = if self.quotas.limits_queries(index) { self.running(index).await } else { 0 };
            permits.push(self.quotas.query(index, running)?);
        }
        Ok(permits)
    }

    /// Lets one more continuous query of an index begin, unless it is one that is there; it has begun when the turn is dropped.
    ///
    /// Counting and beginning are one step of this gateway: of several gateways each may let one begin at the same moment.
    /// Errors: Throttled `QuotaQueries`, `TooManyQueries`.
    pub(crate) async fn begin_continuous(
        &self,
        principal: &Principal,
        index: &IndexName,
        begun: Begun<'_>,
    ) -> Result<Turn, Problem> {
        if !is_bound(principal) || !self.quotas.limits_queries(index) {
            return Ok(Turn { _guard: None });
        }
        let turn = self.turns.take(index).await?;
        let (jobs, rules) = (self.platform.jobs().await?.jobs, self.platform.rules().await?.rules);
        let is_there = match begun {
            // What has ended under this id is no reason to begin.
            Begun::Job(job) => jobs.iter().any(|known| known.job == *job && is_live(known)),
            Begun::Rule(rule) => rules.iter().any(|known| known.rule.rule == *rule),
        };
        if !is_there {
            // From here on it is counted as what it is.
            drop(self.quotas.query(index, continuous(&jobs, &rules, index))?);
        }
        Ok(turn)
    }

    /// Takes note that a continuous query began or ended.
    pub(crate) fn continuous_changed(&self) {
        self.running.invalidate(&());
    }

    /// Continuous queries of an index, as of some seconds ago.
    pub(crate) async fn running(&self, index: &IndexName) -> u32 {
        let known = match self.running.get(&()) {
            Some(known) => known,
            None => {
                let known = match self.platform.jobs().await {
                    Ok(list) => Arc::new(by_source(&list.jobs)),
                    // Who cannot be asked must not keep anybody from searching.
                    Err(problem) => {
                        tracing::warn!(%problem, "continuous queries not counted against quotas");
                        Arc::default()
                    }
                };
                self.running.insert((), Arc::clone(&known));
                known
            }
        };
        known.get(index).copied().unwrap_or(0)
    }
}

fn is_bound(principal: &Principal) -> bool {
    matches!(principal, Principal::Bound(_))
}

fn is_live(job: &JobDescription) -> bool {
    !matches!(job.status, JobStatus::Cancelled | JobStatus::Failed)
}

fn by_source(jobs: &[JobDescription]) -> HashMap<IndexName, u32> {
    let mut by_source = HashMap::new();
    for job in jobs.iter().filter(|job| is_live(job)) {
        if let Some(source) = &job.source {
            *by_source.entry(source.clone()).or_default() += 1;
        }
    }
    by_source
}

/// Continuous queries of an index, those of rules included that have no job yet.
fn continuous(jobs: &[JobDescription], rules: &[RuleDescription], index: &IndexName) -> u32 {
    let of_rule = |job: &JobDescription| match &job.sink {
        Sink::Alerts(rule) if is_live(job) => Some(rule.clone()),
        Sink::Alerts(_) | Sink::Index(_) | Sink::Elsewhere(_) => None,
    };
    let with_job: BTreeSet<RuleId> = jobs.iter().filter_map(of_rule).collect();
    let reads = |text: &str| query::parse_continuous(text).is_ok_and(|read| read.source == *index);
    let without = rules.iter().filter(|known| !with_job.contains(&known.rule.rule) && reads(&known.rule.query)).count();
    let jobs = by_source(jobs).get(index).copied().unwrap_or(0);
    jobs.saturating_add(u32::try_from(without).unwrap_or(u32::MAX))
}
