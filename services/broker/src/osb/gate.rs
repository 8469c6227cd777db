//! Fields by version: strict clients validate answers against the version they speak, and unknown fields are errors to them.

use serde_json::{Map, Value};

use crate::osb::{Answer, Version};

/// Fields of answers that are newer than the oldest version, with the version that brought them.
///
/// `endpoints` came with 2.15, but strict clients of that version refuse it in a binding.
const FIELDS: [(&str, u32); 4] =
    [("maintenance_info", 15), ("endpoints", 16), ("instance_usable", 16), ("update_repeatable", 16)];

/// The same for what `metadata` holds; what is left empty is left out.
const METADATA: [(&str, u32); 4] = [("labels", 16), ("expires_at", 16), ("attributes", 17), ("renew_before", 17)];

/// The newest of all of them: from here on nothing is held back.
const NEWEST: u32 = 17;

/// Holds back what a platform's version does not know. The catalog has a table of its own.
pub(crate) fn gate(mut answer: Answer, version: Version) -> Answer {
    if version.has(NEWEST) {
        return answer;
    }
    if !version.has(15) && answer.status < 300 {
        answer.headers.retain(|(name, _)| name != "Retry-After");
    }
    if let Ok(Value::Object(mut body)) = serde_json::from_str(&answer.body)
        && hold_back(&mut body, version)
    {
        answer.body = Value::Object(body).to_string();
    }
    answer
}

fn hold_back(body: &mut Map<String, Value>, version: Version) -> bool {
    let mut held = false;
    for (field, since) in FIELDS {
        held |= !version.has(since) && body.remove(field).is_some();
    }
    let Some(Value::Object(metadata)) = body.get_mut("metadata") else { return held };
    for (field, since) in METADATA {
        held |= !version.has(since) && metadata.remove(field).is_some();
    }
    if metadata.is_empty() {
        held |= body.remove("metadata").is_some();
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_there_from_its_version_on() {
        let full = json!({
            "credentials": { "endpoints": "mine", "metadata": "mine", "maintenance_info": "mine" },
            "endpoints": [], "maintenance_info": { "version": "1.0.0" }, "instance_usable": true, "update_repeatable": true,
            "metadata": { "labels": {}, "expires_at": "e", "attributes": {}, "renew_before": "r" },
        });
        for (minor, fields, metadata) in [
            (11, &["credentials"][..], &[][..]),
            (14, &["credentials"], &[]),
            (15, &["credentials", "maintenance_info"], &[]),
            (
                16,
                &["credentials", "endpoints", "instance_usable", "maintenance_info", "metadata", "update_repeatable"],
                &["expires_at", "labels"],
            ),
            (
                17,
                &["credentials", "endpoints", "instance_usable", "maintenance_info", "metadata", "update_repeatable"],
                &["attributes", "expires_at", "labels", "renew_before"],
            ),
        ] {
            let answer = gate(Answer::of(200, &full).header("Retry-After", "1"), Version { minor });
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            let keys = |value: &Value| {
                let mut keys: Vec<_> = value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
                keys.sort();
                keys
            };
            assert_eq!((keys(&body), keys(&body["metadata"])), (own(fields), own(metadata)), "2.{minor}");
            assert_eq!(body["credentials"], full["credentials"], "an application's keys are not the specification's");
            assert_eq!(answer.headers.len(), usize::from(minor >= 15), "2.{minor}");
        }
        let busy = gate(Answer::of(503, &json!({})).header("Retry-After", "1"), Version { minor: 11 });
        assert_eq!(busy.headers.len(), 1, "there it is HTTP's own");
    }

    fn own(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}
