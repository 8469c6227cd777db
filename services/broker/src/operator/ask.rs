//! Requests to the desk, and what their answers mean to an object.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

/// What a request is about; its answer comes back with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Provision,
    Update,
    Fetch,
    Deprovision,
    Bind,
    /// Bind as the successor of another binding.
    Rotate,
    FetchBinding,
    /// The id of a binding.
    Unbind(String),
    Operation,
}

/// A request of the Open Service Broker API.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Option<Value>,
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// It is so; `is_new` tells 201 from 200.
    Done { is_new: bool, body: Value },
    /// It will be so; the token of the operation.
    Accepted(String),
    /// There is no such thing.
    Absent,
    /// There is such a thing with other attributes.
    Differs(String),
    /// Never, as it was asked.
    Refused(String),
    /// Not now.
    Later(String),
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    Begun,
    Ended,
    Failed(String),
    Unknown,
}

impl Said {
    /// Reads a status and a body.
    pub(crate) fn of(status: u16, body: Value) -> Self {
        let text = || body.get("description").and_then(Value::as_str).unwrap_or("the broker gave no reason").to_owned();
        let is_busy = body.get("error").and_then(Value::as_str) == Some("ConcurrencyError");
        match status {
            200 | 201 => Self::Done { is_new: status == 201, body },
            202 => Self::Accepted(body.get("operation").and_then(Value::as_str).unwrap_or_default().to_owned()),
            404 | 410 => Self::Absent,
            409 => Self::Differs(text()),
            422 if is_busy => Self::Later(text()),
            429 | 500.. => Self::Later(text()),
            _ => Self::Refused(text()),
        }
    }

    /// Reads the answer of `last_operation`.
    pub(crate) fn progress(&self) -> Progress {
        match self {
            Self::Done { body, .. } => match body.get("state").and_then(Value::as_str) {
                Some("in progress") => Progress::Begun,
                Some("failed") => {
                    let text = body.get("description").and_then(Value::as_str);
                    Progress::Failed(text.unwrap_or("the broker gave no reason").to_owned())
                }
                _ => Progress::Ended,
            },
            Self::Absent => Progress::Ended,
            _ => Progress::Unknown,
        }
    }
}

/// Where an object is, in the words of a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The cluster.
    pub(crate) organization: String,
    /// The namespace, by its uid.
    pub(crate) space: String,
    /// The namespace, by its name.
    pub(crate) namespace: String,
    /// The object.
    pub(crate) name: String,
}

impl Place {
    fn context(&self) -> Value {
        json!({
            "platform": "kubernetes", "clusterid": self.organization,
            "namespace": self.namespace, "instance_name": self.name,
        })
    }
}

fn instance_path(instance: &str) -> String {
    format!("/v2/service_instances/{instance}")
}

fn binding_path(instance: &str, binding: &str) -> String {
    format!("/v2/service_instances/{instance}/service_bindings/{binding}")
}

const WAIT: &str = "accepts_incomplete=true";

impl Ask {
    fn put(path: String, body: Value) -> Self {
        Self { method: "PUT", path, query: WAIT.to_owned(), body: Some(body) }
    }

    fn get(path: String, query: String) -> Self {
        Self { method: "GET", path, query, body: None }
    }

    fn delete(path: String, service_id: &str, plan_id: &str) -> Self {
        // Ids of the catalog are of a-z 0-9 and -.
        let query = format!("{WAIT}&service_id={service_id}&plan_id={plan_id}");
        Self { method: "DELETE", path, query, body: None }
    }

    pub(crate) fn catalog() -> Self {
        Self::get("/v2/catalog".to_owned(), String::new())
    }

    pub(crate) fn provision(
        id: &str,
        (service_id, plan_id): (&str, &str),
        parameters: &Map<String, Value>,
        place: &Place,
    ) -> Self {
        let body = json!({
            "service_id": service_id, "plan_id": plan_id, "parameters": parameters, "context": place.context(),
            "organization_guid": place.organization, "space_guid": place.space,
        });
        Self::put(instance_path(id), body)
    }

    pub(crate) fn update(id: &str, (service_id, plan_id): (&str, &str), parameters: &Map<String, Value>) -> Self {
        let body = json!({ "service_id": service_id, "plan_id": plan_id, "parameters": parameters });
        Self { method: "PATCH", path: instance_path(id), query: WAIT.to_owned(), body: Some(body) }
    }

    pub(crate) fn fetch(id: &str) -> Self {
        Self::get(instance_path(id), String::new())
    }

    pub(crate) fn deprovision(id: &str, service_id: &str, plan_id: &str) -> Self {
        Self::delete(instance_path(id), service_id, plan_id)
    }

