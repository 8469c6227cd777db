//! The catalog: what is offered, checked before it is served, with its parameter schemas compiled once.

use std::collections::BTreeSet;

use config::{Config, File, FileFormat};
use jsonschema::Validator;
use ring::digest;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use types::Invalid;

use crate::osb::Version;

/// The catalog that is served unless the settings name another.
pub const BUILT_IN: &str = include_str!("../catalog.yaml");

/// The largest schema that the specification allows.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;

/// Offerings and plans at most; a platform shows them in one list.
const PLANS_MAX: usize = 1_000;

/// Keys that a plan or offering has for us only.
const OURS: [&str; 5] = ["backend", "defaults", "asynchronous", "requires_app", "plans"];

/// Why a catalog cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Neither YAML nor JSON of the right shape.
    #[error("the catalog cannot be read: {0}")]
    Malformed(String),
    /// Breaks a rule of the specification or of ours.
    #[error("catalog: {at}: {rule}")]
    Rule {
        /// Which offering or plan.
        at: String,
        /// What would be right.
        rule: String,
    },
}

/// What a plan gives to an instance that asks for nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Segments; 0 leaves it to the provisioner.
    #[serde(default)]
    pub segments: u16,
    /// Days to keep events; `None` keeps them for ever.
    #[serde(default)]
    pub retention_days: Option<u32>,
}

/// One service plan.
#[derive(Debug)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// What it gives.
    pub defaults: Defaults,
    bindable: bool,
    provision: Option<Validator>,
    bind: Option<Validator>,
    shown: Map<String, Value>,
}

/// One service offering.
#[derive(Debug)]
pub struct Offering {
    /// Its id.
    pub id: String,
    /// Where its indexes live.
    pub backend: String,
    /// Whether its operations take so long that a platform must be able to wait for them.
    pub asynchronous: bool,
    /// Whether bindings must name an application.
    pub requires_app: bool,
    plans: Vec<Plan>,
    shown: Map<String, Value>,
}

/// Everything that is offered.
#[derive(Debug)]
pub struct Catalog {
    offerings: Vec<Offering>,
}

/// A plan with its offering.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    /// The offering.
    pub offering: &'a Offering,
    /// The plan.
    pub plan: &'a Plan,
}

impl Catalog {
    /// Reads and checks a catalog in YAML or, as its subset, JSON.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        let malformed = |error: config::ConfigError| CatalogError::Malformed(error.to_string());
        let read = Config::builder().add_source(File::from_str(text, FileFormat::Yaml)).build().map_err(malformed)?;
        let value: Value = read.try_deserialize().map_err(malformed)?;
        let services = value.get("services").and_then(Value::as_array);
        let services = services.ok_or_else(|| CatalogError::Malformed("it needs a list `services`".to_owned()))?;
        let offerings = services.iter().map(offering).collect::<Result<Vec<_>, _>>()?;
        let catalog = Self { offerings };
        catalog.check()?;
        Ok(catalog)
    }

    fn check(&self) -> Result<(), CatalogError> {
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for offering in &self.offerings {
            let name = text(&offering.shown, "name");
            unique(&mut ids, &offering.id, &name)?;
            unique(&mut names, &name, &name)?;
            let mut of_plans = BTreeSet::new();
            for plan in &offering.plans {
                unique(&mut ids, &plan.id, &name)?;
                unique(&mut of_plans, &text(&plan.shown, "name"), &name)?;
            }
        }
        let count = ids.len();
        if count > PLANS_MAX {
            Err(rule("services", format!("{count} offerings and plans, at most {PLANS_MAX}")))
        } else {
            Ok(())
        }
    }

    /// The offering of an id.
    pub fn offering(&self, id: &str) -> Option<&Offering> {
        self.offerings.iter().find(|o| o.id == id)
    }

    /// The plan of an offering.
    pub fn find(&self, service_id: &str, plan_id: &str) -> Option<Chosen<'_>> {
        let offering = self.offering(service_id)?;
        let plan = offering.plans.iter().find(|p| p.id == plan_id)?;
        Some(Chosen { offering, plan })
    }

    /// The answer to a platform that speaks a version: strict clients refuse fields that are newer.
    pub fn shown(&self, version: Version) -> Value {
        let services = self.offerings.iter().map(|offering| {
            let mut shown = gated(&offering.shown, version);
            let plans = offering.plans.iter().map(|plan| Value::Object(gated(&plan.shown, version)));
            shown.insert("plans".to_owned(), plans.collect());
            Value::Object(shown)
        });
        json!({ "services": services.collect::<Vec<_>>() })
    }

    /// Names the content of [`Catalog::shown`], for `If-None-Match`.
    pub fn etag(&self, version: Version) -> String {
        let digest = digest::digest(&digest::SHA256, self.shown(version).to_string().as_bytes());
        format!("\"{}\"", data_encoding::HEXLOWER.encode(&digest.as_ref()[..16]))
    }
}

