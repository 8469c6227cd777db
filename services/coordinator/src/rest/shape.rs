//! The JSON of the REST interface, and what it is in our own words. Pure.
//!
//! Source: Pravega, `shared/controller-api/src/main/swagger/Controller.yaml`.

use serde::{Deserialize, Serialize};
use types::{IndexName, ScopeName, Tag};
use wire::{
    Problem,
    coordinator::{
        INSTANCE_TAG_PREFIX, NewStream, RetentionChange, RetentionPolicy, ScalingPolicy, StreamDescription,
        StreamUpdate,
    },
};

use crate::{SEGMENTS_MAX, graph::SEGMENTS_PRESENT_MAX, retention::policy_of};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
const MIB: u64 = 1 << 20;

/// When segments are split and merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ScalingConfig {
    #[serde(rename = "type")]
    pub(crate) kind: ScalingKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target_rate: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale_factor: Option<u16>,
    #[serde(default)]
    pub(crate) min_segments: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::enum_variant_names, reason = "Pravega's names")]
pub(crate) enum ScalingKind {
    #[serde(rename = "FIXED_NUM_SEGMENTS")]
    Fixed,
    #[serde(rename = "BY_RATE_IN_KBYTES_PER_SEC")]
    ByKbytes,
    #[serde(rename = "BY_RATE_IN_EVENTS_PER_SEC")]
    ByEvents,
}

/// What goes first when there is too much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RetentionConfig {
    #[serde(rename = "type")]
    pub(crate) kind: RetentionKind,
    #[serde(default)]
    pub(crate) value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time_based_retention: Option<TimeBasedRetention>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_value: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_time_based_retention: Option<TimeBasedRetention>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RetentionKind {
    #[serde(rename = "LIMITED_DAYS")]
    Days,
    #[serde(rename = "LIMITED_SIZE_MB")]
    Size,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TimeBasedRetention {
    pub(crate) days: u64,
    pub(crate) hours: u64,
    pub(crate) minutes: u64,
}

/// The body of POST `/scopes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateScopeRequest {
    pub(crate) scope_name: String,
}

/// The body of POST `/scopes/{scope}/streams`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateStreamRequest {
    pub(crate) stream_name: String,
    scaling_policy: ScalingConfig,
    #[serde(default)]
    retention_policy: Option<RetentionConfig>,
    #[serde(default)]
    stream_tags: Vec<String>,
    #[serde(default)]
    timestamp_aggregation_timeout: u64,
    #[serde(default)]
    rollover_size_bytes: u64,
}

impl CreateStreamRequest {
    /// What it shares with a change. Named one by one: a flattened part could not refuse what it does not know.
    pub(crate) fn config(self) -> StreamConfig {
        StreamConfig {
            scaling_policy: self.scaling_policy,
            retention_policy: self.retention_policy,
            stream_tags: self.stream_tags,
            timestamp_aggregation_timeout: self.timestamp_aggregation_timeout,
            rollover_size_bytes: self.rollover_size_bytes,
        }
    }
}

/// The body of PUT `/scopes/{scope}/streams/{stream}`, and what it shares with the creation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StreamConfig {
    pub(crate) scaling_policy: ScalingConfig,
    #[serde(default)]
    pub(crate) retention_policy: Option<RetentionConfig>,
    #[serde(default)]
    pub(crate) stream_tags: Vec<String>,
    #[serde(default)]
    pub(crate) timestamp_aggregation_timeout: u64,
    #[serde(default)]
    pub(crate) rollover_size_bytes: u64,
}

/// The body of PUT `/scopes/{scope}/streams/{stream}/state`, and its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StreamState {
    pub(crate) stream_state: String,
}

/// A scope.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScopeProperty {
    pub(crate) scope_name: String,
}

/// A stream.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamProperty {
    scope_name: String,
    stream_name: String,
    scaling_policy: ScalingConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_policy: Option<RetentionConfig>,
    tags: Vec<String>,
    timestamp_aggregation_timeout: u64,
    rollover_size_bytes: u64,
}

