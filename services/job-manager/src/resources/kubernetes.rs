//! The task workers as a StatefulSet: looks what there is, and tells the API server what there should be.

use std::{path::Path, time::Duration};

use host::{Host, Ledger, StartError};
use kubernetes::Cluster;
use tokio_util::sync::CancellationToken;
use types::{Clock, ReplicaId};
use wire::{
    Problem, Service,
    views::{MEMBERS, Member},
};

use crate::{
    config::{Config, Resources},
    metrics,
    resources::policy::{Limits, Policy, Seen},
    state::State,
};

/// How often slots and workers are compared.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Keeps the number of task workers, while this replica leads.
#[derive(Clone)]
pub(crate) struct Manager {
    cluster: Cluster,
    host: Host,
    ledger: Ledger<State>,
    stateful_set: String,
    limits: Limits,
}

impl Manager {
    /// The manager that the settings ask for; nothing is sent to the API server yet.
    pub(crate) async fn new(config: &Config, host: &Host, ledger: &Ledger<State>) -> Result<Option<Self>, StartError> {
        if config.resources == Resources::None {
            return Ok(None);
        }
        let kubeconfig = Some(config.resources_kubeconfig.as_str()).filter(|path| !path.is_empty()).map(Path::new);
        let replica = host.replica.to_string();
        let cluster = Cluster::connect(kubeconfig, "logboom-job-manager", &replica).await.map_err(StartError::other)?;
        Ok(Some(Self {
            cluster,
            host: host.clone(),
            ledger: ledger.clone(),
            stateful_set: config.resources_stateful_set.clone(),
            limits: Limits {
                min: config.resources_workers_min,
                max: config.resources_workers_max,
                cooldown: config.resources_cooldown.0,
                shrink_after: config.resources_shrink_after.0,
            },
        }))
    }

    /// Leads until the token is cancelled. Whatever does not answer is asked again at the next look.
    pub(crate) async fn lead(self, token: CancellationToken) {
        let mut policy = Policy::new(self.limits);
        let work = async {
            loop {
                if let Err(problem) = self.look(&mut policy).await {
                    metrics::RESIZES.with("failed").inc();
                    tracing::warn!(%problem, "task workers cannot be counted or changed");
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        token.run_until_cancelled(work).await;
    }

    async fn look(&self, policy: &mut Policy) -> Result<(), Problem> {
        let common = &self.host.common;
        let members = self.host.bus.bucket(MEMBERS, Some(common.lease_ttl.0), common.journal_replicas).await?;
        let workers = members.list(&format!("{}.", Service::TaskWorker)).await?;
        let slots = workers.iter().filter_map(|(_, entry)| wire::decode::<Member>(&entry.value).ok());
        // Workers of one StatefulSet have the same settings, but for a moment while these change.
        let slots_each = slots.map(|worker| u32::from(worker.slots)).filter(|slots| *slots > 0).min().unwrap_or(0);
        let (slots_wanted, used) = self.ledger.read(|state| (state.wanted_slots(), state.used_slots()));
        let busy = used.keys().filter_map(|worker| place(&self.stateful_set, worker)).max().unwrap_or(0);
        let namespace = self.cluster.own_namespace();
        let unavailable = |error: kubernetes::KubernetesError| Problem::unavailable("KubernetesFailed", error);
        let size = self.cluster.size(namespace, &self.stateful_set).await.map_err(unavailable)?;
        let seen = Seen { slots_wanted, slots_each, workers: size.wanted, busy };
        metrics::SLOTS_WANTED.set(slots_wanted);
        let Some(wanted) = policy.decide(&seen, bus::SystemClock.now()) else { return Ok(()) };
        self.cluster.resize(namespace, &self.stateful_set, wanted).await.map_err(unavailable)?;
        policy.done(bus::SystemClock.now());
        metrics::RESIZES.with("done").inc();
        tracing::info!(from = seen.workers, to = wanted, slots_wanted, slots_each, busy, "task workers changed");
        Ok(())
    }
}

/// Which worker of its StatefulSet a replica is, counted from 1; `None` if it has another name.
fn place(stateful_set: &str, worker: &ReplicaId) -> Option<u32> {
    let number = worker.as_str().strip_prefix(stateful_set)?.strip_prefix('-')?;
    number.parse::<u32>().ok()?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_their_place_in_their_name() {
        for (worker, expected) in [
            ("task-worker-0", Some(1)),
            ("task-worker-12", Some(13)),
            ("task-worker-x", None),
            ("task-worker", None),
            ("worker-3", None),
            ("task-worker-4294967295", None),
        ] {
            assert_eq!(place("task-worker", &worker.parse().unwrap()), expected, "{worker}");
        }
    }
}
