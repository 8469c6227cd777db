//! Provision, fetch, update, deprovision.

use data_encoding::HEXLOWER;
use ring::digest;
use serde_json::{Value, json};
use types::{IndexName, InstanceId, ScopeName};

use crate::{
    catalog::{Chosen, index_name},
    desk::{Asked, Desk, Settled, instance_id, patience, settled, too_long},
    osb::{Answer, Body, canonical},
    state::{Command, InstanceRequest, Phase, Wanted},
};

impl Desk {
    pub(super) async fn provision(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let body = Body::parse(&asked.request.body)?;
        let parameters = body.parameters()?;
        let request = InstanceRequest {
            service_id: body.required("service_id")?,
            plan_id: body.required("plan_id")?,
            organization_guid: body.required("organization_guid")?,
            space_guid: body.required("space_guid")?,
            parameters: canonical(&parameters),
        };
        body.object("context")?;
        let chosen = self.chosen(&request.service_id, &request.plan_id)?;
        let id = instance_id(instance)?;
        chosen.check_provision(&parameters).map_err(Answer::bad_request)?;
        body.check_maintenance()?;
        let asynchronous = chosen.offering.asynchronous;
        if asynchronous && !wait {
            return Err(Answer::async_required());
        }
        let wanted = wanted(&id, &request, chosen, &parameters)?;
        let dashboard_url = self.dashboard_url(&wanted.index);
        let command = Command::Provision { id: id.clone(), request, wanted, identity: asked.identity.clone() };
        let is_new = !self.ledger.submit(command).await?.is_empty();
        let operation = self.ledger.read(|state| state.instance(&id).map(|i| i.operation.clone()));
        let Some(operation) = operation else { return Err(Answer::concurrency()) };
        let accepted = || Answer::of(202, &json!({ "operation": operation.token, "dashboard_url": dashboard_url }));
        if wait && !is_new && !operation.ended {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            settled(&operation.token, state.instance(&id).map(|i| &i.operation), state.ended_instance(&id))
        });
        match end.await {
            Some(Settled::Done) => {
                Ok(Answer::of(if is_new { 201 } else { 200 }, &json!({ "dashboard_url": dashboard_url })))
            }
            // A refusal for good is 400: other words make a platform try for a week.
            Some(Settled::Failed(reason)) => Err(Answer::bad_request(reason)),
            Some(Settled::Superseded) => Err(Answer::concurrency()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }

    pub(super) fn fetch(&self, instance: &str) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service instance");
        let id: InstanceId = instance.parse().map_err(|_| unknown())?;
        self.ledger.read(|state| {
            let there = state.instance(&id).filter(|i| i.phase == Phase::Live).ok_or_else(unknown)?;
            let parameters: Value = serde_json::from_str(&there.request.parameters).unwrap_or_default();
            Ok(Answer::of(
                200,
                &json!({
                    "service_id": there.request.service_id,
                    "plan_id": there.request.plan_id,
                    "dashboard_url": self.dashboard_url(&there.wanted.index),
                    "parameters": parameters,
                }),
            ))
        })
    }

    /// Plans and parameters are fixed at this stage: what changes nothing succeeds, anything else is refused for good.
    pub(super) fn update(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        asked.request.accepts_incomplete()?;
        let body = Body::parse(&asked.request.body)?;
        let service_id = body.required("service_id")?;
        let plan_id = body.optional("plan_id")?;
        body.object("context")?;
        let wanted = body.object("parameters")?.cloned();
        let unknown = || Answer::not_found("there is no such service instance");
        let id: InstanceId = instance.parse().map_err(|_| unknown())?;
        let there = self.ledger.read(|state| state.instance(&id).cloned()).ok_or_else(unknown)?;
        if there.request.service_id != service_id {
            return Err(Answer::bad_request("service_id is not that of the service instance"));
        }
        body.check_maintenance()?;
        if there.phase != Phase::Live {
            return Err(Answer::concurrency());
        }
        if plan_id.is_some_and(|plan| plan != there.request.plan_id) {
            return Err(Answer::bad_request("the plan of a log index cannot be changed: plan_updateable is false"));
        }
        let present: Value = serde_json::from_str(&there.request.parameters).unwrap_or_default();
        match wanted.and_then(|wanted| wanted.into_iter().find(|(key, value)| present.get(key) != Some(value))) {
            None => Ok(Answer::done()),
            Some((key, _)) => Err(Answer::bad_request(format!(
                "parameters/{key}: the parameters of a log index are fixed when it is provisioned"
            ))),
        }
    }

