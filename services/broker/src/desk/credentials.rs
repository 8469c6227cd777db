//! What a binding answers with: credentials, where they are used, and how long they last.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use types::{BindingId, Timestamp};
use wire::{
    index_provisioner::{BindingName, Credentials, IssueCredentials, NewBinding, RevokeCredentials},
    views::Role,
};

use crate::{
    desk::Desk,
    osb::{Answer, Version},
    state::{Binding, Command, Phase},
};

/// The port of a NATS URL that names none.
const NATS_PORT: &str = "4222";

/// Of its life, the last part in which a binding should have been renewed: a fifth.
const RENEW_PARTS: u64 = 5;

impl Desk {
    /// The credentials of a live binding: as they were just issued, or asked for once more, so that they are stored nowhere.
    pub(super) async fn credentials(
        &self,
        version: Version,
        id: &BindingId,
        there: &Binding,
        issued: Option<Credentials>,
    ) -> Result<Value, Answer> {
        let issued = match issued {
            Some(issued) => issued,
            // What ends takes its bindings along.
            None if self.ledger.read(|state| state.is_ending(&there.request.instance)) => {
                return Err(Answer::concurrency());
            }
            None => {
                let issued = self.bus.call::<IssueCredentials>(&(), &new_binding(id, there)).await?;
                self.still(id, there).await?;
                issued
            }
        };
        let mut values = issued.values;
        // The addresses of our own doors, for credentials that open them; another back-end names its own.
        let ours = values.contains_key("token");
        if ours {
            let index = values.get("index").cloned().unwrap_or_default();
            values.entry("nats_url".to_owned()).or_insert_with(|| self.nats_url.to_string());
            values.entry("http_url".to_owned()).or_insert_with(|| self.gateway_url.to_string());
            let ingest_url = format!("{}/api/v1/indexes/{index}/ingest", self.gateway_url);
            values.entry("ingest_url".to_owned()).or_insert(ingest_url);
            if there.role.may_write() {
                agents(&self.gateway_url, &mut values);
            }
            grpc(&self.gateway_url, &self.grpc_address, there.role, &mut values);
        }
        let ends = ends(there);
        if let Some((end, _)) = &ends {
            // The binding ends when we say so; the credentials alone would last a moment longer.
            values.insert("expires_at".to_owned(), end.clone());
        }
        let mut body = json!({ "credentials": values });
        if version.has(16) {
            if ours {
                body["endpoints"] = endpoints(&self.nats_url);
            }
            if let Some((end, renew)) = ends {
                body["metadata"] = json!({ "expires_at": end });
                if version.has(17) {
                    body["metadata"]["renew_before"] = renew.into();
                }
            }
        }
        Ok(body)
    }
}

/// Where agents of other log stores send, each as that store's own back-end and its agents call it.
fn agents(gateway_url: &str, values: &mut BTreeMap<String, String>) {
    let token = values.get("token").cloned().unwrap_or_default();
    for (key, value) in [
        ("loki_url", format!("{gateway_url}/loki/api/v1/push")),
        ("otlp_url", format!("{gateway_url}/v1/logs")),
        ("hec_url", gateway_url.to_owned()),
        ("hec_token", token),
    ] {
        values.entry(key.to_owned()).or_insert(value);
    }
}

/// Where the gateway speaks gRPC, if it does: inside TLS where its HTTP is.
fn grpc(gateway_url: &str, address: &str, role: Role, values: &mut BTreeMap<String, String>) {
    if address.is_empty() {
        return;
    }
    let (http, flight) = if gateway_url.starts_with("https://") { ("https", "grpc+tls") } else { ("http", "grpc") };
    if role.may_write() {
        values.entry("otlp_grpc_url".to_owned()).or_insert_with(|| format!("{http}://{address}"));
    }
    if role.may_read() {
        values.entry("flight_url".to_owned()).or_insert_with(|| format!("{flight}://{address}"));
    }
}

impl Desk {
    /// An unbind, or the end of the instance, may have overtaken the issue, which then made credentials that nobody would revoke.
    /// Should that end be refused, the binding is gone all the same, and says so.
    async fn still(&self, id: &BindingId, there: &Binding) -> Result<(), Answer> {
        let instance = &there.request.instance;
        let now = self.ledger.read(|state| {
            let now = state.binding(instance, id)?;
            let phase = if state.is_ending(instance) { Phase::Ending } else { now.phase };
            Some((phase, now.operation.token == there.operation.token))
        });
        match now {
            Some((Phase::Live, true)) => return Ok(()),
            None | Some((Phase::Ending, _)) => {
                let name = BindingName { binding: id.clone(), instance: Some(instance.clone()) };
                self.bus.call::<RevokeCredentials>(&(), &name).await?;
                let lost = Command::LoseBindings { instance: instance.clone(), bindings: vec![id.clone()] };
                self.ledger.submit(lost).await?;
            }
            // Another one of this id, which has its own credentials.
            Some(_) => {}
        }
        Err(Answer::not_found("the service binding was unbound meanwhile"))
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

/// When a binding ends, and when it should have been renewed before.
fn ends(there: &Binding) -> Option<(String, String)> {
    let (end, ttl) = (there.expires()?, there.ttl_seconds?);
    let spare = std::time::Duration::from_millis((ttl.saturating_mul(1_000) / RENEW_PARTS).max(1));
    Some((iso8601(end)?, iso8601(end - spare)?))
}

/// `yyyy-mm-ddThh:mm:ss.sssZ`; `None` is beyond the calendar.
fn iso8601(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(at.millis()).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
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
    fn grpc_is_inside_tls_where_http_is_and_each_role_gets_what_it_may_use() {
        for (gateway, role, otlp, flight) in [
            ("http://a", Role::Admin, Some("http://a:4317"), Some("grpc://a:4317")),
            ("https://a", Role::Admin, Some("https://a:4317"), Some("grpc+tls://a:4317")),
            ("https://a", Role::Read, None, Some("grpc+tls://a:4317")),
            ("https://a", Role::Write, Some("https://a:4317"), None),
        ] {
            let mut values = BTreeMap::new();
            grpc(gateway, "", role, &mut values);
            assert!(values.is_empty(), "nobody listens");
            grpc(gateway, "a:4317", role, &mut values);
            let value = |key: &str| values.get(key).map(String::as_str);
            assert_eq!((value("otlp_grpc_url"), value("flight_url")), (otlp, flight), "{gateway} {role:?}");
        }
    }

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
    fn times_have_the_form_of_the_specification() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(iso8601(at).unwrap(), "2023-11-14T22:13:20.123Z");
        assert_eq!(iso8601(Timestamp::from_millis(0)).unwrap(), "1970-01-01T00:00:00.000Z");
    }
}
