//! Bind, fetch, unbind.

use serde_json::{Value, json};
use types::{BindingId, InstanceId};
use wire::{
    index_provisioner::{IssueCredentials, NewBinding},
    views::Role,
};

use crate::{
    desk::{Asked, Desk, PATIENCE, Settled, instances::ids, patience, settled, too_long},
    osb::{Answer, Body, Version, canonical},
    state::{Binding, BindingRequest, Command, Phase},
};

/// The port of a NATS URL that names none.
const NATS_PORT: &str = "4222";

impl Desk {
    pub(super) async fn bind(&self, asked: &Asked, instance: &str, binding: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let body = Body::parse(&asked.request.body)?;
        let (service_id, plan_id) = (body.required("service_id")?, body.required("plan_id")?);
        let parameters = body.parameters()?;
        let names_app = body.names_app()?;
        body.object("context")?;
        let chosen = self.chosen(&service_id, &plan_id)?;
        if !chosen.is_bindable() {
            return Err(Answer::bad_request("service instances of this plan cannot be bound"));
        }
        let id: BindingId =
            binding.parse().map_err(|_| Answer::bad_request("binding_id must be 1 to 128 of A-Z a-z 0-9 _ -"))?;
        let unknown = || Answer::not_found("there is no such service instance");
        let instance: InstanceId = instance.parse().map_err(|_| unknown())?;
        chosen.check_bind(&parameters).map_err(Answer::bad_request)?;
        if chosen.offering.requires_app && !names_app {
            return Err(Answer::requires_app());
        }
        let asynchronous = chosen.offering.asynchronous;
        // Some platforms take ConcurrencyError on a bind for the end: wait for the instance instead.
        let begins =
            |state: &crate::state::State| state.instance(&instance).is_some_and(|i| i.phase == Phase::Beginning);
        self.settle(PATIENCE, |state| (!begins(state)).then_some(())).await.ok_or_else(Answer::concurrency)?;
        let request =
            BindingRequest { instance: instance.clone(), service_id, plan_id, parameters: canonical(&parameters) };
        let command = Command::Bind {
            id: id.clone(),
            request,
            role: role(&parameters),
            ttl_seconds: parameters.get("ttl_seconds").and_then(Value::as_u64),
            identity: asked.identity.clone(),
        };
        let is_new = !self.ledger.submit(command).await?.is_empty();
        let there = self.ledger.read(|state| state.binding(&instance, &id).cloned());
        let Some(there) = there else { return Err(Answer::concurrency()) };
        let accepted = || Answer::of(202, &json!({ "operation": there.operation.token }));
        if wait && !is_new && !there.operation.ended {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            let current = state.binding(&instance, &id).map(|b| &b.operation);
            settled(&there.operation.token, current, state.ended_binding(&id))
        });
        match end.await {
            Some(Settled::Done) => {
                let body = self.credentials(asked.version, &id, &there).await?;
                Ok(Answer::of(if is_new { 201 } else { 200 }, &body))
            }
            Some(Settled::Failed(reason)) => Err(Answer::bad_request(reason)),
            Some(Settled::Superseded) => Err(Answer::concurrency()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }

    pub(super) async fn fetch_binding(&self, asked: &Asked, instance: &str, binding: &str) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service binding");
        let instance: InstanceId = instance.parse().map_err(|_| unknown())?;
        let id: BindingId = binding.parse().map_err(|_| unknown())?;
        let there = self.ledger.read(|state| state.binding(&instance, &id).cloned());
        let there = there.filter(|b| b.phase == Phase::Live).ok_or_else(unknown)?;
        let mut body = self.credentials(asked.version, &id, &there).await?;
        body["parameters"] = serde_json::from_str(&there.request.parameters).unwrap_or_default();
        Ok(Answer::of(200, &body))
    }

