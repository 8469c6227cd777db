//! A provisioner of a few lines: it remembers what it was asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use bus::{Door, Doors};
use host::Host;
use types::{BindingId, InstanceId};
use wire::{
    Empty, Problem, Service,
    index_provisioner::{
        CreateIndex, Credentials, DeleteIndex, IndexDescription, IssueCredentials, NewBinding, NewIndex,
        RevokeCredentials,
    },
};

/// What it has, and how it behaves.
#[derive(Default)]
pub(crate) struct Backend {
    pub(crate) indexes: BTreeMap<InstanceId, NewIndex>,
    pub(crate) bindings: BTreeMap<BindingId, NewBinding>,
    /// What was done for the first time or undone, in order.
    pub(crate) history: Vec<String>,
    /// When bindings were revoked.
    pub(crate) revoked: BTreeMap<BindingId, jiff::Timestamp>,
    /// While set, every creation is put off.
    pub(crate) stuck: bool,
}

impl Backend {
    pub(crate) fn is_empty(&self) -> bool {
        self.indexes.is_empty() && self.bindings.is_empty()
    }

    fn create(&mut self, new: NewIndex) -> Result<IndexDescription, Problem> {
        if self.stuck {
            return Err(Problem::unavailable("Stuck", "try again"));
        }
        if self.indexes.insert(new.instance.clone(), new.clone()).is_none() {
            self.history.push(format!("create {}", new.instance));
        }
        Ok(IndexDescription {
            instance: new.instance,
            scope: new.scope,
            index: new.index.unwrap(),
            backend: new.backend,
            segment_count: new.segment_count,
            retention_days: new.retention_days,
            options: new.options,
            created: types::Timestamp::from_nanos(1),
        })
    }

    fn issue(&mut self, new: NewBinding) -> Result<Credentials, Problem> {
        let index = self.indexes.get(&new.instance).and_then(|index| index.index.clone());
        let Some(index) = index else { return Err(Problem::not_found("UnknownInstance", "there is none")) };
        let id = new.binding.clone();
        if self.bindings.insert(id.clone(), new).is_none() {
            self.history.push(format!("issue {id}"));
        }
        let values = [("index".to_owned(), index.to_string()), ("token".to_owned(), format!("lbt_{id}"))];
        Ok(Credentials { values: values.into() })
    }

    fn revoke(&mut self, id: &BindingId) {
        if self.bindings.remove(id).is_some() {
            self.history.push(format!("revoke {id}"));
            self.revoked.insert(id.clone(), jiff::Timestamp::now());
        }
    }

    fn delete(&mut self, id: &InstanceId) {
        self.indexes.remove(id);
        self.bindings.retain(|_, binding| binding.instance != *id);
    }
}

pub(crate) async fn doors(host: &Host, backend: &Arc<Mutex<Backend>>) -> Result<Vec<Door>> {
    let doors = Doors::new(&host.bus, Service::IndexProvisioner, &host.replica);
    let (create, delete, issue, revoke) = (backend.clone(), backend.clone(), backend.clone(), backend.clone());
    Ok(vec![
        doors
            .serve::<CreateIndex, _, _>(None, move |incoming| {
                let answer = create.lock().unwrap().create(incoming.request);
                async move { answer }
            })
            .await?,
        doors
            .serve::<DeleteIndex, _, _>(None, move |incoming| {
                delete.lock().unwrap().delete(&incoming.request.instance);
                async { Ok(Empty {}) }
            })
            .await?,
        doors
            .serve::<IssueCredentials, _, _>(None, move |incoming| {
                let answer = issue.lock().unwrap().issue(incoming.request);
                async move { answer }
            })
            .await?,
        doors
            .serve::<RevokeCredentials, _, _>(None, move |incoming| {
                revoke.lock().unwrap().revoke(&incoming.request.binding);
                async { Ok(Empty {}) }
            })
            .await?,
    ])
}
