//! The catalog: what is offered, checked before it is served, with its parameter schemas compiled once.

mod read;
mod schema;
mod secrets;
mod shelf;

use std::{collections::BTreeMap, sync::Arc};

use ring::digest;
use serde_json::{Map, Value, json};

pub(crate) use shelf::Shelf;

use crate::{catalog::schema::Schema, osb::Version, wanted::Defaults};

/// The catalog that is served unless the settings name another.
pub const BUILT_IN: &str = include_str!("../catalog.yaml");

/// The back-end that is our own store.
pub(crate) const OWN: &str = "own";

/// What is shown in place of a secret.
const REDACTED: &str = "***";

/// Offerings and plans at most; a platform shows them in one list.
const PLANS_MAX: usize = 1_000;

/// Why a catalog cannot be served; nothing of it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Neither YAML nor JSON of the right shape.
    #[error("the catalog cannot be read: {0}")]
    Malformed(String),
    /// Breaks a rule of the specification or of ours.
    #[error("catalog: {at}: {rule}")]
    Rule {
        /// Which offering or plan.
        at: String,
        /// What would be right.
        rule: String,
    },
}

/// One service plan.
#[derive(Debug)]
pub struct Plan {
    /// Its id.
    pub id: String,
    /// Its name, unique in its offering.
    pub name: String,
    /// What it gives.
    pub defaults: Defaults,
    /// Whether an instance may leave this plan for another one of its offering.
    pub plan_updateable: bool,
    /// Whether a binding may be rotated.
    pub binding_rotatable: bool,
    /// Seconds after which an operation that creates or changes something is given up.
    pub maximum_polling_duration: Option<u64>,
    /// The version of `maintenance_info`.
    pub maintenance_version: Option<String>,
    bindable: bool,
    offered: bool,
    /// Servers that must hold an event before it is acknowledged.
    copies: u8,
    provision: Schema,
    update: Schema,
    bind: Schema,
    shown: Map<String, Value>,
}

/// One service offering.
#[derive(Debug)]
pub struct Offering {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where its indexes live.
    pub backend: String,
    /// Whether its operations take so long that a platform must be able to wait for them.
    pub asynchronous: bool,
    /// Whether bindings must name an application.
    pub requires_app: bool,
    /// Whether a PATCH may change nothing but the context.
    pub allow_context_updates: bool,
    offered: bool,
    plans: Vec<Arc<Plan>>,
    shown: Map<String, Value>,
}

/// A plan with its offering.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The offering.
    pub offering: Arc<Offering>,
    /// The plan.
    pub plan: Arc<Plan>,
}

/// Everything that is offered, and what once was.
#[derive(Debug)]
pub struct Catalog {
    offerings: Vec<Arc<Offering>>,
    /// Every plan that is known, by its id; those that are not offered serve the instances that have them.
    plans: BTreeMap<String, (Chosen, bool)>,
    /// Servers that hold each event in this installation.
    copies: u8,
    /// One for each version that is answered differently.
    pages: Vec<Page>,
}

/// The answer to platforms of one version.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) body: String,
    pub(crate) etag: String,
}

