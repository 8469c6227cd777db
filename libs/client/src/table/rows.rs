//! What is under one primary key, and its changes on conditions. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use types::Timestamp;
use wire::Problem;

use super::{PRIMARY_KEY_BYTES_MAX, SECONDARY_KEY_BYTES_MAX, TABLE_CHANGES_MAX, TABLE_VALUE_BYTES_MAX};

/// Why a table did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A condition on an entry that is not there.
    #[error("secondary key {0:?} is not there: insert it, or put it without a condition")]
    KeyDoesNotExist(Bytes),
    /// An entry that must not be there is.
    #[error("secondary key {0:?} is there already")]
    KeyExists(Bytes),
    /// An entry has another version.
    #[error("secondary key {key:?} has version {found}, not {expected}: read it and decide again")]
    BadKeyVersion {
        /// The secondary key.
        key: Bytes,
        /// The version that was asked for.
        expected: u64,
        /// The version that it has.
        found: u64,
    },
    /// A primary key of a wrong length.
    #[error("a primary key has 1 to {max} bytes, not {0}", max = PRIMARY_KEY_BYTES_MAX)]
    PrimaryKey(usize),
    /// A secondary key that is too long.
    #[error("a secondary key has at most {max} bytes, not {0}", max = SECONDARY_KEY_BYTES_MAX)]
    SecondaryKey(usize),
    /// A value that is too large.
    #[error("a value has at most {max} bytes, not {0}", max = TABLE_VALUE_BYTES_MAX)]
    Value(usize),
    /// Too many changes at once.
    #[error("at most {max} changes are made at once, not {0}", max = TABLE_CHANGES_MAX)]
    Changes(usize),
    /// Two changes of one entry.
    #[error("secondary key {0:?} is changed twice at once")]
    Twice(Bytes),
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        match error {
            TableError::KeyDoesNotExist(_) => Self::not_found("KeyDoesNotExist", error),
            TableError::KeyExists(_) => Self::conflict("KeyExists", error),
            TableError::BadKeyVersion { .. } => Self::conflict("BadKeyVersion", error),
            TableError::PrimaryKey(_) | TableError::SecondaryKey(_) | TableError::Twice(_) => {
                Self::bad_request("InvalidKey", error)
            }
            TableError::Value(_) | TableError::Changes(_) => Self::bad_request("TooLarge", error),
        }
    }
}

/// The version of an entry; grows with each change under its primary key, also after everything there was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// What is there.
    #[serde(rename = "v")]
    pub value: Bytes,
    /// Its version.
    #[serde(rename = "n")]
    pub version: Version,
}

/// What must hold for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowCondition {
    /// Nothing.
    Always,
    /// The entry is not there.
    Absent,
    /// The entry is there, in this version.
    Version(Version),
}

/// A change of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    key: Bytes,
    value: Option<Bytes>,
    condition: RowCondition,
}

impl RowChange {
    /// Sets an entry.
    pub fn put(secondary: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        let key = Bytes::copy_from_slice(secondary.as_ref());
        Self { key, value: Some(value.into()), condition: RowCondition::Always }
    }

    /// Removes an entry.
    pub fn remove(secondary: impl AsRef<[u8]>) -> Self {
        let key = Bytes::copy_from_slice(secondary.as_ref());
        Self { key, value: None, condition: RowCondition::Always }
    }

    /// The same change on a condition.
    #[must_use]
    pub fn on(mut self, condition: RowCondition) -> Self {
        self.condition = condition;
        self
    }
}

/// Checks what does not depend on what is there.
pub(super) fn check(changes: &[RowChange]) -> Result<(), TableError> {
    if changes.len() > TABLE_CHANGES_MAX {
        return Err(TableError::Changes(changes.len()));
    }
    for (at, change) in changes.iter().enumerate() {
        if change.key.len() > SECONDARY_KEY_BYTES_MAX {
            return Err(TableError::SecondaryKey(change.key.len()));
        }
        if let Some(large) = change.value.as_ref().filter(|value| value.len() > TABLE_VALUE_BYTES_MAX) {
            return Err(TableError::Value(large.len()));
        }
        if changes[..at].iter().any(|other| other.key == change.key) {
            return Err(TableError::Twice(change.key.clone()));
        }
    }
    Ok(())
}

/// Everything under a primary key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rows {
    last: u64,
    rows: BTreeMap<Bytes, Versioned>,
}

