//! Provision, fetch, deprovision.

use data_encoding::HEXLOWER;
use ring::digest;
use serde_json::{Value, json};
use types::{IndexName, InstanceId, ScopeName};

use crate::{
    alerts::{Alert, DefaultRule, default_rules},
    catalog::{Catalog, Chosen, OWN},
    desk::{
        Asked, Desk, Settled, instance_id,
        parameters::{kept, sealed},
        patience, removed, settled, too_long, with_usability,
    },
    osb::{Answer, Body},
    state::{Command, Event, InstanceRequest, Kind, NewInstance, Operation, Phase, Wanted},
    wanted::{self, Shape},
};

impl Desk {
    pub(super) async fn provision(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let body = Body::parse(&asked.request.body)?;
        let parameters = body.parameters()?;
        let mut request = InstanceRequest {
            service_id: body.required("service_id")?,
            plan_id: body.required("plan_id")?,
            organization_guid: body.required("organization_guid")?,
            space_guid: body.required("space_guid")?,
            parameters: kept("parameters", &parameters)?,
        };
        let context = context(&body)?;
        let id = instance_id(instance)?;
        let catalog = self.catalog.current();
        // What is there already may have a plan that is not offered any more.
        let there = self.ledger.read(|state| state.instance(&id).map(|there| there.request.parameters.clone()));
        let is_there = there.is_some();
        let chosen = match chosen(&catalog, &request.service_id, &request.plan_id, is_there) {
            Err(refusal) if !is_there => return Err(self.sure(refusal).await),
            found => found?,
        };
        chosen.check_provision(&parameters).map_err(Answer::bad_request)?;
        maintenance(&body, &chosen)?;
        let asynchronous = chosen.offering.asynchronous;
        if asynchronous && !wait {
            return Err(Answer::async_required());
        }
        let shape =
            wanted::wanted(&chosen.plan.defaults, &parameters).map_err(|e| Answer::bad_request(e.to_string()))?;
        let wanted = begun_as(&id, &request.space_guid, &chosen, shape)?;
        let replace = |value: &Value, with: &mut dyn FnMut(&Value) -> Value| chosen.replace_instance(value, with);
        request.parameters = sealed(&self.keys, &id, &parameters, there.as_deref(), &replace)?;
        let dashboard_url = self.dashboard_url(&wanted.index);
        let new = NewInstance {
            request,
            wanted,
            identity: asked.identity.clone(),
            maintenance: chosen.plan.maintenance_version.clone(),
            context,
            seconds_max: chosen.plan.maximum_polling_duration,
        };
        let command = Command::Provision { id: id.clone(), new: Box::new(new) };
        let events = self.ledger.submit(command).await?;
        let is_new = !events.is_empty();
        let there = self.ledger.read(|state| state.instance(&id).map(|i| (i.phase, i.operation.token.clone())));
        let done = || Answer::of(if is_new { 201 } else { 200 }, &json!({ "dashboard_url": dashboard_url }));
        let token = match (events.first(), there) {
            // It may have ended already, and be gone.
            (Some(Event::ProvisionBegun { number, .. }), _) => Operation::token_of(Kind::Provision, *number),
            (_, None) => return Err(Answer::concurrency()),
            (_, Some((Phase::Live | Phase::Updating, _))) => return Ok(done()),
            (_, Some((Phase::Beginning | Phase::Ending, token))) => token,
        };
        let accepted = || Answer::of(202, &json!({ "operation": token, "dashboard_url": dashboard_url }));
        if wait && (!is_new || asynchronous) {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            settled(&token, state.instance(&id).map(|i| &i.operation), state.ended_instance(&id))
        });
        match end.await {
            Some(Settled::Done) => Ok(done()),
            // A refusal for good is 400: other words make a platform try for a week.
            Some(Settled::Failed(failure)) => Err(Answer::bad_request(failure.reason)),
            Some(Settled::Superseded) => Err(Answer::concurrency()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }

    pub(super) async fn fetch(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service instance");
        let id: InstanceId = instance.parse().map_err(|_| unknown())?;
        let Some(there) = self.ledger.read(|state| state.instance(&id).cloned()) else {
            return Err(self.sure(unknown()).await);
        };
        match there.phase {
            Phase::Live => {}
            Phase::Updating => return Err(Answer::concurrency()),
            Phase::Beginning | Phase::Ending => return Err(self.sure(unknown()).await),
        }
        let parameters: Value = serde_json::from_str(there.parameters()).unwrap_or_default();
        let known = self.catalog.current().known(&there.request.service_id, there.plan_id());
        let mut body = json!({
            "service_id": there.request.service_id,
            "plan_id": there.plan_id(),
            "dashboard_url": self.dashboard_url(&there.wanted.index),
            // Without its schema nobody can say which parameter is a secret.
            "parameters": known.map_or_else(|| json!({}), |chosen| chosen.redact_instance(&parameters)),
        });
        if let Some(version) = there.terms.maintenance.filter(|_| asked.version.has(15)) {
            body["maintenance_info"] = json!({ "version": version });
        }
        Ok(Answer::of(200, &body))
    }

    pub(super) async fn deprovision(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let service_id = ids(asked)?.0;
        let gone = || Answer::gone("there is no such service instance");
        let id: InstanceId = instance.parse().map_err(|_| gone())?;
        if self.ledger.read(|state| state.instance(&id).is_none()) {
            return Err(self.sure(gone()).await);
        }
        // A plan that left the catalog can still be deprovisioned.
        let asynchronous = self.catalog.current().offering(&service_id).is_some_and(|o| o.asynchronous);
        if asynchronous && !wait {
            return Err(Answer::async_required());
        }
        let events = self.ledger.submit(Command::Deprovision(id.clone())).await?;
        let token = match events.first() {
            // It may have ended already, and something else have begun.
            Some(Event::DeprovisionBegun { number, .. }) => Operation::token_of(Kind::Deprovision, *number),
            _ => match self.ledger.read(|state| repeated(state.instance(&id).map(|i| &i.operation)))? {
                Some(token) => token,
                None => return Ok(Answer::done()),
            },
        };
        let accepted = || Answer::of(202, &json!({ "operation": token }));
        if wait && (events.is_empty() || asynchronous) {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            removed(&token, state.instance(&id).map(|i| &i.operation), state.ended_instance(&id))
        });
        match end.await {
            Some(Settled::Done) => Ok(Answer::done()),
            Some(Settled::Failed(failure)) => {
                // Of former versions it is not known why; most often it was this.
                let word = if failure.kind.is_empty() { "NotEmpty" } else { failure.kind.as_str() };
                let refusal = Answer::refuse(422, word, failure.reason);
                Err(with_usability(refusal, asked.version, None))
            }
            // It was refused, and another operation has begun since: whoever asks again learns more.
            Some(Settled::Superseded) => Err(Answer::concurrency()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }
}

/// The token of a deletion that another request repeats; `None` if it has ended and nothing is left of what was to be deleted.
fn repeated(now: Option<&Operation>) -> Result<Option<String>, Answer> {
    match now {
        Some(now) if now.kind == Kind::Deprovision => Ok(Some(now.token.clone())),
        // It was refused, and another operation has begun since: whoever asks again learns more.
        Some(now) if now.kind != Kind::Provision => Err(Answer::concurrency()),
        // What is there was made after it.
        Some(_) | None => Ok(None),
    }
}

/// A plan that is offered; for what is there already, one that once was is good enough.
pub(super) fn chosen(catalog: &Catalog, service_id: &str, plan_id: &str, is_there: bool) -> Result<Chosen, Answer> {
    if catalog.offering(service_id).is_none() {
        return Err(Answer::bad_request("service_id is not in the catalog"));
    }
    let found = catalog.find(service_id, plan_id);
    let found = if is_there { found.or_else(|| catalog.known(service_id, plan_id)) } else { found };
    let unknown = || "plan_id is not a plan of this service".to_owned();
    found.ok_or_else(|| Answer::bad_request(catalog.lacking(service_id, plan_id).unwrap_or_else(unknown)))
}

/// The version that the platform wants, which must be the plan's. An empty object is tolerated: some clients always send it.
pub(super) fn maintenance(body: &Body, chosen: &Chosen) -> Result<Option<String>, Answer> {
    let Some(version) = body.object("maintenance_info")?.and_then(|info| info.get("version")) else { return Ok(None) };
    let version = version.as_str().ok_or_else(|| Answer::bad_request("maintenance_info.version must be a string"))?;
    match &chosen.plan.maintenance_version {
        Some(plan) if plan == version => Ok(Some(version.to_owned())),
        Some(plan) => Err(Answer::maintenance_conflict(format!("the plan has version {plan}; reload the catalog"))),
        None => Err(Answer::maintenance_conflict("this plan has no maintenance_info; reload the catalog")),
    }
}

/// What the platform says around an instance, to be kept.
pub(super) fn context(body: &Body) -> Result<Option<String>, Answer> {
    let context = body.object("context")?;
    context.map(|context| kept("context", &Value::Object(context.clone()))).transpose()
}

/// `service_id` and `plan_id` of a query, which must be there; what they are is only a hint.
pub(super) fn ids(asked: &Asked) -> Result<(String, String), Answer> {
    let required = |key: &str| {
        let value = asked.request.query(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| Answer::bad_request(format!("{key} is required and must not be empty")))
    };
    Ok((required("service_id")?, required("plan_id")?))
}

fn begun_as(id: &InstanceId, space: &str, chosen: &Chosen, shape: Shape) -> Result<Wanted, Answer> {
    let index = shape.index.map_or_else(|| derived_name(id), Ok)?;
    Ok(Wanted {
        scope: scope(space)?,
        alerts: alerts(chosen, &shape.alerts, &index)?,
        index,
        backend: chosen.offering.backend.clone(),
        segment_count: shape.segment_count,
        retention_days: shape.retention_days,
        options: shape.options,
    })
}

/// The default rules of an index. Only events in our own store are watched.
pub(super) fn alerts(chosen: &Chosen, alerts: &[Alert], index: &IndexName) -> Result<Vec<DefaultRule>, Answer> {
    let rules = default_rules(alerts, index).map_err(|unfit| Answer::bad_request(unfit.to_string()))?;
    if rules.is_empty() || chosen.offering.backend == OWN {
        return Ok(rules);
    }
    Err(Answer::bad_request(format!(
        "parameters/alerts: an index of the back-end {} has none",
        chosen.offering.backend
    )))
}

/// The name of an index whose owner named none: it must be known before anything is created.
fn derived_name(id: &InstanceId) -> Result<IndexName, Answer> {
    format!("ix-{}", hash16(id.as_str())).parse().map_err(|_| Answer::bad_request("instance_id gives no index name"))
}

/// The tenant: the platform's space, which is a namespace in Kubernetes.
fn scope(space: &str) -> Result<ScopeName, Answer> {
    let scope = space.parse().or_else(|_| format!("space-{}", hash16(space)).parse());
    scope.map_err(|_| Answer::bad_request("space_guid gives no scope"))
}

fn hash16(text: &str) -> String {
    HEXLOWER.encode(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::BUILT_IN;

    #[test]
    fn a_repeated_deletion_is_done_only_if_nothing_is_left() {
        let operation = |kind| {
            let begun = types::Timestamp::from_nanos(1);
            Operation { kind, token: Operation::token_of(kind, 3), begun, ended: false, deadline: None, failure: None }
        };
        assert_eq!(repeated(None), Ok(None));
        assert_eq!(repeated(Some(&operation(Kind::Provision))), Ok(None));
        assert_eq!(repeated(Some(&operation(Kind::Deprovision))), Ok(Some("deprovision-3".into())));
        assert_eq!(repeated(Some(&operation(Kind::Update))), Err(Answer::concurrency()));
    }

    #[test]
    fn an_instance_has_a_name_and_a_scope_whatever_it_asks_for() {
        let catalog = Catalog::parse(BUILT_IN).unwrap();
        let (service, plan) = ("0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10", "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01");
        let small = chosen(&catalog, service, plan, false).unwrap();
        let id: InstanceId = "i".parse().unwrap();
        let plain = begun_as(&id, "a space of old", &small, Shape::default()).unwrap();
        assert!(plain.index.as_str().starts_with("ix-") && plain.index.as_str().len() == 19);
        assert!(plain.scope.as_str().starts_with("space-"));
        let named = Shape { index: Some("shop".parse().unwrap()), segment_count: 9, ..Shape::default() };
        let own = begun_as(&id, "team", &small, named).unwrap();
        assert_eq!((own.index.as_str(), own.scope.as_str(), own.segment_count), ("shop", "team", 9));
        assert_eq!(own.backend, "own");
    }
}
