//! What a back-end of log indexes can do; each step may be repeated and adopts what an earlier attempt left half done.

pub(crate) mod own;

use std::collections::BTreeMap;

use async_trait::async_trait;
use wire::{Problem, index_provisioner::IndexDescription};

use crate::state::Binding;

/// What a back-end has under the name of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// The index as described.
    Same,
    /// Something else of this name.
    Different,
}

/// A place where log indexes live.
///
/// Errors: a transient [`Problem`] is tried again for ever; any other ends the attempt.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Creates the index.
    async fn create(&self, index: &IndexDescription) -> Result<(), Problem>;

    /// Changes an index to what is described.
    async fn update(&self, index: &IndexDescription) -> Result<(), Problem>;

    /// Deletes the index with all its events; deleting what is not there succeeds.
    async fn delete(&self, index: &IndexDescription) -> Result<(), Problem>;

    /// Looks what is there.
    async fn describe(&self, index: &IndexDescription) -> Result<Found, Problem>;

    /// Makes the credentials of a binding work and returns them; a repeat returns the same.
    async fn issue(&self, index: &IndexDescription, binding: &Binding) -> Result<BTreeMap<String, String>, Problem>;

    /// Makes the credentials of bindings fail and cuts their live connections; revoking what is not there succeeds.
    async fn revoke(&self, bindings: &[Binding]) -> Result<(), Problem>;
}