impl Chosen<'_> {
    /// Whether instances of the plan can be bound.
    pub fn is_bindable(&self) -> bool {
        self.plan.bindable
    }

    /// Checks the parameters of a provision request; the complaint names the offending value's path.
    pub fn check_provision(&self, parameters: &Value) -> Result<(), String> {
        check(self.plan.provision.as_ref(), parameters)
    }

    /// Checks the parameters of a bind request; the complaint names the offending value's path.
    pub fn check_bind(&self, parameters: &Value) -> Result<(), String> {
        check(self.plan.bind.as_ref(), parameters)
    }
}

fn check(schema: Option<&Validator>, parameters: &Value) -> Result<(), String> {
    let Some(schema) = schema else {
        let empty = parameters.as_object().is_some_and(Map::is_empty);
        return if empty { Ok(()) } else { Err("parameters: this plan takes none".to_owned()) };
    };
    schema.validate(parameters).map_err(|error| {
        let path = error.instance_path().to_string();
        format!("parameters{path}: {error}")
    })
}

/// The first version of the specification that has a field, by minor number.
fn since(field: &str) -> u32 {
    match field {
        "schemas" => 13,
        "instances_retrievable" | "bindings_retrievable" => 14,
        "maintenance_info" | "maximum_polling_duration" => 15,
        "allow_context_updates" => 16,
        "binding_rotatable" => 17,
        _ => 0,
    }
}

