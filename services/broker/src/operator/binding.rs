//! What to do next for a LogBinding. Pure.
//!
//! A service binding is begun in three steps: the status remembers its id, then the broker is asked, then the Secret holds its
//! credentials. Only when the Secret holds those of the last one are the ones before it unbound; so a crash at any step neither
//! loses a service binding nor revokes credentials that the Secret still holds. Pods see a changed Secret a minute later or so, hence
//! the status also remembers since when each of those before it is replaced, and it goes after a time of grace.

use std::{collections::BTreeMap, time::Duration};

use kubernetes::{Bound, LogBinding, LogBindingStatus, LogIndex, OperationRef};
use serde_json::{Value, json};
use types::{DurationText, Timestamp};

use super::{
    FINALIZER,
    ask::{Ask, Progress, Question, Said},
    condition::Word,
    step::{LATER, REFUSED, RESYNC, SOON, Step},
};

/// Service bindings of one object at a time; before another one is begun, the one that was replaced first is unbound, grace or not.
const BINDINGS_MAX: usize = 4;
/// Pause between two exchanges at least, should a clock be wrong.
const EXCHANGE_EVERY: Duration = Duration::from_secs(10);

/// The Secret of a LogBinding.
pub(crate) enum Held {
    Nothing,
    /// Ours.
    Ours {
        /// The id of the service binding whose credentials it holds.
        holds: Option<String>,
        values: BTreeMap<String, Vec<u8>>,
    },
    /// Somebody else's.
    Foreign,
    /// The operator may not look; what the API server says.
    Forbidden(String),
}

/// What is known of a LogBinding.
pub(crate) struct BindingCase<'a> {
    pub(crate) object: &'a LogBinding,
    /// The LogIndex that it names, if it is there.
    pub(crate) index: Option<&'a LogIndex>,
    pub(crate) held: &'a Held,
    /// Whether credentials may be exchanged in this look: once, whatever a clock says.
    pub(crate) may_exchange: bool,
    /// The shortest life of credentials.
    pub(crate) ttl_min: Duration,
    /// How long replaced credentials work on.
    pub(crate) grace: Duration,
    pub(crate) now: Timestamp,
}

/// A step, or what becomes of the Secret. No `Debug`: it may carry credentials.
pub(crate) enum Next {
    Step(Step<LogBindingStatus>),
    PutSecret {
        /// The id of the service binding.
        holds: String,
        values: BTreeMap<String, String>,
    },
    DeleteSecret,
}

impl From<Step<LogBindingStatus>> for Next {
    fn from(step: Step<LogBindingStatus>) -> Self {
        Self::Step(step)
    }
}

/// Why there is nothing to bind to at the moment.
struct Obstacle {
    reason: &'static str,
    message: String,
    after: Duration,
}

type Last<'a> = Option<&'a (Question, Said)>;

/// The name of the Secret of a LogBinding.
pub(crate) fn secret_name(object: &LogBinding) -> String {
    let name = object.spec.secret_name.clone().or_else(|| object.metadata.name.clone());
    name.unwrap_or_default()
}