impl Catalog {
    /// Reads and checks a catalog in YAML or, as its subset, JSON; all of it is offered.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        Self::offering_only(text, &[], u8::MAX)
    }

    /// The same with only the named offerings offered, no names being all of them, and of those the plans that an installation can
    /// keep which holds each event on so many servers.
    ///
    /// Errors: the first rule that is broken, with its place.
    pub fn offering_only(text: &str, names: &[String], copies: u8) -> Result<Self, CatalogError> {
        let offerings = read::offerings(text)?;
        check(&offerings)?;
        if let Some(name) = names.iter().find(|name| offerings.iter().all(|o| o.name != **name)) {
            let all: Vec<&str> = offerings.iter().map(|o| o.name.as_str()).collect();
            return Err(rule(
                "broker.offerings",
                format!("there is no offering {name}; the catalog has {}", all.join(", ")),
            ));
        }
        let served = |offering: &Offering| offering.offered && (names.is_empty() || names.contains(&offering.name));
        let mut plans = BTreeMap::new();
        for offering in &offerings {
            for plan in &offering.plans {
                let chosen = Chosen { offering: Arc::clone(offering), plan: Arc::clone(plan) };
                plans.insert(plan.id.clone(), (chosen, served(offering) && plan.offered && plan.copies <= copies));
            }
        }
        let shown: Vec<Arc<Offering>> = offerings.into_iter().filter(|offering| served(offering)).collect();
        let mut catalog = Self { offerings: shown, plans, copies, pages: Vec::new() };
        if let Some(empty) = catalog.offerings.iter().find(|offering| catalog.offered(offering).next().is_none()) {
            let rules = format!(
                "each of its plans needs more than {copies} copies of an event (common.journal_replicas): leave the offering out of \
                 broker.offerings, or give it a plan that needs fewer"
            );
            return Err(rule(&empty.name, rules));
        }
        catalog.pages = Version::GATES.iter().map(|minor| catalog.page_of(Version { minor: *minor })).collect();
        Ok(catalog)
    }

    /// This catalog in place of an older one, whose plans stay known: their instances are still there.
    ///
    /// Errors: an id that meant something else before.
    pub fn after(mut self, older: &Self) -> Result<Self, CatalogError> {
        for (id, (was, _)) in &older.plans {
            let reused = |what: &str| rule(what, format!("the id {id} was that of a plan of {}", was.offering.name));
            match self.plans.get(id) {
                Some((now, _)) if now.offering.id != was.offering.id => return Err(reused(&now.offering.name)),
                Some(_) => {}
                None if self.has_offering(id) => return Err(reused("services")),
                None => drop(self.plans.insert(id.clone(), (was.clone(), false))),
            }
        }
        if let Some(id) = self.plans.keys().find(|id| older.has_offering(id)) {
            return Err(rule("plans", format!("the id {id} was that of an offering; ids are for ever")));
        }
        if self.plans.len() > PLANS_MAX {
            let rules = format!("{} plans with those that were offered before, at most {PLANS_MAX}", self.plans.len());
            return Err(rule("services", rules));
        }
        Ok(self)
    }

    /// Whether any of its parameters is a secret.
    pub(crate) fn has_secrets(&self) -> bool {
        let of_plan =
            |plan: &Plan| [&plan.provision, &plan.update, &plan.bind].iter().any(|schema| schema.has_secrets());
        self.plans.values().any(|(chosen, _)| of_plan(&chosen.plan))
    }

    fn has_offering(&self, id: &str) -> bool {
        self.plans.values().any(|(chosen, _)| chosen.offering.id == id)
    }

    /// The offering of an id, also one that is not offered any more.
    pub fn offering(&self, id: &str) -> Option<Arc<Offering>> {
        self.plans.values().find(|(chosen, _)| chosen.offering.id == id).map(|(chosen, _)| Arc::clone(&chosen.offering))
    }

    /// The plan of an offering, if it is offered: for new instances and changes of plan.
    pub fn find(&self, service_id: &str, plan_id: &str) -> Option<Chosen> {
        let (chosen, offered) = self.plans.get(plan_id)?;
        (*offered && chosen.offering.id == service_id).then(|| chosen.clone())
    }

    /// The plan of an offering, also one that is not offered any more: for what is there already.
    pub fn known(&self, service_id: &str, plan_id: &str) -> Option<Chosen> {
        let (chosen, _) = self.plans.get(plan_id)?;
        (chosen.offering.id == service_id).then(|| chosen.clone())
    }

    /// Offering and plan of a plan id in words, for people.
    pub fn name_of(&self, plan_id: &str) -> Option<String> {
        self.plans.get(plan_id).map(|(chosen, _)| format!("{}/{}", chosen.offering.name, chosen.plan.name))
    }

    /// The answer to a platform that speaks a version: strict clients refuse fields that are newer.
    pub fn shown(&self, version: Version) -> Value {
        let services = self.offerings.iter().map(|offering| {
            let mut shown = gated(&offering.shown, version, false);
            let plans = self.offered(offering).map(|plan| Value::Object(gated(&plan.shown, version, true)));
            shown.insert("plans".to_owned(), plans.collect());
            Value::Object(shown)
        });
        json!({ "services": services.collect::<Vec<_>>() })
    }

    fn offered<'a>(&'a self, offering: &'a Offering) -> impl Iterator<Item = &'a Arc<Plan>> {
        offering.plans.iter().filter(|plan| self.find(&offering.id, &plan.id).is_some())
    }

    /// Why a plan cannot be had in this installation although its catalog has it.
    pub(crate) fn lacking(&self, service_id: &str, plan_id: &str) -> Option<String> {
        let plan = self.known(service_id, plan_id)?.plan;
        (plan.offered && plan.copies > self.copies).then(|| {
            format!(
                "the plan {} needs {} copies of each event, and this installation keeps {}",
                plan.name, plan.copies, self.copies
            )
        })
    }

    /// The plans that are not offered because this installation cannot keep what they say.
    pub(crate) fn withheld(&self) -> Vec<String> {
        let plans = self.offerings.iter().flat_map(|offering| offering.plans.iter().map(move |plan| (offering, plan)));
        plans.filter_map(|(offering, plan)| self.lacking(&offering.id, &plan.id)).collect()
    }

    /// Names the content of [`Catalog::shown`], for `If-None-Match`.
    pub fn etag(&self, version: Version) -> String {
        self.page(version).etag.clone()
    }

    /// The prepared answer; it is the same for all versions between two that brought something.
    pub(crate) fn page(&self, version: Version) -> &Page {
        let later = Version::GATES.iter().filter(|minor| **minor <= version.minor).count();
        &self.pages[later.clamp(1, self.pages.len()) - 1]
    }

    fn page_of(&self, version: Version) -> Page {
        let body = self.shown(version).to_string();
        let digest = digest::digest(&digest::SHA256, body.as_bytes());
        let etag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&digest.as_ref()[..16]));
        Page { body, etag }
    }
}

