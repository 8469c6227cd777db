//! What a back-end of log indexes can do; each step may be repeated and adopts what an earlier attempt left half done.

pub(crate) mod own;
pub(crate) mod s3;
pub(crate) mod splunk;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use wire::{Problem, index_provisioner::IndexDescription};

use crate::state::Binding;

/// How long one step may take; what takes longer makes some progress, answers [`unfinished`] and is called again.
pub(crate) const STEP_MAX: Duration = Duration::from_secs(25);

/// What a back-end has under the name of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// Something with the mark of this service instance.
    Ours,
    /// Something that bears no mark: whoever is told to adopt it may.
    Unowned,
    /// Something of another service instance, of another scope, or otherwise not to be touched.
    Foreign,
}

/// A place where log indexes live.
///
/// Names on a back-end are derived from the ids that come in, never made up, so that a repeat finds what stands there already. What a
/// back-end makes it also marks with the service instance; what bears no such mark is not changed and not deleted, unless the index is
/// to be adopted. The caller makes one call at a time for an instance, and repeats calls after crashes from their beginning.
///
/// Errors: a transient [`Problem`] (or one with an unknown outcome) is tried again for ever, with growing pauses. Any other is final;
/// the step has then left everything as it was before its first attempt.
/// Bounds: a step ends within 25 s, else it is cut off and repeated; what takes longer makes some progress and answers `BackendUnavailable`.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Whether it can do what is asked, as far as that can be told without asking anybody: called before anything is journaled.
    ///
    /// `before` is the live index that is to be changed; without it `index` is to be created.
    /// Errors: `BackendRefused` for what can never be made, `NotUpdatable` for a change that cannot be made to what is there.
    fn check(&self, before: Option<&IndexDescription>, index: &IndexDescription) -> Result<(), Problem>;

    /// Creates the index; it can be used when this returns. Errors: `ForeignResource`, `IndexNameTaken`.
    async fn create(&self, index: &IndexDescription) -> Result<(), Problem>;

    /// Changes an index to what is described; all of it holds when this returns. Errors: `NotUpdatable`.
    async fn update(&self, index: &IndexDescription) -> Result<(), Problem>;

    /// Ends the index as its reclaim policy says; ending what is not there succeeds, and so does meeting something foreign, which stays.
    ///
    /// Its credentials are revoked already. Errors: `NotEmpty` for `Reclaim::Fail` with events: nothing was deleted.
    async fn delete(&self, index: &IndexDescription) -> Result<(), Problem>;

    /// Looks what is there.
    async fn describe(&self, index: &IndexDescription) -> Result<Found, Problem>;

    /// Whether the index holds any event; asked before an index with `Reclaim::Fail` is deleted.
    async fn holds_events(&self, index: &IndexDescription) -> Result<bool, Problem>;

    /// Makes the credentials of a binding work and returns them; a repeat returns the same.
    async fn issue(&self, index: &IndexDescription, binding: &Binding) -> Result<BTreeMap<String, String>, Problem>;

    /// Of how many bindings the credentials are revoked in one step.
    fn revoked_at_once(&self) -> usize;

    /// Makes the credentials of bindings fail and cuts their live connections; revoking what is not there succeeds.
    async fn revoke(&self, index: &IndexDescription, bindings: &[Binding]) -> Result<(), Problem>;
}

/// The back-end does not answer, or not well; the step is repeated.
pub(crate) fn unavailable(message: impl std::fmt::Display) -> Problem {
    Problem::unavailable("BackendUnavailable", message).unknown()
}

/// The back-end works on it; the step is repeated.
pub(crate) fn unfinished(message: impl std::fmt::Display) -> Problem {
    unavailable(message).retry_after_ms(2_000)
}

/// The back-end will never do it.
pub(crate) fn refused(message: impl std::fmt::Display) -> Problem {
    Problem::bad_request("BackendRefused", message)
}

/// What stands there belongs to somebody else.
pub(crate) fn foreign(message: impl std::fmt::Display) -> Problem {
    Problem::conflict("ForeignResource", message)
}
