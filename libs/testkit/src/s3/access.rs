//! Who may do what: policies of users and of buckets, denials first.

use serde_json::Value;
use types::Timestamp;

use super::{Call, Refusal, State, signature::Known};

const DENIED: Refusal = (403, "AccessDenied", "Access Denied");

impl State {
    /// Whether the bearer of a key may make a call.
    pub(super) fn may(&self, call: &Call<'_>, key: &Known, now: Timestamp) -> Result<(), Refusal> {
        let resource = match call.key() {
            _ if call.action.starts_with("iam:") => "*".to_owned(),
            // Many at once: their keys stand in the body, and ours are all below the bucket.
            _ if call.query.contains_key("delete") => format!("arn:aws:s3:::{}/", call.bucket()),
            "" => format!("arn:aws:s3:::{}", call.bucket()),
            key => format!("arn:aws:s3:::{}/{key}", call.bucket()),
        };
        let bucket = self.buckets.get(call.bucket());
        let of_bucket = bucket.and_then(|bucket| bucket.policy.as_deref());
        // Another account's bucket lets nobody of ours in.
        if bucket.is_some_and(|bucket| !bucket.owner.is_empty()) && call.action != "s3:CreateBucket" {
            return Err(DENIED);
        }
        if of_bucket.is_some_and(|policy| says("Deny", policy, call, &resource, now)) {
            return Err(DENIED);
        }
        // The account itself, or a user who is gone and whose deleted key is not refused everywhere yet.
        let Some(user) = key.user.as_ref().and_then(|user| self.users.get(user)) else { return Ok(()) };
        let policies: Vec<&String> = user.policies.values().collect();
        let any = |effect: &str| policies.iter().any(|policy| says(effect, policy, call, &resource, now));
        if any("Deny") || !any("Allow") { Err(DENIED) } else { Ok(()) }
    }
}

/// Whether a policy has a statement of this effect that is about this call.
fn says(effect: &str, policy: &str, call: &Call<'_>, resource: &str, now: Timestamp) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return false };
    let statements = list(&policy["Statement"]);
    statements.iter().any(|statement| {
        statement["Effect"] == effect
            && list(&statement["Action"]).iter().any(|action| fits(action, &call.action))
            && list(&statement["Resource"]).iter().any(|wanted| fits(wanted, resource))
            && holds(&statement["Condition"], call, now)
    })
}

/// One value, or each of a list.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(all) => all.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

fn fits(pattern: &Value, text: &str) -> bool {
    let pattern = pattern.as_str().unwrap_or("");
    match pattern.split_once('*') {
        None => pattern == text,
        // Policies of ours have a star at the end only.
        Some((head, _)) => text.starts_with(head),
    }
}

/// Conditions that are not known never hold.
fn holds(condition: &Value, call: &Call<'_>, now: Timestamp) -> bool {
    let Some(conditions) = condition.as_object() else { return true };
    conditions.iter().all(|(operator, wanted)| match operator.as_str() {
        "Bool" => wanted["aws:SecureTransport"].as_str() == Some(if call.tls { "true" } else { "false" }),
        "DateLessThan" => {
            let end = wanted["aws:CurrentTime"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            end.is_some_and(|end| now < Timestamp::from_millis(end.as_millisecond()))
        }
        _ => false,
    })
}
