//! What a leading coordinator does besides answering: it places containers, writes views and ends what was begun.

use std::time::Duration;

use actix::Addr;
use bus::Bucket;
use host::{Host, Ledger};
use tokio_util::sync::CancellationToken;
use types::ContainerId;
use wire::{
    Problem,
    coordinator::ContainerMoved,
    decode,
    views::{Member, Placement},
};

use crate::{
    actor::Desk,
    api,
    config::Config,
    metrics,
    sighting::Sightings,
    state::{Command, Event, State},
    streams::Streams,
    views::Views,
};

/// How often the leader looks who is alive.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often the leader resumes what was begun and not ended.
const RESUME_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after a failed attempt to take up the work.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

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
}

impl Leader {
    /// Leads until the token is cancelled.
    pub(crate) async fn lead(self, token: CancellationToken) {
        let work = async {
            loop {
                if let Err(problem) = self.serve().await {
                    tracing::error!(%problem, "coordinator cannot take up its work");
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = work => {}
        }
    }

    /// Makes the views true, opens the doors and works for ever.
    async fn serve(&self) -> Result<(), Problem> {
        let container_count = u16::try_from(self.host.common.container_count).unwrap_or(u16::MAX);
        self.ledger.submit(Command::Install { container_count }).await?;
        let live: Vec<_> = self.ledger.read(|state| state.live().cloned().collect());
        self.views.rewrite(&live).await?;
        let doors = api::open(&self.host.bus, &self.host.replica, &self.desk).await?;
        tracing::info!(streams = live.len(), "coordinator leads");
        tokio::join!(self.place_for_ever(), self.resume_for_ever());
        drop(doors);
        Ok(())
    }

    async fn resume_for_ever(&self) {
        loop {
            self.streams.resume().await;
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
        let events = self.ledger.submit(Command::Place { stores, rebalance_min_interval }).await?;
        let placement = self.ledger.read(State::placement);
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