    pub(super) async fn unbind(&self, asked: &Asked, instance: &str, binding: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let gone = || Answer::gone("there is no such service binding");
        let instance: InstanceId = instance.parse().map_err(|_| gone())?;
        let id: BindingId = binding.parse().map_err(|_| gone())?;
        // Whether it exists comes first; for instances it is the other way round.
        if self.ledger.read(|state| state.binding(&instance, &id).is_none()) {
            return Err(gone());
        }
        let (service_id, _) = ids(asked)?;
        let asynchronous = self.catalog.offering(&service_id).is_some_and(|o| o.asynchronous);
        let is_new = !self.ledger.submit(Command::Unbind(instance.clone(), id.clone())).await?.is_empty();
        let token = self.ledger.read(|state| state.binding(&instance, &id).map(|b| b.operation.token.clone()));
        let Some(token) = token else { return Ok(Answer::done()) };
        let accepted = || Answer::of(202, &json!({ "operation": token }));
        if wait && !is_new {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            let still = state.binding(&instance, &id).is_some_and(|b| b.operation.token == token);
            (!still).then_some(())
        });
        match end.await {
            Some(()) => Ok(Answer::done()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }

    /// The credentials of a live binding. They are derived anew each time, so that they are stored nowhere.
    async fn credentials(&self, version: Version, id: &BindingId, there: &Binding) -> Result<Value, Answer> {
        let issued = self.bus.call::<IssueCredentials>(&(), &new_binding(id, there)).await?;
        let mut values = issued.values;
        let index = values.get("index").cloned().unwrap_or_default();
        values.entry("nats_url".to_owned()).or_insert_with(|| self.nats_url.to_string());
        values.entry("http_url".to_owned()).or_insert_with(|| self.gateway_url.to_string());
        let ingest_url = format!("{}/api/v1/indexes/{index}/ingest", self.gateway_url);
        values.entry("ingest_url".to_owned()).or_insert(ingest_url);
        let expires_at = values.get("expires_at").cloned();
        let mut body = json!({ "credentials": values });
        if version.has(16) {
            body["endpoints"] = endpoints(&self.nats_url);
            if let Some(end) = expires_at {
                body["metadata"] = json!({ "expires_at": end });
            }
        }
        Ok(body)
    }
}

/// What the provisioner is asked for.
pub(crate) fn new_binding(id: &BindingId, there: &Binding) -> NewBinding {
    NewBinding {
        instance: there.request.instance.clone(),
        binding: id.clone(),
        role: there.role,
        ttl_seconds: there.ttl_seconds,
    }
}

/// The schema lets only the three words through.
fn role(parameters: &Value) -> Role {
    match parameters.get("role").and_then(Value::as_str) {
        Some("write") => Role::Write,
        Some("read") => Role::Read,
        _ => Role::Admin,
    }
}

/// Hosts and ports of NATS URLs separated by commas.
fn endpoints(urls: &str) -> Value {
    let endpoint = |url: &str| {
        let rest = url.trim().split_once("://").map_or(url.trim(), |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
            _ => (authority, NATS_PORT),
        };
        json!({ "host": host, "ports": [port], "protocol": "tcp" })
    };
    urls.split(',').map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_name_host_and_port() {
        for (urls, host, port) in [
            ("nats://nats.example.org:4333", "nats.example.org", "4333"),
            ("tls://nats", "nats", "4222"),
            ("nats://user:pass@10.0.0.1:4222/", "10.0.0.1", "4222"),
            ("nats://[::1]:4222", "[::1]", "4222"),
        ] {
            assert_eq!(endpoints(urls), json!([{ "host": host, "ports": [port], "protocol": "tcp" }]), "{urls}");
        }
        assert_eq!(endpoints("nats://a:1,nats://b:2").as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_binding_without_a_role_may_do_everything() {
        assert_eq!(role(&json!({})), Role::Admin);
        assert_eq!(role(&json!({"role": "read"})), Role::Read);
    }
}
