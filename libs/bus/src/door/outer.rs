//! Doors for programs outside the platform: who stands there, what they show, and how much room they get.
//!
//! These doors are on the services' connection in the tenants' account, where a caller's own reply subject is seen. Two things
//! are proved before anything else is spent on a request: NATS let the caller publish under a subject that names its binding,
//! and a delegation of that very binding is signed by a coordinator that is known.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::Message;
use tracing::debug;
use types::{Clock, IndexName, Timestamp};
use wire::{
    Call, Problem,
    delegation::{Bearer, Delegation, Right},
    header, subjects,
};

use crate::{
    Origin, SystemClock,
    door::keeper::{Gatekeeper, Refusal},
    headers,
    origin::fresh_id,
};

/// Requests of one index that one door holds at once; beyond it answers `Throttled`, so that no tenant fills a door.
pub(super) const SHARE_MAX: usize = 64;
/// The latest deadline that a caller outside can name.
const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// The longest request id or trace context that is taken over from outside.
const ID_BYTES_MAX: usize = 64;

/// The largest body of a request by what it needs: a block of events with its envelope, a question, an empty one.
fn body_bytes_max(right: Right) -> usize {
    match right {
        Right::Write => (2 << 20) + (64 << 10),
        Right::Read | Right::Describe => 64 << 10,
        Right::Grant => 1 << 10,
    }
}

/// Stands at one door outside.
pub(super) struct Guard {
    keeper: Gatekeeper,
    right: Right,
    shares: Arc<Mutex<HashMap<IndexName, usize>>>,
}

/// A caller that was let in, and its room.
pub(super) struct Visit {
    pub(super) bearer: Bearer,
    delegation: Option<Arc<Delegation>>,
    pub(super) share: Share,
}

/// A place of an index at a door; given back when it is dropped.
pub(super) struct Share {
    shares: Arc<Mutex<HashMap<IndexName, usize>>>,
    index: IndexName,
}

impl Guard {
    pub(super) fn new(keeper: Gatekeeper, right: Right) -> Self {
        Self { keeper, right, shares: Arc::default() }
    }

    /// Who asks; `None` for a request that is not to be answered, because its answer would go to somebody else.
    ///
    /// The server does not check reply subjects: an answer to any other one would be published by us, who may publish more than
    /// the caller.
    pub(super) fn bearer(message: &Message) -> Option<Bearer> {
        let bearer = Bearer::of_subject(&message.subject)?;
        let inbox = subjects::inbox_prefix(&bearer.binding);
        let own = message.reply.as_ref()?.strip_prefix(&*inbox)?.starts_with('.');
        if !own {
            debug!(binding = %bearer.binding, "request dropped, its answer would go to somebody else");
        }
        own.then_some(bearer)
    }

    /// Lets a caller in who shows what the call needs, while its index has room.
    pub(super) fn let_in(&self, message: &Message, bearer: Bearer) -> Result<Visit, Problem> {
        let (found, limit) = (message.payload.len(), body_bytes_max(self.right));
        if found > limit {
            let why = format_args!("the body has {found} bytes, and this call takes at most {limit}");
            return Err(Problem::bad_request("BodyTooLarge", why));
        }
        let delegation = match self.right {
            Right::Grant => None,
            right => {
                let token = headers::get(message.headers.as_ref(), header::DELEGATION);
                let delegation = self.keeper.prove(&bearer, token, SystemClock.now())?;
                if !right.is_given_to(bearer.role) {
                    return Err(Refusal::TooWeak(bearer.role).into());
                }
                Some(delegation)
            }
        };
        let share = Share::take(&self.shares, &bearer.index)?;
        Ok(Visit { bearer, delegation, share })
    }
}

