//! How many tables a query reads, those of its stages and views as often as they are named.
//!
//! Stages and views are put in where they are named: a plan has as many steps as all of them together, and those multiply.

use std::collections::BTreeMap;

use crate::{Diagnostic, TableName};

/// Tables that a query reads, those of stages and views as often as they are named.
pub const RELATIONS_ALL_MAX: u64 = 128;

/// What one text reads itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reads {
    indexes: u64,
    items: BTreeMap<TableName, u64>,
}

impl Reads {
    /// An index, once more.
    pub(crate) fn index(&mut self) {
        self.indexes = self.indexes.saturating_add(1);
    }

    /// A view or a lookup, once more.
    pub(crate) fn item(&mut self, name: TableName) {
        let count = self.items.entry(name).or_default();
        *count = count.saturating_add(1);
    }

    /// All that something else reads.
    pub(crate) fn add(&mut self, other: &Self) {
        self.indexes = self.indexes.saturating_add(other.indexes);
        for (name, more) in &other.items {
            let count = self.items.entry(name.clone()).or_default();
            *count = count.saturating_add(*more);
        }
    }
}

/// How many tables views read.
#[derive(Debug, Default)]
pub(crate) struct Weights<'a>(BTreeMap<&'a TableName, u64>);

impl<'a> Weights<'a> {
    /// Learns what a view reads; those that it names are known already.
    pub(crate) fn note(&mut self, name: &'a TableName, reads: &Reads) -> u64 {
        let weight = self.of(reads);
        self.0.insert(name, weight);
        weight
    }

    /// How many tables that are; a lookup is one.
    pub(crate) fn of(&self, reads: &Reads) -> u64 {
        let weigh = |(name, count): (&TableName, &u64)| self.0.get(name).copied().unwrap_or(1).saturating_mul(*count);
        reads.items.iter().map(weigh).fold(reads.indexes, u64::saturating_add)
    }
}

/// The complaint about something that reads too many.
pub(crate) fn too_many(what: &str, weight: u64) -> Diagnostic {
    let message = format!(
        "{what} reads {weight} tables, those of views and stages as often as they are named, of {RELATIONS_ALL_MAX} at most"
    );
    Diagnostic::new(1, 1, message).help("name views fewer times inside views, and stages fewer times inside stages")
}
