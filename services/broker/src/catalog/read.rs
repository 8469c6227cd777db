//! From the text of a catalog to offerings and plans; the first rule that is broken is told with its place.

use std::sync::Arc;

use config::{Config, File, FileFormat};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    alerts::default_rules,
    catalog::{
        CatalogError, OWN, Offering, Plan, rule,
        schema::{self, Schema},
    },
    wanted::{Defaults, PARAMETERS, wanted},
};

/// The longest id or name: longer ones, and other characters, are rewritten or refused by clients.
const NAME_CHARS_MAX: usize = 63;

/// The longest description that the specification recommends.
const DESCRIPTION_CHARS_MAX: usize = 255;

/// The back-ends that the index-provisioner knows.
const BACKENDS: [&str; 3] = [OWN, "splunk", "s3"];

/// What an offering may require of a platform.
const REQUIRES: [&str; 3] = ["syslog_drain", "route_forwarding", "volume_mount"];

/// Keys of an offering. Whatever else a platform is to see belongs into `metadata`.
const OFFERING_KEYS: [&str; 19] = [
    "id",
    "name",
    "description",
    "tags",
    "requires",
    "bindable",
    "instances_retrievable",
    "bindings_retrievable",
    "allow_context_updates",
    "metadata",
    "dashboard_client",
    "plan_updateable",
    "binding_rotatable",
    "plans",
    // Ours.
    "backend",
    "asynchronous",
    "requires_app",
    "offered",
    "maximum_polling_duration",
];

/// Keys of a plan.
const PLAN_KEYS: [&str; 15] = [
    "id",
    "name",
    "description",
    "metadata",
    "free",
    "bindable",
    "plan_updateable",
    "binding_rotatable",
    "schemas",
    "maximum_polling_duration",
    "maintenance_info",
    // Ours.
    "defaults",
    "limits",
    "offered",
    "copies",
];

/// Keys that are ours and are not shown; an offering has two of a plan's that its plans inherit.
const HIDDEN: [&str; 10] = [
    "backend",
    "asynchronous",
    "requires_app",
    "offered",
    "plans",
    "defaults",
    "limits",
    "binding_rotatable",
    "maximum_polling_duration",
    "copies",
];

/// Where the schemas of a plan stand.
const CREATE: &str = "/schemas/service_instance/create/parameters";
const UPDATE: &str = "/schemas/service_instance/update/parameters";
const BIND: &str = "/schemas/service_binding/create/parameters";

type Keys = Map<String, Value>;

/// Reads YAML or, as its subset, JSON.
pub(super) fn offerings(text: &str) -> Result<Vec<Arc<Offering>>, CatalogError> {
    let malformed = |error: config::ConfigError| CatalogError::Malformed(error.to_string());
    let read = Config::builder().add_source(File::from_str(text, FileFormat::Yaml)).build().map_err(malformed)?;
    let value: Value = read.try_deserialize().map_err(malformed)?;
    let services = value.get("services").and_then(Value::as_array);
    let services = services.ok_or_else(|| CatalogError::Malformed("it needs a list `services`".to_owned()))?;
    services.iter().map(|service| offering(service).map(Arc::new)).collect()
}

fn offering(value: &Value) -> Result<Offering, CatalogError> {
    let keys = named(value, "services", &OFFERING_KEYS)?;
    let at = text(&keys, "name").to_owned();
    let backend = text(&keys, "backend").to_owned();
    if !BACKENDS.contains(&backend.as_str()) {
        return Err(rule(&at, format!("backend must be one of {}", BACKENDS.join(", "))));
    }
    let bindable = flag(&keys, "bindable", true, &at)?;
    for key in ["instances_retrievable", "bindings_retrievable", "plan_updateable", "binding_rotatable"] {
        flag(&keys, key, false, &at)?;
    }
    texts(&keys, "tags", &at)?;
    if !texts(&keys, "requires", &at)?.iter().all(|one| REQUIRES.contains(&one.as_str())) {
        return Err(rule(&at, format!("requires may only list {}", REQUIRES.join(", "))));
    }
    metadata(&keys, &at)?;
    dashboard_client(&keys, &at)?;
    let plans = keys.get("plans").and_then(Value::as_array).cloned().unwrap_or_default();
    if plans.is_empty() {
        return Err(rule(&at, "needs at least one plan: clients refuse the whole catalog otherwise"));
    }
    let plans: Result<Vec<_>, _> = plans.iter().map(|one| plan(one, &at, &keys).map(Arc::new)).collect();
    Ok(Offering {
        id: text(&keys, "id").to_owned(),
        name: at.clone(),
        backend,
        asynchronous: flag(&keys, "asynchronous", false, &at)?,
        requires_app: flag(&keys, "requires_app", false, &at)?,
        allow_context_updates: flag(&keys, "allow_context_updates", false, &at)?,
        offered: flag(&keys, "offered", true, &at)?,
        plans: plans?,
        shown: shown(keys, &[("bindable", bindable.into())]),
    })
}

