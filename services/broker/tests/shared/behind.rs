//! What stands behind the broker, in a few lines: a provisioner and an alerter that remember what they were asked for.

#![allow(dead_code, reason = "each test program looks at a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use anyhow::Result;
use bus::{Door, Doors};
use host::Host;
use types::{BindingId, InstanceId, RuleId, Timestamp};
use wire::{
    Empty, Problem, Service,
    alerter::{DeleteRule, ListRules, PutRule, Rule, RuleDescription, RuleList, RuleName, RulesOf},
    index_provisioner::{
        BindingDescription, BindingList, BindingName, BindingsOf, CreateIndex, Credentials, DeleteIndex, IndexChange,
        IndexDescription, IndexList, IndexesOf, InstanceName, IssueCredentials, ListBindings, ListIndexes, NewBinding,
        NewIndex, RevokeCredentials, UpdateIndex,
    },
};

/// What stands behind the broker, and how it behaves.
#[derive(Default)]
pub(crate) struct Backend {
    pub(crate) indexes: BTreeMap<InstanceId, NewIndex>,
    pub(crate) bindings: BTreeMap<BindingId, NewBinding>,
    /// Names that are refused for good.
    pub(crate) taken: BTreeSet<String>,
    /// Rules at the alerter.
    pub(crate) rules: BTreeMap<RuleId, Rule>,
    /// What was done for the first time or undone, in order.
    pub(crate) history: Vec<String>,
    /// The places of what was wanted of instances, in the order in which it came.
    pub(crate) orders: Vec<u64>,
    /// When bindings were revoked.
    pub(crate) revoked: BTreeMap<BindingId, jiff::Timestamp>,
    /// While set, every rule is put off.
    pub(crate) rules_stuck: bool,
    /// Every rule above this number is refused for good.
    pub(crate) rules_max: Option<usize>,
    /// Deletions of rules that are put off before one is done.
    pub(crate) rules_stay: u32,
    /// While set, others are archived into the index, and it must not be deleted.
    pub(crate) archive_in_use: bool,
    /// While set, every creation is put off.
    pub(crate) stuck: bool,
    pub(crate) creations: u32,
    /// Every change that was asked for.
    pub(crate) updates: Vec<IndexChange>,
    /// While set, every change is put off.
    pub(crate) updates_stuck: bool,
    /// Days of retention that are refused for good, after half of the change is done.
    pub(crate) refused_days: Option<u32>,
    /// While set, every deletion is put off.
    pub(crate) deletions_stuck: bool,
    /// While set, indexes hold events and must not be deleted.
    pub(crate) not_empty: bool,
    /// While set, events come after the credentials of the first binding were revoked, and the deletion is refused.
    pub(crate) late_events: bool,
    /// While set, every issue of credentials is put off.
    pub(crate) issues_stuck: bool,
    /// Issues that were asked for.
    pub(crate) issues: u32,
    /// Back-ends whose creations are never answered.
    pub(crate) hanging: BTreeSet<String>,
    /// Whether the call that is looked at is never answered.
    hangs: bool,
}

impl Backend {
    pub(crate) fn is_empty(&self) -> bool {
        self.indexes.is_empty() && self.bindings.is_empty()
    }
}

pub(crate) async fn doors(host: &Host, backend: &Arc<Mutex<Backend>>) -> Result<Vec<Door>> {
    let provisioner = Doors::new(&host.bus, Service::IndexProvisioner, &host.replica);
    let alerter = Doors::new(&host.bus, Service::Alerter, &host.replica);
    macro_rules! door {
        ($call:ty, $answer:expr) => {
            door!(provisioner, $call, $answer)
        };
        ($doors:ident, $call:ty, $answer:expr) => {{
            let backend = backend.clone();
            $doors
                .serve::<$call, _, _>(None, move |incoming| {
                    let (answer, hangs) = {
                        let mut backend = backend.lock().unwrap();
                        backend.hangs = false;
                        (($answer)(&mut *backend, incoming.request), backend.hangs)
                    };
                    async move { if hangs { std::future::pending().await } else { answer } }
                })
                .await?
        }};
    }
    Ok(vec![
        door!(CreateIndex, created),
        door!(UpdateIndex, updated),
        door!(DeleteIndex, deleted),
        door!(IssueCredentials, issued),
        door!(RevokeCredentials, |backend: &mut Backend, name: BindingName| {
            if backend.bindings.remove(&name.binding).is_some() {
                backend.history.push(format!("revoke {}", name.binding));
                backend.revoked.insert(name.binding, jiff::Timestamp::now());
            }
            Ok(Empty {})
        }),
        door!(ListIndexes, |backend: &mut Backend, _: IndexesOf| {
            let indexes = backend.indexes.values().cloned().map(described).collect();
            Ok(IndexList { indexes, more: false })
        }),
        door!(ListBindings, |backend: &mut Backend, _: BindingsOf| {
            let bindings = backend.bindings.values().map(|b| BindingDescription {
                binding: b.binding.clone(),
                instance: b.instance.clone(),
                index: "any".parse().unwrap(),
                role: b.role,
                created: Timestamp::from_nanos(1),
                expires: None,
            });
            Ok(BindingList { bindings: bindings.collect(), more: false })
        }),
        door!(alerter, PutRule, put),
        door!(alerter, DeleteRule, |backend: &mut Backend, name: RuleName| {
            if backend.rules_stay > 0 {
                backend.rules_stay -= 1;
                // Not one of those that the bus repeats by itself.
                return Err(Problem::internal("try again"));
            }
            backend.rules.retain(|rule, there| *rule != name.rule || Some(&there.index) != name.index.as_ref());
            Ok(Empty {})
        }),
        door!(alerter, ListRules, |backend: &mut Backend, wanted: RulesOf| {
            // Pages of one rule each.
            let behind = |rule: &RuleId| wanted.after.as_ref().is_none_or(|after| rule > after);
            let of = backend.rules.values().filter(|there| wanted.index.as_ref().is_none_or(|i| *i == there.index));
            let mut rules: Vec<RuleDescription> = of.filter(|there| behind(&there.rule)).cloned().map(shown).collect();
            let more = rules.len() > 1;
            rules.truncate(1);
            Ok(RuleList { rules, more })
        }),
    ])
}

