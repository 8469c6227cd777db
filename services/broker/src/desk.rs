//! Answers requests on the leader: translates them to commands and waits until the journal shows their end.

mod bindings;
mod credentials;
mod handover;
mod instances;
mod operations;
mod parameters;
mod updates;

pub(crate) use credentials::new_binding;
pub(crate) use handover::Handover;

use std::{sync::Arc, time::Duration};

use bus::Bus;
use host::Ledger;
use tokio::time::timeout;
use types::{Clock, InstanceId};

use crate::{
    audit::Audit,
    catalog::Shelf,
    osb::{Answer, Identity, Method, Request, Route, Subject, Version, route},
    seal::SealingKeys,
    state::{Ended, Failure, Kind, Operation, State},
};

/// How long a request waits for its operation if the platform cannot wait by itself. Platforms give up after 60 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long it waits before it hands out an operation to a platform that can.
const PATIENCE_ASYNC: Duration = Duration::from_secs(5);

/// How long a request may take in all, whatever it waits for; what it has begun goes on.
pub(crate) const ANSWERED_WITHIN: Duration = Duration::from_secs(50);

/// A request that passed the first checks.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) route: Route,
    pub(crate) version: Version,
    pub(crate) identity: Option<Identity>,
}

impl Asked {
    /// Checks version, path, method and identity, in this order; credentials were checked before.
    pub(crate) fn admit(request: Request) -> Result<Self, Answer> {
        let version = Version::of(&request)?;
        let route = route(&request.method, &request.path)?;
        let identity = Identity::of(&request)?;
        Ok(Self { request, route, version, identity })
    }
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Settled {
    /// The operation succeeded.
    Done,
    /// It failed for good.
    Failed(Failure),
    /// Another operation took its place.
    Superseded,
}

/// Serves the API; only the leader's answers to anything but the catalog are used.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) catalog: Shelf,
    /// For secret parameters.
    pub(crate) keys: SealingKeys,
    pub(crate) ledger: Ledger<State>,
    pub(crate) bus: Bus,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) audit: Audit,
    /// Base URL of the gateway as applications reach it, without a slash at its end.
    pub(crate) gateway_url: Arc<str>,
    /// Host and port of its gRPC; empty is none.
    pub(crate) grpc_address: Arc<str>,
    pub(crate) nats_url: Arc<str>,
    /// From the effects to the requests.
    pub(crate) handover: Handover,
}

impl Desk {
    /// The catalog: the same on every replica.
    pub(crate) fn catalog(&self, asked: &Asked) -> Answer {
        let catalog = self.catalog.current();
        let page = catalog.page(asked.version);
        let (status, body) = if asked.request.knows(&page.etag) { (304, "") } else { (200, page.body.as_str()) };
        Answer { status, headers: vec![("ETag".to_owned(), page.etag.clone())], body: body.to_owned() }
    }

    /// Everything else; what changes something is told of in the audit.
    pub(crate) async fn answer(&self, asked: &Asked, within: Duration) -> Answer {
        Box::pin(self.audit.request(&asked.request, in_time(within, self.serve(asked)))).await
    }

    /// The same without a word in the audit.
    pub(crate) async fn serve(&self, asked: &Asked) -> Answer {
        let (method, subject) = (asked.route.method, &asked.route.subject);
        let answer = match subject {
            Subject::Catalog => Ok(self.catalog(asked)),
            Subject::Instance { instance } => match method {
                Method::Get => self.fetch(asked, instance).await,
                Method::Put => self.provision(asked, instance).await,
                Method::Patch => self.update(asked, instance).await,
                Method::Delete => self.deprovision(asked, instance).await,
            },
            Subject::InstanceOperation { instance } => self.instance_operation(asked, instance).await,
            Subject::Binding { instance, binding } => match method {
                Method::Get => self.fetch_binding(asked, instance, binding).await,
                Method::Put => self.bind(asked, instance, binding).await,
                // The router lets nothing else through.
                Method::Delete | Method::Patch => self.unbind(asked, instance, binding).await,
            },
            Subject::BindingOperation { instance, binding } => self.binding_operation(asked, instance, binding).await,
        };
        let answer = answer.unwrap_or_else(|refusal| refusal);
        if method != Method::Get {
            audit(asked, &answer);
        }
        answer
    }