fn plan(value: &Value, offering: &str, of: &Keys) -> Result<Plan, CatalogError> {
    let mut keys = named(value, &format!("plans of {offering}"), &PLAN_KEYS)?;
    let name = text(&keys, "name").to_owned();
    let at = format!("{offering}/{name}");
    // What a plan does not say for itself its offering says.
    let inherited = |key: &str, default: bool| flag(&keys, key, flag(of, key, default, offering)?, &at);
    let bindable = inherited("bindable", true)?;
    let plan_updateable = inherited("plan_updateable", false)?;
    let binding_rotatable = inherited("binding_rotatable", false)?;
    let polling = keys.get("maximum_polling_duration").or_else(|| of.get("maximum_polling_duration")).cloned();
    let maximum_polling_duration = seconds(polling.as_ref(), &at)?;
    let offered = flag(&keys, "offered", true, &at)?;
    // One client reads a missing `free` as false although the specification says true, so it is always there.
    let free = flag(&keys, "free", true, &at)?;
    let copies = copies(&keys, &at)?;
    let maintenance_version = maintenance(&keys, &at)?;
    metadata(&keys, &at)?;
    plan_metadata(&keys, &at)?;
    limits(&mut keys, &at)?;
    let all = Value::Object(keys.clone());
    let provision = Schema::of(&all, CREATE, &at)?.unwrap_or_default();
    let update = Schema::of(&all, UPDATE, &at)?.unwrap_or_default();
    let bind = Schema::of(&all, BIND, &at)?.unwrap_or_default();
    for schema in [&provision, &update, &bind] {
        if let Some(name) = PARAMETERS.iter().find(|name| schema.is_secret(name)) {
            return Err(rule(at, format!("the parameter {name} cannot be writeOnly: it is no secret to the back-end")));
        }
    }
    let defaults = defaults(&keys, &provision, &at)?;
    alerts(&defaults, text(of, "backend"), &at)?;
    let mut more = vec![("free", free.into()), ("bindable", bindable.into())];
    more.push(("plan_updateable", plan_updateable.into()));
    if binding_rotatable {
        more.push(("binding_rotatable", true.into()));
    }
    more.extend(polling.map(|seconds| ("maximum_polling_duration", seconds)));
    Ok(Plan {
        id: text(&keys, "id").to_owned(),
        name,
        defaults,
        plan_updateable,
        binding_rotatable,
        maximum_polling_duration,
        maintenance_version,
        bindable,
        offered,
        copies,
        provision,
        update,
        bind,
        shown: shown(keys, &more),
    })
}

/// What a platform sees.
fn shown(mut keys: Keys, more: &[(&str, Value)]) -> Keys {
    HIDDEN.iter().for_each(|key| drop(keys.remove(*key)));
    keys.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    keys
}

/// An object with an id, a name and a description, and without keys that mean nothing.
fn named(value: &Value, at: &str, known: &[&str]) -> Result<Keys, CatalogError> {
    let keys = value.as_object().ok_or_else(|| rule(at, "every entry must be an object"))?.clone();
    let at = match text(&keys, "name") {
        "" => at.to_owned(),
        name => format!("{at}: {name}"),
    };
    for key in ["id", "name", "description"] {
        if text(&keys, key).is_empty() {
            return Err(rule(at, format!("needs a {key} that is a text and not empty")));
        }
    }
    let simple = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    for key in ["id", "name"] {
        let text = text(&keys, key);
        if text.len() > NAME_CHARS_MAX || !simple(text) {
            let shape = format!("{key} must be 1 to {NAME_CHARS_MAX} of a-z 0-9 -");
            return Err(rule(at, format!("{shape}: other ones are rewritten or refused by clients")));
        }
    }
    if text(&keys, "description").chars().count() > DESCRIPTION_CHARS_MAX {
        return Err(rule(at, format!("description is longer than {DESCRIPTION_CHARS_MAX} characters")));
    }
    match keys.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(rule(at, format!("{key} means nothing here; known are {}", known.join(", ")))),
        None => Ok(keys),
    }
}