impl StreamProperty {
    /// `segments` is how many the stream has at present.
    pub(crate) fn of(stream: &StreamDescription, segments: usize) -> Self {
        Self {
            scope_name: stream.scope.to_string(),
            stream_name: stream.index.to_string(),
            scaling_policy: scaling_of(stream.scaling, segments),
            retention_policy: policy_of(stream).map(retention_of),
            tags: stream.tags.iter().map(Tag::to_string).collect(),
            timestamp_aggregation_timeout: 0,
            rollover_size_bytes: 0,
        }
    }
}

fn scaling_of(policy: ScalingPolicy, segments: usize) -> ScalingConfig {
    let (kind, target_rate, scale_factor, min_segments) = match policy {
        ScalingPolicy::Fixed => (ScalingKind::Fixed, None, None, u64::try_from(segments).unwrap_or(u64::MAX)),
        ScalingPolicy::EventRate { target, factor, min_segments } => {
            (ScalingKind::ByEvents, Some(target), Some(factor), min_segments.into())
        }
        ScalingPolicy::DataRate { target_kib, factor, min_segments } => {
            (ScalingKind::ByKbytes, Some(target_kib), Some(factor), min_segments.into())
        }
    };
    ScalingConfig { kind, target_rate, scale_factor, min_segments }
}

fn retention_of(policy: RetentionPolicy) -> RetentionConfig {
    match policy {
        // Pravega's shape has one kind a stream: the finer limit of the two, its age, is shown.
        RetentionPolicy::TimeAndSize { ms, .. } => retention_of(RetentionPolicy::Time { min_ms: ms, max_ms: Some(ms) }),
        RetentionPolicy::Time { min_ms, max_ms } => RetentionConfig {
            kind: RetentionKind::Days,
            value: whole_days(min_ms),
            time_based_retention: Some(time_of(min_ms)),
            max_value: max_ms.map(whole_days),
            max_time_based_retention: max_ms.map(time_of),
        },
        RetentionPolicy::Size { min_bytes, max_bytes } => RetentionConfig {
            kind: RetentionKind::Size,
            value: min_bytes / MIB,
            time_based_retention: None,
            max_value: max_bytes.map(|bytes| bytes / MIB),
            max_time_based_retention: None,
        },
    }
}

/// 0 where it is not a whole number: then the finer form counts.
fn whole_days(ms: u64) -> u64 {
    if ms.is_multiple_of(DAY_MS) { ms / DAY_MS } else { 0 }
}

fn time_of(ms: u64) -> TimeBasedRetention {
    TimeBasedRetention { days: ms / DAY_MS, hours: ms % DAY_MS / HOUR_MS, minutes: ms % HOUR_MS / MINUTE_MS }
}

impl TimeBasedRetention {
    fn ms(self) -> Option<u64> {
        let days = self.days.checked_mul(DAY_MS)?;
        days.checked_add(self.hours.checked_mul(HOUR_MS)?)?.checked_add(self.minutes.checked_mul(MINUTE_MS)?)
    }
}

impl ScalingConfig {
    /// The policy, and how many segments it asks for.
    fn read(&self, most: u16) -> Result<(ScalingPolicy, u16), Problem> {
        let refuse = |what: String| Problem::bad_request("InvalidPolicy", what);
        let min_segments = u16::try_from(self.min_segments).ok().filter(|n| (1..=most).contains(n));
        let min_segments = min_segments.ok_or_else(|| {
            refuse(format!("scalingPolicy.minSegments is {}; it must be from 1 to {most}", self.min_segments))
        })?;
        let rate = || {
            let both = self.target_rate.zip(self.scale_factor);
            both.ok_or_else(|| refuse("scalingPolicy needs targetRate and scaleFactor to scale by a rate".to_owned()))
        };
        let policy = match self.kind {
            ScalingKind::Fixed => ScalingPolicy::Fixed,
            ScalingKind::ByEvents => {
                let (target, factor) = rate()?;
                ScalingPolicy::EventRate { target, factor, min_segments }
            }
            ScalingKind::ByKbytes => {
                let (target_kib, factor) = rate()?;
                ScalingPolicy::DataRate { target_kib, factor, min_segments }
            }
        };
        Ok((policy, min_segments))
    }
}

