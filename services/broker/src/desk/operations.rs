//! `last_operation`: how far an operation is, also on what is no longer there.

use serde_json::{Value, json};
use types::BindingId;

use crate::{
    desk::{Asked, Desk},
    osb::{Answer, Version},
    state::{Ended, Kind, Operation},
};

/// How often a platform should ask.
const RETRY_AFTER_SECONDS: &str = "1";

impl Desk {
    pub(super) async fn instance_operation(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service instance");
        let id = instance.parse().map_err(|_| unknown())?;
        let token = asked.request.query("operation");
        let answer = self.ledger.read(|state| {
            let current = state.instance(&id).map(|i| &i.operation);
            answer(asked.version, current, state.ended_instance(&id), token.as_deref())
        });
        self.made_sure(answer.unwrap_or_else(unknown)).await
    }

    pub(super) async fn binding_operation(
        &self,
        asked: &Asked,
        instance: &str,
        binding: &str,
    ) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service binding");
        let instance = instance.parse().map_err(|_| unknown())?;
        let id: BindingId = binding.parse().map_err(|_| unknown())?;
        let token = asked.request.query("operation");
        let answer = self.ledger.read(|state| {
            let current = state.binding(&instance, &id).map(|b| &b.operation);
            answer(asked.version, current, state.ended_binding(&id), token.as_deref())
        });
        self.made_sure(answer.unwrap_or_else(unknown)).await
    }

    /// To a platform 404 and 410 are the end of it, but somebody else may lead by now and have begun anew.
    async fn made_sure(&self, answer: Answer) -> Result<Answer, Answer> {
        if matches!(answer.status, 404 | 410) { Err(self.sure(answer).await) } else { Ok(answer) }
    }
}

/// `None` if there never was one. Tokens that are not ours are tolerated: some clients make up their own. Of an operation that others
/// have followed only an end can be told: what it should have removed is there, or was made after it.
fn answer(version: Version, current: Option<&Operation>, ended: Option<&Ended>, token: Option<&str>) -> Option<Answer> {
    if let Some(operation) = current {
        if let Some(kind) = token.and_then(|token| operation.follows_end(token)) {
            let made_anew = matches!(operation.kind, Kind::Provision | Kind::Bind);
            let refused = || failed(version, kind, "it was refused, and another operation has begun since", true);
            return Some(Answer::of(200, &if made_anew { json!({ "state": "succeeded" }) } else { refused() }));
        }
        if let Some(failure) = &operation.failure {
            return Some(Answer::of(200, &failed(version, operation.kind, &failure.reason, failure.repeatable)));
        }
        let state = if operation.ended { "succeeded" } else { "in progress" };
        let answer = Answer::of(200, &json!({ "state": state }));
        let polls = !operation.ended && version.has(15);
        return Some(if polls { answer.header("Retry-After", RETRY_AFTER_SECONDS) } else { answer });
    }
    let ended = ended?;
    let operation = &ended.operation;
    Some(match &ended.failure {
        Some(reason) => Answer::of(200, &failed(version, operation.kind, reason, false)),
        // Some clients take only 410 for the end of a deletion, some only `succeeded`: its own token tells them apart.
        None if operation.kind.is_end() && token == Some(&operation.token) => {
            Answer::gone("it is gone, as was asked for")
        }
        None if operation.kind.is_end() => Answer::of(200, &json!({ "state": "succeeded" })),
        None => Answer::of(200, &failed(version, operation.kind, "the service instance was deprovisioned", false)),
    })
}

