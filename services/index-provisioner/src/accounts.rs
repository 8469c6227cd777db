//! Gives the NATS servers the present tenants account: its lanes, and the user keys that they must refuse.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bus::{
    Bus,
    keys::{self, AccountSpec, CLAIMS_UPDATES},
};
use data_encoding::BASE64URL_NOPAD;
use host::Ledger;
use parking_lot::Mutex as Cell;
use serde_json::Value;
use tokio::{sync::Mutex, time::sleep};
use types::{Clock, hash64};
use wire::Problem;

use crate::{metrics, state::State};

/// Own versions that are told from others' when they are heard; more are never on their way at once.
const PUSHED_KNOWN_MAX: usize = 64;

/// Pause before the servers are listened to again.
const PAUSE: Duration = Duration::from_secs(1);

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
    /// Hashes of the versions that were pushed and not heard yet.
    pub(crate) pushed: Arc<Cell<VecDeque<u64>>>,
}

impl Accounts {
    /// Pushes the account as the journal has it; servers drop the live connections of revoked users when it returns.
    pub(crate) async fn push(&self) -> Result<(), Problem> {
        let _turn = self.turn.lock().await;
        self.ledger.confirm().await?;
        let revocations = self.ledger.read(State::revocations);
        metrics::REVOCATIONS.set(revocations.len());
        let spec = AccountSpec::tenants(self.account.clone(), self.lane_count, revocations);
        let jwt = keys::account_jwt(&spec, &self.operator_seed, self.clock.now())?;
        {
            let mut pushed = self.pushed.lock();
            pushed.push_back(hash64(jwt.as_bytes()));
            if pushed.len() > PUSHED_KNOWN_MAX {
                pushed.pop_front();
            }
        }
        self.system.push_account_claims(&jwt).await.map_err(|error| {
            Problem::unavailable("AccountNotPushed", format_args!("the NATS servers did not take the account: {error}"))
        })?;
        metrics::PUSHES.inc();
        Ok(())
    }

    /// Pushes the account again whenever somebody else has pushed it: a former leader, whose list of revocations is an old one.
    ///
    /// The servers take whatever is signed and comes last, so this cannot be prevented, only repaired; two that believe to lead do not
    /// answer each other for ever, since each asks the journal before it pushes.
    pub(crate) async fn guard(&self) {
        loop {
            match self.system.subscribe_raw(CLAIMS_UPDATES).await {
                Ok(mut updates) => {
                    // Those from before are not heard any more.
                    self.pushed.lock().clear();
                    while let Some(update) = updates.next().await {
                        if !self.was_pushed(&update.payload)
                            && subject(&update.payload).as_deref() == Some(self.account.as_str())
                        {
                            tracing::warn!("tenants account was pushed by another replica; it is pushed again");
                            if let Err(problem) = self.push().await {
                                tracing::warn!(%problem, "tenants account was not pushed again");
                            }
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "pushes of others are not heard"),
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether a version is one that this replica has just pushed; each is its own once, for an old one may come again.
    fn was_pushed(&self, jwt: &[u8]) -> bool {
        let mut pushed = self.pushed.lock();
        let known = pushed.iter().position(|hash| *hash == hash64(jwt));
        known.and_then(|at| pushed.remove(at)).is_some()
    }
}

/// Whose claims a token holds.
fn subject(jwt: &[u8]) -> Option<String> {
    let claims = jwt.split(|byte| *byte == b'.').nth(1)?;
    let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(claims).ok()?).ok()?;
    Some(claims["sub"].as_str()?.to_owned())
}
