//! `/health`: what the coordinator depends on, each with its state.
//!
//! Open to everybody, so that a load balancer may look; details are for those who may change everything.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use bus::Lease;
use serde::Serialize;
use serde_json::{Value, json};
use wire::{Problem, Service, decode, views::Member};

use super::{
    acl::{Permission, Resource},
    answer::Refusal,
    door::Front,
};
use crate::{State, lead::LEADING};

type Answer = Result<HttpResponse, Refusal>;

/// How long a contributor waits for what it asks of NATS.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// The name of the root.
const ROOT: &str = "coordinator";

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Up,
    Starting,
    Unknown,
    Down,
}

/// One thing, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Health {
    name: String,
    status: Status,
    readiness: bool,
    liveness: bool,
    details: BTreeMap<String, String>,
    children: BTreeMap<String, Health>,
}

fn contributor(name: &str, status: Status, details: &[(&str, String)]) -> Health {
    let up = status == Status::Up;
    let details = details.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    // Whatever is missing comes back by itself: to restart this process would not help.
    Health { name: name.to_owned(), status, readiness: up, liveness: true, details, children: BTreeMap::new() }
}

/// The worst state of all; ready only when everything is.
fn root(children: Vec<Health>, reasons: BTreeMap<String, String>) -> Health {
    let worst = [Status::Down, Status::Unknown, Status::Starting];
    let status = worst.into_iter().find(|status| children.iter().any(|child| child.status == *status));
    let readiness = reasons.is_empty() && children.iter().all(|child| child.readiness);
    let children = children.into_iter().map(|child| (child.name.clone(), child)).collect();
    let (name, status) = (ROOT.to_owned(), status.unwrap_or(Status::Up));
    Health { name, status, readiness, liveness: true, details: reasons, children }
}

/// One that works is enough to be up; what keeps others from their work is told.
fn stores_of(members: &[Member]) -> Health {
    let works = members.iter().any(|member| member.unready.is_empty());
    let names: Vec<&str> = members.iter().map(|member| member.replica.as_str()).collect();
    let unready = members
        .iter()
        .flat_map(|member| member.unready.iter().map(|(name, reason)| format!("{} {name}: {reason}", member.replica)));
    let unready = unready.collect::<Vec<_>>().join("; ");
    let mut details = vec![("alive", names.len().to_string()), ("replicas", names.join(", "))];
    if !unready.is_empty() {
        details.push(("unready", unready));
    }
    contributor("segment-stores", if works { Status::Up } else { Status::Down }, &details)
}

impl Front {
    async fn health(&self) -> Health {
        let reasons = self.host.unready_reasons();
        let nats = if self.host.bus.is_connected() { Status::Up } else { Status::Down };
        let nats = contributor("nats", nats, &[("connection", self.host.bus.name().to_owned())]);
        let (leader, stores) = tokio::join!(self.leader(&reasons), self.stores());
        root(vec![nats, self.journal(&reasons), leader, self.containers(), stores], reasons)
    }

    fn journal(&self, reasons: &BTreeMap<String, String>) -> Health {
        let applied = ("applied_seq", self.ledger.changes().borrow().to_string());
        match reasons.get("ledger") {
            Some(reason) => contributor("journal", Status::Down, &[applied, ("reason", reason.clone())]),
            None => contributor("journal", Status::Up, &[applied]),
        }
    }

    async fn leader(&self, reasons: &BTreeMap<String, String>) -> Health {
        let own = ("leads", self.ledger.is_leader().to_string());
        if let Some(reason) = reasons.get(LEADING) {
            return contributor("leader", Status::Down, &[own, ("reason", reason.clone())]);
        }
        let holder = Lease::holder_of(&self.leases, Service::Coordinator.as_str());
        match tokio::time::timeout(LOOK_WITHIN, holder).await {
            Ok(Ok(Some(holder))) => contributor("leader", Status::Up, &[own, ("replica", holder.to_string())]),
            Ok(Ok(None)) => contributor("leader", Status::Starting, &[own, ("reason", "nobody leads".to_owned())]),
            Ok(Err(error)) => contributor("leader", Status::Unknown, &[own, ("reason", error.to_string())]),
            Err(_) => contributor("leader", Status::Unknown, &[own, ("reason", "no answer in time".to_owned())]),
        }
    }

    fn containers(&self) -> Health {
        let placement = self.ledger.read(State::placement);
        let (count, placed) = (usize::from(placement.container_count), placement.assignments.len());
        let status = match (count, placed) {
            (0, _) => Status::Starting,
            (count, placed) if placed == count => Status::Up,
            _ => Status::Down,
        };
        let details = [
            ("containers", count.to_string()),
            ("placed", placed.to_string()),
            ("version", placement.version.to_string()),
        ];
        contributor("containers", status, &details)
    }

