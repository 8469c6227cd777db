//! Parameter schemas: checked when the catalog is read, compiled once, and asked about every request.

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::catalog::{CatalogError, rule, secrets};

/// The largest schema that the specification allows.
pub(super) const SCHEMA_BYTES_MAX: usize = 64 * 1024;

/// The drafts that a schema may be written in: draft-04 and later.
const DRAFTS: [&str; 5] = [
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
];

/// Keywords whose texts name schemas.
pub(super) const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// One compiled schema; the default takes no parameters at all.
#[derive(Debug, Default)]
pub(super) struct Schema {
    text: Value,
    compiled: Option<Validator>,
}

impl Schema {
    /// Reads the schema at a pointer below a plan; none is there if the pointer leads nowhere.
    pub(super) fn of(plan: &Value, pointer: &str, at: &str) -> Result<Option<Self>, CatalogError> {
        let Some(text) = plan.pointer(pointer) else { return Ok(None) };
        let at = format!("{at}{pointer}");
        if !text.is_object() {
            return Err(rule(at, "must be an object: a JSON Schema"));
        }
        let draft = text.get("$schema").and_then(Value::as_str).unwrap_or_default();
        if !DRAFTS.contains(&draft.trim_end_matches('#')) {
            return Err(rule(at, format!("needs $schema, one of {}", DRAFTS.join(", "))));
        }
        let size = text.to_string().len();
        if size > SCHEMA_BYTES_MAX {
            return Err(rule(at, format!("has {size} bytes, at most {SCHEMA_BYTES_MAX}")));
        }
        if refers_outside(text) {
            return Err(rule(at, "must not refer to other documents: $ref has to begin with #"));
        }
        let compiled = jsonschema::validator_for(text).map_err(|error| rule(at, error.to_string()))?;
        Ok(Some(Self { text: text.clone(), compiled: Some(compiled) }))
    }

    /// Checks parameters. The complaint begins with the path of the offending value and does not hold the value, which may be a secret.
    pub(super) fn check(&self, parameters: &Value) -> Result<(), String> {
        let Some(compiled) = &self.compiled else {
            let empty = parameters.as_object().is_some_and(Map::is_empty);
            return if empty { Ok(()) } else { Err("parameters: this plan takes none".to_owned()) };
        };
        compiled.validate(parameters).map_err(|error| {
            let path = error.instance_path().to_string();
            format!("parameters{path}: {}", error.masked())
        })
    }