fn gated(shown: &Map<String, Value>, version: Version) -> Map<String, Value> {
    // On a plan, plan_updateable came later than on an offering.
    let is_plan = shown.contains_key("free");
    let newer = |key: &str| (since(key) > version.minor) || (is_plan && key == "plan_updateable" && version.minor < 15);
    shown.iter().filter(|(key, _)| !newer(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn rule(at: impl Into<String>, rule: impl Into<String>) -> CatalogError {
    CatalogError::Rule { at: at.into(), rule: rule.into() }
}

fn unique(seen: &mut BTreeSet<String>, text: &str, at: &str) -> Result<(), CatalogError> {
    if seen.insert(text.to_owned()) { Ok(()) } else { Err(rule(at, format!("{text:?} stands twice"))) }
}

fn text(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(map: &Map<String, Value>, key: &str, default: bool, at: &str) -> Result<bool, CatalogError> {
    match map.get(key) {
        None => Ok(default),
        Some(Value::Bool(set)) => Ok(*set),
        Some(_) => Err(rule(at, format!("{key} must be true or false"))),
    }
}

/// Id, name and description are there, and the name is one that every client takes.
fn named(value: &Value, at: &str) -> Result<Map<String, Value>, CatalogError> {
    let map = value.as_object().ok_or_else(|| rule(at, "must be an object"))?.clone();
    for key in ["id", "name", "description"] {
        if text(&map, key).is_empty() {
            return Err(rule(at, format!("needs a {key} that is not empty")));
        }
    }
    let simple =
        |s: &str| s.len() <= 63 && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    for key in ["id", "name"] {
        if !simple(&text(&map, key)) {
            return Err(rule(
                at,
                format!("{key} must be 1 to 63 of a-z 0-9 -: other ones are rewritten or refused by clients"),
            ));
        }
    }
    Ok(map)
}

fn ours(mut map: Map<String, Value>) -> Map<String, Value> {
    OURS.iter().for_each(|key| drop(map.remove(*key)));
    map
}

fn offering(value: &Value) -> Result<Offering, CatalogError> {
    let map = named(value, "services")?;
    let at = text(&map, "name");
    let bindable = flag(&map, "bindable", true, &at)?;
    let backend = text(&map, "backend");
    if backend.is_empty() {
        return Err(rule(&at, "needs a backend"));
    }
    let known = ["syslog_drain", "route_forwarding", "volume_mount"];
    let requires = map.get("requires").and_then(Value::as_array).cloned().unwrap_or_default();
    if !requires.iter().all(|r| r.as_str().is_some_and(|r| known.contains(&r))) {
        return Err(rule(&at, "requires may only list syslog_drain, route_forwarding and volume_mount"));
    }
    let plans = map.get("plans").and_then(Value::as_array).cloned().unwrap_or_default();
    if plans.is_empty() {
        return Err(rule(&at, "needs at least one plan"));
    }
    let plans = plans.iter().map(|p| plan(p, &at, bindable)).collect::<Result<Vec<_>, _>>()?;
    let (asynchronous, requires_app) =
        (flag(&map, "asynchronous", false, &at)?, flag(&map, "requires_app", false, &at)?);
    let mut shown = ours(map);
    shown.insert("bindable".to_owned(), bindable.into());
    Ok(Offering { id: text(&shown, "id"), backend, asynchronous, requires_app, plans, shown })
}

fn plan(value: &Value, offering: &str, bindable: bool) -> Result<Plan, CatalogError> {
    let map = named(value, &format!("plans of {offering}"))?;
    let at = format!("{offering}/{}", text(&map, "name"));
    let bindable = flag(&map, "bindable", bindable, &at)?;
    // One client reads a missing `free` as false although the specification says true, so it is always there.
    let free = flag(&map, "free", true, &at)?;
    let defaults = match map.get("defaults") {
        None => Defaults::default(),
        Some(value) => Defaults::deserialize(value).map_err(|error| rule(&at, format!("defaults: {error}")))?,
    };
    let provision = schema(&map, "/schemas/service_instance/create/parameters", &at)?;
    let bind = schema(&map, "/schemas/service_binding/create/parameters", &at)?;
    let mut shown = ours(map);
    shown.insert("free".to_owned(), free.into());
    Ok(Plan { id: text(&shown, "id"), defaults, bindable, provision, bind, shown })
}

fn schema(plan: &Map<String, Value>, pointer: &str, at: &str) -> Result<Option<Validator>, CatalogError> {
    let plan = Value::Object(plan.clone());
    let Some(schema) = plan.pointer(pointer) else { return Ok(None) };
    let at = format!("{at}{pointer}");
    if schema.get("$schema").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(rule(at, "needs $schema"));
    }
    let bytes = schema.to_string();
    if bytes.len() > SCHEMA_BYTES_MAX {
        return Err(rule(at, format!("has {} bytes, at most {SCHEMA_BYTES_MAX}", bytes.len())));
    }
    if has_external_ref(schema) {
        return Err(rule(at, "must not refer to other documents: $ref has to begin with #"));
    }
    jsonschema::validator_for(schema).map(Some).map_err(|error| rule(at, error.to_string()))
}

fn has_external_ref(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let external = key == "$ref" && value.as_str().is_some_and(|r| !r.starts_with('#'));
            external || has_external_ref(value)
        }),
        Value::Array(list) => list.iter().any(has_external_ref),
        _ => false,
    }
}

