//! What is refused, in Elasticsearch's words, and how bodies are read with those words. Pure.

use serde_json::{Map, Value, json};

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Refused {
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
}

impl Refused {
    /// The body is not of the form that it must have.
    pub(crate) fn parsing(reason: impl Into<String>) -> Self {
        Self { kind: "parsing_exception", reason: reason.into() }
    }

    /// It is of that form, and asks for what is not possible.
    pub(crate) fn illegal(reason: impl Into<String>) -> Self {
        Self { kind: "illegal_argument_exception", reason: reason.into() }
    }

    /// Elasticsearch has it and we have not.
    pub(crate) fn absent(what: &str) -> Self {
        Self::illegal(format!("[{what}] is not supported here"))
    }
}

/// An error as Elasticsearch shows it.
pub(crate) fn error(status: u16, kind: &str, reason: &str) -> Value {
    let cause = json!({ "type": kind, "reason": reason });
    json!({ "error": { "root_cause": [cause], "type": kind, "reason": reason }, "status": status })
}

/// An object, which `what` must be.
pub(crate) fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Refused> {
    value.as_object().ok_or_else(|| Refused::parsing(format!("[{what}] must be an object")))
}

/// The one member of an object.
pub(crate) fn only<'a>(value: &'a Value, what: &str) -> Result<(&'a str, &'a Value), Refused> {
    let mut members = object(value, what)?.iter();
    match (members.next(), members.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        (None, _) => Err(Refused::parsing(format!("[{what}] must not be empty"))),
        (_, Some((second, _))) => {
            Err(Refused::parsing(format!("[{what}] malformed query, expected [END_OBJECT] but found [{second}]")))
        }
    }
}

/// Refuses members that are not known.
pub(crate) fn known(members: &Map<String, Value>, names: &[&str], what: &str) -> Result<(), Refused> {
    match members.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(Refused::parsing(format!("[{what}] query does not support [{name}]"))),
        None => Ok(()),
    }
}

/// A text; numbers and truth values are texts too, as in Elasticsearch.
pub(crate) fn text(value: &Value, what: &str) -> Result<String, Refused> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(Refused::parsing(format!("[{what}] must be a text"))),
    }
}

/// A whole number from 0, also as a text.
pub(crate) fn count(value: &Value, what: &str) -> Result<usize, Refused> {
    let read = match value {
        Value::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| Refused::illegal(format!("[{what}] must be a whole number from 0, not [{value}]")))
}

/// A finite number, also as a text.
pub(crate) fn number(value: &Value, what: &str) -> Result<f64, Refused> {
    let read = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let finite = read.filter(|number: &f64| number.is_finite());
    finite.ok_or_else(|| Refused::parsing(format!("[{what}] must be a number, not [{value}]")))
}

/// A truth value, also as a text.
pub(crate) fn flag(value: &Value, what: &str) -> Result<bool, Refused> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" || text.is_empty() => Ok(false),
        _ => Err(Refused::illegal(format!(
            "Failed to parse value [{value}] as only [true] or [false] are allowed for [{what}]"
        ))),
    }
}

/// One value or a list of them.
pub(crate) fn listed(value: &Value) -> &[Value] {
    match value {
        Value::Array(all) => all,
        one => std::slice::from_ref(one),
    }
}

/// Texts, one or a list of them.
pub(crate) fn texts(value: &Value, what: &str) -> Result<Vec<String>, Refused> {
    listed(value).iter().map(|one| text(one, what)).collect()
}
