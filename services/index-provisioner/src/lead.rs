//! What a leading provisioner does besides answering: it makes tokens and the account true, and ends what was begun.

use std::time::Duration;

use actix::Addr;
use host::{Host, Ledger};
use tokio_util::sync::CancellationToken;
use wire::{Problem, Service, index_provisioner::IndexDescription};

use crate::{
    actor::Desk,
    api,
    backend::own::Own,
    state::{Binding, BindingPhase, OWN, State},
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
        self.own.rewrite(&live).await?;
        let _doors = api::open(&self.host.bus, &self.host.replica, &self.desk).await?;
        tracing::info!(bindings = live.len(), "index-provisioner leads");
        loop {
            for _ in 0..SWEEPS_PER_PUSH {
                self.work.sweep().await;
                tokio::time::sleep(SWEEP_INTERVAL).await;
            }
            if let Err(problem) = self.own.accounts.push().await {
                tracing::warn!(%problem, "tenants account was not pushed again");
            }
        }
    }
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
