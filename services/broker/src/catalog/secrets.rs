//! Which values of parameters a schema marks as secrets: `writeOnly`, wherever in the schema the mark stands.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::schema::REFERENCES;

/// Keywords whose schemas speak about the same value.
const COMBINED: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const CONDITIONAL: [&str; 3] = ["if", "then", "else"];
const DEPENDENT: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords whose schemas speak about the entries of a list, or about what no other keyword names.
const ENTRIES: [&str; 5] = ["items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"];
const OTHERS: [&str; 2] = ["additionalProperties", "unevaluatedProperties"];

/// Parameters with every secret in them replaced; what they are as a whole stays an object.
///
/// It errs on the careful side: a value is a secret if any schema that may apply to it says so, whichever branch it took, and if it
/// cannot be found out what applies.
pub(super) fn replaced(schema: &Value, parameters: &Value, with: &mut dyn FnMut(&Value) -> Value) -> Value {
    // Whatever such a schema refers to, or has a document of its own for: there is no mark to be found. And nobody needs keys for it.
    if !has_any(schema) {
        return parameters.clone();
    }
    let document = Document { root: schema, is_one: !has_parts(schema, true) };
    let Value::Object(map) = parameters else { return with(parameters) };
    match document.applicable(&[schema]).filter(|all| !is_secret(all)) {
        Some(all) => document.of_object(&all, map, with),
        None => map.iter().map(|(key, value)| (key.clone(), with(value))).collect(),
    }
}

/// Whether a schema marks anything as a secret.
pub(super) fn has_any(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.get("writeOnly") == Some(&Value::Bool(true)) || map.values().any(has_any),
        Value::Array(list) => list.iter().any(has_any),
        _ => false,
    }
}

/// Whether a parameter of this name is a secret, or may have one in it.
pub(super) fn has_within(schema: &Value, name: &str) -> bool {
    let document = Document { root: schema, is_one: !has_parts(schema, true) };
    let Some(mut open) = document.applicable(&[schema]) else { return has_any(schema) };
    // As such parameters are sealed: then all of them are secrets.
    if is_secret(&open) {
        return true;
    }
    open = open.into_iter().flat_map(|one| of_property(one, name)).collect();
    let mut seen = BTreeSet::new();
    while let Some(one) = open.pop() {
        if !seen.insert(std::ptr::from_ref(one)) {
            continue;
        }
        if is_secret(&[one]) {
            return true;
        }
        let Some(all) = document.applicable(&[one]) else { return has_any(schema) };
        open.extend(all);
        match one {
            Value::Object(map) => open.extend(map.values()),
            Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
    false
}

struct Document<'a> {
    root: &'a Value,
    /// Whether references are all relative to the root: nothing below it has an id of its own.
    is_one: bool,
}

impl<'a> Document<'a> {
    fn value(&self, schemas: &[&'a Value], value: &Value, with: &mut dyn FnMut(&Value) -> Value) -> Value {
        let Some(all) = self.applicable(schemas).filter(|all| !is_secret(all)) else { return with(value) };
        match value {
            Value::Object(map) => self.of_object(&all, map, with),
            Value::Array(list) => {
                let entries: Vec<&Value> = all.iter().flat_map(|schema| named(schema, &ENTRIES)).collect();
                list.iter().map(|entry| self.value(&entries, entry, with)).collect()
            }
            _ => value.clone(),
        }
    }

    fn of_object(&self, all: &[&'a Value], map: &Map<String, Value>, with: &mut dyn FnMut(&Value) -> Value) -> Value {
        let shown = map.iter().map(|(key, value)| {
            let schemas: Vec<&Value> = all.iter().flat_map(|schema| of_property(schema, key)).collect();
            (key.clone(), self.value(&schemas, value, with))
        });
        Value::Object(shown.collect())
    }

    /// Every schema that speaks about a value; `None` if a reference leads nowhere.
    fn applicable(&self, schemas: &[&'a Value]) -> Option<Vec<&'a Value>> {
        let (mut all, mut seen, mut open) = (Vec::new(), BTreeSet::new(), schemas.to_vec());
        while let Some(schema) = open.pop() {
            if !seen.insert(std::ptr::from_ref(schema)) {
                continue;
            }
            all.push(schema);
            for reference in REFERENCES.iter().filter_map(|key| schema.get(*key)?.as_str()) {
                open.push(self.target(reference)?);
            }
            open.extend(named(schema, &COMBINED));
            open.extend(CONDITIONAL.iter().filter_map(|key| schema.get(*key)));
            let dependent = DEPENDENT.iter().filter_map(|key| schema.get(*key)?.as_object());
            open.extend(dependent.flat_map(Map::values));
        }
        Some(all)
    }

    /// What a reference within the document means: the whole, a place, or a name that stands somewhere.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        let fragment = reference.strip_prefix('#').filter(|_| self.is_one)?;
        match fragment {
            "" => Some(self.root),
            place if place.starts_with('/') => self.root.pointer(&unescaped(place)?),
            name => anchored(self.root, name),
        }
    }
}

fn is_secret(schemas: &[&Value]) -> bool {
    schemas.iter().any(|schema| schema.get("writeOnly") == Some(&Value::Bool(true)))
}

/// The schemas under some keywords, each of which may have one or a list.
fn named<'a>(schema: &'a Value, keys: &[&str]) -> Vec<&'a Value> {
    let there = keys.iter().filter_map(|key| schema.get(*key));
    let each = |one: &'a Value| one.as_array().map_or_else(|| vec![one], |list| list.iter().collect());
    there.flat_map(each).collect()
}

/// What a schema says about a property. Patterns are not compared: what one of them may mean counts.
fn of_property<'a>(schema: &'a Value, key: &str) -> Vec<&'a Value> {
    let own = schema.get("properties").and_then(|properties| properties.get(key));
    let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let others = OTHERS.iter().filter_map(|other| schema.get(*other)).filter(|_| own.is_none());
    own.into_iter().chain(patterns).chain(others).collect()
}

