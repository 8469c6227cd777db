//! Bind, rotate, fetch, unbind.

use serde_json::{Value, json};
use types::{BindingId, InstanceId};
use wire::views::Role;

use crate::{
    desk::{
        Asked, Desk, Settled,
        instances::{chosen, ids},
        parameters::sealed,
        patience, removed, settled, too_long,
    },
    error::UNKNOWN_BINDING,
    osb::{Answer, Body, own_id},
    state::{BindingRequest, Command, Event, Kind, NewBind, Operation, State},
    wanted::number,
};

impl Desk {
    /// Binds, or rotates. It waits for an instance that is still being made or changed: some platforms take anything but success,
    /// `ConcurrencyError` too, for the end.
    pub(super) async fn bind(&self, asked: &Asked, instance: &str, binding: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let body = Body::parse(&asked.request.body)?;
        // To older platforms the word means nothing.
        let predecessor = if asked.version.has(17) { body.optional("predecessor_binding_id")? } else { None };
        let (id, instance, command) = match predecessor {
            Some(predecessor) => self.rotation(asked, instance, binding, &predecessor).await?,
            None => self.binding(asked, &body, instance, binding).await?,
        };
        // Before anything can be issued.
        let awaited = self.handover.wait_for(&id);
        let events = match self.ledger.submit(command).await {
            Ok(events) => events,
            // The predecessor stands in the body, not in the path.
            Err(problem) if problem.kind == UNKNOWN_BINDING => return Err(Answer::bad_request(problem.message)),
            Err(problem) => return Err(problem.into()),
        };
        let is_new = !events.is_empty();
        let read = || self.ledger.read(|state| state.binding(&instance, &id).cloned());
        let (token, service_id, is_over) = match (events.first(), read()) {
            // It may have ended already, and be gone.
            (Some(Event::BindBegun { number, request, .. }), _) => {
                (Operation::token_of(Kind::Bind, *number), request.service_id.clone(), false)
            }
            (_, Some(there)) => (there.operation.token, there.request.service_id, there.operation.ended),
            (_, None) => return Err(Answer::concurrency()),
        };
        let accepted = || Answer::of(202, &json!({ "operation": token }));
        let asynchronous = self.catalog.current().offering(&service_id).is_some_and(|o| o.asynchronous);
        if wait && !is_over && (!is_new || asynchronous) {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            let current = state.binding(&instance, &id).map(|b| &b.operation);
            settled(&token, current, state.ended_binding(&id))
        });
        match end.await {
            Some(Settled::Done) => {
                let there = read().ok_or_else(Answer::concurrency)?;
                let issued = awaited.and_then(|awaited| awaited.take(&token));
                let body = self.credentials(asked.version, &id, &there, issued).await?;
                Ok(Answer::of(if is_new { 201 } else { 200 }, &body))
            }
            Some(Settled::Failed(failure)) => Err(Answer::bad_request(failure.reason)),
            Some(Settled::Superseded) => Err(Answer::concurrency()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }

    async fn binding(
        &self,
        asked: &Asked,
        body: &Body,
        instance: &str,
        binding: &str,
    ) -> Result<(BindingId, InstanceId, Command), Answer> {
        let (service_id, plan_id) = (body.required("service_id")?, body.required("plan_id")?);
        let parameters = body.parameters()?;
        let names_app = body.names_app()?;
        body.object("context")?;
        let catalog = self.catalog.current();
        let unknown = || Answer::not_found("there is no such service instance");
        let parsed = instance.parse::<InstanceId>();
        let is_there = parsed.as_ref().is_ok_and(|id| self.ledger.read(|state| state.instance(id).is_some()));
        let chosen = match chosen(&catalog, &service_id, &plan_id, is_there) {
            Err(refusal) if !is_there => return Err(self.sure(refusal).await),
            found => found?,
        };
        if !chosen.is_bindable() {
            return Err(Answer::bad_request("service instances of this plan cannot be bound"));
        }
        let id = binding_id(binding)?;
        let instance = parsed.map_err(|_| unknown())?;
        chosen.check_bind(&parameters).map_err(Answer::bad_request)?;
        if chosen.offering.requires_app && !names_app {
            return Err(Answer::requires_app());
        }
        let there = self.ledger.read(|state| state.binding(&instance, &id).map(|b| b.request.parameters.clone()));
        let replace = |value: &Value, with: &mut dyn FnMut(&Value) -> Value| chosen.replace_binding(value, with);
        let text = sealed(&self.keys, &instance, &parameters, there.as_deref(), &replace)?;
        let request =
            BindingRequest { instance: instance.clone(), service_id, plan_id, parameters: text, predecessor: None };
        let new = NewBind {
            request,
            role: role(&parameters),
            ttl_seconds: number(&parameters, "ttl_seconds").map_err(|unfit| Answer::bad_request(unfit.to_string()))?,
            identity: asked.identity.clone(),
            seconds_max: chosen.plan.maximum_polling_duration,
        };
        Ok((id.clone(), instance, Command::Bind { id, new: Box::new(new) }))
    }

    /// Of a rotation the body says nothing but the predecessor; everything else is copied from that.
    async fn rotation(
        &self,
        asked: &Asked,
        instance: &str,
        binding: &str,
        predecessor: &str,
    ) -> Result<(BindingId, InstanceId, Command), Answer> {
        let unknown = || Answer::not_found("there is no such service instance");
        let instance: InstanceId = instance.parse().map_err(|_| unknown())?;
        let id = binding_id(binding)?;
        let Some(there) = self.ledger.read(|state| state.instance(&instance).cloned()) else {
            return Err(self.sure(unknown()).await);
        };
        let plan = self.catalog.current().known(&there.request.service_id, there.plan_id());
        if !plan.as_ref().is_some_and(|chosen| chosen.plan.binding_rotatable) {
            return Err(Answer::bad_request("bindings of this plan cannot be rotated"));
        }
        let no_id = |_| Answer::bad_request("predecessor_binding_id is no id of a service binding");
        let command = Command::Rotate {
            id: id.clone(),
            instance: instance.clone(),
            predecessor: own_id(predecessor).parse().map_err(no_id)?,
            identity: asked.identity.clone(),
            seconds_max: plan.and_then(|chosen| chosen.plan.maximum_polling_duration),
        };
        Ok((id, instance, command))
    }

    pub(super) async fn fetch_binding(&self, asked: &Asked, instance: &str, binding: &str) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service binding");
        let instance: InstanceId = instance.parse().map_err(|_| unknown())?;
        let id: BindingId = binding.parse().map_err(|_| unknown())?;
        let now = self.clock.now();
        let Some(there) = self.ledger.read(|state| state.usable_binding(&instance, &id, now).cloned()) else {
            return Err(self.sure(unknown()).await);
        };
        let mut body = self.credentials(asked.version, &id, &there, None).await?;
        let parameters = serde_json::from_str(&there.request.parameters).unwrap_or_default();
        let known = self.catalog.current().known(&there.request.service_id, &there.request.plan_id);
        // Without its schema nobody can say which parameter is a secret.
        body["parameters"] = known.map_or_else(|| json!({}), |chosen| chosen.redact_binding(&parameters));
        Ok(Answer::of(200, &body))
    }

