//! The caller's side of calls from outside the platform: a binding's connection, its delegation, and how that is renewed.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Mutex as Turn,
    time::{Instant, sleep, timeout},
};
use tracing::debug;
use wire::{
    Call, Code, Empty, Outcome, Problem,
    coordinator::GrantDelegation,
    delegation::{Bearer, Granted},
    subjects,
};

use crate::{Bus, BusError, BusOptions, CALL_DEADLINE};

/// How often one call is repeated with another delegation, because a door did not know the one before, or not any more.
const RENEWALS_MAX: u32 = 6;
/// The pause before the first of these repeats; it doubles. A door hears of a signer within milliseconds.
const RENEWAL_PAUSE: Duration = Duration::from_millis(20);
/// When a renewal is tried again that failed while the delegation still holds.
const RENEW_AGAIN: Duration = Duration::from_secs(5);
/// The longest lifetime that is believed.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What a binding's connection knows of itself.
pub(crate) struct Delegate {
    bearer: Bearer,
    held: Mutex<Option<Held>>,
    /// One renewal at a time.
    turn: Arc<Turn<()>>,
}

#[derive(Clone)]
struct Held {
    token: Arc<str>,
    renew: Instant,
    end: Instant,
}

impl fmt::Debug for Delegate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delegate").field("bearer", &self.bearer).finish_non_exhaustive()
    }
}

impl Delegate {
    pub(crate) fn new(bearer: Bearer) -> Self {
        Self { bearer, held: Mutex::default(), turn: Arc::default() }
    }

    /// The delegation at hand, unless it has ended or is the one that was refused.
    fn held(&self, refused: Option<&str>) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone().filter(|held| held.end > Instant::now() && Some(&*held.token) != refused)
    }

    fn hold(&self, granted: Granted, asked: Instant) -> Arc<str> {
        let lifetime = Duration::from_millis(granted.lifetime_ms).min(LIFETIME_MAX);
        let token: Arc<str> = granted.token.into();
        let held = Held { token: token.clone(), renew: asked + lifetime * 2 / 3, end: asked + lifetime };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        token
    }

    fn postpone(&self) {
        if let Some(held) = &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            held.renew = Instant::now() + RENEW_AGAIN;
        }
    }
}

impl Bus {
    /// Connects with a binding's credentials: calls go to the doors outside the platform, with a delegation that renews itself.
    ///
    /// The inbox prefix is the binding's, whatever the options say. Of the calls only those can be made that are marked for it
    /// in the tables; others, and buckets and notices, are refused. Bounds, errors: as [`Bus::connect`].
    pub async fn connect_with_binding(options: BusOptions, bearer: Bearer) -> Result<Self, BusError> {
        let inbox_prefix = Some(subjects::inbox_prefix(&bearer.binding));
        let bus = Self::connect(BusOptions { inbox_prefix, ..options }).await?;
        bus.become_delegate(Delegate::new(bearer));
        Ok(bus)
    }

    /// Refuses what only the platform's own connections do.
    pub(crate) fn only_inside(&self, what: &str) -> Result<(), BusError> {
        let Some(delegate) = self.delegate() else { return Ok(()) };
        let reason = format!("binding {} has no right to it", delegate.bearer.binding);
        Err(BusError::Refused { what: what.to_owned(), reason })
    }

