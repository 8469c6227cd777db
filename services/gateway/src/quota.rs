//! What a request takes of its index's quota.
//!
//! Quotas bind whoever comes with a binding. The admin token is not bound: whoever runs the platform must be able to look.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use host::QueryPermit;
use types::{IndexName, JobId};
use wire::{
    Problem,
    job_manager::{JobDescription, JobStatus},
};

use crate::{api::Door, auth::Principal};

/// Lines of a request on their way; given back unless they were stored.
pub(crate) struct Taken<'a> {
    door: &'a Door,
    index: &'a IndexName,
    events: u64,
    bytes: u64,
}

impl Taken<'_> {
    /// Takes note that nothing of it was stored.
    pub(crate) fn give_back(self) {
        self.door.quotas.give_back(self.index, self.events, self.bytes);
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
        if !is_bound(principal) {
            return Ok(Taken { door: self, index, events: 0, bytes: 0 });
        }
        self.quotas.take(index, events, bytes)?;
        Ok(Taken { door: self, index, events, bytes })
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

    /// Refuses one more continuous query of an index, unless it is one that is there. Errors: Throttled `QuotaQueries`.
    pub(crate) async fn check_continuous(
        &self,
        principal: &Principal,
        index: &IndexName,
        job: Option<&JobId>,
    ) -> Result<(), Problem> {
        if !is_bound(principal) || !self.quotas.limits_queries(index) {
            return Ok(());
        }
        let jobs = self.platform.jobs().await?.jobs;
        if jobs.iter().any(|known| Some(&known.job) == job) {
            return Ok(());
        }
        let running = by_source(&jobs).get(index).copied().unwrap_or(0);
        // From here on it is counted as a job.
        drop(self.quotas.query(index, running)?);
        Ok(())
    }

    /// Takes note that a continuous query began or ended.
    pub(crate) fn continuous_changed(&self) {
        self.running.invalidate(&());
    }

    /// Continuous queries of an index, as of some seconds ago.
    async fn running(&self, index: &IndexName) -> u32 {
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

fn by_source(jobs: &[JobDescription]) -> HashMap<IndexName, u32> {
    let mut by_source = HashMap::new();
    for job in jobs.iter().filter(|job| !matches!(job.status, JobStatus::Cancelled | JobStatus::Failed)) {
        *by_source.entry(job.source.clone()).or_default() += 1;
    }
    by_source
}