    /// Whether a parameter of this name is described.
    pub(super) fn describes(&self, name: &str) -> bool {
        self.text.get("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    /// The same parameters with something else in place of those that are marked `writeOnly`.
    pub(super) fn replaced(&self, parameters: &Value, with: &mut dyn FnMut(&Value) -> Value) -> Value {
        secrets::replaced(&self.text, parameters, with)
    }

    /// Whether it marks anything as a secret.
    pub(super) fn has_secrets(&self) -> bool {
        secrets::has_any(&self.text)
    }

    /// Whether a parameter of this name is a secret, or may have one in it.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        secrets::has_within(&self.text, name)
    }
}

/// Sets the largest value of whole-numbered parameters in a schema that describes them.
pub(super) fn limit(schema: &mut Value, limits: &Map<String, Value>) {
    for (name, most) in limits {
        if let Some(parameter) = schema.pointer_mut("/properties").and_then(|all| all.get_mut(name)) {
            parameter["maximum"] = most.clone();
        }
    }
}

fn refers_outside(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let outside = REFERENCES.contains(&key.as_str()) && value.as_str().is_some_and(|r| !r.starts_with('#'));
            outside || refers_outside(value)
        }),
        Value::Array(list) => list.iter().any(refers_outside),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: Value) -> Result<Option<Schema>, CatalogError> {
        Schema::of(&json!({ "p": schema }), "/p", "plan")
    }

    fn draft(more: Value) -> Value {
        let mut schema = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "type": "object" });
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    }

    #[test]
    fn a_schema_that_breaks_a_rule_is_refused_by_its_place() {
        assert!(Schema::of(&json!({}), "/p", "plan").unwrap().is_none());
        for (schema, complaint) in [
            (json!([]), "must be an object"),
            (json!({ "type": "object" }), "needs $schema"),
            (json!({ "$schema": "http://json-schema.org/draft-03/schema#" }), "needs $schema"),
            (draft(json!({ "properties": { "a": { "$ref": "http://x/y" } } })), "other documents"),
            (draft(json!({ "title": "x".repeat(SCHEMA_BYTES_MAX) })), "at most 65536"),
            (draft(json!({ "type": "strange" })), "strange"),
        ] {
            let error = of(schema).unwrap_err().to_string();
            assert!(error.starts_with("catalog: plan/p: ") && error.contains(complaint), "{error}");
        }
        for at in DRAFTS {
            of(json!({ "$schema": at, "type": "object" })).unwrap().unwrap();
        }
    }

    #[test]
    fn a_complaint_names_the_path_and_not_the_value() {
        let schema = draft(json!({
            "additionalProperties": false,
            "properties": {
                "size": { "type": "integer", "maximum": 7 }, "word": { "enum": ["a", "b"] },
                "name": { "pattern": "^[a-z]+$" }, "deep": { "properties": { "key": { "type": "integer" } } },
            },
        }));
        let schema = of(schema).unwrap().unwrap();
        for (parameters, path, says) in [
            (json!({ "size": 8 }), "parameters/size: ", "7"),
            (json!({ "size": "hunter2" }), "parameters/size: ", "integer"),
            (json!({ "word": "hunter2" }), "parameters/word: ", "\"a\""),
            (json!({ "name": "hunter2" }), "parameters/name: ", "^[a-z]+$"),
            (json!({ "deep": { "key": "hunter2" } }), "parameters/deep/key: ", "integer"),
            (json!({ "unknown": "hunter2" }), "parameters: ", "unknown"),
        ] {
            let complaint = schema.check(&parameters).unwrap_err();
            assert!(complaint.starts_with(path) && complaint.contains(says), "{complaint}");
            assert!(!complaint.contains("hunter2"), "{complaint}");
        }
        schema.check(&json!({ "size": 7, "word": "a", "name": "x" })).unwrap();
        Schema::default().check(&json!({})).unwrap();
        assert!(Schema::default().check(&json!({ "size": 1 })).unwrap_err().contains("takes none"));
    }

    fn blotted(schema: &Schema, parameters: &Value) -> Value {
        schema.replaced(parameters, &mut |_| "***".into())
    }

    #[test]
    fn what_is_marked_as_secret_is_not_shown() {
        let secret = json!({ "type": "string", "writeOnly": true });
        let schema = draft(json!({
            "properties": {
                "key": secret, "plain": { "type": "string" }, "deep": { "properties": { "key": secret } },
                "list": { "type": "array", "items": secret },
            },
        }));
        let schema = of(schema).unwrap().unwrap();
        let shown = blotted(
            &schema,
            &json!({
                "key": "hunter2", "plain": "p", "deep": { "key": "hunter2", "n": 1 }, "list": ["hunter2"], "other": [1],
            }),
        );
        let expected = json!({
            "key": "***", "plain": "p", "deep": { "key": "***", "n": 1 }, "list": ["***"], "other": [1],
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_limit_becomes_part_of_the_schema() {
        let mut schema = draft(json!({ "properties": { "size": { "type": "integer" } } }));
        limit(&mut schema, json!({ "size": 4, "other": 1 }).as_object().unwrap());
        let schema = of(schema).unwrap().unwrap();
        assert!(schema.check(&json!({ "size": 5 })).is_err() && schema.check(&json!({ "size": 4 })).is_ok());
    }
}