    /// Waits until `look` finds something in the state.
    async fn settle<T>(&self, patience: Duration, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let mut changes = self.ledger.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = self.ledger.read(&look) {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        timeout(patience, wait).await.ok().flatten()
    }

    /// An answer that something is not there, unless somebody else leads who may know better.
    async fn sure(&self, absent: Answer) -> Answer {
        self.ledger.confirm().await.map_or_else(Answer::from, |()| absent)
    }

    fn dashboard_url(&self, index: &types::IndexName) -> String {
        format!("{}/?index={index}", self.gateway_url)
    }
}

/// An answer in any case, and before the platform gives up: it would take silence for a failure and delete what it asked for.
async fn in_time(within: Duration, work: impl Future<Output = Answer>) -> Answer {
    timeout(within, work).await.unwrap_or_else(|_| too_long())
}

/// What became of an operation; `None` if it is still under way.
fn settled(token: &str, current: Option<&Operation>, ended: Option<&Ended>) -> Option<Settled> {
    match (current, ended) {
        (Some(operation), _) if operation.token == token => {
            let end = operation.failure.clone().map_or(Settled::Done, Settled::Failed);
            operation.ended.then_some(end)
        }
        (None, Some(ended)) if ended.operation.token == token => Some(match &ended.failure {
            Some(reason) => Settled::Failed(Failure { reason: reason.clone(), repeatable: false, kind: String::new() }),
            None if ended.operation.kind.is_end() => Settled::Done,
            None => Settled::Superseded,
        }),
        _ => Some(Settled::Superseded),
    }
}

/// What became of a deletion or an unbinding, which others may have followed before anybody looked.
fn removed(token: &str, current: Option<&Operation>, ended: Option<&Ended>) -> Option<Settled> {
    match settled(token, current, ended)? {
        // Whatever stands there now was made after it was gone; or it is gone, under another operation or one that is forgotten.
        Settled::Superseded if current.is_none_or(|now| matches!(now.kind, Kind::Provision | Kind::Bind)) => {
            Some(Settled::Done)
        }
        // It was refused, and something else was begun: it is still there.
        settled => Some(settled),
    }
}

/// A refusal with what holds of the instance afterwards: it can be used as before. Clients before 2.16 do not know the words.
fn with_usability(refusal: Answer, version: Version, repeatable: Option<bool>) -> Answer {
    let mut body: serde_json::Value = serde_json::from_str(&refusal.body).unwrap_or_default();
    if version.has(16) && body.is_object() {
        body["instance_usable"] = true.into();
        if let Some(repeatable) = repeatable {
            body["update_repeatable"] = repeatable.into();
        }
    }
    Answer { body: body.to_string(), ..refusal }
}

fn patience(wait: bool, asynchronous: bool) -> Duration {
    match (wait, asynchronous) {
        (false, _) => PATIENCE,
        (true, false) => PATIENCE_ASYNC,
        (true, true) => Duration::ZERO,
    }
}

fn too_long() -> Answer {
    Answer::refuse(504, "Deadline", "the operation takes longer than a request may; it goes on, ask again or delete")
}

/// An id that is no token cannot name an instance of ours.
fn instance_id(text: &str) -> Result<InstanceId, Answer> {
    text.parse().map_err(|_| Answer::bad_request("instance_id must be 1 to 128 of A-Z a-z 0-9 _ -"))
}

/// Who did what; never with parameters or credentials.
fn audit(asked: &Asked, answer: &Answer) {
    let identity = asked.identity.as_ref();
    tracing::info!(
        method = asked.request.method,
        path = asked.request.path,
        status = answer.status,
        platform = identity.map_or("", |i| i.platform.as_str()),
        user = identity.map_or("", |i| i.user.as_str()),
        request = asked.request.header(crate::osb::REQUEST_IDENTITY).unwrap_or_default(),
        "request served"
    );
}

#[cfg(test)]
mod tests {
    use types::Timestamp;

    use super::*;

    fn operation(kind: Kind, number: u64, ended: bool) -> Operation {
        let begun = Timestamp::from_nanos(1);
        Operation { kind, token: Operation::token_of(kind, number), begun, ended, deadline: None, failure: None }
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_hangs_is_answered() {
        let begun = tokio::time::Instant::now();
        let answer = in_time(ANSWERED_WITHIN, std::future::pending()).await;
        assert_eq!((answer.status, begun.elapsed()), (504, ANSWERED_WITHIN));
        assert_eq!(in_time(ANSWERED_WITHIN, std::future::ready(Answer::done())).await.status, 200);
    }

    #[test]
    fn a_deletion_is_told_as_done_only_if_it_was() {
        let failure = Failure { reason: "it holds events".into(), repeatable: true, kind: String::new() };
        let refused = Operation { failure: Some(failure.clone()), ..operation(Kind::Deprovision, 2, true) };
        let over = |kind, number, failure: Option<&str>| {
            let operation = operation(kind, number, false);
            Ended { operation, failure: failure.map(str::to_owned), at: Timestamp::from_nanos(2) }
        };
        for (current, ended, expected) in [
            (Some(operation(Kind::Deprovision, 2, false)), None, None),
            (Some(refused), None, Some(Settled::Failed(failure))),
            (None, Some(over(Kind::Deprovision, 2, None)), Some(Settled::Done)),
            // Gone, and this is forgotten already; or gone under another operation.
            (None, None, Some(Settled::Done)),
            (None, Some(over(Kind::Deprovision, 3, None)), Some(Settled::Done)),
            // Gone, and made anew by somebody else.
            (Some(operation(Kind::Provision, 3, false)), None, Some(Settled::Done)),
            (Some(operation(Kind::Provision, 3, true)), None, Some(Settled::Done)),
            // Refused, and then changed, or to be deleted once more: it is there.
            (Some(operation(Kind::Update, 3, false)), None, Some(Settled::Superseded)),
            (Some(operation(Kind::Update, 3, true)), None, Some(Settled::Superseded)),
            (Some(operation(Kind::Deprovision, 3, false)), None, Some(Settled::Superseded)),
        ] {
            assert_eq!(removed("deprovision-2", current.as_ref(), ended.as_ref()), expected, "{current:?} {ended:?}");
        }
        let rebound = operation(Kind::Bind, 3, false);
        assert_eq!(removed("unbind-2", Some(&rebound), None), Some(Settled::Done));
    }
}
