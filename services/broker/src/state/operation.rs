//! Operations, and how those on what is gone are remembered.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use types::Timestamp;

use super::{TOMBSTONE_AGE, TOMBSTONES_MAX};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Creates an instance.
    Provision,
    /// Changes an instance.
    Update,
    /// Deletes an instance.
    Deprovision,
    /// Creates a binding.
    Bind,
    /// Deletes a binding.
    Unbind,
}

impl Kind {
    /// Whether nothing is left when it succeeds.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Deprovision | Self::Unbind)
    }

    /// As tokens, metrics and people name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Update => "update",
            Self::Deprovision => "deprovision",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
        }
    }
}

/// Why an operation failed on what is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For a person.
    pub reason: String,
    /// Whether the same may be asked for again.
    pub repeatable: bool,
    /// The kind of the refusal; empty where it tells the platform nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What it does.
    pub kind: Kind,
    /// Names it to the platform.
    pub token: String,
    /// When it began.
    pub begun: Timestamp,
    /// Whether it has ended.
    pub ended: bool,
    /// When it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Why it failed; `None` if it succeeded or has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Operation {
    pub(super) fn new(kind: Kind, number: u64, begun: Timestamp, seconds_max: Option<u64>) -> Self {
        let deadline = seconds_max.map(|seconds| begun + Duration::from_secs(seconds));
        Self { kind, token: Self::token_of(kind, number), begun, ended: false, deadline, failure: None }
    }

    /// The name of an operation.
    pub(crate) fn token_of(kind: Kind, number: u64) -> String {
        format!("{}-{number}", kind.word())
    }

    /// Its place among everything that is wanted of its instance, as the provisioner is told of it.
    pub(crate) fn order(&self) -> u64 {
        2 * numbered(&self.token).map_or(0, |(_, number)| number) + 1
    }

    /// The place of what undoes it: behind itself, before everything that is wanted later.
    pub(crate) fn undo_order(&self) -> u64 {
        self.order() + 1
    }

    /// The place of the removal of what there is.
    pub(crate) fn removal_order(&self) -> u64 {
        if self.kind.is_end() { self.order() } else { self.undo_order() }
    }

    /// What a token of an earlier operation stood for, if that was to be the end of what is there, or was there before.
    pub(crate) fn follows_end(&self, earlier: &str) -> Option<Kind> {
        let ((word, number), (_, own)) = (numbered(earlier)?, numbered(&self.token)?);
        [Kind::Deprovision, Kind::Unbind].into_iter().find(|kind| kind.word() == word && number < own)
    }

    /// Names the removal of what there is: another work than a creation that was given up, which may still be running.
    pub(crate) fn removal_token(&self) -> String {
        if self.kind.is_end() { self.token.clone() } else { format!("{}-removal", self.token) }
    }

    pub(super) fn end(&mut self, failure: Option<Failure>) {
        (self.ended, self.failure) = (true, failure);
    }

    /// Whether it has taken longer than it may.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        !self.ended && self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// What is said of an operation that is given up.
    pub(super) fn too_long(&self) -> String {
        let allowed = self.deadline.map_or(Duration::ZERO, |deadline| deadline.since(self.begun)).as_secs();
        format!("it did not end within the {allowed} s that the plan allows and was given up")
    }
}

/// Word and number of a token.
fn numbered(token: &str) -> Option<(&str, u64)> {
    let (word, number) = token.rsplit_once('-')?;
    Some((word, number.parse().ok()?))
}

/// How the last operation on what is no longer there ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The operation.
    pub operation: Operation,
    /// Why it failed; `None` if it succeeded.
    pub failure: Option<String>,
    /// When it ended.
    pub at: Timestamp,
}

/// Remembers ended operations for [`TOMBSTONE_AGE`], the newest [`TOMBSTONES_MAX`] of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstones<K: Ord>(BTreeMap<K, Ended>);

impl<K: Ord> Default for Tombstones<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Tombstones<K> {
    pub(super) fn get(&self, id: &K) -> Option<&Ended> {
        self.0.get(id)
    }

    pub(super) fn remove(&mut self, id: &K) {
        self.0.remove(id);
    }

    pub(super) fn insert(&mut self, id: K, ended: Ended) {
        let now = ended.at;
        self.0.insert(id, ended);
        self.0.retain(|_, old| now.since(old.at) <= TOMBSTONE_AGE);
        if self.0.len() > TOMBSTONES_MAX {
            let oldest = self.0.iter().min_by_key(|(_, old)| old.at).map(|(id, _)| id.clone());
            oldest.iter().for_each(|id| self.remove(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_later_has_a_later_place() {
        let at = Timestamp::from_nanos(1);
        let orders = |kind, number| {
            let operation = Operation::new(kind, number, at, None);
            [operation.order(), operation.undo_order(), operation.removal_order()]
        };
        assert_eq!((orders(Kind::Provision, 0), orders(Kind::Update, 1)), ([1, 2, 2], [3, 4, 4]));
        assert_eq!(orders(Kind::Deprovision, 2), [5, 6, 5], "a removal that is repeated is the same");
    }

    #[test]
    fn what_is_too_old_or_too_much_is_forgotten() {
        let ended = |at: i64| {
            let at = Timestamp::from_millis(at);
            Ended { operation: Operation::new(Kind::Unbind, 1, at, None), failure: None, at }
        };
        let mut tombstones = Tombstones::default();
        for id in 0..=TOMBSTONES_MAX {
            tombstones.insert(id, ended(i64::try_from(id).unwrap()));
        }
        assert!(tombstones.get(&0).is_none() && tombstones.get(&1).is_some());
        let week = i64::try_from(TOMBSTONE_AGE.as_millis()).unwrap();
        tombstones.insert(0, ended(week + 5));
        assert!(tombstones.get(&4).is_none() && tombstones.get(&5).is_some() && tombstones.get(&0).is_some());
    }
}