impl Visit {
    /// What a caller says of itself, as far as it is believed.
    pub(super) fn confine(&self, origin: &mut Origin, now: Timestamp) {
        let tame = |id: &str| id.len() <= ID_BYTES_MAX && id.bytes().all(|b| b.is_ascii_graphic());
        origin.caller = format!("binding/{}", self.bearer.binding);
        origin.deadline = origin.deadline.min(now + DEADLINE_MAX);
        if !tame(&origin.request_id) {
            origin.request_id = fresh_id();
        }
        origin.traceparent = origin.traceparent.take().filter(|trace| tame(trace));
    }

    /// Whether the delegation is for what the request is about.
    pub(super) fn covers<C: Call>(&self, request: &C::Request) -> Result<(), Problem> {
        match (&self.delegation, &C::OUTER) {
            (Some(delegation), Some(outer)) if !delegation.is_for((outer.touched)(request)) => {
                Err(Refusal::Foreign.into())
            }
            _ => Ok(()),
        }
    }
}

impl Share {
    fn take(shares: &Arc<Mutex<HashMap<IndexName, usize>>>, index: &IndexName) -> Result<Self, Problem> {
        let mut held = shares.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(index.clone()).or_default();
        if *count >= SHARE_MAX {
            let message = format_args!("{SHARE_MAX} of these requests of index {index} are in flight; repeat later");
            return Err(Problem::throttled("DoorFull", message));
        }
        *count += 1;
        Ok(Self { shares: shares.clone(), index: index.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.index) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::views::Role;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn bearer(index: &str, binding: &str, role: Role) -> Bearer {
        Bearer { index: index.parse().unwrap(), binding: binding.parse().unwrap(), role }
    }

    #[test]
    fn an_index_has_its_share_and_gives_it_back() {
        let shares = Arc::default();
        let (shop, bank) = ("shop".parse().unwrap(), "bank".parse().unwrap());
        let mut held: Vec<Share> = (0..SHARE_MAX).map(|_| Share::take(&shares, &shop).unwrap()).collect();
        assert_eq!(Share::take(&shares, &shop).err().unwrap().kind, "DoorFull");
        drop(Share::take(&shares, &bank).unwrap());
        held.pop();
        held.push(Share::take(&shares, &shop).unwrap());
        drop(held);
        assert!(shares.lock().unwrap().is_empty());
    }

    #[test]
    fn a_request_is_answered_to_its_own_caller_only() {
        let message = |subject: &str, reply: Option<&str>| Message {
            subject: subject.into(),
            reply: reply.map(Into::into),
            payload: bytes::Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        let subject = "ext.v1.shop.b1.write.coordinator.streams.describe";
        for (reply, answered) in [
            (Some("_INBOX.b1.x.1"), true),
            (None, false),
            (Some("_INBOX.b1"), false),
            (Some("_INBOX.b11.x"), false),
            (Some("_INBOX.b2.x"), false),
            (Some("lane.0.bank"), false),
            (Some("alerts.bank.fire"), false),
            (Some("$JS.API.STREAM.PURGE.ALERTS"), false),
        ] {
            assert_eq!(Guard::bearer(&message(subject, reply)).is_some(), answered, "{reply:?}");
        }
        assert!(Guard::bearer(&message("lane.0.shop", Some("_INBOX.b1.x"))).is_none());
    }

    #[test]
    fn what_a_caller_says_of_itself_is_confined() {
        let visit = Visit {
            bearer: bearer("shop", "b1", Role::Write),
            delegation: None,
            share: Share::take(&Arc::default(), &"shop".parse().unwrap()).unwrap(),
        };
        let mut origin = Origin {
            caller: "coordinator/c-0".to_owned(),
            deadline: Timestamp::MAX,
            request_id: "line\tbreak".to_owned(),
            traceparent: Some("t".repeat(65)),
        };
        visit.confine(&mut origin, NOW);
        assert_eq!((origin.caller.as_str(), origin.traceparent.as_deref()), ("binding/b1", None));
        assert_eq!((origin.deadline, origin.request_id.len()), (NOW + DEADLINE_MAX, 32));
    }
}
