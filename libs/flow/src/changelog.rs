//! Results that change: what a row does to them.

use serde::{Deserialize, Serialize};

/// What a row does to a result that changes, as the column [`CHANGE_COLUMN`](crate::CHANGE_COLUMN) holds it.
///
/// A batch without the column inserts. An update is `UpdateBefore` and `UpdateAfter` right behind each other in one batch
/// (mode [`ChangelogMode::Retract`]), or `UpdateAfter` alone where the key says what it replaces
/// ([`ChangelogMode::Upsert`]). Rows of one key must stay in order: an edge that carries changes is hashed by the key of the
/// *result*, not of what comes next, and a change of key is a delete and an insert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum Change {
    /// A row that was not there.
    #[default]
    Insert = 0,
    /// A row that is replaced by the one behind it.
    UpdateBefore = 1,
    /// A row that replaces the one of its key.
    UpdateAfter = 2,
    /// A row that is no more.
    Delete = 3,
}

impl Change {
    /// As the column holds it.
    pub fn code(self) -> i8 {
        match self {
            Self::Insert => 0,
            Self::UpdateBefore => 1,
            Self::UpdateAfter => 2,
            Self::Delete => 3,
        }
    }

    /// What a code of the column says; `None` for a code of a later release.
    pub fn of(code: i8) -> Option<Self> {
        [Self::Insert, Self::UpdateBefore, Self::UpdateAfter, Self::Delete].into_iter().find(|c| c.code() == code)
    }

    /// Whether the row adds to a sum over the result, or takes away from it.
    pub fn adds(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }
}

/// Which changes an operator gives on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangelogMode {
    /// Inserts only.
    #[default]
    Append,
    /// `Insert`, `UpdateAfter` and `Delete` of a key.
    Upsert,
    /// All four, so that whoever knows no key can follow.
    Retract,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_for_ever() {
        let codes: Vec<Option<Change>> = (-1..5).map(Change::of).collect();
        let some = [Change::Insert, Change::UpdateBefore, Change::UpdateAfter, Change::Delete].map(Some);
        assert_eq!(codes[1..5], some);
        assert_eq!((codes[0], codes[5]), (None, None));
        assert!(some.iter().flatten().all(|c| Change::of(c.code()) == Some(*c)));
    }
}
