//! How the state looks to an operator: without parameters and without secrets.

use types::{BindingId, InstanceId};
use wire::broker::{BindingView, EndedView, InstanceView, OperationView};

use super::Problems;
use crate::{
    catalog::Catalog,
    osb::Identity,
    state::{Binding, Ended, Instance, Operation},
};

/// An instance; its bindings are counted elsewhere.
pub(super) fn instance(catalog: &Catalog, problems: &Problems, id: &InstanceId, there: &Instance) -> InstanceView {
    let request = &there.request;
    let known = catalog.known(&request.service_id, there.plan_id());
    let (service, plan) = match &known {
        Some(known) => (known.offering.name.as_str(), known.plan.name.as_str()),
        None => (request.service_id.as_str(), there.plan_id()),
    };
    let version = there.terms.maintenance.clone();
    let upgrade = known.as_ref().and_then(|known| known.plan.maintenance_version.clone()).filter(|wanted| {
        // What an update brings is on its way.
        version.as_ref() != Some(wanted)
            && there.change.as_ref().is_none_or(|to| to.maintenance.as_ref() != Some(wanted))
    });
    let (platform, user) = who(there.identity.as_ref());
    InstanceView {
        instance: id.clone(),
        service: service.to_owned(),
        plan: plan.to_owned(),
        organization: request.organization_guid.clone(),
        space: request.space_guid.clone(),
        index: there.wanted.index.clone(),
        scope: there.wanted.scope.clone(),
        backend: there.wanted.backend.clone(),
        phase: there.phase,
        operation: OperationView { problem: problems.of(&there.operation), ..operation(&there.operation) },
        binding_count: 0,
        version,
        upgrade,
        platform,
        user,
    }
}

/// A binding.
pub(super) fn binding(problems: &Problems, id: &BindingId, there: &Binding) -> BindingView {
    let (platform, user) = who(there.identity.as_ref());
    BindingView {
        binding: id.clone(),
        role: there.role,
        expires: there.expires(),
        predecessor: there.request.predecessor.clone(),
        phase: there.phase,
        operation: OperationView { problem: problems.of(&there.operation), ..operation(&there.operation) },
        platform,
        user,
    }
}

/// How something ended that is no longer there.
pub(super) fn ended(ended: &Ended) -> EndedView {
    let operation = OperationView { ended: true, failure: ended.failure.clone(), ..operation(&ended.operation) };
    EndedView { operation, at: ended.at }
}

fn operation(there: &Operation) -> OperationView {
    OperationView {
        kind: there.kind.word().to_owned(),
        token: there.token.clone(),
        begun: there.begun,
        ended: there.ended,
        failure: there.failure.as_ref().map(|failure| failure.reason.clone()),
        problem: None,
    }
}

fn who(identity: Option<&Identity>) -> (String, String) {
    identity.map(|identity| (identity.platform.clone(), identity.user.clone())).unwrap_or_default()
}