/// A failure is 200 and says whether the instance can still be used: after a failed update or deletion it is what it was.
fn failed(version: Version, kind: Kind, reason: &str, repeatable: bool) -> Value {
    let mut body = json!({ "state": "failed", "description": reason });
    if version.has(16) {
        match kind {
            Kind::Provision | Kind::Update => {
                body["instance_usable"] = (kind == Kind::Update).into();
                body["update_repeatable"] = repeatable.into();
            }
            Kind::Deprovision => body["instance_usable"] = true.into(),
            Kind::Bind | Kind::Unbind => {}
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Failure;
    use types::Timestamp;

    const V: Version = Version { minor: 17 };

    fn operation(kind: Kind, ended: bool) -> Operation {
        let begun = Timestamp::from_nanos(1);
        Operation { kind, token: "t".into(), begun, ended, deadline: None, failure: None }
    }

    fn failing(kind: Kind, repeatable: bool) -> Operation {
        Operation {
            failure: Some(Failure { reason: "no".into(), repeatable, kind: String::new() }),
            ..operation(kind, true)
        }
    }

    fn over(kind: Kind, failure: Option<&str>) -> Ended {
        let at = Timestamp::from_nanos(1);
        Ended { operation: operation(kind, false), failure: failure.map(str::to_owned), at }
    }

    #[test]
    fn every_end_has_its_answer() {
        let check = |current: Option<Operation>, ended: Option<Ended>, token: Option<&str>| {
            let answer = answer(V, current.as_ref(), ended.as_ref(), token)?;
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            Some((answer.status, body["state"].as_str().unwrap_or("-").to_owned()))
        };
        let is = |status: u16, state: &str| Some((status, state.to_owned()));
        assert_eq!(check(None, None, Some("t")), None);
        assert_eq!(check(Some(operation(Kind::Provision, false)), None, Some("provision")), is(200, "in progress"));
        assert_eq!(check(Some(operation(Kind::Provision, true)), None, None), is(200, "succeeded"));
        assert_eq!(check(Some(failing(Kind::Update, true)), None, Some("other")), is(200, "failed"));
        assert_eq!(check(None, Some(over(Kind::Provision, Some("no"))), Some("t")), is(200, "failed"));
        assert_eq!(check(None, Some(over(Kind::Deprovision, None)), Some("t")), is(410, "-"));
        assert_eq!(check(None, Some(over(Kind::Deprovision, None)), Some("deprovision")), is(200, "succeeded"));
        assert_eq!(check(None, Some(over(Kind::Unbind, None)), None), is(200, "succeeded"));
        assert_eq!(check(None, Some(over(Kind::Bind, None)), Some("t")), is(200, "failed"));
        let polled = answer(V, Some(&operation(Kind::Bind, false)), None, None).unwrap();
        assert!(polled.headers.contains(&("Retry-After".into(), "1".into())));
        let old = answer(Version { minor: 14 }, Some(&operation(Kind::Bind, false)), None, None).unwrap();
        assert!(old.headers.is_empty());
    }

    #[test]
    fn an_end_that_others_have_followed_is_told_as_what_it_was() {
        let state = |kind: Kind, number: u64, ended: bool, token: &str| {
            let now = Operation { token: Operation::token_of(kind, number), ..operation(kind, ended) };
            let answer = answer(V, Some(&now), None, Some(token)).unwrap();
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            (body["state"].as_str().unwrap().to_owned(), body["instance_usable"].as_bool())
        };
        for (kind, number, ended, token, expected) in [
            // Refused, and then something else was begun.
            (Kind::Update, 3, true, "deprovision-2", ("failed", Some(true))),
            (Kind::Update, 3, false, "deprovision-2", ("failed", Some(true))),
            (Kind::Deprovision, 3, false, "deprovision-2", ("failed", Some(true))),
            // Gone, and made anew.
            (Kind::Provision, 3, false, "deprovision-2", ("succeeded", None)),
            (Kind::Bind, 3, false, "unbind-2", ("succeeded", None)),
            // Its own, one that was never given out, and words of clients.
            (Kind::Deprovision, 2, false, "deprovision-2", ("in progress", None)),
            (Kind::Provision, 1, true, "deprovision-2", ("succeeded", None)),
            (Kind::Update, 3, false, "deprovision", ("in progress", None)),
            (Kind::Update, 3, true, "update-2", ("succeeded", None)),
        ] {
            assert_eq!(state(kind, number, ended, token), (expected.0.to_owned(), expected.1), "{token} {kind:?}");
        }
    }

    #[test]
    fn a_failure_says_what_can_still_be_used() {
        let words = |version: u32, failing: &Operation| -> (Option<bool>, Option<bool>) {
            let answer = answer(Version { minor: version }, Some(failing), None, None).unwrap();
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!((answer.status, body["description"].as_str()), (200, Some("no")));
            (body["instance_usable"].as_bool(), body["update_repeatable"].as_bool())
        };
        for (kind, repeatable, expected) in [
            (Kind::Provision, false, (Some(false), Some(false))),
            (Kind::Update, true, (Some(true), Some(true))),
            (Kind::Update, false, (Some(true), Some(false))),
            (Kind::Deprovision, true, (Some(true), None)),
            (Kind::Bind, false, (None, None)),
        ] {
            assert_eq!(words(17, &failing(kind, repeatable)), expected, "{kind:?}");
            assert_eq!(words(15, &failing(kind, repeatable)), (None, None), "{kind:?}");
        }
    }
}
