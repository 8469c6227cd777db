//! The end of many bindings at once, in steps that each end and leave their progress in the journal.

use std::future::Future;

use tokio::time::Instant;
use types::BindingId;
use wire::{Problem, index_provisioner::IndexDescription};

use super::bounded;
use crate::{
    backend::{Backend, STEP_MAX, unfinished},
    state::Binding,
};

/// Revokes the bindings of an index that ends, some at a time, and has each lot journaled before the next begins.
///
/// `left` gives the first of those that are not revoked yet, `revoked` journals that some are. Of a lot that fails the bindings are
/// tried one by one, so that one that is slow holds up as few as possible.
/// Bounds: begins no lot after [`STEP_MAX`]; what is left then is for the next call, of this leader or of another.
/// Errors: the back-end's; `BackendUnavailable` while there are more.
pub(super) async fn revoke_all<F>(
    backend: &dyn Backend,
    index: &IndexDescription,
    left: impl Fn(usize) -> Vec<Binding>,
    revoked: impl Fn(Vec<BindingId>) -> F,
) -> Result<usize, Problem>
where
    F: Future<Output = Result<(), Problem>>,
{
    let (begun, mut size, mut count) = (Instant::now(), backend.revoked_at_once().max(1), 0);
    loop {
        let lot = left(size);
        if lot.is_empty() {
            return Ok(count);
        }
        if begun.elapsed() >= STEP_MAX {
            return Err(unfinished(format_args!("bindings of index {} are still being revoked", index.index)));
        }
        match bounded("revoke", backend.revoke(index, &lot)).await {
            Ok(()) => {
                count += lot.len();
                revoked(lot.into_iter().map(|binding| binding.description.binding).collect()).await?;
            }
            Err(_) if lot.len() > 1 => size = 1,
            Err(problem) => return Err(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap, time::Duration};

    use async_trait::async_trait;
    use host::ControlState;
    use tokio::time::sleep;
    use types::Timestamp;
    use wire::{
        index_provisioner::{IndexOptions, NewBinding, NewIndex},
        views::Role,
    };

    use super::*;
    use crate::{
        backend::{Found, unavailable},
        state::{Command, State},
    };

    /// Takes its time for each binding, and fails for one.
    struct Slow {
        each: Duration,
        at_once: usize,
        broken: Option<&'static str>,
    }

    #[async_trait]
    impl Backend for Slow {
        fn check(&self, _: Option<&IndexDescription>, _: &IndexDescription) -> Result<(), Problem> {
            Ok(())
        }
        async fn create(&self, _: &IndexDescription) -> Result<(), Problem> {
            Ok(())
        }
        async fn update(&self, _: &IndexDescription) -> Result<(), Problem> {
            Ok(())
        }
        async fn delete(&self, _: &IndexDescription) -> Result<(), Problem> {
            Ok(())
        }
        async fn describe(&self, _: &IndexDescription) -> Result<Found, Problem> {
            Ok(Found::Ours)
        }
        async fn holds_events(&self, _: &IndexDescription) -> Result<bool, Problem> {
            Ok(false)
        }
        async fn issue(&self, _: &IndexDescription, _: &Binding) -> Result<BTreeMap<String, String>, Problem> {
            Ok(BTreeMap::new())
        }
        fn revoked_at_once(&self) -> usize {
            self.at_once
        }
        async fn revoke(&self, _: &IndexDescription, bindings: &[Binding]) -> Result<(), Problem> {
            for binding in bindings {
                sleep(self.each).await;
                if self.broken == Some(binding.description.binding.as_str()) {
                    return Err(unavailable("this one never goes"));
                }
            }
            Ok(())
        }
    }

    fn run(state: &mut State, command: Command) {
        let at = Timestamp::from_millis(1);
        let events = state.decide(command, at).unwrap();
        events.iter().for_each(|event| state.apply(event, at));
    }

    /// An index that is being deleted, with so many bindings.
    fn ending(count: usize) -> State {
        let (mut state, instance) = (State::default(), "i".parse::<types::InstanceId>().unwrap());
        let new = NewIndex {
            instance: instance.clone(),
            scope: "team".parse().unwrap(),
            index: None,
            backend: "s3".into(),
            segment_count: 1,
            retention_days: None,
            options: IndexOptions::default(),
            order: 0,
        };
        run(&mut state, Command::BeginIndex { new, index: "shop".parse().unwrap() });
        run(&mut state, Command::EndIndex(instance.clone()));
        for number in 0..count {
            let binding = format!("b{number:04}").parse().unwrap();
            let new = NewBinding { instance: instance.clone(), binding, role: Role::Write, ttl_seconds: None };
            let issued = Timestamp::from_millis(1);
            run(&mut state, Command::BeginBinding { new, issued, public_key: String::new() });
        }
        run(&mut state, Command::BeginDeletion(instance, 0));
        state
    }

    async fn call(backend: &Slow, state: &RefCell<State>) -> Result<usize, Problem> {
        let instance = "i".parse().unwrap();
        let index = state.borrow().index(&instance).unwrap().description.clone();
        let left = |count| state.borrow().bindings_of(&instance).take(count).cloned().collect();
        let revoked = |ids| async move {
            run(&mut state.borrow_mut(), Command::EndRevocations(ids));
            Ok(())
        };
        revoke_all(backend, &index, left, revoked).await
    }

    /// In one step, as it was, 300 bindings of a second each are cut off after 25 s again and again, for ever.
    #[tokio::test(start_paused = true)]
    async fn many_slow_bindings_end_call_by_call_whoever_leads() {
        let slow = Slow { each: Duration::from_secs(1), at_once: 8, broken: None };
        let (mut state, mut calls) = (RefCell::new(ending(300)), 0);
        loop {
            let (begun, before) = (Instant::now(), state.borrow().bindings().count());
            let done = call(&slow, &state).await;
            assert!(begun.elapsed() <= STEP_MAX * 2, "{:?}", begun.elapsed());
            calls += 1;
            match done {
                Ok(_) => break,
                Err(problem) => assert!(problem.is_transient(), "{problem}"),
            }
            assert!(state.borrow().bindings().count() <= before - 25, "every call gets on");
            // Another leader goes on with what the journal says.
            let next = wire::decode(&wire::encode(&*state.borrow())).unwrap();
            state = RefCell::new(next);
        }
        assert!(state.borrow().bindings().next().is_none());
        assert!((5..=12).contains(&calls), "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lot_that_is_too_slow_is_taken_one_by_one() {
        let slow = Slow { each: Duration::from_secs(10), at_once: 8, broken: None };
        let state = RefCell::new(ending(3));
        call(&slow, &state).await.unwrap_err();
        assert_eq!(state.borrow().bindings().count(), 3, "three take longer than one step");
        let slow = Slow { at_once: 1, ..slow };
        assert_eq!(call(&slow, &state).await, Ok(3));
        // One that never goes holds up those behind it only.
        let broken = Slow { each: Duration::ZERO, at_once: 8, broken: Some("b0002") };
        let state = RefCell::new(ending(5));
        assert!(call(&broken, &state).await.unwrap_err().message.contains("never goes"));
        assert_eq!(state.borrow().bindings().count(), 3);
    }
}
