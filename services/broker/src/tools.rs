//! What an operator's tools ask the leader: calls over NATS, answered from the state or by the same desk that serves platforms.

mod attempts;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use bus::{BusError, Door, Doors};
use bytes::Bytes;
use serde_json::{Value, json};
use types::{BindingId, InstanceId};
use wire::{
    Code, Problem,
    broker::{
        AbandonInstance, Abandoned, Abandonment, AuditEntry, BindingView, BindingsOf, InstanceDetails, InstancePage,
        InstanceView, InstancesOf, ListInstances, Retrial, Retried, RetryOperation, RotateBinding, Rotation,
        ShowInstance, Upgrade, UpgradeInstance, Upgraded,
    },
    coordinator::{PAGE_BYTES_MAX, PAGE_MAX},
};

pub(crate) use attempts::Problems;

use crate::{
    audit::Told,
    desk::{Asked, Desk},
    osb::{API_VERSION, Answer, Request},
    state::{Command, State},
};

/// The version of the specification in which the tools speak to the desk.
const SPOKEN: &str = "2.17";

/// Answers the tools while this replica leads.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) desk: Desk,
    pub(crate) problems: Problems,
}

impl Tools {
    /// Opens a door for each call; they close when they are dropped.
    pub(crate) async fn open(&self, doors: &Doors) -> Result<Vec<Door>, BusError> {
        let tools = || self.clone();
        let (list, show, retry) = (tools(), tools(), tools());
        let (abandon, rotate, upgrade) = (tools(), tools(), tools());
        Ok(vec![
            doors.serve::<ListInstances, _, _>(None, move |asked| ready(Ok(list.list(&asked.request)))).await?,
            doors.serve::<ShowInstance, _, _>(None, move |asked| show.clone().show(asked.request)).await?,
            doors.serve::<RetryOperation, _, _>(None, move |asked| retry.clone().retry(asked.request)).await?,
            doors.serve::<AbandonInstance, _, _>(None, move |asked| abandon.clone().abandon(asked.request)).await?,
            doors.serve::<RotateBinding, _, _>(None, move |asked| rotate.clone().rotate(asked.request)).await?,
            doors.serve::<UpgradeInstance, _, _>(None, move |asked| upgrade.clone().upgrade(asked.request)).await?,
        ])
    }

    /// The read stops at a page.
    fn list(&self, wanted: &InstancesOf) -> InstancePage {
        let limit = usize::try_from(wanted.limit.0.clamp(1, PAGE_MAX)).unwrap_or(1);
        let catalog = self.desk.catalog.current();
        self.desk.ledger.read(|state| {
            let pending = bound_pending(state, wanted.pending);
            let behind = |id: &InstanceId| wanted.after.as_ref().is_none_or(|after| id > after);
            let mut page = InstancePage::default();
            let mut bytes = 0;
            for (id, there) in state.instances().filter(|(id, _)| behind(id)) {
                let is_pending = !there.operation.ended || pending.contains(id);
                if wanted.pending && !is_pending {
                    continue;
                }
                let view = view::instance(&catalog, &self.problems, id, there);
                if wanted.upgradable && view.upgrade.is_none() {
                    continue;
                }
                bytes += wire::encode(&view).len();
                if page.instances.len() >= limit || (bytes > PAGE_BYTES_MAX && !page.instances.is_empty()) {
                    page.more = true;
                    break;
                }
                page.instances.push(view);
            }
            count_bindings(state, &mut page.instances);
            page
        })
    }