fn text<'a>(keys: &'a Keys, key: &str) -> &'a str {
    keys.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(keys: &Keys, key: &str, default: bool, at: &str) -> Result<bool, CatalogError> {
    match keys.get(key) {
        None => Ok(default),
        Some(Value::Bool(set)) => Ok(*set),
        Some(_) => Err(rule(at, format!("{key} must be true or false"))),
    }
}

fn texts(keys: &Keys, key: &str, at: &str) -> Result<Vec<String>, CatalogError> {
    let wrong = || rule(at, format!("{key} must be a list of texts that are not empty"));
    let Some(list) = keys.get(key) else { return Ok(Vec::new()) };
    let each = |one: &Value| one.as_str().filter(|s| !s.is_empty()).map(str::to_owned).ok_or_else(wrong);
    list.as_array().ok_or_else(wrong)?.iter().map(each).collect()
}

fn seconds(value: Option<&Value>, at: &str) -> Result<Option<u64>, CatalogError> {
    match value.map(|value| value.as_u64().filter(|seconds| *seconds > 0)) {
        None => Ok(None),
        Some(Some(seconds)) => Ok(Some(seconds)),
        Some(None) => Err(rule(at, "maximum_polling_duration must be a whole number of seconds above zero")),
    }
}

/// As many as JetStream can keep.
fn copies(keys: &Keys, at: &str) -> Result<u8, CatalogError> {
    let Some(copies) = keys.get("copies") else { return Ok(1) };
    let odd = copies.as_u64().and_then(|count| u8::try_from(count).ok()).filter(|count| [1, 3, 5].contains(count));
    odd.ok_or_else(|| rule(at, "copies must be 1, 3 or 5, as common.journal_replicas is"))
}

fn maintenance(keys: &Keys, at: &str) -> Result<Option<String>, CatalogError> {
    let Some(info) = keys.get("maintenance_info") else { return Ok(None) };
    let version = info.get("version").and_then(Value::as_str).unwrap_or_default();
    if !is_semantic(version) {
        return Err(rule(at, "maintenance_info.version must be a semantic version in quotes, for example \"1.0.0\""));
    }
    match info.get("description") {
        None => Ok(Some(version.to_owned())),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(version.to_owned())),
        Some(_) => Err(rule(at, "maintenance_info.description must be a text that is not empty")),
    }
}

/// Semantic Versioning 2.0: three numbers, perhaps a pre-release, perhaps a build.
fn is_semantic(version: &str) -> bool {
    let number = |n: &str| n.bytes().all(|b| b.is_ascii_digit()) && !n.is_empty() && (n == "0" || !n.starts_with('0'));
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // In a pre-release what looks like a number must be one.
    let early = |w: &str| word(w) && (number(w) || !w.bytes().all(|b| b.is_ascii_digit()));
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(early))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// The conventions that clients rely on.
fn metadata(keys: &Keys, at: &str) -> Result<(), CatalogError> {
    let Some(metadata) = keys.get("metadata") else { return Ok(()) };
    let metadata = metadata.as_object().ok_or_else(|| rule(at, "metadata must be an object"))?;
    for key in ["displayName", "longDescription", "providerDisplayName"] {
        if metadata.contains_key(key) && text(metadata, key).is_empty() {
            return Err(rule(at, format!("metadata.{key} must be a text that is not empty")));
        }
    }
    for (key, also) in [("imageUrl", "data:"), ("documentationUrl", "https://"), ("supportUrl", "mailto:")] {
        let fits = |url: &str| ["http://", "https://", also].iter().any(|start| url.starts_with(start));
        if metadata.contains_key(key) && !fits(text(metadata, key)) {
            return Err(rule(at, format!("metadata.{key} must be a URL")));
        }
    }
    flag(metadata, "shareable", false, at).map(drop)
}

