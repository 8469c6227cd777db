//! Request bodies: a JSON object whose unknown fields are ignored and whose known ones have the right type.

use serde_json::{Map, Value};

use crate::osb::Answer;

/// The longest text of a known field that is an id of something; the specification recommends it.
const ID_CHARS_MAX: usize = 255;

/// A JSON object from a platform.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Answer> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Answer::bad_request("the body must be a JSON object")),
            Err(error) => Err(Answer::bad_request(format!("the body is not JSON: {error}"))),
        }
    }

    /// A string that must be there and not be empty.
    pub(crate) fn required(&self, key: &str) -> Result<String, Answer> {
        match self.optional(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(Answer::bad_request(format!("{key} is required and must not be empty"))),
        }
    }

    /// A string, if it is there.
    pub(crate) fn optional(&self, key: &str) -> Result<Option<String>, Answer> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() > ID_CHARS_MAX => {
                Err(Answer::bad_request(format!("{key} is longer than {ID_CHARS_MAX} characters")))
            }
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Answer::bad_request(format!("{key} must be a string"))),
        }
    }

    /// An object, if it is there.
    pub(crate) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, Answer> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(Answer::bad_request(format!("{key} must be an object"))),
        }
    }

    /// The parameters; none is the same as an empty object.
    pub(crate) fn parameters(&self) -> Result<Value, Answer> {
        Ok(Value::Object(self.object("parameters")?.cloned().unwrap_or_default()))
    }

    /// Whether the binding is for an application.
    pub(crate) fn names_app(&self) -> Result<bool, Answer> {
        let of_resource = self.object("bind_resource")?.and_then(|r| r.get("app_guid")).and_then(Value::as_str);
        let app = of_resource.map(str::to_owned).or(self.optional("app_guid")?);
        Ok(app.is_some_and(|app| !app.is_empty()))
    }
}

/// JSON with the keys of every object in order, so that equal requests are equal texts.
pub(crate) fn canonical(value: &Value) -> String {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort();
                Value::Object(keys.into_iter().map(|key| (key.clone(), sort(&map[key]))).collect())
            }
            Value::Array(list) => Value::Array(list.iter().map(sort).collect()),
            other => other.clone(),
        }
    }
    sort(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_body_is_an_object_and_known_fields_have_their_type() {
        for bad in ["", "null", "[]", "7", "\"x\"", "{"] {
            assert_eq!(Body::parse(bad.as_bytes()).unwrap_err().status, 400, "{bad}");
        }
        let body =
            Body::parse(br#"{"a":"x","e":"","n":null,"o":{},"l":[],"parameters":{"k":1},"unknown":{"x":[]}}"#).unwrap();
        assert_eq!(body.required("a").unwrap(), "x");
        for missing in ["e", "n", "o", "none"] {
            assert_eq!(body.required(missing).unwrap_err().status, 400, "{missing}");
        }
        assert!(body.object("o").unwrap().is_some() && body.object("none").unwrap().is_none());
        let long = json!({ "fits": "é".repeat(ID_CHARS_MAX), "long": "e".repeat(ID_CHARS_MAX + 1) }).to_string();
        let long = Body::parse(long.as_bytes()).unwrap();
        assert!(long.required("fits").is_ok() && long.required("long").is_err());
        assert!(body.object("l").is_err() && body.object("n").is_err());
        assert_eq!(body.parameters().unwrap()["k"], 1);
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b":{"y":1,"x":[{"q":1,"p":2}]},"a":2}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a":2,"b":{"x":[{"p":2,"q":1}],"y":1}}"#).unwrap();
        assert_eq!(canonical(&one), canonical(&two));
    }

    #[test]
    fn an_app_may_be_named_in_two_places() {
        for (text, named) in [
            (r#"{}"#, false),
            (r#"{"bind_resource":{}}"#, false),
            (r#"{"bind_resource":{"app_guid":"a"}}"#, true),
            (r#"{"app_guid":"a"}"#, true),
        ] {
            assert_eq!(Body::parse(text.as_bytes()).unwrap().names_app().unwrap(), named, "{text}");
        }
    }
}