    pub(crate) fn operation(id: &str, token: &str) -> Self {
        Self::get(format!("{}/last_operation", instance_path(id)), format!("operation={token}"))
    }

    pub(crate) fn bind(
        instance: &str,
        id: &str,
        (service_id, plan_id): (&str, &str),
        parameters: &Value,
        name: &str,
    ) -> Self {
        let body = json!({
            "service_id": service_id, "plan_id": plan_id, "parameters": parameters,
            "context": { "platform": "kubernetes", "binding_name": name },
        });
        Self::put(binding_path(instance, id), body)
    }

    pub(crate) fn rotate(instance: &str, id: &str, predecessor: &str) -> Self {
        Self::put(binding_path(instance, id), json!({ "predecessor_binding_id": predecessor }))
    }

    pub(crate) fn fetch_binding(instance: &str, id: &str) -> Self {
        Self::get(binding_path(instance, id), String::new())
    }

    pub(crate) fn unbind(instance: &str, id: &str, service_id: &str, plan_id: &str) -> Self {
        Self::delete(binding_path(instance, id), service_id, plan_id)
    }

    pub(crate) fn binding_operation(instance: &str, id: &str, token: &str) -> Self {
        Self::get(format!("{}/last_operation", binding_path(instance, id)), format!("operation={token}"))
    }
}

/// The ids of an offering and a plan that the catalog has by name; otherwise what would be right.
pub(crate) fn chosen(catalog: &Value, offering: &str, plan: &str) -> Result<(String, String), String> {
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let id = |value: &Value| value.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let find = |all: &[Value], wanted: &str, what: &str| {
        all.iter().find(|one| name(one) == wanted).cloned().ok_or_else(|| {
            let known: Vec<_> = all.iter().map(name).collect();
            format!("there is no {what} {wanted:?}; there is {}", known.join(", "))
        })
    };
    let offering = find(&list(catalog, "services"), offering, "offering")?;
    let plan = find(&list(&offering, "plans"), plan, "plan")?;
    Ok((id(&offering), id(&plan)))
}

/// On whose behalf the operator asks: the object itself, which only those who may write it can change.
pub(crate) fn identity(kind: &str, namespace: &str, name: &str, uid: &str) -> String {
    let user = json!({
        "username": "logboom:operator", "uid": uid,
        "extra": { "kind": [kind], "namespace": [namespace], "name": [name] },
    });
    format!("kubernetes {}", BASE64.encode(user.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        let text = |error: &str| json!({"error": error, "description": "why"});
        for (status, body, said) in [
            (200, json!({}), Said::Done { is_new: false, body: json!({}) }),
            (201, json!({"a": 1}), Said::Done { is_new: true, body: json!({"a": 1}) }),
            (202, json!({"operation": "op-1"}), Said::Accepted("op-1".into())),
            (404, text("NotFound"), Said::Absent),
            (410, text("Gone"), Said::Absent),
            (409, text("Conflict"), Said::Differs("why".into())),
            (422, text("ConcurrencyError"), Said::Later("why".into())),
            (422, text("MaintenanceInfoConflict"), Said::Refused("why".into())),
            (400, text("BadRequest"), Said::Refused("why".into())),
            (412, json!({}), Said::Refused("the broker gave no reason".into())),
            (429, text("Throttled"), Said::Later("why".into())),
            (503, text("Unavailable"), Said::Later("why".into())),
            (504, text("Deadline"), Said::Later("why".into())),
        ] {
            assert_eq!(Said::of(status, body.clone()), said, "{status} {body}");
        }
    }

    #[test]
    fn operations_are_understood() {
        let state = |state: &str| Said::of(200, json!({"state": state, "description": "why"})).progress();
        assert_eq!(state("in progress"), Progress::Begun);
        assert_eq!(state("succeeded"), Progress::Ended);
        assert_eq!(state("failed"), Progress::Failed("why".into()));
        assert_eq!(Said::of(410, json!({})).progress(), Progress::Ended);
        assert_eq!(Said::of(503, json!({})).progress(), Progress::Unknown);
    }

    #[test]
    fn plans_are_found_by_name() {
        let catalog = json!({"services": [
            {"name": "log-index", "id": "s1", "plans": [{"name": "small", "id": "p1"}, {"name": "standard", "id": "p2"}]},
            {"name": "s3-archive", "id": "s2", "plans": []},
        ]});
        assert_eq!(chosen(&catalog, "log-index", "standard"), Ok(("s1".into(), "p2".into())));
        let wrong = chosen(&catalog, "log-index", "huge").unwrap_err();
        assert_eq!(wrong, "there is no plan \"huge\"; there is small, standard");
        let wrong = chosen(&catalog, "logs", "small").unwrap_err();
        assert_eq!(wrong, "there is no offering \"logs\"; there is log-index, s3-archive");
    }
}
