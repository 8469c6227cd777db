//! The gate through which a state is read for others: what is "not there" is sure, on a leader and on any other replica.

use std::time::Duration;

use tokio::time::timeout;
use wire::Problem;

use super::Ledger;
use crate::ControlState;

/// How long a question waits until its replica has what the journal had when it was asked. Longer than a change of leaders.
const BEHIND_MAX: Duration = Duration::from_secs(5);

impl<S: ControlState> Ledger<S> {
    /// Looks something up; a refusal, such as that it is not there, is only answered from a state with the whole journal.
    ///
    /// What is there is answered as this replica has it, without asking anybody. `f` is asked a second time where the first answer
    /// was a refusal that the state may have outgrown.
    /// Errors: what `f` refuses; `NotLeader`, or that NATS does not answer, where the refusal is not sure.
    pub async fn look<T, E: Into<Problem>>(&self, f: impl Fn(&S) -> Result<T, E>) -> Result<T, Problem> {
        let found: Result<T, Problem> = self.read(|state| f(state).map_err(Into::into));
        match found {
            Err(problem) if !problem.is_transient() => {
                self.whole().await?;
                self.read(|state| f(state).map_err(Into::into))
            }
            found => found,
        }
    }

    /// Waits until the state has everything that the journal has now; for listings, which say of all else that it is not there.
    ///
    /// A leader whose time is over steps down on the way, and goes on as any other replica.
    /// Bounds: 5 s. Errors: `NotLeader` after them, or that NATS does not answer.
    pub async fn whole(&self) -> Result<(), Problem> {
        let inner = &self.inner;
        if self.is_leader() && inner.confirm().await.is_ok() {
            return Ok(());
        }
        let last = inner.closing.run_until_cancelled(inner.journal.last_seq()).await;
        let last = last.ok_or_else(|| inner.not_leader())??;
        let mut changes = inner.changes.subscribe();
        match timeout(BEHIND_MAX, changes.wait_for(|seq| *seq >= last)).await {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let message = format!("{} of {} is behind its journal; ask again", inner.host.replica, S::SERVICE);
                Err(Problem::unavailable("NotLeader", message).retry_after_ms(100))
            }
        }
    }
}
