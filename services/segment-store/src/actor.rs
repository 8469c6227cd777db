//! The actor: which containers this replica owns, by the placement that the coordinator publishes.
//!
//! Control plane only: it starts and stops tenures. Events never pass its mailbox.

use std::collections::BTreeMap;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use bus::{Bucket, Change};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use types::{ContainerId, Generation};
use wire::views::{PLACEMENT_KEY, Placement};

use crate::{
    container::recovery::Ended,
    tenure::{self, Shared},
};

/// The placement changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Placed(pub(crate) Placement);

/// A tenure ended.
#[derive(Message)]
#[rtype(result = "()")]
struct TenureEnded {
    container: ContainerId,
    generation: Generation,
    ended: Ended,
}

/// Starts and stops tenures.
pub(crate) struct Store {
    shared: Shared,
    tenures: TaskTracker,
    wanted: BTreeMap<ContainerId, Generation>,
    running: BTreeMap<ContainerId, (Generation, CancellationToken)>,
    /// The generation with which a container was lost: only a later one may try again.
    lost: BTreeMap<ContainerId, Generation>,
    version: u64,
}

impl Store {
    /// Owns nothing yet; `tenures` is waited for by the drain.
    pub(crate) fn new(shared: Shared, tenures: TaskTracker) -> Self {
        let (wanted, running, lost) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { shared, tenures, wanted, running, lost, version: 0 }
    }

    /// Makes what runs what is wanted; a tenure with another generation ends before the new one begins.
    fn settle(&mut self, context: &mut Context<Self>) {
        for (container, (generation, stop)) in &self.running {
            if self.wanted.get(container) != Some(generation) {
                stop.cancel();
            }
        }
        let wanted: Vec<_> = self.wanted.iter().map(|(c, g)| (*c, *g)).collect();
        for (container, generation) in wanted {
            let lost = self.lost.get(&container).is_some_and(|lost| *lost >= generation);
            if lost || self.running.contains_key(&container) || self.shared.host.stop.is_cancelled() {
                continue;
            }
            self.begin(container, generation, context);
        }
    }

    fn begin(&mut self, container: ContainerId, generation: Generation, context: &mut Context<Self>) {
        let stop = self.shared.host.stop.child_token();
        self.running.insert(container, (generation, stop.clone()));
        let (shared, store) = (self.shared.clone(), context.address());
        let task = self.tenures.track_future(async move {
            let ended = tenure::run(shared, container, generation, stop).await;
            // The actor is gone only when the whole service is.
            store.send(TenureEnded { container, generation, ended }).await.ok();
        });
        self.shared.host.spawn("tenure", task);
    }
}

impl Actor for Store {
    type Context = Context<Self>;
}

impl Handler<Placed> for Store {
    type Result = ();

    fn handle(&mut self, Placed(placement): Placed, context: &mut Context<Self>) {
        if placement.version < self.version {
            warn!(version = placement.version, known = self.version, "placement older than the known one ignored");
            return;
        }
        self.version = placement.version;
        let count = u32::from(placement.container_count);
        if count != self.shared.host.common.container_count {
            let ours = self.shared.host.common.container_count;
            warn!(theirs = count, ours, "placement has another container count than common.container_count");
        }
        let replica = &self.shared.host.replica;
        let mine = placement.assignments.iter().filter(|a| a.replica == *replica);
        self.wanted = mine.map(|a| (a.container, a.generation)).collect();
        self.shared.readiness.assigned(self.wanted.keys().copied(), !placement.assignments.is_empty());
        info!(version = placement.version, containers = self.wanted.len(), "placement received");
        self.settle(context);
    }
}

impl Handler<TenureEnded> for Store {
    type Result = ();

    fn handle(&mut self, message: TenureEnded, context: &mut Context<Self>) {
        let TenureEnded { container, generation, ended } = message;
        self.running.remove(&container);
        self.shared.readiness.ended(container);
        if ended == Ended::Superseded {
            self.lost.insert(container, generation);
        }
        self.settle(context);
    }
}

/// Tells the actor every placement, for ever.
pub(crate) async fn follow_placement(views: Bucket, store: actix::Addr<Store>) {
    let mut watch = views.watch(PLACEMENT_KEY);
    loop {
        let Change::Key { key, entry: Some(entry) } = watch.next().await else { continue };
        if key != PLACEMENT_KEY {
            continue;
        }
        match wire::decode::<Placement>(&entry.value) {
            Ok(placement) => {
                if store.send(Placed(placement)).await.is_err() {
                    return;
                }
            }
            Err(problem) => warn!(%problem, "placement cannot be read, the last one stays"),
        }
    }
}