impl Rows {
    pub(super) fn get(&self, key: &[u8]) -> Option<Versioned> {
        self.rows.get(key).cloned()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Bytes, Versioned)> {
        self.rows.iter().map(|(key, row)| (key, row.clone()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Makes all changes or none; gives the versions of what was put.
    ///
    /// The version is also at least the time: so it grows beyond what it was before everything was removed.
    pub(super) fn change(&mut self, changes: &[RowChange], now: Timestamp) -> Result<Vec<Version>, TableError> {
        for change in changes {
            self.meets(change)?;
        }
        let changes_any = changes.iter().any(|c| c.value.is_some() || self.rows.contains_key(&c.key));
        if changes_any {
            self.last = (self.last + 1).max(u64::try_from(now.nanos()).unwrap_or(0));
        }
        let version = Version(self.last);
        let mut versions = Vec::new();
        for RowChange { key, value, .. } in changes {
            match value {
                Some(value) => {
                    self.rows.insert(key.clone(), Versioned { value: value.clone(), version });
                    versions.push(version);
                }
                None => {
                    self.rows.remove(key);
                }
            }
        }
        Ok(versions)
    }

    fn meets(&self, change: &RowChange) -> Result<(), TableError> {
        let key = || change.key.clone();
        match (change.condition, self.rows.get(&change.key)) {
            (RowCondition::Always, _) | (RowCondition::Absent, None) => Ok(()),
            (RowCondition::Absent, Some(_)) => Err(TableError::KeyExists(key())),
            (RowCondition::Version(_), None) => Err(TableError::KeyDoesNotExist(key())),
            (RowCondition::Version(version), Some(row)) if row.version == version => Ok(()),
            (RowCondition::Version(expected), Some(row)) => {
                let (expected, found) = (expected.0, row.version.0);
                Err(TableError::BadKeyVersion { key: key(), expected, found })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_that_fails_changes_nothing_of_the_others() {
        let mut rows = Rows::default();
        let version =
            rows.change(&[RowChange::put("a", "1"), RowChange::put("b", "2")], Timestamp::default()).unwrap()[0];
        let before = rows.clone();
        let other = Version(version.0 + 7);
        for (second, expected) in [
            (RowChange::put("a", "x").on(RowCondition::Absent), TableError::KeyExists("a".into())),
            (RowChange::remove("c").on(RowCondition::Version(version)), TableError::KeyDoesNotExist("c".into())),
            (
                RowChange::put("b", "x").on(RowCondition::Version(other)),
                TableError::BadKeyVersion { key: "b".into(), expected: other.0, found: version.0 },
            ),
        ] {
            assert_eq!(rows.change(&[RowChange::put("z", "9"), second], Timestamp::default()), Err(expected));
            assert_eq!(rows, before);
        }
        let good = [RowChange::remove("a").on(RowCondition::Version(version)), RowChange::put("z", "9")];
        rows.change(&good, Timestamp::default()).unwrap();
        assert_eq!((rows.get(b"a"), rows.get(b"z").unwrap().value), (None, "9".into()));
    }

    #[test]
    fn limits_are_checked_before_anything_is_asked() {
        let long = vec![b'k'; SECONDARY_KEY_BYTES_MAX + 1];
        let large = vec![0; TABLE_VALUE_BYTES_MAX + 1];
        let many: Vec<_> = (0..=TABLE_CHANGES_MAX).map(|n| RowChange::remove(n.to_string())).collect();
        for (changes, expected) in [
            (vec![RowChange::remove(&long)], TableError::SecondaryKey(long.len())),
            (vec![RowChange::put("a", large.clone())], TableError::Value(large.len())),
            (vec![RowChange::remove("a"), RowChange::put("a", "")], TableError::Twice("a".into())),
            (many, TableError::Changes(TABLE_CHANGES_MAX + 1)),
        ] {
            assert_eq!(check(&changes), Err(expected));
        }
        assert_eq!(check(&[RowChange::put(&long[1..], large[1..].to_vec())]), Ok(()));
    }

    proptest! {
        /// Whatever happens, a version is never given twice: a condition on an old one cannot hold by accident.
        #[test]
        fn versions_only_grow(steps in proptest::collection::vec((0..4u8, any::<bool>(), 0..3i64), 1..40)) {
            let (mut rows, mut now, mut last) = (Rows::default(), Timestamp::from_nanos(1), 0);
            for (key, put, later) in steps {
                now = now + std::time::Duration::from_nanos(1 + u64::try_from(later).unwrap());
                let change = if put { RowChange::put([key], "v") } else { RowChange::remove([key]) };
                for version in rows.change(&[change], now).unwrap() {
                    prop_assert!(version.0 > last);
                    last = version.0;
                }
                if rows.is_empty() {
                    rows = Rows::default();
                }
            }
        }
    }
}