    async fn stores(&self) -> Health {
        match tokio::time::timeout(LOOK_WITHIN, self.members.list("segment-store.")).await {
            Ok(Ok(found)) => {
                let members = found.iter().filter_map(|(_, entry)| decode::<Member>(&entry.value).ok());
                stores_of(&members.collect::<Vec<_>>())
            }
            Ok(Err(error)) => contributor("segment-stores", Status::Unknown, &[("reason", error.to_string())]),
            Err(_) => contributor("segment-stores", Status::Unknown, &[("reason", "no answer in time".to_owned())]),
        }
    }

    /// The root, or the contributor of this name. Errors: NotFound.
    async fn health_of(&self, id: Option<&str>) -> Result<Health, Problem> {
        let mut whole = self.health().await;
        let Some(id) = id.filter(|id| *id != ROOT) else { return Ok(whole) };
        let missing = || Problem::not_found("UnknownPath", format_args!("there is no health contributor {id:?}"));
        whole.children.remove(id).ok_or_else(missing)
    }

    async fn may_see_details(&self, http: &HttpRequest) -> bool {
        // Whoever presents nothing is no failed attempt.
        http.headers().contains_key("authorization")
            && self.admit(http, Resource::Scopes, Permission::ReadUpdate).await.is_ok()
    }

    async fn shown(&self, http: &HttpRequest, id: Option<&str>) -> Answer {
        let mut health = self.health_of(id).await?;
        if !self.may_see_details(http).await {
            health.details.clear();
            health.children.values_mut().for_each(|child| child.details.clear());
        }
        Ok(HttpResponse::Ok().json(health))
    }

    async fn facet(&self, http: &HttpRequest, facet: &str, id: Option<&str>) -> Answer {
        if facet == "details" {
            self.admit(http, Resource::Scopes, Permission::ReadUpdate).await?;
        }
        let health = self.health_of(id).await?;
        let value: Value = match facet {
            "readiness" => health.readiness.into(),
            "liveness" => health.liveness.into(),
            "status" => json!(health.status),
            _ => json!(health.details),
        };
        Ok(HttpResponse::Ok().json(value))
    }
}

/// GET `/health`.
pub(crate) async fn whole(http: HttpRequest, front: Data<Front>) -> Answer {
    front.shown(&http, None).await
}

/// GET `/health/{id}`.
pub(crate) async fn one(http: HttpRequest, front: Data<Front>, id: Path<String>) -> Answer {
    front.shown(&http, Some(&id)).await
}

/// GET `/health/{readiness,liveness,details,status}`.
pub(crate) async fn facet(http: HttpRequest, front: Data<Front>, facet: Path<String>) -> Answer {
    front.facet(&http, &facet, None).await
}

/// GET `/health/{readiness,liveness,details,status}/{id}`.
pub(crate) async fn facet_of(http: HttpRequest, front: Data<Front>, path: Path<(String, String)>) -> Answer {
    let (facet, id) = path.into_inner();
    front.facet(&http, &facet, Some(&id)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_up_while_one_of_them_works() {
        let member = |name: &str, reason: Option<&str>| Member {
            service: Service::SegmentStore,
            replica: name.parse().unwrap(),
            started: types::Timestamp::default(),
            exchange_address: None,
            slots: 0,
            unready: reason.map(|reason| ("tier2".to_owned(), reason.to_owned())).into_iter().collect(),
        };
        for (members, status, unready) in [
            (vec![], Status::Down, None),
            (vec![member("a", None)], Status::Up, None),
            (vec![member("a", Some("full")), member("b", None)], Status::Up, Some("a tier2: full")),
            (vec![member("a", Some("full"))], Status::Down, Some("a tier2: full")),
        ] {
            let health = stores_of(&members);
            assert_eq!((health.status, health.details.get("unready").map(String::as_str)), (status, unready));
        }
    }

    #[test]
    fn the_root_is_as_bad_as_its_worst_child() {
        let child = |name: &str, status| contributor(name, status, &[]);
        for (states, status, readiness) in [
            (vec![Status::Up, Status::Up], Status::Up, true),
            (vec![Status::Up, Status::Starting], Status::Starting, false),
            (vec![Status::Unknown, Status::Starting], Status::Unknown, false),
            (vec![Status::Unknown, Status::Down], Status::Down, false),
        ] {
            let children = (0..).zip(&states).map(|(n, status)| child(&format!("c{n}"), *status)).collect();
            let root = root(children, BTreeMap::new());
            assert_eq!((root.status, root.readiness, root.liveness), (status, readiness, true), "{states:?}");
        }
        let draining = root(vec![child("a", Status::Up)], [("service".to_owned(), "draining".to_owned())].into());
        assert_eq!((draining.status, draining.readiness), (Status::Up, false));
        assert_eq!(serde_json::to_value(Status::Starting).unwrap(), "STARTING");
    }
}
