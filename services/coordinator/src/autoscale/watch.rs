//! The loop in which a leader listens to loads and scales streams by their policies.

use std::time::Duration;

use bus::Bus;
use futures::{StreamExt, stream};
use host::Ledger;
use tokio::time::{Instant, MissedTickBehavior, interval};
use types::Timestamp;
use wire::{
    Problem,
    coordinator::{Scale, ScalingPolicy},
    segment_store::ContainerLoaded,
};

use super::{Autoscaler, Scaled};
use crate::{State, commit::Commits, metrics};

/// Looks per minute.
const LOOKS_PER_MINUTE: u32 = 6;

/// Scales in flight; a look whose scales have not ended delays the next.
const SCALES_IN_FLIGHT_MAX: usize = 4;

/// Pause before loads are listened to again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Scales streams by their policies; only a leader uses it.
#[derive(Clone)]
pub(crate) struct Watcher {
    bus: Bus,
    ledger: Ledger<State>,
    commits: Commits,
}

impl Watcher {
    pub(crate) fn new(bus: Bus, ledger: Ledger<State>, commits: Commits) -> Self {
        Self { bus, ledger, commits }
    }

    /// Listens and decides, for ever; `minute` is how long a minute of the rules lasts.
    pub(crate) async fn watch_for_ever(&self, minute: Duration) {
        loop {
            if let Err(problem) = self.watch(minute).await {
                tracing::warn!(%problem, "loads are not heard for the moment");
            }
            tokio::time::sleep(LISTEN_PAUSE).await;
        }
    }

    async fn watch(&self, minute: Duration) -> Result<(), Problem> {
        let mut loads = self.bus.listen::<ContainerLoaded>().await?;
        // Rates need a clock that never jumps; which instant it calls zero does not matter.
        let begun = Instant::now();
        let clock = || Timestamp::default() + begun.elapsed();
        let mut autoscaler = Autoscaler::new(minute);
        let mut look = interval(minute / LOOKS_PER_MINUTE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                load = loads.next() => match load {
                    Some(load) => autoscaler.take(&load, clock()),
                    None => return Ok(()),
                },
                _ = look.tick() => {
                    let streams = self.scaled();
                    metrics::UNWATCHED.set(autoscaler.watch(&streams, clock()));
                    metrics::WATCHED.set(autoscaler.watched_count());
                    let scales = autoscaler.decide(&streams, clock());
                    stream::iter(scales).for_each_concurrent(SCALES_IN_FLIGHT_MAX, |scale| self.scale(scale)).await;
                }
            }
        }
    }

    fn scaled(&self) -> Vec<Scaled> {
        self.ledger.read(|state| {
            let scaled = state.live().filter(|stream| stream.summary().scaling != ScalingPolicy::Fixed);
            let scaled = scaled.filter(|stream| !stream.is_ending()).map(|stream| Scaled {
                index: stream.summary().index.clone(),
                policy: stream.summary().scaling,
                present: stream.graph().present().copied().collect(),
            });
            scaled.collect()
        })
    }

    /// A scale that fails is decided anew when the segments are no longer left alone.
    async fn scale(&self, scale: Scale) {
        let (index, ended, begun) = (scale.index.clone(), scale.seal.len(), scale.ranges.len());
        match self.commits.scale(scale).await {
            Ok(stream) => {
                metrics::AUTOSCALES.with("done").inc();
                tracing::info!(%index, ended, begun, epoch = stream.epoch, "stream scaled by its policy");
            }
            Err(problem) => {
                metrics::AUTOSCALES.with("failed").inc();
                tracing::warn!(%index, ended, begun, %problem, "stream is not scaled by its policy");
            }
        }
    }
}
