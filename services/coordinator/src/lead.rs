//! What a leading coordinator does besides answering: it places containers, writes views and ends what was begun.

use std::time::Duration;

use actix::Addr;
use bus::{Bucket, Doors, Gatekeeper};
use host::{Host, Ledger};
use tokio_util::sync::CancellationToken;
use types::ContainerId;
use wire::{
    Problem, Service,
    coordinator::ContainerMoved,
    decode,
    views::{Member, Placement},
};

use crate::{
    actor::Desk,
    api,
    autoscale::watch::Watcher,
    commit::Commits,
    config::Config,
    library::doors::Librarian,
    metrics,
    retention::keep::Keeper,
    sighting::Sightings,
    state::{Command, Event, State},
    streams::Streams,
    views::Views,
};

/// How often the leader looks who is alive.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often the leader resumes what was begun and not ended.
const RESUME_INTERVAL: Duration = Duration::from_secs(1);

/// The condition of the probes that says why a leader does not serve.
pub(crate) const LEADING: &str = "leading";

/// Everything that leading needs.
#[derive(Clone)]
pub(crate) struct Leader {
    pub(crate) host: Host,
    pub(crate) config: Config,
    pub(crate) ledger: Ledger<State>,
    pub(crate) streams: Streams,
    pub(crate) views: Views,
    pub(crate) members: Bucket,
    pub(crate) desk: Addr<Desk>,
    pub(crate) keeper: Gatekeeper,
    pub(crate) rooms: Rooms,
}

/// What a leader does in the rooms beside streams.
#[derive(Clone)]
pub(crate) struct Rooms {
    pub(crate) commits: Commits,
    keeper: Keeper,
    watcher: Watcher,
    librarian: Librarian,
}

impl Rooms {
    pub(crate) fn new(host: &Host, ledger: &Ledger<State>, streams: &Streams) -> Self {
        let commits = Commits::new(host, ledger.clone(), streams.clone());
        let keeper = Keeper::new(host, ledger.clone(), streams.clone());
        let watcher = Watcher::new(host.bus.clone(), ledger.clone(), commits.clone());
        let librarian = Librarian::new(host, ledger.clone());
        Self { commits, keeper, watcher, librarian }
    }

    async fn work_for_ever(&self, config: &Config) {
        tokio::join!(
            self.commits.expire_for_ever(),
            self.keeper.keep_for_ever(config.retention_interval.0),
            self.watcher.watch_for_ever(config.autoscale_minute.0),
            self.librarian.collect_for_ever(config.library_delay.0),
        );
    }
}

impl Leader {
    /// Leads until the token is cancelled.
    pub(crate) async fn lead(self, token: CancellationToken) {
        host::keep_serving(token, Service::Coordinator, || self.try_to_serve()).await;
        // Whoever leads next says it of itself.
        self.host.condition(LEADING, None);
    }

    /// Tells the probes what keeps the leader from its work.
    async fn try_to_serve(&self) -> Result<(), Problem> {
        let ended = Box::pin(self.serve()).await;
        self.host.condition(LEADING, ended.as_ref().err().map(ToString::to_string));
        ended
    }

    /// Makes the views true, opens the doors and works for ever.
    async fn serve(&self) -> Result<(), Problem> {
        let container_count = u16::try_from(self.host.common.container_count).unwrap_or(u16::MAX);
        self.ledger.submit(Command::Install { container_count }).await?;
        let generation = self.ledger.submit(Command::Lead).await?.iter().find_map(|event| match event {
            Event::LeaderBegan { generation } => Some(*generation),
            _ => None,
        });
        let generation = generation.ok_or_else(|| Problem::internal("a leadership began without an event"))?;
        self.streams.stores().lead(generation);
        let changes = self.streams.show_all().await?;
        let doors =
            Doors::new(&self.host.bus, Service::Coordinator, &self.host.replica).with_outer(self.keeper.clone());
        let doors = api::open(&doors, &self.desk).await?;
        self.host.condition(LEADING, None);
        let streams = self.ledger.read(|state| state.live().count());
        tracing::info!(%generation, streams, "coordinator leads");
        tokio::join!(
            self.place_for_ever(),
            self.resume_for_ever(),
            self.streams.keep_shown(changes),
            self.streams.keep_wrapped(),
            self.rooms.work_for_ever(&self.config)
        );
        drop(doors);
        Ok(())
    }

    async fn resume_for_ever(&self) {
        loop {
            self.streams.resume().await;
            self.rooms.commits.resume().await;
            self.ledger.read(count);
            tokio::time::sleep(RESUME_INTERVAL).await;
        }
    }

    async fn place_for_ever(&self) {
        let mut sightings = Sightings::default();
        let mut shown = None;
        loop {
            if let Err(problem) = self.place(&mut sightings, &mut shown).await {
                tracing::warn!(%problem, "placement waits");
                sightings.forget();
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Looks once; `shown` is the version that the view has, as far as this leader knows.
    async fn place(&self, sightings: &mut Sightings, shown: &mut Option<u64>) -> Result<(), Problem> {
        let entries = self.members.list("segment-store.").await?;
        let entries = entries.into_iter().filter_map(|(_, entry)| {
            let member: Member = decode(&entry.value).ok()?;
            Some((entry.revision, member))
        });
        let now = self.host.clock.now();
        let stores = sightings.living(entries.collect(), now, self.config.member_timeout.0);
        metrics::STORES.set(stores.len());
        let rebalance_min_interval = self.config.rebalance_min_interval.0;
        // The view itself refuses a former leader's placement: its version is older.
        let events = self.ledger.submit_own(Command::Place { stores, rebalance_min_interval }).await?;
        let placement = self.ledger.read(State::placement);
        metrics::UNPLACED.set(usize::from(placement.container_count).saturating_sub(placement.assignments.len()));
        if *shown != Some(placement.version) {
            self.views.place(&placement).await?;
            *shown = Some(placement.version);
        }
        for event in &events {
            self.tell(event, &placement).await;
        }
        Ok(())
    }

    /// One notice for all moves of a decision: it carries the whole placement, and listeners listen to every container.
    async fn tell(&self, event: &Event, placement: &Placement) {
        let Event::ContainersPlaced(changes) = event else { return };
        metrics::PLACEMENTS.inc();
        metrics::PLACED.add(u64::try_from(changes.placed.len()).unwrap_or(u64::MAX));
        tracing::info!(
            version = placement.version,
            placed = changes.placed.len(),
            vacated = changes.vacated.len(),
            rebalanced = changes.rebalanced,
            "containers placed"
        );
        let first = changes.placed.first().map(|p| p.container).or_else(|| changes.vacated.first().copied());
        self.host.bus.tell::<ContainerMoved>(&first.unwrap_or(ContainerId(0)), placement).await;
    }
}

/// What there is.
fn count(state: &State) {
    let kept = || state.live().map(|stream| stream.graph().len());
    metrics::STREAMS.set(state.live().count());
    metrics::SEGMENTS.set(state.live().map(|stream| stream.graph().present().len()).sum::<usize>());
    metrics::SEGMENTS_KEPT.set(kept().sum::<usize>());
    metrics::SEGMENTS_KEPT_MOST.set(kept().max().unwrap_or(0));
    metrics::SCOPES.set(state.scopes(None).count());
    metrics::GROUPS.set(state.groups().count());
    metrics::ITEMS.set(state.library().count());
}
