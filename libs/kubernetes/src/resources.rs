//! Our custom resources. What stands here is what `kubectl explain` says; the manifests are made from it.

use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::yaml;

/// The group of our resources.
pub const GROUP: &str = "logboom.io";

fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn log_index() -> String {
    "log-index".to_owned()
}

/// A log index: a service instance of the broker.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "logboom.io",
    version = "v1alpha1",
    kind = "LogIndex",
    plural = "logindexes",
    namespaced,
    status = "LogIndexStatus",
    category = "logboom",
    doc = "A log index of Logboom: a service instance of its broker.",
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.plan"),
    printcolumn(name = "Index", type_ = "string", json_path = ".status.index"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LogIndexSpec {
    /// Offering of the broker's catalog, by its name. It cannot be changed: make another LogIndex.
    #[serde(default = "log_index")]
    #[schemars(length(min = 1, max = 63))]
    pub offering: String,
    /// Plan of the offering, by its name.
    #[schemars(length(min = 1, max = 63))]
    pub plan: String,
    /// Parameters of the plan; the catalog has their schema.
    #[serde(default)]
    #[schemars(schema_with = "open_object")]
    pub parameters: Map<String, Value>,
}

/// How far a log index is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogIndexStatus {
    /// The generation of the object that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, with a reason and what to do.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// Name of the log index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Where the console shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard_url: Option<String>,
    /// What the broker was asked for and agreed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The operation of the broker that is awaited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationRef>,
}

/// What a service instance was asked to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The offering.
    pub service_id: String,
    /// The plan.
    pub plan_id: String,
    /// The parameters.
    #[serde(default)]
    #[schemars(schema_with = "open_object")]
    pub parameters: Map<String, Value>,
}

/// An operation of the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationRef {
    /// `provision`, `update`, `deprovision` or `bind`.
    pub verb: String,
    /// The broker's token of it.
    pub token: String,
}

/// Credentials for a log index: a service binding of the broker, kept in a Secret.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "logboom.io",
    version = "v1alpha1",
    kind = "LogBinding",
    plural = "logbindings",
    namespaced,
    status = "LogBindingStatus",
    category = "logboom",
    doc = "Credentials for a LogIndex of the same namespace, kept in a Secret: a service binding of the broker.",
    printcolumn(name = "LogIndex", type_ = "string", json_path = ".spec.indexRef.name"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Secret", type_ = "string", json_path = ".status.secretName"),
    printcolumn(name = "Expires", type_ = "date", json_path = ".status.expiresAt"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName)",
    "message": "secretName cannot be changed: make another LogBinding",
}]))]
pub struct LogBindingSpec {
    /// The LogIndex.
    pub index_ref: IndexRef,
    /// What the credentials allow: `write` publishes, `read` queries, `admin` is both, and jobs and rules.
    #[serde(default)]
    pub role: Role,
    /// Time after which credentials end, such as `12h` or `30d`; they are exchanged before. Without it they live as long as the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[1-9][0-9]{0,8}(s|m|h|d)$"))]
    pub ttl: Option<String>,
    /// The Secret; the name of the LogBinding if left out. A Secret that is there already and belongs to something else is never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
}

/// Names a LogIndex of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IndexRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What credentials allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    #[default]
    #[allow(missing_docs, reason = "a text on each variant would make the schema a choice between schemas")]
    Write,
    #[allow(missing_docs, reason = "as above")]
    Read,
    #[allow(missing_docs, reason = "as above")]
    Admin,
}

impl Role {
    /// As the broker spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// How far credentials are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogBindingStatus {
    /// The generation of the object that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, with a reason and what to do.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// When the credentials in it end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Service bindings that were begun, written before each of them is: the last one is wanted, those before it are to go.
    #[serde(default)]
    pub bindings: Vec<Bound>,
    /// How many were begun so far, so that none has the id of an earlier one.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub begun: i64,
    /// The operation of the broker that is awaited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationRef>,
}

/// A service binding that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// Its id.
    pub id: String,
    /// The service instance.
    pub instance: String,
    /// The offering.
    pub service_id: String,
    /// The plan.
    pub plan_id: String,
    /// What it allows.
    pub role: Role,
    /// How long it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// When the credentials of another one had taken its place in the Secret, in RFC 3339; it is unbound some time after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<String>,
}

/// A statement on an object, in the form that Kubernetes has for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it speaks of.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    /// One word, for programs.
    pub reason: String,
    /// What to do, for people.
    pub message: String,
    /// Since when `status` is so, in RFC 3339.
    pub last_transition_time: String,
}

/// The definition of a custom resource as a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The name that its object has.
    pub name: String,
    /// The manifest.
    pub yaml: String,
}

/// The definitions of our custom resources, to be applied before the operator starts.
pub fn definitions() -> Vec<Definition> {
    [(LogIndex::crd_name(), LogIndex::crd()), (LogBinding::crd_name(), LogBinding::crd())]
        .into_iter()
        .map(|(name, definition)| {
            // A definition is plain data: it cannot fail to become a value.
            let value = serde_json::to_value(definition).unwrap_or_default();
            Definition { name: name.to_owned(), yaml: yaml::print(&value) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    /// The manifests in `k8s/` are what the types say; `UPDATE=1` writes them.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a person tells the test to write through the environment")]
    fn the_committed_manifests_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/components/operator");
        for definition in definitions() {
            let file = folder.join(format!("{}.yaml", definition.name.split('.').next().unwrap()));
            let text = format!(
                "# Made from libs/kubernetes/src/resources.rs: UPDATE=1 cargo test -p kubernetes.\n{}",
                definition.yaml
            );
            if env::var_os("UPDATE").is_some() {
                fs::write(&file, &text).unwrap();
            }
            let committed = fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(committed, text, "{} is old: UPDATE=1 cargo test -p kubernetes", file.display());
        }
    }

    #[test]
    fn a_short_object_is_complete() {
        let index: LogIndex = serde_json::from_value(serde_json::json!({
            "apiVersion": "logboom.io/v1alpha1", "kind": "LogIndex", "metadata": {"name": "shop"}, "spec": {"plan": "small"},
        }))
        .unwrap();
        assert_eq!((index.spec.offering.as_str(), index.spec.parameters.len()), ("log-index", 0));
        let binding: LogBinding = serde_json::from_value(serde_json::json!({
            "apiVersion": "logboom.io/v1alpha1", "kind": "LogBinding", "metadata": {"name": "shop"},
            "spec": {"indexRef": {"name": "shop"}},
        }))
        .unwrap();
        assert_eq!((binding.spec.role, binding.spec.ttl), (Role::Write, None));
    }
}
