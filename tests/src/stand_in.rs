//! A provisioner of a few lines behind real brokers: as fast as it can be, and as slow or as stubborn as it is told to be. Beside it an
//! alerter that has no rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Result;
use bus::{Bus, Door, Doors};
use parking_lot::Mutex;
use types::{BindingId, InstanceId, Timestamp};
use wire::{
    Empty, Problem, Service,
    alerter::{ListRules, RuleList, RulesOf},
    index_provisioner::{
        BindingDescription, BindingList, BindingsOf, CreateIndex, Credentials, DeleteIndex, IndexDescription,
        IndexList, IndexesOf, IssueCredentials, ListBindings, ListIndexes, NewBinding, RevokeCredentials, UpdateIndex,
    },
};

/// What it has, and how it behaves.
#[derive(Debug, Default)]
pub struct Made {
    /// Its indexes.
    pub indexes: BTreeMap<InstanceId, IndexDescription>,
    /// Its bindings.
    pub bindings: BTreeMap<BindingId, BindingDescription>,
    /// Instances on which everything is put off.
    pub stuck: BTreeSet<InstanceId>,
    /// Instances whose changes are refused for good.
    pub refused: BTreeSet<InstanceId>,
    /// How often something was put off.
    pub put_off_count: u32,
}

/// Takes the places of the index-provisioner and the alerter while it lives.
pub struct StandIn {
    made: Arc<Mutex<Made>>,
    _doors: Vec<Door>,
}

impl StandIn {
    /// Opens the doors that brokers knock on.
    pub async fn start(bus: &Bus) -> Result<Self> {
        let made = Arc::<Mutex<Made>>::default();
        let doors = Doors::new(bus, Service::IndexProvisioner, &"stand-in".parse()?);
        let alerter = Doors::new(bus, Service::Alerter, &"stand-in".parse()?);
        macro_rules! door {
            ($call:ty, $answer:expr) => {
                door!(doors, $call, $answer)
            };
            ($doors:ident, $call:ty, $answer:expr) => {{
                let made = Arc::clone(&made);
                let answer = move |incoming: bus::Incoming<$call>| {
                    let answer = $answer(&mut *made.lock(), incoming.request);
                    async move { answer }
                };
                $doors.serve::<$call, _, _>(None, answer).await?
            }};
        }
        let open = vec![
            door!(CreateIndex, create),
            door!(UpdateIndex, update),
            door!(DeleteIndex, |made: &mut Made, name: wire::index_provisioner::InstanceName| {
                made.admit(&name.instance)?;
                made.indexes.remove(&name.instance);
                made.bindings.retain(|_, binding| binding.instance != name.instance);
                Ok(Empty {})
            }),
            door!(ListIndexes, |made: &mut Made, _: IndexesOf| Ok(IndexList {
                indexes: made.indexes.values().cloned().collect(),
                more: false,
            })),
            door!(IssueCredentials, issue),
            door!(RevokeCredentials, |made: &mut Made, name: wire::index_provisioner::BindingName| {
                made.bindings.remove(&name.binding);
                Ok(Empty {})
            }),
            door!(ListBindings, |made: &mut Made, _: BindingsOf| Ok(BindingList {
                bindings: made.bindings.values().cloned().collect(),
                more: false,
            })),
            door!(alerter, ListRules, |_: &mut Made, _: RulesOf| Ok(RuleList::default())),
        ];
        Ok(Self { made, _doors: open })
    }

    /// Looks at what it has, or changes how it behaves.
    pub fn with<T>(&self, look: impl FnOnce(&mut Made) -> T) -> T {
        look(&mut self.made.lock())
    }
}

impl Made {
    fn admit(&mut self, instance: &InstanceId) -> Result<(), Problem> {
        if self.stuck.contains(instance) {
            self.put_off_count += 1;
            // Not one of those that the bus repeats by itself: every attempt of the broker is one call.
            return Err(Problem::internal("the back-end is under maintenance"));
        }
        Ok(())
    }
}

fn create(made: &mut Made, new: wire::index_provisioner::NewIndex) -> Result<IndexDescription, Problem> {
    made.admit(&new.instance)?;
    let index = new.index.ok_or_else(|| Problem::bad_request("BackendRefused", "an index needs a name here"))?;
    let there = made.indexes.entry(new.instance.clone()).or_insert_with(|| IndexDescription {
        instance: new.instance,
        scope: new.scope,
        index,
        backend: new.backend,
        segment_count: new.segment_count,
        retention_days: new.retention_days,
        options: new.options,
        created: Timestamp::from_nanos(1),
    });
    Ok(there.clone())
}

fn update(made: &mut Made, to: wire::index_provisioner::IndexChange) -> Result<IndexDescription, Problem> {
    made.admit(&to.instance)?;
    if made.refused.contains(&to.instance) {
        return Err(Problem::bad_request("BackendRefused", "the back-end does not want this change"));
    }
    let unknown = || Problem::not_found("UnknownInstance", "there is no such instance");
    let there = made.indexes.get_mut(&to.instance).ok_or_else(unknown)?;
    (there.retention_days, there.options) = (to.retention_days, to.options);
    Ok(there.clone())
}

fn issue(made: &mut Made, new: NewBinding) -> Result<Credentials, Problem> {
    made.admit(&new.instance)?;
    let unknown = || Problem::not_found("UnknownInstance", "there is no such instance");
    let index = made.indexes.get(&new.instance).ok_or_else(unknown)?.index.clone();
    let values = [("index", index.to_string()), ("token", format!("lbt_{}", new.binding))];
    let description = BindingDescription {
        binding: new.binding.clone(),
        instance: new.instance,
        index,
        role: new.role,
        created: Timestamp::from_nanos(1),
        expires: None,
    };
    made.bindings.insert(new.binding, description);
    Ok(Credentials { values: values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() })
}
