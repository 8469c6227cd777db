//! Buckets that others watch: copies of what the journal says, into which a former leader writes nothing any more.
//!
//! Every write bears the version that was read before the journal was asked whether it goes on without this replica. So whatever
//! another leader has shown since then, be it that something is gone, lets the write fail.

use std::collections::{BTreeMap, BTreeSet};

use bus::{Bucket, BucketError};
use host::Ledger;
use types::{IndexName, InstanceId};
use wire::{Problem, index_provisioner::IndexDescription};

use crate::state::{Binding, BindingPhase, Index, OWN, Phase, State};

/// What a bucket is to hold.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) entries: BTreeMap<String, Vec<u8>>,
    /// Entries of what is on its way: whoever works on it shows them.
    pub(crate) left_alone: BTreeSet<String>,
}

/// A bucket of copies.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) bucket: Bucket,
    pub(crate) ledger: Ledger<State>,
}

impl View {
    /// Shows a value, or takes it away, if the journal still says so.
    pub(super) async fn show(
        &self,
        key: &str,
        value: Option<&[u8]>,
        still: impl Fn(&State) -> bool,
    ) -> Result<(), Problem> {
        let (revision, there) = self.bucket.version(key).await.map_err(problem)?;
        if there.as_deref() == value {
            return Ok(());
        }
        self.ledger.confirm().await?;
        if !self.ledger.read(still) {
            let message = format!("what {key} shows was changed or ended by another request; look again");
            return Err(Problem::unavailable("NotReady", message));
        }
        let written = match value {
            Some(value) => self.bucket.update(key, value.to_vec(), revision).await.map(drop),
            None => self.bucket.delete_at(key, revision).await,
        };
        written.map_err(problem)
    }

    /// Shows what nothing ever stood for: its key is of this one time. Once it was taken away, it does not come back.
    pub(super) async fn show_once(
        &self,
        key: &str,
        value: &[u8],
        still: impl Fn(&State) -> bool,
    ) -> Result<(), Problem> {
        match self.bucket.update(key, value.to_vec(), 0).await {
            Err(BucketError::Conflict { .. }) => self.show(key, Some(value), still).await,
            done => done.map(drop).map_err(problem),
        }
    }

    /// Takes an entry away for good, and leaves a trace of that even where there was none.
    pub(super) async fn end(&self, key: &str) -> Result<(), Problem> {
        self.bucket.delete(key).await.map_err(problem)
    }

    /// Makes the bucket hold just what the journal says.
    pub(super) async fn rewrite(&self, wanted: impl Fn(&State) -> Wanted) -> Result<(), Problem> {
        let shown = self.bucket.list("").await.map_err(problem)?;
        self.ledger.confirm().await?;
        let Wanted { mut entries, left_alone } = self.ledger.read(&wanted);
        for (key, entry) in shown {
            match entries.remove(&key) {
                Some(value) if entry.value == value => {}
                Some(value) => drop(self.bucket.update(&key, value, entry.revision).await.map_err(problem)?),
                None if left_alone.contains(&key) => {}
                None => self.bucket.delete_at(&key, entry.revision).await.map_err(problem)?,
            }
        }
        for (key, value) in entries {
            self.show_once(&key, &value, |state| wanted(state).entries.get(&key) == Some(&value)).await?;
        }
        Ok(())
    }
}

fn problem(error: BucketError) -> Problem {
    match error {
        // Another leader was faster, or this replica in a term before; whoever leads now looks again.
        BucketError::Conflict { .. } | BucketError::Exists { .. } => Problem::unavailable("ViewContended", error),
        BucketError::Bus(_) => {
            Problem::unavailable("TokensUnavailable", format_args!("a bucket does not answer: {error}")).unknown()
        }
        error => Problem::internal(error),
    }
}

/// Whether an index is to be what is described.
pub(super) fn is_wanted(index: &IndexDescription) -> impl Fn(&State) -> bool {
    move |state| state.index(&index.instance).is_some_and(|there| there.wanted() == index)
}

/// Whether an index is being deleted.
pub(super) fn is_ending(instance: &InstanceId) -> impl Fn(&State) -> bool {
    move |state| state.index(instance).is_some_and(|there| there.phase == Phase::Deleting)
}

/// Whether a binding can be used, or will be as soon as its credentials are there.
pub(super) fn is_bound(binding: &Binding) -> impl Fn(&State) -> bool {
    move |state| {
        let there = state.binding(&binding.description.binding);
        there.is_some_and(|b| b.description == binding.description && b.phase != BindingPhase::Revoking)
    }
}

/// Our own indexes that stand as described, and the names of those that are on their way to or from there.
pub(super) fn own_indexes(state: &State) -> (Vec<IndexDescription>, BTreeSet<IndexName>) {
    let own = || state.indexes().filter(|index| index.description.backend == OWN);
    let settled = |index: &&Index| index.phase == Phase::Live && index.update.is_none();
    let live = own().filter(settled).map(|index| index.description.clone()).collect();
    (live, own().filter(|index| !settled(index)).map(|index| index.description.index.clone()).collect())
}

/// The bindings on our own back-end that can be used, or will be.
pub(super) fn own_bindings(state: &State) -> impl Iterator<Item = (&IndexDescription, &Binding)> {
    let usable = state.bindings().filter(|b| b.phase != BindingPhase::Revoking);
    usable.filter_map(|binding| {
        let index = &state.index(&binding.description.instance)?.description;
        (index.backend == OWN).then_some((index, binding))
    })
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
