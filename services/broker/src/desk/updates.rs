//! PATCH: another plan, other parameters, an upgrade, another context.

use serde_json::{Map, Value, json};
use types::InstanceId;
use wire::index_provisioner::IndexOptions;

use crate::{
    catalog::Catalog,
    desk::{
        Asked, Desk, Settled,
        instances::{alerts, chosen, context, maintenance},
        parameters::{opened, sealed},
        patience, settled, too_long, with_usability,
    },
    osb::{Answer, Body},
    seal::SealingKeys,
    state::{Change, Command, Event, Instance, Kind, Operation, Phase, Wanted},
    wanted,
};

/// Parameters that are fixed when an instance is provisioned. Where a PATCH is silent about one it stays; any other parameter that a
/// PATCH with parameters leaves out has the plan's default again.
const FIXED: [&str; 4] = ["index", "segments", "adopt_existing", "encryption"];

impl Desk {
    pub(super) async fn update(&self, asked: &Asked, instance: &str) -> Result<Answer, Answer> {
        let wait = asked.request.accepts_incomplete()?;
        let body = Body::parse(&asked.request.body)?;
        let service_id = body.required("service_id")?;
        let unknown = || Answer::not_found("there is no such service instance");
        let id: InstanceId = instance.parse().map_err(|_| unknown())?;
        let there = self.ledger.read(|state| state.instance(&id).map(|i| (i.clone(), state.is_bound(&id))));
        let Some((there, is_bound)) = there else { return Err(self.sure(unknown()).await) };
        if there.request.service_id != service_id {
            return Err(Answer::bad_request("service_id is not that of the service instance"));
        }
        let catalog = self.catalog.current();
        let asynchronous = catalog.offering(&service_id).is_some_and(|o| o.asynchronous);
        if asynchronous && !wait {
            return Err(Answer::async_required());
        }
        let vault = (&self.keys, &id);
        let (to, seconds_max) =
            change(&catalog, vault, &body, &there, is_bound).map_err(|refusal| refusal.answer(asked))?;
        let seen = there.seen();
        let command =
            Command::Update { id: id.clone(), seen, to: Box::new(to), identity: asked.identity.clone(), seconds_max };
        let events = self.ledger.submit(command).await?;
        let token = match events.first() {
            Some(Event::UpdateBegun { number, .. }) => Operation::token_of(Kind::Update, *number),
            // Only the context was new.
            Some(_) => return Ok(Answer::done()),
            // It is so already, or is becoming so.
            None => match self.ledger.read(|state| state.instance(&id).map(|i| (i.phase, i.operation.token.clone()))) {
                Some((Phase::Updating, token)) => token,
                Some((Phase::Live, _)) => return Ok(Answer::done()),
                _ => return Err(Answer::concurrency()),
            },
        };
        let is_new = !events.is_empty();
        let accepted = || Answer::of(202, &json!({ "operation": token }));
        if wait && (!is_new || asynchronous) {
            return Ok(accepted());
        }
        let end = self.settle(patience(wait, asynchronous), |state| {
            settled(&token, state.instance(&id).map(|i| &i.operation), state.ended_instance(&id))
        });
        match end.await {
            Some(Settled::Done) => Ok(Answer::done()),
            Some(Settled::Failed(failure)) => {
                let refusal = Answer::bad_request(failure.reason);
                Err(with_usability(refusal, asked.version, Some(failure.repeatable)))
            }
            Some(Settled::Superseded) => Err(Answer::concurrency()),
            None if wait => Ok(accepted()),
            None => Err(too_long()),
        }
    }
}

/// Why an instance cannot become what is asked for; it stays what it is.
#[derive(Debug)]
enum Refusal {
    /// In the words of the specification.
    Answer(Answer),
    /// Against our rules for going from one plan to another: the same will never be possible.
    Transition(String),
}