    async fn show(self, wanted: BindingsOf) -> Result<InstanceDetails, Problem> {
        let limit = usize::try_from(wanted.limit.0.clamp(1, PAGE_MAX)).unwrap_or(1);
        let show = |state: &State| {
            let Some(there) = state.instance(&wanted.instance) else {
                let ended = state.ended_instance(&wanted.instance).ok_or_else(|| unknown(&wanted.instance))?;
                return Ok(InstanceDetails { ended: Some(view::ended(ended)), ..InstanceDetails::default() });
            };
            let mut view = [view::instance(&self.desk.catalog.current(), &self.problems, &wanted.instance, there)];
            count_bindings(state, &mut view);
            let behind = |id: &BindingId| wanted.after.as_ref().is_none_or(|after| id > after);
            let mut bindings = state.bindings_of(&wanted.instance).filter(|(id, _)| behind(id));
            let page: Vec<BindingView> =
                bindings.by_ref().take(limit).map(|(id, there)| view::binding(&self.problems, id, there)).collect();
            let more = bindings.next().is_some();
            let [view] = view;
            Ok::<_, Problem>(InstanceDetails { instance: Some(view), ended: None, bindings: page, more })
        };
        self.desk.ledger.look(show).await
    }

    async fn retry(self, wanted: Retrial) -> Result<Retried, Problem> {
        let id = wanted.instance;
        let draft = self.draft("retry", &id, &wanted.by);
        let work = async {
            let operations = self.desk.ledger.read(|state| state.pending_of(&id));
            self.desk.ledger.submit(Command::Retry(id.clone())).await?;
            Ok(Retried { operations })
        };
        self.desk.audit.around(draft, work, Told::of).await
    }

    async fn abandon(self, wanted: Abandonment) -> Result<Abandoned, Problem> {
        let id = wanted.instance;
        let draft = self.draft(if wanted.delete { "deprovision" } else { "abandon" }, &id, &wanted.by);
        let work = async {
            let ids = self.known(&id).await?;
            if wanted.delete {
                let query = format!("service_id={}&plan_id={}&accepts_incomplete=true", ids.0, ids.1);
                let answer = self.ask("DELETE", &format!("/v2/service_instances/{id}"), &query, &json!({})).await?;
                return Ok(Abandoned { operation: Told::from(&answer).operation });
            }
            self.desk.ledger.submit(Command::Abandon { id: id.clone(), force: wanted.force }).await?;
            Ok(Abandoned::default())
        };
        self.desk.audit.around(draft, work, Told::of).await
    }

    async fn rotate(self, wanted: Rotation) -> Result<BindingView, Problem> {
        let Rotation { instance, binding, successor, by } = wanted;
        let draft = AuditEntry { binding: Some(successor.to_string()), ..self.draft("rotate", &instance, &by) };
        let work = async {
            self.known(&instance).await?;
            let unknown =
                || Problem::not_found("UnknownBinding", format_args!("{instance} has no service binding {binding}"));
            self.desk.ledger.look(|state| state.binding(&instance, &binding).map(drop).ok_or_else(unknown)).await?;
            let path = format!("/v2/service_instances/{instance}/service_bindings/{successor}");
            self.ask("PUT", &path, "", &json!({ "predecessor_binding_id": binding })).await?;
            let view = |state: &State| {
                state.binding(&instance, &successor).map(|b| view::binding(&self.problems, &successor, b))
            };
            self.desk.ledger.read(view).ok_or_else(|| Problem::not_found("UnknownBinding", "it was unbound meanwhile"))
        };
        self.desk.audit.around(draft, work, Told::of).await
    }

    async fn upgrade(self, wanted: Upgrade) -> Result<Upgraded, Problem> {
        let id = wanted.instance;
        let draft = self.draft("upgrade", &id, &wanted.by);
        let work = async {
            let (service_id, _) = self.known(&id).await?;
            let catalog = self.desk.catalog.current();
            let upgrade = |state: &State| view::instance(&catalog, &self.problems, &id, state.instance(&id)?).upgrade;
            let version = self.desk.ledger.read(upgrade).ok_or_else(|| {
                Problem::conflict(
                    "NothingToUpgrade",
                    format_args!("{id} has the version of its plan, or that has none"),
                )
            })?;
            let body = json!({ "service_id": service_id, "maintenance_info": { "version": version } });
            let path = format!("/v2/service_instances/{id}");
            let answer = self.ask("PATCH", &path, "accepts_incomplete=true", &body).await?;
            Ok(Upgraded { version, operation: Told::from(&answer).operation })
        };
        self.desk.audit.around(draft, work, Told::of).await
    }