impl BindingCase<'_> {
    /// Decides; `last` is the answer to what was asked in the step before, if that was a question.
    pub(crate) fn next(&self, last: Last<'_>) -> Next {
        let meta = &self.object.metadata;
        let status = self.object.status.clone().unwrap_or_default();
        let is_held = meta.finalizers.iter().flatten().any(|known| known == FINALIZER);
        match (self.is_deleted(), is_held) {
            (true, false) => Step::Rest(status, RESYNC).into(),
            (true, true) => self.leave(status, last),
            (false, false) => Step::Finalizer(true).into(),
            (false, true) => self.keep(status, last),
        }
    }

    fn is_deleted(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    fn rest(&self, mut status: LogBindingStatus, reason: &'static str, message: &str, after: Duration) -> Next {
        self.say(&mut status, Word::not_ready(reason, message));
        Step::Rest(status, after).into()
    }

    fn pause(&self, mut status: LogBindingStatus, reason: &'static str, message: &str) -> Next {
        self.say(&mut status, Word::not_ready(reason, message));
        Step::Pause(status, REFUSED).into()
    }

    fn later(&self, status: LogBindingStatus, why: &str) -> Next {
        if status.conditions.is_empty() {
            return self.rest(status, "BrokerUnavailable", why, LATER);
        }
        Step::Rest(status, LATER).into()
    }

    fn say(&self, status: &mut LogBindingStatus, word: Word) {
        word.say(&mut status.conditions, self.now);
        status.observed_generation = self.object.metadata.generation;
        status.secret_name = Some(secret_name(self.object));
    }

    fn leave(&self, status: LogBindingStatus, last: Last<'_>) -> Next {
        match status.bindings.first().cloned() {
            Some(bound) => self.unbind(status, &bound, last),
            None if matches!(self.held, Held::Ours { .. }) => Next::DeleteSecret,
            // One that we may not see goes with its owner.
            None => Step::Finalizer(false).into(),
        }
    }

    fn unbind(&self, mut status: LogBindingStatus, bound: &Bound, last: Last<'_>) -> Next {
        match last {
            Some((Question::Unbind(id), said)) if *id == bound.id => match said {
                Said::Done { .. } | Said::Absent => {
                    status.bindings.retain(|one| one.id != *id);
                    Step::Save(status).into()
                }
                // The credentials in the Secret are good, whatever becomes of those before them.
                Said::Accepted(_) if !self.is_deleted() => Step::Rest(status, SOON).into(),
                Said::Refused(_) | Said::Differs(_) if !self.is_deleted() => Step::Pause(status, REFUSED).into(),
                Said::Accepted(_) => self.rest(status, "Unbinding", "credentials are being revoked", SOON),
                Said::Refused(why) | Said::Differs(why) => {
                    self.pause(status, "UnbindRefused", &format!("{why}; it is tried again every minute"))
                }
                Said::Later(why) => self.later(status, why),
            },
            _ => {
                let ask = Ask::unbind(&bound.instance, &bound.id, &bound.service_id, &bound.plan_id);
                Step::Ask(Question::Unbind(bound.id.clone()), ask).into()
            }
        }
    }

    fn keep(&self, status: LogBindingStatus, last: Last<'_>) -> Next {
        if let Some((Question::Unbind(id), _)) = last
            && let Some(bound) = status.bindings.iter().find(|bound| bound.id == *id).cloned()
        {
            return self.unbind(status, &bound, last);
        }
        let (wanted, ttl) = match self.goal() {
            Ok(goal) => goal,
            Err(obstacle) => return self.wait(status, &obstacle, last),
        };
        match status.bindings.last().filter(|bound| same(bound, &wanted)).map(|bound| bound.id.clone()) {
            None => self.begin(status, wanted, last),
            // The plan of the instance may have changed since it was begun.
            Some(id) => self.with(status, &Bound { id, ..wanted }, ttl, last),
        }
    }

    /// The service binding that the object asks for, without its id, and how long its credentials live.
    fn goal(&self) -> Result<(Bound, Option<Duration>), Obstacle> {
        let obstacle = |reason, message, after| Obstacle { reason, message, after };
        let ttl = self.ttl().map_err(|why| obstacle("InvalidTtl", why, RESYNC))?;
        if matches!(self.held, Held::Foreign) {
            let why = format!(
                "the Secret {} is there and does not belong to this LogBinding: delete it, or make a LogBinding with another secretName",
                secret_name(self.object)
            );
            return Err(obstacle("SecretTaken", why, REFUSED));
        }
        if let Held::Forbidden(why) = self.held {
            let why = format!(
                "{why}; bind the ClusterRole logboom-operator-secrets in this namespace to the broker's ServiceAccount"
            );
            return Err(obstacle("SecretForbidden", why, REFUSED));
        }
        let name = &self.object.spec.index_ref.name;
        let missing = || obstacle("IndexNotFound", format!("there is no LogIndex {name} in this namespace"), RESYNC);
        let unready = || obstacle("IndexNotReady", format!("the LogIndex {name} is not provisioned yet"), RESYNC);
        let wanted = self.wanted(self.index.ok_or_else(missing)?).ok_or_else(unready)?;
        Ok((wanted, ttl))
    }

    /// There is nothing to be had; what was replaced long enough ago goes all the same.
    fn wait(&self, mut status: LogBindingStatus, obstacle: &Obstacle, last: Last<'_>) -> Next {
        let newest = status.bindings.last().map(|bound| bound.id.clone());
        let is_over = |bound: &&Bound| {
            let is_idle = !self.is_held(&bound.id) && Some(&bound.id) != newest.as_ref();
            is_idle && self.replaced(bound).is_some_and(|at| at + self.grace <= self.now)
        };
        let Some(over) = status.bindings.iter().find(is_over).cloned() else {
            return self.rest(status, obstacle.reason, &obstacle.message, obstacle.after);
        };
        self.say(&mut status, Word::not_ready(obstacle.reason, &obstacle.message));
        self.unbind_when_said(status, &over, last)
    }

    /// Unbinds when the object shows what there is to say: the broker may not answer for long.
    fn unbind_when_said(&self, status: LogBindingStatus, bound: &Bound, last: Last<'_>) -> Next {
        let is_said = self.object.status.as_ref() == Some(&status);
        if is_said { self.unbind(status, bound, last) } else { Step::Save(status).into() }
    }

    fn ttl(&self) -> Result<Option<Duration>, String> {
        let Some(text) = &self.object.spec.ttl else { return Ok(None) };
        let ttl: DurationText = text.parse().map_err(|error: types::Invalid| error.to_string())?;
        if ttl.0 < self.ttl_min {
            return Err(format!("ttl must be at least {}", DurationText(self.ttl_min)));
        }
        Ok(Some(ttl.0))
    }

    /// The service binding that the object asks for, without its id; `None` while there is nothing to bind to.
    fn wanted(&self, index: &LogIndex) -> Option<Bound> {
        let status = index.status.as_ref()?;
        let is_beginning = status.operation.as_ref().is_some_and(|operation| operation.verb != "update");
        let applied =
            status.applied.as_ref().filter(|_| !is_beginning && index.metadata.deletion_timestamp.is_none())?;
        Some(Bound {
            id: String::new(),
            instance: index.metadata.uid.clone()?,
            service_id: applied.service_id.clone(),
            plan_id: applied.plan_id.clone(),
            role: self.object.spec.role,
            ttl: self.object.spec.ttl.clone(),
            replaced_at: None,
        })
    }

    /// Remembers another service binding, which is then asked for.
    fn begin(&self, mut status: LogBindingStatus, wanted: Bound, last: Last<'_>) -> Next {
        if status.bindings.len() >= BINDINGS_MAX {
            // Neither the one in the Secret nor the last; one that never was in it before one that pods may still use.
            let newest = status.bindings.last().map(|bound| bound.id.clone());
            let spare = |bound: &&Bound| !self.is_held(&bound.id) && Some(&bound.id) != newest.as_ref();
            let idle = status.bindings.iter().filter(spare).min_by_key(|bound| bound.replaced_at.is_some());
            if let Some(idle) = idle.cloned() {
                return self.unbind(status, &idle, last);
            }
        }
        let uid = self.object.metadata.uid.clone().unwrap_or_default();
        status.begun += 1;
        // The first has the uid itself, as a platform would do it.
        let id = if status.begun == 1 { uid } else { format!("{uid}-{}", status.begun) };
        status.operation = None;
        status.bindings.push(Bound { id, replaced_at: None, ..wanted });
        Step::Save(status).into()
    }

    /// Goes on with the service binding that is wanted.
    fn with(&self, mut status: LogBindingStatus, current: &Bound, ttl: Option<Duration>, last: Last<'_>) -> Next {
        if let Some(operation) = status.operation.clone() {
            let Some((Question::Operation, said)) = last else {
                let ask = Ask::binding_operation(&current.instance, &current.id, &operation.token);
                return Step::Ask(Question::Operation, ask).into();
            };
            return match said.progress() {
                Progress::Begun => Step::Rest(status, SOON).into(),
                Progress::Unknown => Step::Rest(status, LATER).into(),
                Progress::Ended => {
                    status.operation = None;
                    Step::Save(status).into()
                }
                Progress::Failed(why) => {
                    status.operation = None;
                    self.pause(status, "BindFailed", &format!("{why}; it is tried again every minute"))
                }
            };
        }
        match last {
            Some((Question::FetchBinding | Question::Bind | Question::Rotate, Said::Done { body, .. })) => {
                self.bound(status, current, body, ttl, last)
            }
            // It has ended, or somebody unbound it. Its id is not used again: what was revoked stays revoked.
            Some((Question::FetchBinding, Said::Absent)) if self.is_held(&current.id) => {
                if self.may_exchange {
                    self.begin(status, current.clone(), last)
                } else {
                    self.later(status, "its end came early")
                }
            }
            Some((Question::FetchBinding, Said::Absent)) => self.ask_bind(&status, current, true),
            Some((Question::Rotate, Said::Refused(_) | Said::Differs(_) | Said::Absent)) => {
                // The predecessor has ended meanwhile: without one.
                self.ask_bind(&status, current, false)
            }
            Some((Question::Bind | Question::Rotate, Said::Accepted(token))) => {
                status.operation = Some(OperationRef { verb: "bind".to_owned(), token: token.clone() });
                self.rest(status, "Binding", "credentials are being issued", SOON)
            }
            Some((Question::Bind, Said::Refused(why) | Said::Differs(why))) => self.pause(status, "BindRefused", why),
            Some((Question::Bind, Said::Absent)) => {
                self.rest(status, "IndexNotReady", "the log index is not there", LATER)
            }
            Some((Question::FetchBinding | Question::Bind | Question::Rotate, said)) => match said {
                Said::Later(why) | Said::Refused(why) | Said::Differs(why) => self.later(status, why),
                _ => self.later(status, "the broker is at work"),
            },
            _ => {
                let ask = Ask::fetch_binding(&current.instance, &current.id);
                Step::Ask(Question::FetchBinding, ask).into()
            }
        }
    }

    fn ask_bind(&self, status: &LogBindingStatus, current: &Bound, may_rotate: bool) -> Next {
        let before = status.bindings.iter().find(|bound| self.is_held(&bound.id) && same(bound, current));
        if let Some(before) = before.filter(|before| may_rotate && before.id != current.id) {
            let ask = Ask::rotate(&current.instance, &current.id, &before.id);
            return Step::Ask(Question::Rotate, ask).into();
        }
        let mut parameters = json!({ "role": current.role.as_str() });
        if let Some(ttl) = current.ttl.as_ref().and_then(|ttl| ttl.parse::<DurationText>().ok()) {
            parameters["ttl_seconds"] = ttl.0.as_secs().into();
        }
        let ids = (current.service_id.as_str(), current.plan_id.as_str());
        let name = self.object.metadata.name.as_deref().unwrap_or_default();
        Step::Ask(Question::Bind, Ask::bind(&current.instance, &current.id, ids, &parameters, name)).into()
    }

    /// The credentials are there: into the Secret with them; what was before them goes after a time; then wait for their end.
    fn bound(
        &self,
        mut status: LogBindingStatus,
        current: &Bound,
        body: &Value,
        ttl: Option<Duration>,
        last: Last<'_>,
    ) -> Next {
        let values = flat(body);
        if values.is_empty() {
            return self.later(status, "the broker gave no credentials");
        }
        if !self.is_held(&current.id) || !self.holds(&values) {
            return Next::PutSecret { holds: current.id.clone(), values };
        }
        status.expires_at = text(body, "/metadata/expires_at");
        self.say(&mut status, Word::ready(format!("the Secret {} holds the credentials", secret_name(self.object))));
        for before in status.bindings.iter_mut().filter(|bound| bound.id != current.id) {
            if self.replaced(before).is_none() {
                before.replaced_at = Some(rfc3339(self.now));
            }
        }
        let over = |bound: &Bound| self.replaced(bound).unwrap_or(self.now) + self.grace;
        let others = status.bindings.iter().filter(|bound| bound.id != current.id);
        let next = others.map(|bound| (over(bound), bound.clone())).min_by_key(|(at, _)| *at);
        let renewal = renewal(body, ttl);
        // Before anything is unbound, which a broker may refuse or not answer while the credentials run out.
        let is_due = renewal.is_some_and(|at| at <= self.now);
        if is_due && self.may_exchange && status.bindings.len() < BINDINGS_MAX {
            return self.begin(status, current.clone(), last);
        }
        if let Some((_, before)) = next.as_ref().filter(|(at, _)| *at <= self.now) {
            return self.unbind_when_said(status, before, last);
        }
        match renewal {
            Some(at) if at <= self.now && self.may_exchange => self.begin(status, current.clone(), last),
            Some(at) if at <= self.now => Step::Pause(status, EXCHANGE_EVERY).into(),
            at => {
                let until = at.into_iter().chain(next.map(|(at, _)| at)).map(|at| at.since(self.now)).min();
                Step::Rest(status, until.unwrap_or(RESYNC).clamp(SOON, RESYNC)).into()
            }
        }
    }

    /// Since when a service binding is replaced. A time ahead of us comes of a wrong clock, and would let it work for ever.
    fn replaced(&self, bound: &Bound) -> Option<Timestamp> {
        let at: jiff::Timestamp = bound.replaced_at.as_ref()?.parse().ok()?;
        Some(Timestamp::from_millis(at.as_millisecond())).filter(|at| *at <= self.now)
    }

    /// Whether the Secret says that it holds the credentials of a service binding.
    fn is_held(&self, id: &str) -> bool {
        matches!(self.held, Held::Ours { holds: Some(held), .. } if held == id)
    }

    fn holds(&self, values: &BTreeMap<String, String>) -> bool {
        let Held::Ours { values: held, .. } = self.held else { return false };
        held.iter()
            .map(|(key, value)| (key, value.as_slice()))
            .eq(values.iter().map(|(key, value)| (key, value.as_bytes())))
    }
}

