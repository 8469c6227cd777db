//! What an index is as a stream of the coordinator. Pure.

use ring::digest;
use types::{InstanceId, Tag};
use wire::{
    Problem,
    coordinator::{NewStream, RetentionChange, RetentionPolicy, ScalingPolicy, StreamDescription, StreamUpdate},
    index_provisioner::IndexDescription,
};

use crate::backend::refused;

/// What the tag begins with that says whose a stream is.
const OWNER_PREFIX: &str = wire::coordinator::INSTANCE_TAG_PREFIX;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// Most segments that one is split into, as the coordinator has it.
const FACTOR_MAX: u16 = 64;

/// Whose a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// This service instance's.
    Us,
    /// It says nobody.
    Nobody,
    /// Another service instance's.
    Other,
}

/// The tag of a service instance. Ids may be as long as tags, so it holds a part of their SHA-256.
fn tag(instance: &InstanceId) -> Option<Tag> {
    let hash = digest::digest(&digest::SHA256, instance.as_str().as_bytes());
    format!("{OWNER_PREFIX}{}", data_encoding::HEXLOWER.encode(&hash.as_ref()[..16])).parse().ok()
}

pub(super) fn owner_of(tags: &[Tag], us: &InstanceId) -> Owner {
    let ours = tag(us);
    let owners: Vec<&Tag> = tags.iter().filter(|tag| tag.as_str().starts_with(OWNER_PREFIX)).collect();
    match owners[..] {
        [] => Owner::Nobody,
        _ if owners.iter().any(|owner| Some(*owner) == ours.as_ref()) => Owner::Us,
        _ => Owner::Other,
    }
}

/// The tags with ours among them.
pub(super) fn tags_of(tags: &[Tag], us: &InstanceId) -> Vec<Tag> {
    without_owner(tags, us).into_iter().chain(tag(us)).collect()
}

/// The tags without ours.
pub(super) fn without_owner(tags: &[Tag], us: &InstanceId) -> Vec<Tag> {
    let ours = tag(us);
    tags.iter().filter(|tag| Some(*tag) != ours.as_ref()).cloned().collect()
}

/// What goes first when there is too much.
pub(super) fn retention(index: &IndexDescription) -> Option<RetentionPolicy> {
    let ms = index.retention_days.map(|days| u64::from(days) * DAY_MS);
    match (ms, index.options.bytes_max) {
        (None, None) => None,
        (Some(ms), None) => Some(RetentionPolicy::Time { min_ms: ms, max_ms: Some(ms) }),
        (None, Some(bytes)) => Some(RetentionPolicy::Size { min_bytes: bytes, max_bytes: Some(bytes) }),
        (Some(ms), Some(bytes)) => Some(RetentionPolicy::TimeAndSize { ms, bytes }),
    }
}

/// The stream to create.
pub(super) fn new_stream(index: &IndexDescription) -> NewStream {
    NewStream {
        scaling: index.options.scaling,
        retention: retention(index),
        tags: tag(&index.instance).into_iter().collect(),
        encrypted: index.options.encryption,
        ..NewStream::fixed(index.scope.clone(), index.index.clone(), index.segment_count)
    }
}

/// The change that makes a stream what is described; `None` leaves its tags.
pub(super) fn update_of(index: &IndexDescription, tags: Option<Vec<Tag>>) -> StreamUpdate {
    let retention = retention(index).map_or(RetentionChange::Forever, RetentionChange::By);
    let (scaling, retention) = (Some(index.options.scaling), Some(retention));
    StreamUpdate { index: index.index.clone(), scaling, retention, tags }
}

/// Whether a stream is not what is described.
pub(super) fn differs(there: &StreamDescription, index: &IndexDescription) -> bool {
    there.scaling != index.options.scaling || there.retention != retention(index)
}

/// What the coordinator would refuse, and what it does not know.
pub(super) fn check(index: &IndexDescription) -> Result<(), Problem> {
    let rate = match index.options.scaling {
        ScalingPolicy::Fixed => None,
        ScalingPolicy::EventRate { target, factor, min_segments } => Some((target, factor, min_segments)),
        ScalingPolicy::DataRate { target_kib, factor, min_segments } => Some((target_kib, factor, min_segments)),
    };
    if rate.is_some_and(|(target, factor, min)| target == 0 || !(2..=FACTOR_MAX).contains(&factor) || min == 0) {
        return Err(refused("a scaling policy has a target of at least 1, a factor of 2 to 64 and at least 1 segment"));
    }
    match index.options.backend.keys().next() {
        Some(name) => Err(refused(format_args!("the back-end own has no option {name:?}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use wire::index_provisioner::IndexOptions;

    use super::*;

    fn index(retention_days: Option<u32>, options: IndexOptions) -> IndexDescription {
        IndexDescription {
            instance: "i".parse().unwrap(),
            scope: "team".parse().unwrap(),
            index: "shop".parse().unwrap(),
            backend: "own".into(),
            segment_count: 2,
            retention_days,
            options,
            created: types::Timestamp::default(),
        }
    }

    #[test]
    fn days_and_bytes_become_one_policy() {
        let bytes = |bytes_max| IndexOptions { bytes_max, ..IndexOptions::default() };
        let day = DAY_MS;
        for (days, most, expected) in [
            (None, None, None),
            (Some(2), None, Some(RetentionPolicy::Time { min_ms: 2 * day, max_ms: Some(2 * day) })),
            (None, Some(9), Some(RetentionPolicy::Size { min_bytes: 9, max_bytes: Some(9) })),
            (Some(2), Some(9), Some(RetentionPolicy::TimeAndSize { ms: 2 * day, bytes: 9 })),
        ] {
            assert_eq!(retention(&index(days, bytes(most))), expected);
            let change = update_of(&index(days, bytes(most)), None).retention.unwrap();
            assert_eq!(change.policy(), expected);
        }
    }

    #[test]
    fn a_stream_says_whose_it_is() {
        let (us, them) = ("i".parse().unwrap(), "j".parse().unwrap());
        let label: Vec<Tag> = vec!["blue".parse().unwrap()];
        assert_eq!(owner_of(&label, &us), Owner::Nobody);
        let ours = tags_of(&label, &us);
        assert_eq!((owner_of(&ours, &us), owner_of(&ours, &them)), (Owner::Us, Owner::Other));
        assert_eq!(tags_of(&ours, &us), ours, "once");
        assert_eq!(without_owner(&ours, &us), label);
        assert_eq!(new_stream(&index(None, IndexOptions::default())).tags, tags_of(&[], &us));
        let longest: InstanceId = "x".repeat(types::TOKEN_BYTES_MAX).parse().unwrap();
        assert_eq!(owner_of(&tags_of(&[], &longest), &longest), Owner::Us);
    }

    #[test]
    fn what_the_coordinator_would_refuse_is_refused_before() {
        let scaling = |target, factor, min_segments| {
            let scaling = ScalingPolicy::EventRate { target, factor, min_segments };
            index(None, IndexOptions { scaling, ..IndexOptions::default() })
        };
        assert!(check(&scaling(1, 2, 1)).is_ok());
        for bad in [scaling(0, 2, 1), scaling(1, 1, 1), scaling(1, 65, 1), scaling(1, 2, 0)] {
            assert_eq!(check(&bad).unwrap_err().kind, "BackendRefused");
        }
        let backend = [("sourcetype".to_owned(), "x".to_owned())].into();
        let unknown = index(None, IndexOptions { backend, ..IndexOptions::default() });
        assert!(check(&unknown).unwrap_err().message.contains("sourcetype"));
    }
}
