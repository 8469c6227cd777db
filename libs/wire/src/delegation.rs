//! Calls by programs outside the platform: who they are, what they may ask for, and under which subjects.
//!
//! A binding is a user in the tenants' account. It calls under `ext.v1.<index>.<binding>.<role>.` and the rest of a call's own
//! subject; its credentials allow nothing else, so the first five tokens are true, whoever publishes. What they do not say is
//! which stream the index is: that stands in a delegation, which the coordinator signs.

use serde::{Deserialize, Serialize};
use types::{BindingId, IndexName, SegmentId, Timestamp};

use crate::{Call, filter_of, subject_of, views::Role};

/// What the subjects of these calls begin with.
const PREFIX: &str = "ext.v1.";
/// What the subjects of calls inside the platform begin with.
const INNER_PREFIX: &str = "lb.v1.";
/// Every call by a program outside the platform.
pub const OUTER_FILTER: &str = "ext.v1.>";

/// What a program outside the platform needs to make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To be a binding; no delegation, for this is how one is got.
    Grant,
    /// A delegation of any role.
    Describe,
    /// A delegation that allows to read events.
    Read,
    /// A delegation that allows to write events.
    Write,
}

impl Right {
    /// Whether a role gives it.
    pub fn is_given_to(self, role: Role) -> bool {
        match self {
            Self::Grant | Self::Describe => true,
            Self::Read => role.may_read(),
            Self::Write => role.may_write(),
        }
    }
}

/// What a request is about; a delegation must be for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched<'a> {
    /// Nothing of anybody's.
    Nothing,
    /// An index by its name.
    Index(&'a IndexName),
    /// A stream by its number.
    Stream(u32),
}

impl<'a> From<&'a IndexName> for Touched<'a> {
    fn from(index: &'a IndexName) -> Self {
        Self::Index(index)
    }
}

impl From<SegmentId> for Touched<'_> {
    fn from(segment: SegmentId) -> Self {
        Self::Stream(segment.stream)
    }
}

/// How a call may be made from outside the platform.
pub struct Outer<R> {
    /// What it needs.
    pub right: Right,
    /// What a request is about.
    pub touched: fn(&R) -> Touched<'_>,
}

/// Who calls, as far as NATS vouches for it: the permissions of a binding allow its own subjects only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bearer {
    /// The index that it is bound to.
    pub index: IndexName,
    /// The binding.
    pub binding: BindingId,
    /// What the binding may do.
    pub role: Role,
}

impl Bearer {
    /// The subjects under which it calls.
    pub fn subjects(&self) -> String {
        format!("{}>", self.prefix())
    }

    /// The subject of one call.
    pub fn subject_of<C: Call>(&self, key: &C::Key) -> String {
        let inner = subject_of::<C>(key);
        format!("{}{}", self.prefix(), inner.strip_prefix(INNER_PREFIX).unwrap_or(&inner))
    }

    /// Who calls under this subject; `None` if it is no subject of a call from outside.
    pub fn of_subject(subject: &str) -> Option<Self> {
        let mut tokens = subject.strip_prefix(PREFIX)?.split('.');
        let mut next = || tokens.next();
        let (index, binding, role) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        next().map(|_| Self { index, binding, role })
    }

    fn prefix(&self) -> String {
        let Self { index, binding, role } = self;
        format!("{PREFIX}{index}.{binding}.{role}.")
    }
}

/// The subscription of the door to a call: of one key, or of every key.
pub fn outer_filter<C: Call>(key: Option<&C::Key>) -> String {
    let inner = key.map_or_else(|| filter_of(C::PATTERN), |key| subject_of::<C>(key));
    format!("{PREFIX}*.*.*.{}", inner.strip_prefix(INNER_PREFIX).unwrap_or(&inner))
}

/// What the coordinator says to whom it may concern: for so long this bearer's index is this stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Who may show it.
    pub bearer: Bearer,
    /// The number of the stream; never given twice, so that an index of the same name made later is another one.
    pub stream: u32,
    /// When it ends; whole seconds.
    pub expires: Timestamp,
}

impl Delegation {
    /// Whether it is for what a request is about.
    pub fn is_for(&self, touched: Touched<'_>) -> bool {
        match touched {
            Touched::Nothing => true,
            Touched::Index(index) => *index == self.bearer.index,
            Touched::Stream(stream) => stream == self.stream,
        }
    }
}