fn plan_metadata(keys: &Keys, at: &str) -> Result<(), CatalogError> {
    let Some(metadata) = keys.get("metadata").and_then(Value::as_object) else { return Ok(()) };
    texts(metadata, "bullets", at)?;
    let Some(costs) = metadata.get("costs") else { return Ok(()) };
    let is_cost = |cost: &Value| {
        let amount = cost.get("amount").and_then(Value::as_object);
        let amount = amount.is_some_and(|all| !all.is_empty() && all.values().all(Value::is_number));
        amount && cost.get("unit").and_then(Value::as_str).is_some_and(|unit| !unit.is_empty())
    };
    if costs.as_array().is_some_and(|all| all.iter().all(is_cost)) {
        Ok(())
    } else {
        Err(rule(at, "metadata.costs must list {amount: {usd: 0.99}, unit: MONTHLY}"))
    }
}

/// Cloud Foundry's single sign-on; its secret stands in the catalog, so it is there only if somebody wrote it.
fn dashboard_client(keys: &Keys, at: &str) -> Result<(), CatalogError> {
    let Some(client) = keys.get("dashboard_client") else { return Ok(()) };
    let there = |key: &str| client.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if !there("id") || !there("secret") {
        return Err(rule(at, "dashboard_client needs an id and a secret that are not empty"));
    }
    let is_url = |uri: &Value| uri.as_str().is_some_and(|u| u.starts_with("https://") || u.starts_with("http://"));
    if client.get("redirect_uri").is_none_or(is_url) {
        Ok(())
    } else {
        Err(rule(at, "dashboard_client.redirect_uri must be a URL"))
    }
}

/// Writes the plan's limits into its schemas, so that platforms see what holds.
fn limits(keys: &mut Keys, at: &str) -> Result<(), CatalogError> {
    let Some(limits) = keys.get("limits").cloned() else { return Ok(()) };
    let limits = limits.as_object().ok_or_else(|| rule(at, "limits must be an object"))?;
    let mut all = Value::Object(std::mem::take(keys));
    for (name, most) in limits {
        let parameter = all.pointer(&format!("{CREATE}/properties/{name}"));
        if parameter.and_then(|p| p.get("type")).and_then(Value::as_str) != Some("integer") || !most.is_u64() {
            return Err(rule(at, format!("limits.{name} must be a whole number, for a parameter that takes one")));
        }
    }
    for pointer in [CREATE, UPDATE] {
        all.pointer_mut(pointer).into_iter().for_each(|schema| schema::limit(schema, limits));
    }
    if let Value::Object(all) = all {
        *keys = all;
    }
    Ok(())
}

/// Rules that are given to every instance must be right for any.
fn alerts(defaults: &Defaults, backend: &str, at: &str) -> Result<(), CatalogError> {
    if !defaults.alerts.is_empty() && backend != OWN {
        return Err(rule(at, "defaults: alerts: only indexes of the back-end own have some"));
    }
    let any: types::IndexName = "any".parse().map_err(|error| rule(at, format!("defaults: {error}")))?;
    default_rules(&defaults.alerts, &any).map(drop).map_err(|unfit| rule(at, format!("defaults: {unfit}")))
}

/// The defaults must be what an instance could ask for itself.
fn defaults(keys: &Keys, create: &Schema, at: &str) -> Result<Defaults, CatalogError> {
    let wrong = |reason: &dyn std::fmt::Display| rule(at, format!("defaults: {reason}"));
    let Some(value) = keys.get("defaults") else { return Ok(Defaults::default()) };
    let quota = value.get("quota").and_then(Value::as_object);
    let unknown = |key: &&String| !["bytes_per_day", "events_per_second", "queries", "streams"].contains(&key.as_str());
    if let Some(key) = quota.and_then(|quota| quota.keys().find(unknown)) {
        return Err(wrong(&format!("quota has no {key}: it has bytes_per_day, events_per_second, queries, streams")));
    }
    let read = Defaults::deserialize(value).map_err(|error| wrong(&error))?;
    let described = value.as_object().into_iter().flatten().filter(|(key, _)| create.describes(key));
    let parameters: Keys = described.map(|(key, value)| (key.clone(), value.clone())).collect();
    if !parameters.is_empty() {
        create.check(&Value::Object(parameters)).map_err(|complaint| wrong(&complaint))?;
    }
    wanted(&read, &json!({})).map_err(|unfit| wrong(&unfit))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_semantic_or_not() {
        for good in ["0.0.1", "1.0.0", "10.20.30", "1.0.0-rc.1", "1.0.0-x-y", "1.0.0+build.5", "1.0.0-a+b"] {
            assert!(is_semantic(good), "{good}");
        }
        for bad in ["", "1", "1.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "v1.0.0", "1.0.x", "1..0"] {
            assert!(!is_semantic(bad), "{bad}");
        }
    }
}
