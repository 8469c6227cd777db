//! What a stream does by itself: scale, and forget.

use serde::{Deserialize, Serialize};

/// When segments are split and merged.
///
/// Source: Pravega, `ScalingPolicy`; thresholds in its `AutoScaleProcessor`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum ScalingPolicy {
    /// Only by hand.
    #[default]
    Fixed,
    /// By events per second of a segment.
    EventRate {
        /// Events per second that one segment shall take, at least 1.
        target: u64,
        /// Most segments that one is split into, 2 to 64.
        factor: u16,
        /// Fewest segments of the stream, at least 1.
        min_segments: u16,
    },
    /// By payload per second of a segment.
    DataRate {
        /// KiB per second that one segment shall take, at least 1.
        target_kib: u64,
        /// Most segments that one is split into, 2 to 64.
        factor: u16,
        /// Fewest segments of the stream, at least 1.
        min_segments: u16,
    },
}

/// What goes first when there is too much: the oldest events, in steps of remembered tail cuts.
///
/// Above `max` events go even if a subscribed reader group has not consumed them; between `min` and `max` only what all
/// subscribers have consumed; below `min` nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum RetentionPolicy {
    /// By age.
    Time {
        /// Nothing younger goes.
        min_ms: u64,
        /// Everything older goes; `None`: never before it was consumed.
        #[serde(default)]
        max_ms: Option<u64>,
    },
    /// By payload bytes.
    Size {
        /// So much stays.
        min_bytes: u64,
        /// No more stays; `None`: never before it was consumed.
        #[serde(default)]
        max_bytes: Option<u64>,
    },
    /// By age and by payload bytes, whichever is reached first; what subscribers have not consumed goes too.
    TimeAndSize {
        /// Nothing younger goes for its age, and everything older goes.
        ms: u64,
        /// So much stays, and no more.
        bytes: u64,
    },
}

/// Another retention policy, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionChange {
    /// Everything stays.
    Forever,
    /// By this policy.
    By(RetentionPolicy),
}

impl RetentionChange {
    /// The policy that holds afterwards.
    pub fn policy(self) -> Option<RetentionPolicy> {
        match self {
            Self::Forever => None,
            Self::By(policy) => Some(policy),
        }
    }
}
