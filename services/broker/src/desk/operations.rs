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
    pub(super) fn instance_operation(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service instance");
        let id = instance.parse().map_err(|_| unknown())?;
        let token = asked.request.query("operation");
        let answer = self.ledger.read(|state| {
            let current = state.instance(&id).map(|i| &i.operation);
            answer(asked.version, current, state.ended_instance(&id), token.as_deref())
        });
        answer.ok_or_else(unknown)
    }

    pub(super) fn binding_operation(&self, asked: &Asked, instance: &str, binding: &str) -> Result<Answer, Answer> {
        let unknown = || Answer::not_found("there is no such service binding");
        let instance = instance.parse().map_err(|_| unknown())?;
        let id: BindingId = binding.parse().map_err(|_| unknown())?;
        let token = asked.request.query("operation");
        let answer = self.ledger.read(|state| {
            let current = state.binding(&instance, &id).map(|b| &b.operation);
            answer(asked.version, current, state.ended_binding(&id), token.as_deref())
        });
        answer.ok_or_else(unknown)
    }
}

/// `None` if there never was one. Tokens that are not ours are tolerated: some clients make up their own.
fn answer(version: Version, current: Option<&Operation>, ended: Option<&Ended>, token: Option<&str>) -> Option<Answer> {
    if let Some(operation) = current {
        let state = if operation.ended { "succeeded" } else { "in progress" };
        let answer = Answer::of(200, &json!({ "state": state }));
        let polls = !operation.ended && version.has(15);
        return Some(if polls { answer.header("Retry-After", RETRY_AFTER_SECONDS) } else { answer });
    }
    let ended = ended?;
    let is_end = matches!(ended.operation.kind, Kind::Deprovision | Kind::Unbind);
    Some(match &ended.failure {
        Some(reason) => Answer::of(200, &failed(version, reason)),
        // Some clients take only 410 for the end of a deletion, some only `succeeded`: its own token tells them apart.
        None if is_end && token == Some(&ended.operation.token) => Answer::gone("it is gone, as was asked for"),
        None if is_end => Answer::of(200, &json!({ "state": "succeeded" })),
        None => Answer::of(200, &failed(version, "the service instance was deprovisioned")),
    })
}

fn failed(version: Version, reason: &str) -> Value {
    let mut body = json!({ "state": "failed", "description": reason });
    if version.has(16) {
        body["instance_usable"] = false.into();
        body["update_repeatable"] = false.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Timestamp;

    #[test]
    fn every_end_has_its_answer() {
        let at = Timestamp::from_nanos(1);
        let operation = |kind, ended| Operation { kind, token: "t".into(), begun: at, ended };
        let over = |kind, failure: Option<&str>| Ended {
            operation: operation(kind, false),
            failure: failure.map(str::to_owned),
            at,
        };
        let v = Version { minor: 17 };
        let check = |current: Option<Operation>, ended: Option<Ended>, token: Option<&str>| {
            let answer = answer(v, current.as_ref(), ended.as_ref(), token)?;
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            Some((answer.status, body["state"].as_str().unwrap_or("-").to_owned()))
        };
        let is = |status: u16, state: &str| Some((status, state.to_owned()));
        assert_eq!(check(None, None, Some("t")), None);
        assert_eq!(check(Some(operation(Kind::Provision, false)), None, Some("provision")), is(200, "in progress"));
        assert_eq!(check(Some(operation(Kind::Provision, true)), None, None), is(200, "succeeded"));
        assert_eq!(check(None, Some(over(Kind::Provision, Some("no"))), Some("t")), is(200, "failed"));
        assert_eq!(check(None, Some(over(Kind::Deprovision, None)), Some("t")), is(410, "-"));
        assert_eq!(check(None, Some(over(Kind::Deprovision, None)), Some("deprovision")), is(200, "succeeded"));
        assert_eq!(check(None, Some(over(Kind::Unbind, None)), None), is(200, "succeeded"));
        assert_eq!(check(None, Some(over(Kind::Bind, None)), Some("t")), is(200, "failed"));
        let polled = answer(v, Some(&operation(Kind::Bind, false)), None, None).unwrap();
        assert!(polled.headers.contains(&("Retry-After".into(), "1".into())));
        let old = answer(Version { minor: 14 }, Some(&operation(Kind::Bind, false)), None, None).unwrap();
        assert!(old.headers.is_empty());
    }
}