    /// Offering and plan of an instance that is there.
    async fn known(&self, id: &InstanceId) -> Result<(String, String), Problem> {
        let ids = |state: &State| {
            let there = state.instance(id).ok_or_else(|| unknown(id))?;
            Ok::<_, Problem>((there.request.service_id.clone(), there.plan_id().to_owned()))
        };
        self.desk.ledger.look(ids).await
    }

    fn draft(&self, action: &str, instance: &InstanceId, by: &str) -> AuditEntry {
        AuditEntry {
            credential: by.chars().take(255).collect(),
            ..self.desk.audit.entry("tools", action, instance.as_str())
        }
    }

    /// Asks the desk as a platform would; the entry in the audit is the tool's own.
    ///
    /// Ids are tokens, so that they need no escaping.
    async fn ask(&self, method: &str, path: &str, query: &str, body: &Value) -> Result<Answer, Problem> {
        let request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: BTreeMap::from([(API_VERSION.to_owned(), SPOKEN.to_owned())]),
            body: Bytes::from(body.to_string()),
            ..Request::default()
        };
        let answer = match Asked::admit(request) {
            Ok(asked) => Box::pin(self.desk.serve(&asked)).await,
            Err(refusal) => refusal,
        };
        if answer.status < 300 { Ok(answer) } else { Err(problem(&answer)) }
    }
}

fn ready<T>(answer: Result<T, Problem>) -> impl Future<Output = Result<T, Problem>> {
    std::future::ready(answer)
}

fn unknown(id: &InstanceId) -> Problem {
    Problem::not_found("UnknownInstance", format_args!("there is no service instance {id}"))
}

/// Instances with a binding that is being made or ended.
fn bound_pending(state: &State, wanted: bool) -> BTreeSet<InstanceId> {
    let bindings = state.bindings().filter(|(_, b)| wanted && !b.operation.ended);
    bindings.map(|(_, b)| b.request.instance.clone()).collect()
}

fn count_bindings(state: &State, views: &mut [InstanceView]) {
    let count = |id: &InstanceId| u32::try_from(state.binding_count(id)).unwrap_or(u32::MAX);
    views.iter_mut().for_each(|view| view.binding_count = count(&view.instance));
}

/// A refusal of the desk in the house's terms.
fn problem(answer: &Answer) -> Problem {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let code = match answer.status {
        400 => Code::BadRequest,
        404 | 410 => Code::NotFound,
        409 | 422 => Code::Conflict,
        429 => Code::Throttled,
        503 => Code::Unavailable,
        504 => Code::Deadline,
        _ => Code::Internal,
    };
    let problem = Problem::new(code, &text("error"), text("description"));
    if matches!(code, Code::Deadline | Code::Internal) { problem.unknown() } else { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_name_and_says_whether_it_may_have_happened() {
        for (answer, code, kind, outcome) in [
            (Answer::concurrency(), Code::Conflict, "ConcurrencyError", wire::Outcome::NotApplied),
            (Answer::gone("no"), Code::NotFound, "Gone", wire::Outcome::NotApplied),
            (Answer::bad_request("no"), Code::BadRequest, "BadRequest", wire::Outcome::NotApplied),
            (Answer::refuse(504, "Deadline", "late"), Code::Deadline, "Deadline", wire::Outcome::Unknown),
        ] {
            let problem = problem(&answer);
            assert_eq!((problem.code, problem.kind.as_str(), problem.outcome), (code, kind, outcome));
            assert!(!problem.message.is_empty());
        }
    }
}