/// The path of a fragment without the escapes of a URL; `None` if it is none.
fn unescaped(place: &str) -> Option<String> {
    let mut parts = place.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn anchored<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let is_it = |key: &str| value.get(key).and_then(Value::as_str);
    let by_anchor = ["$anchor", "$dynamicAnchor"].iter().any(|key| is_it(key) == Some(name));
    let by_id = ["$id", "id"].iter().any(|key| is_it(key).and_then(|id| id.strip_prefix('#')) == Some(name));
    match value {
        Value::Object(_) if by_anchor || by_id => Some(value),
        Value::Object(map) => map.values().find_map(|below| anchored(below, name)),
        Value::Array(list) => list.iter().find_map(|below| anchored(below, name)),
        _ => None,
    }
}

/// Whether something below the root is a document of its own, to which references below it are relative.
fn has_parts(value: &Value, is_root: bool) -> bool {
    let own = |key: &str| value.get(key).and_then(Value::as_str).is_some_and(|id| !id.starts_with('#'));
    match value {
        Value::Object(map) => {
            (!is_root && (own("$id") || own("id"))) || map.values().any(|below| has_parts(below, false))
        }
        Value::Array(list) => list.iter().any(|below| has_parts(below, false)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(schema: &Value, parameters: &Value) -> Value {
        replaced(schema, parameters, &mut |_| "***".into())
    }

    #[test]
    fn a_mark_is_found_wherever_it_stands() {
        let secret = json!({ "type": "string", "writeOnly": true });
        let plain = json!({ "type": "string" });
        let key = |schema: Value| json!({ "properties": { "key": schema } });
        for schema in [
            key(secret.clone()),
            key(json!({ "allOf": [plain, secret] })),
            key(json!({ "anyOf": [plain, { "allOf": [secret] }] })),
            key(json!({ "oneOf": [secret, plain] })),
            key(json!({ "if": plain, "then": secret })),
            key(json!({ "if": plain, "else": secret })),
            json!({ "allOf": [key(plain.clone()), key(secret.clone())] }),
            json!({ "anyOf": [key(secret.clone())], "properties": { "key": plain } }),
            json!({ "dependentSchemas": { "other": key(secret.clone()) } }),
            json!({ "additionalProperties": secret, "properties": { "other": {}, "deep": {}, "list": {} } }),
            json!({ "definitions": { "s": secret }, "properties": { "key": { "$ref": "#/definitions/s" } } }),
            json!({ "$defs": { "a/b c": secret }, "properties": { "key": { "$ref": "#/$defs/a~1b%20c" } } }),
            json!({ "$defs": { "s": { "$anchor": "s", "writeOnly": true } }, "properties": { "key": { "$ref": "#s" } } }),
            json!({ "definitions": { "s": { "id": "#s", "writeOnly": true } }, "properties": { "key": { "$ref": "#s" } } }),
            json!({
                "definitions": { "a": { "$ref": "#/definitions/b" }, "b": { "allOf": [{ "$ref": "#/definitions/c" }] },
                    "c": secret },
                "properties": { "key": { "$ref": "#/definitions/a" } },
            }),
            // Nobody can say what these mean.
            json!({ "properties": { "key": { "$ref": "#/definitions/none" }, "more": secret } }),
            json!({ "properties": { "key": { "$ref": "#/x" }, "sub": { "$id": "http://x/y", "writeOnly": true } }, "x": {} }),
        ] {
            let parameters = json!({ "key": "hunter2", "other": "o" });
            assert_eq!(shown(&schema, &parameters), json!({ "key": "***", "other": "o" }), "{schema}");
        }
    }

    #[test]
    fn a_parameter_may_have_a_secret_deep_within() {
        let schema = json!({
            "definitions": { "s": { "writeOnly": true } },
            "properties": {
                "plain": { "type": "string" }, "key": { "$ref": "#/definitions/s" },
                "settings": { "anyOf": [{ "properties": { "deep": { "items": { "$ref": "#/definitions/s" } } } }] },
            },
        });
        let secret = |name: &str| has_within(&schema, name);
        assert!(has_any(&schema) && secret("key") && secret("settings"));
        assert!(!secret("plain") && !secret("none") && !has_any(&json!({ "writeOnly": false })));
        let mark = json!({ "writeOnly": true });
        for (schema, of_plain, of_none) in [
            (mark.clone(), true, true),
            (json!({ "allOf": [mark], "properties": { "plain": {} } }), true, true),
            (json!({ "patternProperties": { "^k": mark }, "properties": { "plain": {} } }), true, true),
            (json!({ "additionalProperties": mark, "properties": { "plain": {} } }), false, true),
            (json!({ "additionalProperties": { "items": mark }, "properties": { "plain": {} } }), false, true),
        ] {
            assert_eq!((has_within(&schema, "plain"), has_within(&schema, "none")), (of_plain, of_none), "{schema}");
        }
    }

    #[test]
    fn what_is_not_marked_stays() {
        let patterns = json!({ "patternProperties": { "^k": { "writeOnly": true } }, "properties": { "key": {} } });
        assert_eq!(
            shown(&patterns, &json!({ "key": 1, "other": 2 })),
            json!({ "key": "***", "other": "***" }),
            "careful"
        );
        let schema = json!({
            "definitions": { "tree": { "properties": {
                "name": {}, "key": { "writeOnly": true }, "below": { "type": "array", "items": { "$ref": "#/definitions/tree" } },
            } } },
            "properties": {
                "tree": { "$ref": "#/definitions/tree" }, "loop": { "$ref": "#/properties/loop" },
                "open": { "writeOnly": false }, "pair": { "prefixItems": [{}, { "items": { "writeOnly": true } }] },
            },
        });
        let leaf = |key: &str| json!({ "name": "n", "key": key, "below": [] });
        let tree = |key: &str| json!({ "name": "n", "key": key, "below": [leaf(key), leaf(key)] });
        let parameters = |key: &str| json!({ "tree": tree(key), "loop": 7, "open": "o", "pair": [1, [key]], "free": { "key": "mine" } });
        assert_eq!(shown(&schema, &parameters("hunter2")), parameters("***"));
        assert_eq!(shown(&json!({}), &json!({ "a": [1, { "b": null }] })), json!({ "a": [1, { "b": null }] }));
        assert_eq!(shown(&json!({ "writeOnly": true }), &json!({ "a": 1 })), json!({ "a": "***" }), "still an object");
        assert_eq!(shown(&json!(true), &json!({ "a": 1 })), json!({ "a": 1 }));
        // Without any mark nothing is in doubt.
        let unmarked =
            json!({ "properties": { "a": { "$ref": "#/none" }, "b": { "$id": "http://x/y", "$ref": "#/z" } } });
        for parameters in [json!({ "a": 1, "b": "b" }), json!(7)] {
            assert_eq!(shown(&unmarked, &parameters), parameters);
        }
    }
}
