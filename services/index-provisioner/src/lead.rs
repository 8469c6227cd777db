//! What a leading provisioner does besides answering: it makes tokens and the account true, and ends what was begun.

use std::{collections::BTreeSet, time::Duration};

use actix::Addr;
use futures::future::join_all;
use host::{Host, Ledger};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use types::{BindingId, IndexName, Timestamp};
use wire::{Problem, Service, index_provisioner::IndexDescription};

use crate::{
    actor::Desk,
    api,
    backend::own::Own,
    sealed::Sealed,
    state::{Binding, BindingPhase, Index, OWN, Phase, State},
    work::Work,
};

/// How often the leader looks for ended bindings and unfinished work.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Sweeps between two pushes of the account. Nothing should be lost, but what a deposed leader or a restored server directory
/// turned back must not stay so.
const SWEEPS_PER_PUSH: u32 = 60;

/// Everything that leading needs.
#[derive(Clone)]
pub(crate) struct Leader {
    pub(crate) host: Host,
    pub(crate) ledger: Ledger<State>,
    pub(crate) own: Own,
    /// Secrets that cannot be derived; `None` without keys to seal them.
    pub(crate) sealed: Option<Sealed>,
    pub(crate) work: Work,
    pub(crate) desk: Addr<Desk>,
}

impl Leader {
    /// Leads until the token is cancelled.
    pub(crate) async fn lead(self, token: CancellationToken) {
        host::keep_serving(token, Service::IndexProvisioner, || self.serve()).await;
    }

    async fn serve(&self) -> Result<(), Problem> {
        let live = self.ledger.read(own_bindings);
        self.own.rewrite_tokens(&live).await?;
        let (settled, unsettled) = self.ledger.read(own_indexes);
        self.own.rewrite_quotas(&settled, &unsettled).await?;
        if let Some(sealed) = &self.sealed {
            sealed.rewrite(&self.ledger.read(every_binding)).await?;
        }
        let _doors = api::open(&self.host.bus, &self.host.replica, &self.desk).await?;
        tracing::info!(bindings = live.len(), "index-provisioner leads");
        // A back-end that does not answer holds up nobody but itself.
        let resuming = join_all(self.work.backends().map(|backend| self.resume_for_ever(backend)));
        tokio::join!(self.sweep_for_ever(), resuming);
        Ok(())
    }

    async fn resume_for_ever(&self, backend: &'static str) {
        loop {
            self.work.resume(backend).await;
            sleep(SWEEP_INTERVAL).await;
        }
    }

    async fn sweep_for_ever(&self) {
        loop {
            for _ in 0..SWEEPS_PER_PUSH {
                self.work.sweep().await;
                sleep(SWEEP_INTERVAL).await;
            }
            if let Err(problem) = self.own.accounts.push().await {
                tracing::warn!(%problem, "tenants account was not pushed again");
            }
        }
    }
}

/// Our own indexes that stand as described, and the names of those that are on their way to or from there.
fn own_indexes(state: &State) -> (Vec<IndexDescription>, BTreeSet<IndexName>) {
    let own = || state.indexes().filter(|index| index.description.backend == OWN);
    let settled = |index: &&Index| index.phase == Phase::Live && index.update.is_none();
    let live = own().filter(settled).map(|index| index.description.clone()).collect();
    (live, own().filter(|index| !settled(index)).map(|index| index.description.index.clone()).collect())
}

/// Every binding and when it was issued.
fn every_binding(state: &State) -> BTreeSet<(BindingId, Timestamp)> {
    state.bindings().map(|b| (b.description.binding.clone(), b.description.created)).collect()
}

/// The live bindings on our own back-end.
fn own_bindings(state: &State) -> Vec<(IndexDescription, Binding)> {
    let live = state.bindings().filter(|b| b.phase == BindingPhase::Live);
    live.filter_map(|binding| {
        let index = &state.index(&binding.description.instance)?.description;
        (index.backend == OWN).then(|| (index.clone(), binding.clone()))
    })
    .collect()
}
