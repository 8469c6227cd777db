//! What an instance is to be: a plan's defaults, and what parameters make of them. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::IndexName;
use wire::{
    coordinator::ScalingPolicy,
    index_provisioner::{IndexOptions, Reclaim},
    views::Quota,
};

use crate::alerts::Alert;

/// Settings of a back-end at most; the contract with the provisioner has the same bounds.
pub const SETTINGS_MAX: usize = 16;
/// The longest name or value of such a setting, in characters.
pub const SETTING_CHARS_MAX: usize = 255;

/// The parameters that mean something to us. None of them can be a secret: they are told to whoever makes an index, and are stored there.
pub(crate) const PARAMETERS: [&str; 13] = [
    "index",
    "segments",
    "retention_days",
    "max_bytes",
    "scaling",
    "reclaim_policy",
    "adopt_existing",
    "encryption",
    "archive_to",
    "alerts",
    "settings",
    "role",
    "ttl_seconds",
];

/// What a plan gives to an instance: `defaults` of a plan in the catalog.
///
/// `quota` and `max_bytes` are also its limits: parameters keep within them. Everything else is what holds where parameters are silent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Segments; 0 leaves it to the provisioner.
    pub segments: u16,
    /// Days to keep events; `None` keeps them for ever.
    pub retention_days: Option<u32>,
    /// Payload bytes to keep; `None` sets no limit.
    pub max_bytes: Option<u64>,
    /// When segments are split and merged.
    pub scaling: ScalingPolicy,
    /// What its users may do.
    pub quota: Quota,
    /// What becomes of the events when the instance is deprovisioned.
    pub reclaim_policy: Reclaim,
    /// Whether chunks are sealed with a key of the index's own.
    pub encryption: bool,
    /// What only the back-end knows.
    pub settings: BTreeMap<String, String>,
    /// Default alert rules.
    pub alerts: Vec<Alert>,
}

/// What an instance of a plan with parameters is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The name, if one was asked for.
    pub index: Option<IndexName>,
    /// Segments; 0 leaves it to the provisioner.
    pub segment_count: u16,
    /// Days to keep events.
    pub retention_days: Option<u32>,
    /// Everything else.
    pub options: IndexOptions,
    /// Default alert rules.
    pub alerts: Vec<Alert>,
}

/// Why parameters make no instance of a plan; the text begins with the path of the offending value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parameters/{key}: {rule}")]
pub struct Unfit {
    /// The parameter.
    pub key: String,
    /// What would be right.
    pub rule: String,
}

impl Unfit {
    pub(crate) fn new(key: &str, rule: impl Into<String>) -> Self {
        Self { key: key.to_owned(), rule: rule.into() }
    }
}

/// What an instance is to be. The schema of the plan has checked the parameters; what no schema can say is checked here.
///
/// A catalog calls it with `{}` to see that a plan's defaults are within their bounds.
pub fn wanted(plan: &Defaults, parameters: &Value) -> Result<Shape, Unfit> {
    let bytes_max = match (number(parameters, "max_bytes")?, plan.max_bytes) {
        (Some(own), Some(limit)) if own > limit => {
            return Err(Unfit::new("max_bytes", format!("the plan keeps at most {limit} bytes")));
        }
        (own, limit) => own.or(limit),
    };
    let options = IndexOptions {
        bytes_max,
        scaling: value(parameters, "scaling")?.unwrap_or(plan.scaling),
        quota: plan.quota,
        reclaim: value(parameters, "reclaim_policy")?.unwrap_or(plan.reclaim_policy),
        adopt: value(parameters, "adopt_existing")?.unwrap_or(false),
        archive_to: value(parameters, "archive_to")?,
        encryption: value(parameters, "encryption")?.unwrap_or(plan.encryption),
        backend: settings(plan, parameters)?,
    };
    Ok(Shape {
        index: value(parameters, "index")?,
        segment_count: number(parameters, "segments")?.unwrap_or(plan.segments),
        retention_days: number(parameters, "retention_days")?.or(plan.retention_days),
        options,
        alerts: value(parameters, "alerts")?.unwrap_or_else(|| plan.alerts.clone()),
    })
}

/// What only the back-end knows: the plan's, and over them those that the schema lets an instance set.
fn settings(plan: &Defaults, parameters: &Value) -> Result<BTreeMap<String, String>, Unfit> {
    let own: BTreeMap<String, String> = value(parameters, "settings")?.unwrap_or_default();
    let all: BTreeMap<_, _> = plan.settings.clone().into_iter().chain(own).collect();
    if all.len() > SETTINGS_MAX {
        return Err(Unfit::new("settings", format!("{} settings with the plan's, at most {SETTINGS_MAX}", all.len())));
    }
    let long = |text: &str| text.chars().count() > SETTING_CHARS_MAX;
    match all.iter().find(|(key, value)| long(key) || long(value)) {
        Some((key, _)) => {
            Err(Unfit::new("settings", format!("{key:.40} is longer than {SETTING_CHARS_MAX} characters")))
        }
        None => Ok(all),
    }
}

