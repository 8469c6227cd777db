//! Gives the NATS servers the present tenants account: its lanes, and the user keys that they must refuse.

use std::sync::Arc;

use bus::{
    Bus,
    keys::{self, AccountSpec},
};
use host::Ledger;
use tokio::sync::Mutex;
use types::Clock;
use wire::Problem;

use crate::{metrics, state::State};

/// Signs and pushes the account.
#[derive(Clone)]
pub(crate) struct Accounts {
    pub(crate) ledger: Ledger<State>,
    /// A connection in the system account.
    pub(crate) system: Bus,
    pub(crate) operator_seed: Arc<str>,
    /// The public key of the tenants account.
    pub(crate) account: String,
    pub(crate) lane_count: u16,
    pub(crate) clock: Arc<dyn Clock>,
    /// One push at a time: an older list of revocations must not overtake a newer one.
    pub(crate) turn: Arc<Mutex<()>>,
}

impl Accounts {
    /// Pushes the account as the journal has it; servers drop the live connections of revoked users when it returns.
    pub(crate) async fn push(&self) -> Result<(), Problem> {
        let _turn = self.turn.lock().await;
        if !self.ledger.is_leader() {
            return Err(Problem::unavailable("NotLeader", "this replica does not lead any more; ask again"));
        }
        let revocations = self.ledger.read(State::revocations);
        metrics::REVOCATIONS.set(revocations.len());
        let spec = AccountSpec::tenants(self.account.clone(), self.lane_count, revocations);
        let jwt = keys::account_jwt(&spec, &self.operator_seed, self.clock.now())?;
        self.system.push_account_claims(&jwt).await.map_err(|error| {
            Problem::unavailable("AccountNotPushed", format_args!("the NATS servers did not take the account: {error}"))
        })?;
        metrics::PUSHES.inc();
        Ok(())
    }
}