/// The name of an index as parameters give it.
pub(crate) fn index_name(parameters: &Value) -> Option<Result<types::IndexName, Invalid>> {
    parameters.get("index").and_then(Value::as_str).map(str::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: fn(u32) -> Version = |minor| Version { minor };
    const SERVICE: &str = "0d5a6b1e-6c0e-4d5f-9a53-7f0f6a3c1e10";
    const SMALL: &str = "5f0a3c52-3a1b-4a86-8e0c-2b8f3f1d7a01";

    #[test]
    fn the_built_in_catalog_is_valid_and_hides_what_is_ours() {
        let catalog = Catalog::parse(BUILT_IN).unwrap();
        let shown = catalog.shown(V(17));
        let service = &shown["services"][0];
        assert_eq!((service["name"].as_str(), service["bindable"].as_bool()), (Some("log-index"), Some(true)));
        assert_eq!(service["metadata"]["displayName"], "Log index");
        let names: Vec<_> = service["plans"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["small", "standard"]);
        let schema = &service["plans"][1]["schemas"]["service_instance"]["create"]["parameters"];
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["segments"]["maximum"], 64);
        assert!(!shown.to_string().contains("\"backend\"") && !shown.to_string().contains("\"defaults\""));
        let small = catalog.find(SERVICE, SMALL).unwrap();
        assert_eq!(small.plan.defaults, Defaults { segments: 1, retention_days: Some(7) });
        assert!(catalog.find(SERVICE, SERVICE).is_none());
    }

    #[test]
    fn newer_fields_are_held_back() {
        let catalog = Catalog::parse(BUILT_IN).unwrap();
        for (minor, field, there) in [
            (11, "instances_retrievable", false),
            (13, "bindings_retrievable", false),
            (14, "bindings_retrievable", true),
            (11, "plan_updateable", true),
        ] {
            assert_eq!(catalog.shown(V(minor))["services"][0].get(field).is_some(), there, "{field} at 2.{minor}");
        }
        assert!(catalog.shown(V(12))["services"][0]["plans"][0].get("schemas").is_none());
        assert_ne!(catalog.etag(V(12)), catalog.etag(V(13)));
        assert_eq!(catalog.etag(V(16)), catalog.etag(V(17)));
    }

    #[test]
    fn schemas_name_the_offending_path() {
        let catalog = Catalog::parse(BUILT_IN).unwrap();
        let small = catalog.find(SERVICE, SMALL).unwrap();
        for (parameters, path) in [
            (json!({"segments": 0}), "parameters/segments: "),
            (json!({"segments": 65}), "parameters/segments: "),
            (json!({"segments": 1.5}), "parameters/segments: "),
            (json!({"retention_days": 3651}), "parameters/retention_days: "),
            (json!({"index": "Shop"}), "parameters/index: "),
            (json!({"indx": "shop"}), "parameters: "),
        ] {
            let complaint = small.check_provision(&parameters).unwrap_err();
            assert!(complaint.starts_with(path), "{complaint}");
        }
        small.check_provision(&json!({"index": "shop", "segments": 64, "retention_days": 1})).unwrap();
        small.check_bind(&json!({"role": "read", "ttl_seconds": 60})).unwrap();
        assert!(small.check_bind(&json!({"role": "root"})).unwrap_err().starts_with("parameters/role: "));
    }

    #[test]
    fn a_catalog_that_breaks_a_rule_is_not_served() {
        let plan = r#"{"id":"p","name":"p","description":"d"}"#;
        let service = |more: &str, plans: &str| {
            format!(
                r#"{{"services":[{{"id":"s","name":"s","description":"d","backend":"own",{more}"plans":[{plans}]}}]}}"#
            )
        };
        Catalog::parse(&service("", plan)).unwrap();
        for (text, complaint) in [
            ("services: 7".to_owned(), "needs a list"),
            ("[".to_owned(), "cannot be read"),
            (service("", ""), "at least one plan"),
            (service("", &format!("{plan},{plan}")), "stands twice"),
            (service(r#""bindable":"yes","#, plan), "true or false"),
            (service(r#""requires":["root"],"#, plan), "may only list"),
            (service("", &plan.replace("\"p\"", "\"P x\"")), "a-z 0-9 -"),
            (service("", &plan.replace("\"d\"", "\"\"")), "needs a description"),
            (service("", &plan.replace('}', r#","defaults":{"size":1}}"#)), "defaults"),
            (schema_of(service("", plan), r##"{"type":"object"}"##), "needs $schema"),
            (schema_of(service("", plan), r##"{"$schema":"s","$ref":"http://x/y"}"##), "other documents"),
            (
                schema_of(service("", plan), &format!(r#"{{"$schema":"s","title":"{}"}}"#, "x".repeat(70_000))),
                "at most",
            ),
        ] {
            let error = Catalog::parse(&text).unwrap_err().to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }

    fn schema_of(service: String, schema: &str) -> String {
        let schemas = format!(r#""schemas":{{"service_instance":{{"create":{{"parameters":{schema}}}}}}},"id":"p""#);
        service.replace(r#""id":"p""#, &schemas)
    }
}