    /// Makes a call from outside. A door that refuses the delegation has applied nothing, so that repeating is always safe.
    pub(crate) async fn call_outside<C: Call>(
        &self,
        delegate: &Arc<Delegate>,
        key: &C::Key,
        request: &C::Request,
        within: Duration,
    ) -> Result<C::Reply, Problem> {
        if C::OUTER.is_none() {
            let message = format_args!("{} is not for programs outside the platform", C::NAME);
            return Err(Problem::new(Code::Forbidden, "NotDelegable", message));
        }
        let end = Instant::now() + within;
        let left = || end.saturating_duration_since(Instant::now());
        let subject = delegate.bearer.subject_of::<C>(key);
        let (mut refused, mut unknown) = (None, false);
        let mut renewals = 0;
        loop {
            let token = self.token(delegate, refused.as_deref(), left()).await?;
            let problem = match self.exchange::<C>(&subject, Some(&token), request, left()).await {
                Ok(reply) => return Ok(reply),
                Err(problem) => problem,
            };
            unknown |= problem.outcome == Outcome::Unknown;
            let pause = RENEWAL_PAUSE * 2_u32.pow(renewals);
            if renewals >= RENEWALS_MAX || !is_outdated(&problem) || pause >= left() {
                return Err(if unknown { problem.unknown() } else { problem });
            }
            debug!(call = C::NAME, %problem, "delegation is renewed before its time");
            renewals += 1;
            refused = Some(token);
            sleep(pause).await;
        }
    }

    /// A delegation that still holds: at hand, or asked for.
    async fn token(
        &self,
        delegate: &Arc<Delegate>,
        refused: Option<&str>,
        within: Duration,
    ) -> Result<Arc<str>, Problem> {
        if let Some(held) = delegate.held(refused) {
            if held.renew <= Instant::now() {
                self.renew_meanwhile(delegate);
            }
            return Ok(held.token);
        }
        let asking = async {
            let _turn = delegate.turn.lock().await;
            // Whoever had the turn before may have got one.
            match delegate.held(refused) {
                Some(held) => Ok(held.token),
                None => self.renew(delegate, within).await,
            }
        };
        timeout(within, asking).await.unwrap_or_else(|_| {
            Err(Problem::new(Code::Deadline, "Deadline", "no delegation was granted in time: nothing was asked"))
        })
    }

    /// Renews in the background, unless somebody does already.
    fn renew_meanwhile(&self, delegate: &Arc<Delegate>) {
        let Ok(turn) = delegate.turn.clone().try_lock_owned() else { return };
        let (bus, delegate) = (self.clone(), delegate.clone());
        tokio::spawn(async move {
            if let Err(problem) = bus.renew(&delegate, CALL_DEADLINE).await {
                debug!(%problem, "delegation not renewed yet");
                delegate.postpone();
            }
            drop(turn);
        });
    }

    async fn renew(&self, delegate: &Delegate, within: Duration) -> Result<Arc<str>, Problem> {
        let (asked, subject) = (Instant::now(), delegate.bearer.subject_of::<GrantDelegation>(&()));
        let granted = self.exchange::<GrantDelegation>(&subject, None, &Empty {}, within).await.map_err(|problem| {
            // Whatever became of the question: the call itself was not made.
            Problem { outcome: Outcome::NotApplied, ..problem }
        })?;
        Ok(delegate.hold(granted, asked))
    }
}

/// Whether another delegation may be taken where this one was not.
fn is_outdated(problem: &Problem) -> bool {
    matches!(problem.kind.as_str(), "DelegationExpired" | "DelegationSignerUnknown")
}

#[cfg(test)]
mod tests {
    use wire::views::Role;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delegation_is_used_until_it_ends_or_is_refused() {
        let bearer = Bearer { index: "shop".parse().unwrap(), binding: "b1".parse().unwrap(), role: Role::Write };
        let delegate = Delegate::new(bearer);
        let granted = Granted { token: "t".to_owned(), stream: 1, lifetime_ms: 9_000 };
        delegate.hold(granted, Instant::now());
        let due = |held: Option<Held>| held.map(|held| held.renew <= Instant::now());
        assert_eq!(due(delegate.held(None)), Some(false));
        assert_eq!(due(delegate.held(Some("t"))), None);
        assert_eq!(due(delegate.held(Some("older"))), Some(false));
        sleep(Duration::from_secs(6)).await;
        assert_eq!(due(delegate.held(None)), Some(true), "at two thirds it is renewed and still used");
        delegate.postpone();
        assert_eq!(due(delegate.held(None)), Some(false));
        sleep(Duration::from_secs(3)).await;
        assert_eq!(due(delegate.held(None)), None);
    }
}