    pub(super) async fn unbind(&self, asked: &Asked, instance: &str, binding: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let gone = || Answer::gone("there is no such service binding");
        let instance: InstanceId = instance.parse().map_err(|_| gone())?;
        let id: BindingId = binding.parse().map_err(|_| gone())?;
        // Whether it exists comes first; for instances it is the other way round.
        if self.ledger.read(|state| state.binding(&instance, &id).is_none()) {
            return Err(self.sure(gone()).await);
        }
        let (service_id, _) = ids(asked)?;
        let asynchronous = self.catalog.current().offering(&service_id).is_some_and(|o| o.asynchronous);
        let events = self.ledger.submit(Command::Unbind(instance.clone(), id.clone())).await?;
        let under_way = |state: &State| {
            let operation = &state.binding(&instance, &id)?.operation;
            (operation.kind == Kind::Unbind).then(|| operation.token.clone())
        };
        let token = match events.first() {
            Some(Event::UnbindBegun { number, .. }) => Operation::token_of(Kind::Unbind, *number),
            _ => match self.ledger.read(under_way) {
                Some(token) => token,
                // The unbinding that this one repeats has ended meanwhile.
                None => return Ok(Answer::done()),
            },
        };
        let accepted = || Answer::of(202, &json!({ "operation": token }));
        // There may have been nothing to revoke yet.
        let is_over = events.len() > 1;
        if wait && !is_over && (events.is_empty() || asynchronous) {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            removed(&token, state.binding(&instance, &id).map(|b| &b.operation), state.ended_binding(&id))
        });
        match end.await {
            Some(Settled::Done) => Ok(Answer::done()),
            // Nothing ends an unbinding but its success.
            Some(Settled::Failed(_) | Settled::Superseded) => Err(Answer::concurrency()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }
}

fn binding_id(text: &str) -> Result<BindingId, Answer> {
    text.parse().map_err(|_| Answer::bad_request("binding_id must be 1 to 128 of A-Z a-z 0-9 _ -"))
}

/// The schema lets only the three words through.
fn role(parameters: &Value) -> Role {
    match parameters.get("role").and_then(Value::as_str) {
        Some("write") => Role::Write,
        Some("read") => Role::Read,
        _ => Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_without_a_role_may_do_everything() {
        assert_eq!(role(&json!({})), Role::Admin);
        assert_eq!(role(&json!({"role": "read"})), Role::Read);
    }
}