/// A signed delegation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// What to show with every call.
    pub token: String,
    /// The number of the index' stream.
    pub stream: u32,
    /// For how long it holds from the moment of the answer: no two clocks need to agree.
    pub lifetime_ms: u64,
}

impl std::fmt::Debug for Granted {
    /// Without the token, which never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Granted")
            .field("stream", &self.stream)
            .field("lifetime_ms", &self.lifetime_ms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use types::ContainerId;

    use super::*;
    use crate::{
        coordinator::{DescribeStream, SealStream, StreamName},
        segment_store::{AppendEvents, DescribeWriters, ReadFrom, ReadSegment},
    };

    fn bearer(role: Role) -> Bearer {
        Bearer { index: "shop".parse().unwrap(), binding: "b-1".parse().unwrap(), role }
    }

    #[test]
    fn a_subject_says_who_calls_and_the_door_hears_it() {
        let bearer = bearer(Role::Write);
        let subject = bearer.subject_of::<AppendEvents>(&ContainerId(3));
        assert_eq!(subject, "ext.v1.shop.b-1.write.segment-store.container.3.append");
        assert_eq!(Bearer::of_subject(&subject), Some(bearer.clone()));
        assert_eq!(bearer.subjects(), "ext.v1.shop.b-1.write.>");
        let filter = outer_filter::<AppendEvents>(Some(&ContainerId(3)));
        assert_eq!(filter, "ext.v1.*.*.*.segment-store.container.3.append");
        assert_eq!(outer_filter::<DescribeStream>(None), "ext.v1.*.*.*.coordinator.streams.describe");
    }

    #[test]
    fn what_is_no_such_subject_names_nobody() {
        for subject in [
            "lb.v1.coordinator.streams.describe",
            "ext.v1.shop.b-1.write",
            "ext.v1.shop.b-1.root.x",
            "ext.v1.Shop.b-1.write.x",
            "ext.v1.*.b-1.write.x",
            "ext.v1.shop.>.write.x",
            "ext.v1..b-1.write.x",
            "ext.v2.shop.b-1.write.x",
            "",
        ] {
            assert_eq!(Bearer::of_subject(subject), None, "{subject:?}");
        }
    }

    #[test]
    fn calls_say_what_they_need_and_what_they_touch() {
        let needs = |outer: Option<Right>, roles: &[Role]| {
            let given = Role::ALL.into_iter().filter(|role| outer.is_some_and(|right| right.is_given_to(*role)));
            assert_eq!(given.collect::<Vec<_>>(), roles, "{outer:?}");
        };
        needs(AppendEvents::OUTER.map(|o| o.right), &[Role::Write, Role::Admin]);
        needs(ReadSegment::OUTER.map(|o| o.right), &[Role::Read, Role::Admin]);
        needs(DescribeStream::OUTER.map(|o| o.right), &Role::ALL);
        needs(SealStream::OUTER.map(|o| o.right), &[]);
        needs(DescribeWriters::OUTER.map(|o| o.right), &[]);

        let (index, other): (IndexName, IndexName) = ("shop".parse().unwrap(), "bank".parse().unwrap());
        let delegation = Delegation { bearer: bearer(Role::Admin), stream: 7, expires: Timestamp::MAX };
        for (named, ours) in [(&index, true), (&other, false)] {
            let touched =
                (DescribeStream::OUTER.unwrap().touched)(&StreamName { index: named.clone() }) == named.into();
            assert!(touched && delegation.is_for(named.into()) == ours, "{named}");
        }
        for (stream, ours) in [(7, true), (8, false)] {
            let segment = SegmentId { stream, epoch: 0, number: 0x8000_0001 };
            let request = ReadFrom { segment, from: 0, bytes_max: 1, wait_ms: 0 };
            assert_eq!(delegation.is_for((ReadSegment::OUTER.unwrap().touched)(&request)), ours, "{stream}");
        }
    }

    #[test]
    fn a_token_does_not_print() {
        let granted = Granted { token: "secret".to_owned(), stream: 1, lifetime_ms: 2 };
        assert!(!format!("{granted:?}").contains("secret"));
    }
}