impl From<Answer> for Refusal {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl Refusal {
    fn answer(self, asked: &Asked) -> Answer {
        match self {
            Self::Answer(answer) => answer,
            Self::Transition(reason) => {
                with_usability(Answer::refuse(422, "PlanChangeNotPossible", reason), asked.version, Some(false))
            }
        }
    }
}

/// What the instance is to become, and the seconds that this may take.
fn change(
    catalog: &Catalog,
    (keys, id): (&SealingKeys, &InstanceId),
    body: &Body,
    there: &Instance,
    is_bound: bool,
) -> Result<(Change, Option<u64>), Refusal> {
    let (present, service_id) = (there.plan_id(), &there.request.service_id);
    let plan_id = body.optional("plan_id")?.unwrap_or_else(|| present.to_owned());
    let moves = plan_id != present;
    let plan = chosen(catalog, service_id, &plan_id, !moves)?;
    let given = body.object("parameters")?;
    let upgrade = maintenance(body, &plan)?.filter(|version| Some(version) != there.terms.maintenance.as_ref());
    let context = context(body)?.filter(|_| plan.offering.allow_context_updates);
    if moves {
        let leaves =
            catalog.known(service_id, present).map_or(plan.plan.plan_updateable, |was| was.plan.plan_updateable);
        if !leaves {
            return Err(Refusal::Transition("instances of this plan cannot go to another plan".to_owned()));
        }
        if is_bound && !plan.is_bindable() {
            return Err(Refusal::Transition("the plan cannot be bound and the instance has bindings".to_owned()));
        }
    }
    // What was stored under the present plan has its secrets where that says; the new one may mark others.
    let was = catalog.known(service_id, present).unwrap_or_else(|| plan.clone());
    let secrets = |value: &Value, with: &mut dyn FnMut(&Value) -> Value| was.replace_instance(value, with);
    let old = match opened(keys, id, there.parameters(), &secrets)? {
        Value::Object(old) => old,
        _ => Map::new(),
    };
    let parameters = match given {
        None => old,
        Some(given) => {
            plan.check_update(&Value::Object(given.clone())).map_err(Answer::bad_request)?;
            with_fixed(given, old, there)?
        }
    };
    let parameters = Value::Object(parameters);
    let secrets = |value: &Value, with: &mut dyn FnMut(&Value) -> Value| plan.replace_instance(value, with);
    let text = sealed(keys, id, &parameters, (!moves).then(|| there.parameters()), &secrets)?;
    let as_before = !moves && upgrade.is_none() && text == there.parameters();
    let (maintenance, wanted) = if as_before {
        // A catalog that has changed meanwhile changes no instance by itself.
        (there.terms.maintenance.clone(), there.wanted.clone())
    } else {
        let unfit = |reason: String| match (moves, given) {
            // It has more than the plan gives.
            (true, None) => Refusal::Transition(reason),
            _ => Refusal::Answer(Answer::bad_request(reason)),
        };
        plan.check_provision(&parameters).map_err(unfit)?;
        let shape = wanted::wanted(&plan.plan.defaults, &parameters).map_err(|error| unfit(error.to_string()))?;
        let own = &there.wanted.options;
        let options = IndexOptions { adopt: own.adopt, encryption: own.encryption, ..shape.options };
        let alerts = alerts(&plan, &shape.alerts, &there.wanted.index)?;
        let wanted = Wanted { retention_days: shape.retention_days, options, alerts, ..there.wanted.clone() };
        let stays = || upgrade.clone().or_else(|| there.terms.maintenance.clone());
        (if moves { plan.plan.maintenance_version.clone() } else { stays() }, wanted)
    };
    let to = Change { plan_id, parameters: text, maintenance, context, wanted };
    Ok((to, plan.plan.maximum_polling_duration))
}

/// The parameters of a PATCH with those that are fixed, which it may only repeat.
fn with_fixed(
    given: &Map<String, Value>,
    mut old: Map<String, Value>,
    there: &Instance,
) -> Result<Map<String, Value>, Answer> {
    let mut all = given.clone();
    for key in FIXED {
        let is = match key {
            "index" => json!(there.wanted.index),
            "segments" => json!(there.wanted.segment_count),
            "encryption" => json!(there.wanted.options.encryption),
            _ => json!(there.wanted.options.adopt),
        };
        match (given.get(key), old.remove(key)) {
            (Some(asked), _) if *asked != is => {
                return Err(Answer::bad_request(format!(
                    "parameters/{key}: it is fixed when an instance is provisioned"
                )));
            }
            // Nothing new is said by repeating what the plan gave.
            (Some(_), None) => drop(all.remove(key)),
            (_, Some(was)) => drop(all.insert(key.to_owned(), was)),
            (None, None) => {}
        }
    }
    Ok(all)
}
