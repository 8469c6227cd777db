//! Where a request comes from, carried along by whatever it causes.

use std::future::Future;

use types::{Generation, Timestamp};

/// Who asked, until when, and under which ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `<service>/<replica>` of the caller.
    pub caller: String,
    /// When the caller stops waiting.
    pub deadline: Timestamp,
    /// Identifies the request from the outermost door inwards.
    pub request_id: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

tokio::task_local! {
    static ORIGIN: Origin;
    static LEADER: Generation;
}

/// Runs a future whose calls carry the origin's ids and never outlive its deadline.
///
/// A door does this for its handler; an actor does it for what it spawns on behalf of an [`crate::Incoming`].
pub fn with_origin<F: Future>(origin: Origin, future: F) -> impl Future<Output = F::Output> {
    ORIGIN.scope(origin, future)
}

/// The origin of the request that is being handled, if any.
pub fn origin() -> Option<Origin> {
    ORIGIN.try_with(Clone::clone).ok()
}

/// Runs a future whose calls say on behalf of which leader of this service they are made.
///
/// What a leader has sent may arrive after it was deposed: whoever has heard of a later one by then refuses it.
pub fn as_leader<F: Future>(leader: Generation, future: F) -> impl Future<Output = F::Output> {
    LEADER.scope(leader, future)
}

/// The leader on whose behalf calls are made here, if any.
pub(crate) fn leader() -> Option<Generation> {
    LEADER.try_with(|leader| *leader).ok()
}

/// A fresh id for a request that begins here.
pub(crate) fn fresh_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}
