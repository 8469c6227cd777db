//! Operations, and how those on what is gone are remembered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::Timestamp;

use super::{TOMBSTONE_AGE, TOMBSTONES_MAX};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Creates an instance.
    Provision,
    /// Deletes an instance.
    Deprovision,
    /// Creates a binding.
    Bind,
    /// Deletes a binding.
    Unbind,
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
    /// Whether it has succeeded.
    pub ended: bool,
}

impl Operation {
    pub(super) fn new(kind: Kind, number: u64, begun: Timestamp) -> Self {
        let word = match kind {
            Kind::Provision => "provision",
            Kind::Deprovision => "deprovision",
            Kind::Bind => "bind",
            Kind::Unbind => "unbind",
        };
        Self { kind, token: format!("{word}-{number}"), begun, ended: false }
    }
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
    fn what_is_too_old_or_too_much_is_forgotten() {
        let ended = |at: i64| {
            let at = Timestamp::from_millis(at);
            Ended { operation: Operation::new(Kind::Unbind, 1, at), failure: None, at }
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
