//! Delegations: what programs outside the platform show at every door, so that each door knows which stream is theirs.

use std::{sync::Arc, time::Duration};

use actix::{Context, Handler, ResponseFuture};
use bus::{Incoming, keys::Signer};
use host::{Host, StartError};
use types::{Clock, Timestamp};
use wire::{
    Code, Problem,
    coordinator::GrantDelegation,
    delegation::{Bearer, Delegation, Granted},
};

use crate::actor::Desk;

const SECOND: i64 = 1_000_000_000;

/// Grants delegations, with a key of this process.
#[derive(Clone)]
pub(crate) struct Grants {
    signer: Arc<Signer>,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
}

impl Grants {
    /// Makes the key, and tells every door of it before anything is signed.
    pub(crate) async fn begin(host: &Host, lifetime: Duration) -> Result<Self, StartError> {
        let signer = Arc::new(Signer::generate()?);
        let announcing = host.bus.announce_signer(&signer, host.common.journal_replicas).await?;
        let stop = host.stop.clone();
        host.spawn("signer", async move { stop.run_until_cancelled(announcing).await.unwrap_or_default() });
        Ok(Self { signer, lifetime, clock: host.clock.clone() })
    }

    fn grant(&self, bearer: Bearer, stream: u32) -> Result<Granted, Problem> {
        let now = self.clock.now();
        // Tokens count whole seconds.
        let expires = Timestamp::from_nanos((now + self.lifetime).nanos().div_euclid(SECOND) * SECOND);
        let lifetime_ms = u64::try_from(expires.since(now).as_millis()).unwrap_or(u64::MAX);
        let token = self.signer.sign(&Delegation { bearer, stream, expires }, now)?;
        Ok(Granted { token, stream, lifetime_ms })
    }
}

impl Handler<Incoming<GrantDelegation>> for Desk {
    type Result = ResponseFuture<Result<Granted, Problem>>;

    fn handle(&mut self, incoming: Incoming<GrantDelegation>, _: &mut Context<Self>) -> Self::Result {
        let (grants, ledger) = (self.grants.clone(), self.ledger.clone());
        Box::pin(async move {
            let Some(bearer) = incoming.bearer else {
                let message = "delegations are for programs outside the platform";
                return Err(Problem::new(Code::Forbidden, "NotDelegable", message));
            };
            let stream = ledger.look(|state| state.live_stream(&bearer.index).map(|s| s.graph().stream())).await?;
            grants.grant(bearer, stream)
        })
    }
}
