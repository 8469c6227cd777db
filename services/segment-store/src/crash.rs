//! Points at which a fault test lets the process die, as a power cut would.
//!
//! `segment_store.crash_point = "name:N"` aborts the process at the N-th passing of the point, counted over all its
//! containers. Without the setting a point costs one load.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Every point, in the order in which an event meets them.
pub const POINTS: [&str; 16] = [
    "after_owner_record",
    "after_frame_append",
    "after_apply",
    "before_ack",
    "after_chunk_put",
    "after_chunk_committed",
    "after_compaction_put",
    "after_replaced",
    "before_collect",
    "after_collect",
    "after_snapshot_part",
    "before_manifest",
    "after_manifest",
    "before_purge",
    "after_purge",
    "fragment_begun",
];

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

#[derive(Debug, PartialEq, Eq)]
struct Target {
    point: &'static str,
    passing: u64,
}

struct Armed {
    target: Target,
    passed: AtomicU64,
}

/// Whether the setting can be used: empty, `name` or `name:N` with N from 1.
pub(crate) fn is_valid(setting: &str) -> bool {
    setting.is_empty() || parse(setting).is_some()
}

/// Arms the point that the setting names; only the first call of a process counts.
pub(crate) fn arm(setting: &str) {
    let armed = parse(setting).map(|target| {
        tracing::warn!(point = target.point, passing = target.passing, "this process will crash: it is a fault test");
        Armed { target, passed: AtomicU64::new(0) }
    });
    // A second service of this process dies as the first one says.
    ARMED.set(armed).ok();
}

/// Dies here if a fault test wants it.
pub(crate) fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not in the list of points");
    let Some(Some(armed)) = ARMED.get() else { return };
    if armed.target.point == name && armed.passed.fetch_add(1, Ordering::Relaxed) + 1 == armed.target.passing {
        tracing::error!(point = name, "process crashes, as segment_store.crash_point wants it");
        std::process::abort();
    }
}

fn parse(setting: &str) -> Option<Target> {
    let (name, passing) = setting.split_once(':').unwrap_or((setting, "1"));
    let point = POINTS.into_iter().find(|point| *point == name)?;
    let passing = passing.parse().ok().filter(|passing| *passing > 0)?;
    Some(Target { point, passing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_its_passing() {
        let target = |point, passing| Some(Target { point, passing });
        for (setting, expected) in [
            ("after_apply", target("after_apply", 1)),
            ("before_purge:12", target("before_purge", 12)),
            ("before_purge:0", None),
            ("before_purge:x", None),
            ("nowhere:1", None),
            ("", None),
        ] {
            assert_eq!(parse(setting), expected, "{setting}");
            assert_eq!(is_valid(setting), expected.is_some() || setting.is_empty(), "{setting}");
        }
    }

    #[test]
    fn an_unarmed_process_passes_every_point() {
        arm("");
        POINTS.into_iter().for_each(point);
    }
}
