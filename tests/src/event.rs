//! Events as applications write them.

use jiff::Timestamp;
use serde_json::{Value, json};

/// A JSON event; `more` adds fields.
pub fn event(at: Timestamp, service: &str, level: &str, message: &str, more: Value) -> String {
    let mut event = json!({ "time": jiff_text(at), "service": service, "level": level, "msg": message });
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
    event.to_string()
}

/// RFC 3339 with milliseconds.
pub fn jiff_text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// An instant as SQL.
pub fn sql_time(at: Timestamp) -> String {
    format!("TIMESTAMP '{}'", jiff_text(at).trim_end_matches('Z'))
}
