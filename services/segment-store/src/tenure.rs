//! One tenure of a container: from the claim to the end, whichever comes: stop, or another owner.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bus::{BusError, ContainerLog, Doors, Gatekeeper, LogOptions};
use host::Host;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use types::{ContainerId, Generation};

use crate::{
    api,
    archives::Archives,
    container::{
        Container, Limits,
        adopt::Keeper,
        archive::Archivist,
        books::Phase,
        columns::Answers,
        load,
        outside::{Lender, Outside},
        owner::Owner,
        recovery::{Ended, claim, insist, restore},
        seeds::Peers,
        snapshots::Snapshots,
        tiering::Tiering,
    },
    crash,
    lane::{self, Title},
    metrics,
    queries::Queries,
    readiness::Readiness,
};

/// Recoveries at the same time: each holds a log read and a snapshot in memory.
const RECOVERIES_MAX: usize = 4;

/// The containers that this replica serves now; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Owned(Arc<RwLock<BTreeMap<ContainerId, Container>>>);

impl Owned {
    pub(crate) fn get(&self, container: ContainerId) -> Option<Container> {
        self.0.read().get(&container).cloned()
    }

    fn add(&self, container: Container) {
        self.0.write().insert(container.id, container);
        metrics::OWNED.set(self.0.read().len());
    }

    /// Removes this very tenure's container.
    fn remove(&self, container: &Container) {
        let mut owned = self.0.write();
        if owned.get(&container.id).is_some_and(|known| known.generation == container.generation) {
            owned.remove(&container.id);
        }
        metrics::OWNED.set(owned.len());
    }
}

/// What every tenure of this replica shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) host: Host,
    pub(crate) limits: Limits,
    pub(crate) doors: Doors,
    pub(crate) lanes: lane::Context,
    pub(crate) answers: Answers,
    pub(crate) lender: Lender,
    pub(crate) readiness: Readiness,
    archives: Archives,
    queries: Queries,
    recoveries: Arc<Semaphore>,
    /// The lanes of all tenures.
    open_lanes: TaskTracker,
}

impl Shared {
    pub(crate) fn new(
        host: Host,
        limits: Limits,
        lanes: lane::Context,
        keeper: Gatekeeper,
        (readiness, archives): (Readiness, Archives),
        queries: Queries,
    ) -> Self {
        let doors = Doors::new(&host.bus, host.service, &host.replica).with_outer(keeper);
        let lender = Lender::new(host.objects.clone());
        let recoveries = Arc::new(Semaphore::new(RECOVERIES_MAX));
        let (answers, open_lanes) = (Answers::new(), TaskTracker::new());
        Self { host, limits, doors, lanes, answers, lender, readiness, archives, queries, recoveries, open_lanes }
    }
}

/// A container that was recovered and waits to be served.
struct Ready {
    container: Container,
    owner: Owner,
    tiering: Tiering,
    title: Title,
}

/// Owns a container until it is told to stop or another owner takes over.
pub(crate) async fn run(shared: Shared, id: ContainerId, generation: Generation, stop: CancellationToken) -> Ended {
    let ready = match recover(&shared, id, generation, &stop).await {
        Ok(ready) => ready,
        Err(ended) => return ended,
    };
    serve(&shared, ready, stop).await
}

async fn recover(
    shared: &Shared,
    id: ContainerId,
    generation: Generation,
    stop: &CancellationToken,
) -> Result<Ready, Ended> {
    let host = &shared.host;
    let (clock, answers) = (host.clock.clone(), shared.answers.clone());
    let (container, queue) = Container::new((id, generation), host.replica.clone(), shared.limits, clock, answers);
    let options = LogOptions { replicas: host.common.journal_replicas, bytes_max: shared.limits.log_bytes_max };
    let log = open_log(shared, &container, options, stop).await?;
    // The only place that sets it: a tenure opens its log once.
    drop(container.log.set(log.clone()));
    // Only now: a container whose log has no room must not keep others waiting.
    let _permit = tokio::select! {
        () = stop.cancelled() => return Err(Ended::Stopped),
        permit = shared.recoveries.acquire() => permit,
    };
    let begun = Instant::now();
    let owner_seq = claim(&container, &log, &host.replica, stop).await?;
    crash::point("after_owner_record");
    let mut snapshots = Snapshots::new(host.objects.clone(), id);
    let snapshot_frame = restore(&container, &log, owner_seq, &mut snapshots, stop).await?;
    let (frames, events, damaged) = {
        let mut books = container.books.write();
        books.state.apply_owner(owner_seq, generation);
        if books.phase == Phase::Recovering {
            books.phase = Phase::Serving;
        }
        let events: u64 = books.state.segments.values().map(|s| s.end - s.tail_from).sum();
        (books.state.frame_number, events, matches!(books.phase, Phase::ReadOnly(_)))
    };
    metrics::RECOVERY_SECONDS.observe_duration(begun.elapsed());
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(container = %id, %generation, owner_seq, frames, tail_events = events, took_ms, damaged, "container recovered");
    let mut tiering = Tiering::new(container.clone(), log.clone(), host.clone(), snapshots);
    tiering.mark_restored(snapshot_frame);
    let owner =
        Owner { container: container.clone(), log: log.clone(), replica: host.replica.clone(), queue, owner_seq };
    Ok(Ready { container, owner, tiering, title: Title { container: id, generation, owner_seq, log } })
}

