//! What operators ask of the state beyond what platforms do.

use types::{BindingId, InstanceId, Timestamp};

use super::{Event, Phase, State};
use crate::error::BrokerError;

/// What is remembered of an instance that was forgotten before it was deprovisioned.
const FORGOTTEN: &str = "an operator has made the broker forget the service instance";

impl State {
    /// The name under which the work of an operation runs; a retry gives it another one, which has not failed yet.
    pub(crate) fn effect(&self, instance: &InstanceId, token: &str) -> String {
        match self.retries.get(instance) {
            Some(retries) => format!("{token}~{retries}"),
            None => token.to_owned(),
        }
    }

    /// The instance of a binding.
    pub(crate) fn owner(&self, id: &BindingId) -> Option<&InstanceId> {
        self.bindings.get(id).map(|there| &there.request.instance)
    }

    /// The operations that have not ended on an instance and its bindings.
    pub(crate) fn pending_of(&self, id: &InstanceId) -> Vec<String> {
        let own = self.instances.get(id).map(|there| (&there.operation, there.restores()));
        let bindings = self.bindings_of(id).map(|(_, b)| (&b.operation, false));
        let open = own.into_iter().chain(bindings).filter(|(operation, restores)| !operation.ended || *restores);
        open.map(|(operation, _)| operation.token.clone()).collect()
    }

    pub(super) fn retry(&self, id: InstanceId) -> Result<Vec<Event>, BrokerError> {
        if !self.instances.contains_key(&id) {
            return Err(BrokerError::UnknownInstance(id));
        }
        if self.pending_of(&id).is_empty() {
            Err(BrokerError::NothingPending(id))
        } else {
            Ok(vec![Event::Retried { id }])
        }
    }

    pub(super) fn abandon(&self, id: InstanceId, force: bool) -> Result<Vec<Event>, BrokerError> {
        match self.instances.get(&id) {
            None => Err(BrokerError::UnknownInstance(id)),
            Some(there) if matches!(there.phase, Phase::Live | Phase::Updating) && !force => {
                Err(BrokerError::InUse(id))
            }
            Some(_) => Ok(vec![Event::InstanceAbandoned { id }]),
        }
    }

    pub(super) fn retried(&mut self, id: &InstanceId) {
        if self.instances.contains_key(id) {
            *self.retries.entry(id.clone()).or_default() += 1;
        }
    }

    /// To its platform an instance that was being deprovisioned is gone, as was asked for.
    pub(super) fn abandoned(&mut self, id: &InstanceId, at: Timestamp) {
        let is_end = self.instances.get(id).is_some_and(|there| there.operation.kind.is_end());
        self.instance_gone(id, (!is_end).then(|| FORGOTTEN.to_owned()), at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Command, tests::*};

    fn decided(state: &mut State, command: Command) -> Result<usize, BrokerError> {
        run(state, command).map(|events| events.len())
    }

    #[test]
    fn a_retry_gives_what_is_under_way_another_name() {
        let mut state = State::default();
        let retry = || Command::Retry(id("i"));
        assert_eq!(decided(&mut state, retry()), Err(BrokerError::UnknownInstance(id("i"))));
        run(&mut state, provision("i", "shop", "p")).unwrap();
        assert_eq!(state.effect(&id("i"), "provision-0"), "provision-0");
        assert_eq!(decided(&mut state, retry()), Ok(1));
        assert_eq!(decided(&mut state, retry()), Ok(1));
        assert_eq!(state.effect(&id("i"), "provision-0"), "provision-0~2");
        end(&mut state, "i", None);
        assert_eq!(decided(&mut state, retry()), Err(BrokerError::NothingPending(id("i"))));
        run(&mut state, bind("i", "b", "p")).unwrap();
        assert_eq!(decided(&mut state, retry()), Ok(1), "a binding counts too");
        run(&mut state, Command::Deprovision(id("i"))).unwrap();
        end(&mut state, "i", None);
        assert!(state.retries.is_empty(), "what is gone needs no count");
    }

    #[test]
    fn only_what_is_not_in_use_is_forgotten_without_force() {
        let abandon = |force| Command::Abandon { id: id("i"), force };
        let mut state = State::default();
        assert_eq!(decided(&mut state, abandon(true)), Err(BrokerError::UnknownInstance(id("i"))));
        run(&mut state, provision("i", "shop", "p")).unwrap();
        assert_eq!(decided(&mut state.clone(), abandon(false)), Ok(1), "it cannot be used yet");
        end(&mut state, "i", None);
        run(&mut state, bind("i", "b", "p")).unwrap();
        assert_eq!(decided(&mut state, abandon(false)), Err(BrokerError::InUse(id("i"))));
        let mut forced = state.clone();
        assert_eq!(decided(&mut forced, abandon(true)), Ok(1));
        assert!(forced.instance(&id("i")).is_none() && forced.bindings().next().is_none());
        assert!(forced.ended_instance(&id("i")).unwrap().failure.is_some());
        assert_eq!(decided(&mut forced, provision("j", "shop", "p")), Ok(1), "the name is free here");
        // To its platform a deprovisioning that is given up has succeeded.
        run(&mut state, Command::Deprovision(id("i"))).unwrap();
        assert_eq!(decided(&mut state, abandon(false)), Ok(1));
        assert_eq!(state.ended_instance(&id("i")).unwrap().failure, None);
    }
}