/// Whether two service bindings give the same to the same; the plan of an instance may have changed in between.
fn same(one: &Bound, other: &Bound) -> bool {
    (&one.instance, one.role, &one.ttl) == (&other.instance, other.role, &other.ttl)
}

/// To the millisecond, so that a time of grace is not cut short.
fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.millis()).map(|at| at.to_string()).unwrap_or_default()
}

fn text(body: &Value, pointer: &str) -> Option<String> {
    body.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

/// When credentials are to be exchanged: when the broker says so, else when a third of their life is left.
fn renewal(body: &Value, ttl: Option<Duration>) -> Option<Timestamp> {
    let at = |pointer| {
        let at: jiff::Timestamp = text(body, pointer)?.parse().ok()?;
        Some(Timestamp::from_millis(at.as_millisecond()))
    };
    at("/metadata/renew_before").or_else(|| Some(at("/metadata/expires_at")? - ttl.unwrap_or_default() / 3))
}

/// Credentials as a Secret holds them: texts as they are, anything else as JSON.
fn flat(body: &Value) -> BTreeMap<String, String> {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let credentials = body.get("credentials").and_then(Value::as_object).into_iter().flatten();
    let entry = |(key, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (key.chars().map(allowed).collect(), value)
    };
    credentials.map(entry).collect()
}

#[cfg(test)]
#[path = "binding_tests.rs"]
mod tests;