impl RetentionConfig {
    fn read(&self) -> Result<RetentionPolicy, Problem> {
        let too_much = || Problem::bad_request("InvalidPolicy", "retentionPolicy is larger than any stream");
        match self.kind {
            RetentionKind::Days => {
                let ms = |days: u64, finer: Option<TimeBasedRetention>| {
                    let time = if days == 0 {
                        finer.unwrap_or_default()
                    } else {
                        TimeBasedRetention { days, ..Default::default() }
                    };
                    time.ms().ok_or_else(too_much)
                };
                let max_ms = ms(self.max_value.unwrap_or(0), self.max_time_based_retention)?;
                let min_ms = ms(self.value, self.time_based_retention)?;
                Ok(RetentionPolicy::Time { min_ms, max_ms: Some(max_ms).filter(|ms| *ms > 0) })
            }
            RetentionKind::Size => {
                let bytes = |mib: u64| mib.checked_mul(MIB).ok_or_else(too_much);
                let max_bytes = bytes(self.max_value.unwrap_or(0))?;
                Ok(RetentionPolicy::Size {
                    min_bytes: bytes(self.value)?,
                    max_bytes: Some(max_bytes).filter(|n| *n > 0),
                })
            }
        }
    }
}

impl StreamConfig {
    fn read(&self, most: u16) -> Result<(ScalingPolicy, u16, Option<RetentionPolicy>, Vec<Tag>), Problem> {
        if self.timestamp_aggregation_timeout != 0 || self.rollover_size_bytes != 0 {
            let what = "timestampAggregationTimeout and rolloverSizeBytes must be 0 or left out: chunks follow the settings of segment-store";
            return Err(Problem::bad_request("InvalidPolicy", what));
        }
        let (scaling, segments) = self.scaling_policy.read(most)?;
        let retention = self.retention_policy.as_ref().map(RetentionConfig::read).transpose()?;
        let tags = self.stream_tags.iter().map(|tag| tag.parse());
        let tags = tags.collect::<Result<_, _>>().map_err(|error| Problem::bad_request("InvalidPolicy", error))?;
        Ok((scaling, segments, retention, tags))
    }

    /// The stream to create.
    pub(crate) fn creation(&self, scope: ScopeName, index: IndexName) -> Result<NewStream, Problem> {
        let (scaling, segments, retention, tags) = self.read(SEGMENTS_MAX)?;
        let tags = with_instance(&[], tags)?;
        Ok(NewStream { scaling, retention, tags, ..NewStream::fixed(scope, index, segments) })
    }

    /// The same as a change, and how many segments it asks for: what is left out goes.
    pub(crate) fn update(&self, index: IndexName) -> Result<(StreamUpdate, ScalingPolicy, u16), Problem> {
        let most = u16::try_from(SEGMENTS_PRESENT_MAX).unwrap_or(u16::MAX);
        let (scaling, segments, retention, tags) = self.read(most)?;
        let retention = retention.map_or(RetentionChange::Forever, RetentionChange::By);
        let update = StreamUpdate { index, scaling: Some(scaling), retention: Some(retention), tags: Some(tags) };
        Ok((update, scaling, segments))
    }
}