    pub(super) async fn deprovision(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let service_id = ids(asked)?.0;
        let gone = || Answer::gone("there is no such service instance");
        let id: InstanceId = instance.parse().map_err(|_| gone())?;
        if self.ledger.read(|state| state.instance(&id).is_none()) {
            return Err(gone());
        }
        // A plan that left the catalog can still be deprovisioned.
        let asynchronous = self.catalog.offering(&service_id).is_some_and(|o| o.asynchronous);
        if asynchronous && !wait {
            return Err(Answer::async_required());
        }
        let is_new = !self.ledger.submit(Command::Deprovision(id.clone())).await?.is_empty();
        let token = self.ledger.read(|state| state.instance(&id).map(|i| i.operation.token.clone()));
        let Some(token) = token else { return Ok(Answer::done()) };
        let accepted = || Answer::of(202, &json!({ "operation": token }));
        if wait && !is_new {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            let still = state.instance(&id).is_some_and(|i| i.operation.token == token);
            (!still).then_some(())
        });
        match end.await {
            Some(()) => Ok(Answer::done()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }

    pub(super) fn chosen(&self, service_id: &str, plan_id: &str) -> Result<Chosen<'_>, Answer> {
        if self.catalog.offering(service_id).is_none() {
            return Err(Answer::bad_request("service_id is not in the catalog"));
        }
        let chosen = self.catalog.find(service_id, plan_id);
        chosen.ok_or_else(|| Answer::bad_request("plan_id is not a plan of this service"))
    }
}

/// `service_id` and `plan_id` of a query, which must be there; what they are is only a hint.
pub(super) fn ids(asked: &Asked) -> Result<(String, String), Answer> {
    let required = |key: &str| {
        let value = asked.request.query(key).filter(|value| !value.is_empty());
        value.ok_or_else(|| Answer::bad_request(format!("{key} is required and must not be empty")))
    };
    Ok((required("service_id")?, required("plan_id")?))
}

fn wanted(
    id: &InstanceId,
    request: &InstanceRequest,
    chosen: Chosen<'_>,
    parameters: &Value,
) -> Result<Wanted, Answer> {
    let index = match index_name(parameters) {
        Some(name) => name.map_err(|error| Answer::bad_request(format!("parameters/index: {error}")))?,
        None => derived_name(id)?,
    };
    let number = |key: &str| parameters.get(key).and_then(Value::as_u64);
    let defaults = chosen.plan.defaults;
    Ok(Wanted {
        scope: scope(&request.space_guid)?,
        index,
        backend: chosen.offering.backend.clone(),
        segment_count: number("segments").and_then(|n| u16::try_from(n).ok()).unwrap_or(defaults.segments),
        retention_days: number("retention_days").and_then(|n| u32::try_from(n).ok()).or(defaults.retention_days),
    })
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
    use crate::catalog::{BUILT_IN, Catalog};

    #[test]
    fn parameters_win_over_the_plan() {
        let catalog = Catalog::parse(BUILT_IN).unwrap();
        let (service_id, plan_id) =
            ("0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10".to_owned(), "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01".to_owned());
        let chosen = catalog.find(&service_id, &plan_id).unwrap();
        let request = InstanceRequest {
            service_id: service_id.clone(),
            plan_id: plan_id.clone(),
            organization_guid: "o".into(),
            space_guid: "a space of old".into(),
            parameters: String::new(),
        };
        let id: InstanceId = "i".parse().unwrap();
        let plain = wanted(&id, &request, chosen, &json!({})).unwrap();
        assert_eq!((plain.segment_count, plain.retention_days), (1, Some(7)));
        assert!(plain.index.as_str().starts_with("ix-") && plain.index.as_str().len() == 19);
        assert!(plain.scope.as_str().starts_with("space-"));
        let asked = json!({"index": "shop", "segments": 9, "retention_days": 90});
        let own = wanted(&id, &request, chosen, &asked).unwrap();
        assert_eq!((own.index.as_str(), own.segment_count, own.retention_days), ("shop", 9, Some(90)));
    }
}
