//! Parameters on their way into the state and out of it: canonical, within a bound, with their secrets sealed.

use serde_json::Value;
use types::InstanceId;

use crate::{
    osb::{Answer, canonical},
    seal::{SealError, SealingKeys},
};

/// The longest context or parameters, as canonical JSON: they are kept as long as the instance is.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Replaces each secret of parameters by what a function makes of it.
pub(super) type Replace<'a> = &'a dyn Fn(&Value, &mut dyn FnMut(&Value) -> Value) -> Value;

/// Canonical JSON within its bound.
pub(super) fn kept(key: &str, value: &Value) -> Result<String, Answer> {
    let text = canonical(value);
    if text.len() > KEPT_BYTES_MAX {
        return Err(Answer::bad_request(format!("{key} has {} bytes, at most {KEPT_BYTES_MAX}", text.len())));
    }
    Ok(text)
}

/// Parameters as they are stored: the same text as what is there already, if they say the same.
///
/// Keys may have been exchanged meanwhile, and versions before this one sealed nothing; a repeat is a repeat all the same.
pub(super) fn sealed(
    keys: &SealingKeys,
    instance: &InstanceId,
    parameters: &Value,
    there: Option<&str>,
    replace: Replace<'_>,
) -> Result<String, Answer> {
    let plain = kept("parameters", parameters)?;
    if let Some(there) = there
        && opened(keys, instance, there, replace).is_ok_and(|opened| canonical(&opened) == plain)
    {
        return Ok(there.to_owned());
    }
    let mut failure = None;
    let sealed = replace(parameters, &mut |secret| {
        keys.seal(instance.as_str(), secret).unwrap_or_else(|error| {
            failure = Some(error);
            Value::Null
        })
    });
    failure.map_or_else(|| Ok(canonical(&sealed)), |error| Err(unreadable(&error)))
}

/// Stored parameters as they were asked for. Never to be shown.
pub(super) fn opened(
    keys: &SealingKeys,
    instance: &InstanceId,
    there: &str,
    replace: Replace<'_>,
) -> Result<Value, Answer> {
    let stored: Value = serde_json::from_str(there).unwrap_or_default();
    let mut failure = None;
    let opened = replace(&stored, &mut |secret| {
        keys.open(instance.as_str(), secret).unwrap_or_else(|error| {
            failure = Some(error);
            Value::Null
        })
    });
    failure.map_or(Ok(opened), |error| Err(unreadable(&error)))
}

fn unreadable(error: &SealError) -> Answer {
    tracing::error!(%error, "secret parameters cannot be sealed or opened");
    Answer::refuse(500, "SecretsUnreadable", error.to_string())
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use serde_json::json;

    use super::*;

    fn keys(lines: &[(&str, u8)]) -> SealingKeys {
        let line = |(id, byte): &(&str, u8)| format!("{id}:{}\n", BASE64.encode(&[*byte; 32]));
        SealingKeys::parse(&lines.iter().map(line).collect::<String>()).unwrap()
    }

    /// The parameter `key` is a secret.
    fn key(value: &Value, with: &mut dyn FnMut(&Value) -> Value) -> Value {
        let mut replaced = value.clone();
        replaced["key"] = with(&value["key"]);
        replaced
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        assert_eq!(kept("context", &json!({ "b": 1, "a": 2 })).unwrap(), r#"{"a":2,"b":1}"#);
        assert_eq!(kept("context", &json!({ "a": "x".repeat(KEPT_BYTES_MAX) })).unwrap_err().status, 400);
    }

    #[test]
    fn a_repeat_is_a_repeat_whatever_key_was_first() {
        let id: InstanceId = "i".parse().unwrap();
        let (old, new) = (keys(&[("k1", 1)]), keys(&[("k2", 2), ("k1", 1)]));
        let asked = json!({ "key": "hunter2", "index": "shop" });
        let stored = sealed(&old, &id, &asked, None, &key).unwrap();
        assert!(stored.contains("sealed:k1:") && stored.contains("shop") && !stored.contains("hunter2"), "{stored}");
        assert_eq!(sealed(&old, &id, &asked, None, &key).unwrap(), stored, "two that come at once are the same");
        assert_eq!(sealed(&new, &id, &asked, Some(&stored), &key).unwrap(), stored);
        assert_eq!(opened(&new, &id, &stored, &key).unwrap(), asked);
        let other = sealed(&new, &id, &json!({ "key": "hunter3", "index": "shop" }), Some(&stored), &key).unwrap();
        assert!(other.contains("sealed:k2:") && other != stored);
        // What a version without seals has stored.
        let before = canonical(&asked);
        assert_eq!(sealed(&new, &id, &asked, Some(&before), &key).unwrap(), before);
        // A secret that looks sealed is one all the same.
        let odd = json!({ "key": "sealed:k1:AAAA" });
        let stored = sealed(&new, &id, &odd, None, &key).unwrap();
        assert_eq!(opened(&new, &id, &stored, &key).unwrap(), odd);
        let lost = opened(&keys(&[]), &id, &stored, &key).unwrap_err();
        assert!(lost.status == 500 && lost.body.contains("sealing_keys"), "{lost:?}");
    }
}