/// The tags that are asked for, and those that the stream has of its service instance, which only the platform gives and takes.
pub(crate) fn with_instance(there: &[Tag], asked: Vec<Tag>) -> Result<Vec<Tag>, Problem> {
    let of_instance = |tag: &Tag| tag.as_str().starts_with(INSTANCE_TAG_PREFIX);
    if let Some(claimed) = asked.iter().find(|tag| of_instance(tag) && !there.contains(tag)) {
        let message = format!("tag {claimed}: only the platform gives tags that begin with {INSTANCE_TAG_PREFIX}");
        return Err(Problem::bad_request("InvalidPolicy", message));
    }
    let kept = there.iter().filter(|tag| of_instance(tag) && !asked.contains(tag)).cloned();
    let kept: Vec<Tag> = kept.collect();
    Ok(asked.into_iter().chain(kept).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn new_stream(body: Value) -> Result<NewStream, Problem> {
        let config: StreamConfig = serde_json::from_value(body).unwrap();
        config.creation("team".parse().unwrap(), "shop".parse().unwrap())
    }

    fn shown(new: &NewStream) -> Value {
        let at = types::Timestamp::from_nanos(0);
        let described = StreamDescription::new((1, at), new.scope.clone(), new.index.clone(), Vec::new());
        let (scaling, retention, tags) = (new.scaling, new.retention, new.tags.clone());
        let described = StreamDescription { scaling, retention, tags, ..described };
        serde_json::to_value(StreamProperty::of(&described, usize::from(new.segment_count))).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_what_is_shown() {
        for (scaling, retention) in [
            (json!({"type": "FIXED_NUM_SEGMENTS", "minSegments": 3}), Value::Null),
            (
                json!({"type": "BY_RATE_IN_EVENTS_PER_SEC", "targetRate": 100, "scaleFactor": 2, "minSegments": 1}),
                json!({"type": "LIMITED_SIZE_MB", "value": 10, "maxValue": 20}),
            ),
            (
                json!({"type": "BY_RATE_IN_KBYTES_PER_SEC", "targetRate": 9, "scaleFactor": 4, "minSegments": 64}),
                json!({"type": "LIMITED_DAYS", "value": 2, "timeBasedRetention": {"days": 2, "hours": 0, "minutes": 0}}),
            ),
            (
                json!({"type": "FIXED_NUM_SEGMENTS", "minSegments": 1}),
                json!({"type": "LIMITED_DAYS", "value": 0, "timeBasedRetention": {"days": 1, "hours": 2, "minutes": 3},
                       "maxValue": 3, "maxTimeBasedRetention": {"days": 3, "hours": 0, "minutes": 0}}),
            ),
        ] {
            let mut body = json!({"scalingPolicy": scaling, "streamTags": ["red"]});
            if !retention.is_null() {
                body["retentionPolicy"] = retention.clone();
            }
            let shown = shown(&new_stream(body).unwrap());
            assert_eq!(shown["scalingPolicy"], scaling);
            assert_eq!(shown["retentionPolicy"], retention);
            assert_eq!((&shown["tags"], &shown["streamName"]), (&json!(["red"]), &json!("shop")));
        }
    }

    #[test]
    fn a_stream_by_days_shows_them() {
        let new = new_stream(json!({"scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": 1}})).unwrap();
        let at = types::Timestamp::from_nanos(0);
        let described = StreamDescription::new((1, at), new.scope, new.index, Vec::new());
        let described = StreamDescription { retention_days: Some(7), ..described };
        let shown = serde_json::to_value(StreamProperty::of(&described, 1)).unwrap();
        assert_eq!(shown["retentionPolicy"]["value"], 7);
        assert_eq!(shown["retentionPolicy"]["maxValue"], 7);
    }

    #[test]
    fn the_tag_of_a_service_instance_is_neither_given_nor_taken() {
        let tags = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Tag>>();
        let there = tags(&["red", "instance-1"]);
        for (asked, expected) in [
            (&[][..], Some(&["instance-1"][..])),
            (&["blue"], Some(&["blue", "instance-1"])),
            (&["instance-1", "blue"], Some(&["instance-1", "blue"])),
            (&["instance-2"], None),
        ] {
            assert_eq!(with_instance(&there, tags(asked)).ok(), expected.map(tags), "{asked:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let fixed = || json!({"type": "FIXED_NUM_SEGMENTS", "minSegments": 1});
        for body in [
            json!({"scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": 0}}),
            json!({"scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": 65}}),
            json!({"scalingPolicy": {"type": "BY_RATE_IN_EVENTS_PER_SEC", "minSegments": 1}}),
            json!({"scalingPolicy": fixed(), "streamTags": ["a b"]}),
            json!({"scalingPolicy": fixed(), "streamTags": ["instance-1"]}),
            json!({"scalingPolicy": fixed(), "rolloverSizeBytes": 1}),
            json!({"scalingPolicy": fixed(), "retentionPolicy": {"type": "LIMITED_DAYS", "value": u64::MAX}}),
        ] {
            assert_eq!(new_stream(body.clone()).unwrap_err().kind, "InvalidPolicy", "{body}");
        }
    }
}