impl Chosen {
    /// Whether instances of the plan can be bound.
    pub fn is_bindable(&self) -> bool {
        self.plan.bindable
    }

    /// Checks the parameters of a provision request; the complaint names the offending value's path, not the value.
    pub fn check_provision(&self, parameters: &Value) -> Result<(), String> {
        self.plan.provision.check(parameters)
    }

    /// The same for an update.
    pub fn check_update(&self, parameters: &Value) -> Result<(), String> {
        self.plan.update.check(parameters)
    }

    /// The same for a bind request.
    pub fn check_bind(&self, parameters: &Value) -> Result<(), String> {
        self.plan.bind.check(parameters)
    }

    /// The parameters of an instance as they may be shown: what the schemas mark `writeOnly` is blotted out.
    pub fn redact_instance(&self, parameters: &Value) -> Value {
        self.replace_instance(parameters, &mut |_| REDACTED.into())
    }

    /// The same for a binding.
    pub fn redact_binding(&self, parameters: &Value) -> Value {
        self.replace_binding(parameters, &mut |_| REDACTED.into())
    }

    /// The parameters of an instance with something else in place of what the schemas mark `writeOnly`.
    pub(crate) fn replace_instance(&self, parameters: &Value, with: &mut dyn FnMut(&Value) -> Value) -> Value {
        let mut done = Vec::new();
        let replaced = self.plan.provision.replaced(parameters, &mut |secret| {
            done.push(with(secret));
            done.last().cloned().unwrap_or_default()
        });
        // Both schemas may mark the same.
        self.plan
            .update
            .replaced(&replaced, &mut |secret| if done.contains(secret) { secret.clone() } else { with(secret) })
    }

    /// The same for a binding.
    pub(crate) fn replace_binding(&self, parameters: &Value, with: &mut dyn FnMut(&Value) -> Value) -> Value {
        self.plan.bind.replaced(parameters, with)
    }
}

/// What one entry cannot show: ids and names stand once.
fn check(offerings: &[Arc<Offering>]) -> Result<(), CatalogError> {
    let (mut ids, mut names) = (BTreeMap::new(), BTreeMap::new());
    for offering in offerings {
        once(&mut ids, "id", &offering.id, &offering.name)?;
        once(&mut names, "name", &offering.name, &offering.name)?;
        let mut of_plans = BTreeMap::new();
        for plan in &offering.plans {
            let at = format!("{}/{}", offering.name, plan.name);
            once(&mut ids, "id", &plan.id, &at)?;
            once(&mut of_plans, "name", &plan.name, &at)?;
        }
        if offering.offered && offering.plans.iter().all(|plan| !plan.offered) {
            return Err(rule(
                &offering.name,
                "none of its plans is offered: set `offered: false` on the offering itself",
            ));
        }
    }
    let count = ids.len();
    if count > PLANS_MAX {
        return Err(rule("services", format!("{count} offerings and plans, at most {PLANS_MAX}")));
    }
    Ok(())
}

fn once(seen: &mut BTreeMap<String, String>, what: &str, text: &str, at: &str) -> Result<(), CatalogError> {
    match seen.insert(text.to_owned(), at.to_owned()) {
        None => Ok(()),
        Some(other) => Err(rule(at, format!("the {what} {text:?} stands twice: {other} has it too"))),
    }
}

fn rule(at: impl Into<String>, rule: impl Into<String>) -> CatalogError {
    CatalogError::Rule { at: at.into(), rule: rule.into() }
}

/// The first version of the specification that has a field, by minor number.
fn since(field: &str, is_plan: bool) -> u32 {
    match field {
        "schemas" => 13,
        "instances_retrievable" | "bindings_retrievable" => 14,
        "maintenance_info" | "maximum_polling_duration" => 15,
        // On a plan it came later than on an offering.
        "plan_updateable" if is_plan => 15,
        "allow_context_updates" => 16,
        "binding_rotatable" => 17,
        _ => 0,
    }
}

fn gated(shown: &Map<String, Value>, version: Version, is_plan: bool) -> Map<String, Value> {
    let there = shown.iter().filter(|(key, _)| version.has(since(key, is_plan)));
    there.map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests;