/// Opens the log; while there is no room for it the replica is not ready, and says why.
async fn open_log(
    shared: &Shared,
    container: &Container,
    options: LogOptions,
    stop: &CancellationToken,
) -> Result<ContainerLog, Ended> {
    let attempt = || async {
        let opened = shared.host.bus.container_log(container.id, options).await;
        let no_room = match &opened {
            Err(error @ BusError::NoRoom { .. }) => Some(format!(
                "{error}; free disk space of the NATS servers or raise their max_file_store, or lower segment_store.tail_bytes_max"
            )),
            _ => None,
        };
        shared.readiness.no_room(container.id, no_room);
        opened
    };
    insist(stop, "open log", container, attempt).await
}

async fn serve(shared: &Shared, ready: Ready, stop: CancellationToken) -> Ended {
    let Ready { container, owner, mut tiering, title } = ready;
    let (halt, lane_stop) = (CancellationToken::new(), CancellationToken::new());
    let mut owner = tokio::spawn(owner.serve(halt.clone()));
    let tiering = {
        let halt = halt.clone();
        tokio::spawn(async move {
            tiering.run(halt).await;
            tiering
        })
    };
    let loads = {
        let (halt, bus, every) = (halt.clone(), shared.host.bus.clone(), container.limits.load_interval);
        let telling = load::tell(container.clone(), bus, every);
        tokio::spawn(async move { halt.run_until_cancelled(telling).await })
    };
    let archivist = {
        let (halt, archives) = (halt.clone(), shared.archives.clone());
        let copying = Archivist::new(container.clone(), shared.host.clone(), archives).run();
        tokio::spawn(async move { halt.run_until_cancelled(copying).await })
    };
    let peers = Peers { bus: shared.host.bus.clone() };
    let keeper = Keeper::new(container.clone(), shared.host.clone());
    let outside = Outside { lender: shared.lender.clone(), quotas: shared.lanes.quotas.clone() };
    let opening = || api::open(&shared.doors, &container, &peers, &keeper, (&outside, &shared.queries));
    let doors = insist(&stop, "open doors", &container, opening).await.unwrap_or_default();
    shared.lanes.owned.add(container.clone());
    shared.readiness.served(container.id);
    let mut lane = shared.open_lanes.spawn(lane::serve(shared.lanes.clone(), title, lane_stop.clone()));
    let mut lane_open = true;
    let fenced = tokio::select! {
        biased;
        ended = &mut owner => Some(joined(ended)),
        // A lane ends by itself only when it has seen the record of another owner.
        done = &mut lane => {
            joined(done);
            lane_open = false;
            Some(Ended::Superseded)
        }
        () = stop.cancelled() => None,
    };
    if fenced.is_some() {
        // Nothing here is true any more: whoever asks must ask the new owner.
        container.close();
    }
    container.drain();
    lane_stop.cancel();
    if lane_open {
        joined(lane.await);
    }
    if shared.host.stop.is_cancelled() {
        // The other lanes of this replica may still append here.
        shared.open_lanes.close();
        let all = tokio::time::timeout(lane::DRAIN_WITHIN, shared.open_lanes.wait()).await;
        all.unwrap_or_else(|_| warn!(container = %container.id, "container closed before all lanes were"));
    }
    shared.lanes.owned.remove(&container);
    api::close(doors).await;
    halt.cancel();
    let ended = match fenced {
        Some(ended) => ended,
        None => joined(owner.await),
    };
    joined(loads.await);
    joined(archivist.await);
    metrics::ARCHIVE_LAG_BYTES.with(&container.id.to_string()).set(0);
    let mut tiering = joined(tiering.await);
    if ended == Ended::Stopped
        && let Err(error) = tiering.snapshot().await
    {
        warn!(container = %container.id, %error, "last snapshot not written, the next owner replays instead");
    }
    container.close();
    info!(container = %container.id, generation = %container.generation, ?ended, "container given up");
    ended
}

/// A task of ours ends by returning; a panic goes on here.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> T {
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
