//! What can be done for an object, and how long it then rests.

use std::time::Duration;

use super::ask::{Ask, Question};

/// Everything is well; a Secret or a service instance that somebody else took away is noticed after this time.
pub(crate) const RESYNC: Duration = Duration::from_secs(300);
/// An operation of the broker goes on.
pub(crate) const SOON: Duration = Duration::from_secs(1);
/// The broker cannot answer at the moment.
pub(crate) const LATER: Duration = Duration::from_secs(5);
/// The broker refused something for good: only a change can help, of which the operator may not learn.
pub(crate) const REFUSED: Duration = Duration::from_secs(60);

/// What to do next for an object with a status of type `S`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step<S> {
    /// Find out what organization and space are.
    Locate,
    /// Ask the broker.
    Ask(Question, Ask),
    /// Put the finalizer on, or take it off.
    Finalizer(bool),
    /// Remember this before the next step.
    Save(S),
    /// Say this, and look again at a change or after a time.
    Rest(S, Duration),
    /// Say this, and look again when the wish has changed or after a time; other changes are not looked at.
    Pause(S, Duration),
}