fn value<T: serde::de::DeserializeOwned>(parameters: &Value, key: &str) -> Result<Option<T>, Unfit> {
    let Some(value) = parameters.get(key) else { return Ok(None) };
    T::deserialize(value).map(Some).map_err(|error| Unfit::new(key, error.to_string()))
}

/// A whole number; JSON clients may write it as `7.0`.
pub(crate) fn number<T: TryFrom<u64>>(parameters: &Value, key: &str) -> Result<Option<T>, Unfit> {
    let Some(value) = parameters.get(key) else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|f| f.fract() == 0.0 && (0.0..1e15).contains(f))?;
        format!("{float:.0}").parse().ok()
    });
    let read = whole.and_then(|n| T::try_from(n).ok());
    read.map(Some).ok_or_else(|| Unfit::new(key, "must be a whole number in its range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan() -> Defaults {
        serde_json::from_value(json!({
            "segments": 2, "retention_days": 7, "max_bytes": 1000,
            "scaling": { "by": "event_rate", "target": 100, "factor": 2, "min_segments": 1 },
            "quota": { "bytes_per_day": 5, "events_per_second": 6, "queries": 7, "streams": 8 },
            "reclaim_policy": "retain", "settings": { "region": "eu", "class": "cold" },
            "alerts": [{ "name": "errors", "when": "error_count" }],
        }))
        .unwrap()
    }

    #[test]
    fn parameters_win_over_the_plan_within_its_limits() {
        let plain = wanted(&plan(), &json!({})).unwrap();
        let quota = Quota { bytes_per_day: Some(5), events_per_second: Some(6), queries: Some(7), streams: Some(8) };
        assert_eq!((plain.index, plain.segment_count, plain.retention_days), (None, 2, Some(7)));
        let options = &plain.options;
        assert_eq!((options.bytes_max, options.quota, options.reclaim), (Some(1000), quota, Reclaim::Retain));
        assert_eq!(options.scaling, ScalingPolicy::EventRate { target: 100, factor: 2, min_segments: 1 });
        let own = json!({
            "index": "shop", "segments": 9, "retention_days": 90.0, "max_bytes": 999, "scaling": { "by": "fixed" },
            "reclaim_policy": "fail", "adopt_existing": true, "settings": { "class": "warm" }, "unknown": 1,
            "archive_to": "cold", "alerts": [],
        });
        let own = wanted(&plan(), &own).unwrap();
        assert_eq!((own.index.unwrap().as_str(), own.segment_count, own.retention_days), ("shop", 9, Some(90)));
        let options = &own.options;
        assert_eq!((options.bytes_max, options.reclaim, options.adopt), (Some(999), Reclaim::Fail, true));
        assert_eq!((options.scaling, options.quota), (ScalingPolicy::Fixed, quota), "a quota is the plan's");
        assert_eq!((&plain.options.archive_to, options.archive_to.as_ref().unwrap().as_str()), (&None, "cold"));
        assert_eq!((plain.alerts.len(), own.alerts.len()), (1, 0), "none are wanted as clearly as some");
        assert_eq!((options.backend["region"].as_str(), options.backend["class"].as_str()), ("eu", "warm"));
    }

    #[test]
    fn what_no_schema_can_say_is_said_with_its_path() {
        let many: BTreeMap<String, String> = (0..20).map(|n| (n.to_string(), String::new())).collect();
        for (parameters, path) in [
            (json!({ "max_bytes": 1001 }), "parameters/max_bytes: the plan keeps"),
            (json!({ "max_bytes": -1 }), "parameters/max_bytes: "),
            (json!({ "segments": 70_000 }), "parameters/segments: "),
            (json!({ "retention_days": 1.5 }), "parameters/retention_days: "),
            (json!({ "index": "Shop" }), "parameters/index: "),
            (json!({ "scaling": { "by": "luck" } }), "parameters/scaling: "),
            (json!({ "reclaim_policy": "burn" }), "parameters/reclaim_policy: "),
            (json!({ "adopt_existing": "yes" }), "parameters/adopt_existing: "),
            (json!({ "alerts": [{ "name": "a", "when": "odd" }] }), "parameters/alerts: unknown variant"),
            (json!({ "settings": { "a": "x".repeat(256) } }), "parameters/settings: a is longer"),
            (json!({ "settings": many }), "parameters/settings: 22 settings"),
        ] {
            let refused = wanted(&plan(), &parameters).unwrap_err().to_string();
            assert!(refused.starts_with(path), "{refused}");
        }
    }
}
