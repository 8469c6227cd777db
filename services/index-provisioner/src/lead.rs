//! What a leading provisioner does besides answering: it makes tokens and the account true, and ends what was begun.

use std::{collections::BTreeSet, time::Duration};

use actix::Addr;
use futures::future::join_all;
use host::{Host, Ledger};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use types::{BindingId, Timestamp};
use wire::{Problem, Service};

use crate::{actor::Desk, api, backend::own::Own, sealed::Sealed, state::State, work::Work};

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
        self.own.rewrite_tokens().await?;
        self.own.rewrite_views().await?;
        if let Some(sealed) = &self.sealed {
            let known = || async { self.ledger.confirm().await.map(|()| self.ledger.read(every_binding)) };
            sealed.rewrite(known).await?;
        }
        let _doors = api::open(&self.host.bus, &self.host.replica, &self.desk).await?;
        tracing::info!(bindings = self.ledger.read(|state| state.bindings().count()), "index-provisioner leads");
        // A back-end that does not answer holds up nobody but itself.
        let resuming = join_all(self.work.backends().map(|backend| self.resume_for_ever(backend)));
        tokio::join!(self.sweep_for_ever(), self.own.accounts.guard(), resuming);
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

/// Every binding and when it was issued.
fn every_binding(state: &State) -> BTreeSet<(BindingId, Timestamp)> {
    state.bindings().map(|b| (b.description.binding.clone(), b.description.created)).collect()
}