fn shown(rule: Rule) -> RuleDescription {
    RuleDescription {
        rule,
        instances: Vec::new(),
        instance_count: 0,
        pending_count: 0,
        created: Timestamp::from_nanos(1),
    }
}

fn put(backend: &mut Backend, rule: Rule) -> Result<RuleDescription, Problem> {
    if backend.rules_stuck {
        return Err(Problem::unavailable("Stuck", "try again"));
    }
    let is_new = !backend.rules.contains_key(&rule.rule);
    if is_new && backend.rules_max.is_some_and(|most| backend.rules.len() >= most) {
        return Err(Problem::conflict("TooManyRules", "there are as many rules as there can be"));
    }
    backend.rules.insert(rule.rule.clone(), rule.clone());
    Ok(shown(rule))
}

fn described(new: NewIndex) -> IndexDescription {
    IndexDescription {
        instance: new.instance,
        scope: new.scope,
        index: new.index.unwrap(),
        backend: new.backend,
        segment_count: new.segment_count,
        retention_days: new.retention_days,
        options: new.options,
        created: Timestamp::from_nanos(1),
    }
}

fn updated(backend: &mut Backend, change: IndexChange) -> Result<IndexDescription, Problem> {
    if backend.updates_stuck {
        return Err(Problem::unavailable("Stuck", "try again"));
    }
    backend.updates.push(change.clone());
    backend.orders.push(change.order);
    let refused = backend.refused_days.is_some_and(|days| change.retention_days == Some(days));
    let Some(there) = backend.indexes.get_mut(&change.instance) else {
        return Err(Problem::not_found("UnknownInstance", "there is no such instance"));
    };
    (there.retention_days, there.options) = (change.retention_days, change.options);
    if refused {
        return Err(Problem::bad_request("BackendRefused", "the back-end refuses so many days"));
    }
    Ok(described(there.clone()))
}

fn deleted(backend: &mut Backend, name: InstanceName) -> Result<Empty, Problem> {
    if backend.deletions_stuck {
        return Err(Problem::unavailable("Stuck", "try again"));
    }
    backend.orders.push(name.order);
    if backend.archive_in_use {
        return Err(Problem::conflict("ArchiveInUse", "indexes are archived into it"));
    }
    let revoked = if backend.late_events { 1 } else { usize::MAX };
    if !backend.not_empty || backend.late_events {
        let ended = backend.bindings.values().filter(|b| b.instance == name.instance).take(revoked);
        let ended: Vec<BindingId> = ended.map(|b| b.binding.clone()).collect();
        ended.iter().for_each(|binding| drop(backend.bindings.remove(binding)));
    }
    if backend.not_empty || backend.late_events {
        return Err(Problem::conflict("NotEmpty", "the index holds events"));
    }
    backend.indexes.remove(&name.instance);
    Ok(Empty {})
}

fn created(backend: &mut Backend, new: NewIndex) -> Result<IndexDescription, Problem> {
    let index = new.index.clone().unwrap();
    backend.hangs = backend.hanging.contains(&new.backend);
    if backend.stuck {
        return Err(Problem::unavailable("Stuck", "try again"));
    }
    if backend.taken.contains(index.as_str()) {
        return Err(Problem::conflict("IndexNameTaken", "the index name is taken; choose another name"));
    }
    let differs = |there: &NewIndex| NewIndex { order: new.order, ..there.clone() } != new;
    if backend.indexes.get(&new.instance).is_some_and(differs) {
        return Err(Problem::conflict("InstanceDiffers", "the instance is there with other properties"));
    }
    backend.orders.push(new.order);
    if backend.indexes.insert(new.instance.clone(), new.clone()).is_none() {
        backend.creations += 1;
        backend.history.push(format!("create {}", new.instance));
    }
    Ok(described(new))
}

fn issued(backend: &mut Backend, new: NewBinding) -> Result<Credentials, Problem> {
    backend.issues += 1;
    if backend.issues_stuck {
        return Err(Problem::unavailable("Stuck", "try again"));
    }
    let Some(index) = backend.indexes.get(&new.instance).and_then(|i| i.index.clone()) else {
        return Err(Problem::not_found("UnknownInstance", "there is no such instance"));
    };
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    values.insert("index".into(), index.to_string());
    values.insert("token".into(), format!("lbt_{}", new.binding));
    if new.ttl_seconds.is_some() {
        values.insert("expires_at".into(), "2030-01-01T00:00:00.000Z".into());
    }
    let id = new.binding.clone();
    if backend.bindings.insert(id.clone(), new).is_none() {
        backend.history.push(format!("issue {id}"));
    }
    Ok(Credentials { values })
}
