//! The loop in which a leader remembers tail cuts and truncates streams by their policies.

use std::time::Duration;

use bus::Bus;
use futures::{StreamExt, stream};
use host::{Host, Ledger};
use types::{IndexName, StreamCut};
use wire::Problem;

use super::{Command, Measured, policy_of, tail};
use crate::{State, metrics, state::Command as StateCommand, streams::Streams};

/// Streams that are looked at at the same time: ten thousand idle ones take a few seconds of every interval.
const STREAMS_AT_ONCE: usize = 8;

/// How long a new leader waits at most before its first round: leaders that change more often than the interval must not starve it.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(60);

/// Keeps streams within their policies; only a leader uses it.
#[derive(Clone)]
pub(crate) struct Keeper {
    host: Host,
    bus: Bus,
    ledger: Ledger<State>,
    streams: Streams,
}

impl Keeper {
    pub(crate) fn new(host: &Host, ledger: Ledger<State>, streams: Streams) -> Self {
        Self { host: host.clone(), bus: host.bus.clone(), ledger, streams }
    }

    /// Looks at every stream with a policy, for ever.
    pub(crate) async fn keep_for_ever(&self, interval: Duration) {
        let mut pause = interval.min(FIRST_ROUND_MAX);
        loop {
            tokio::time::sleep(std::mem::replace(&mut pause, interval)).await;
            let with_policy = |state: &State| {
                let live = state.live().map(crate::Stream::summary).filter(|stream| policy_of(stream).is_some());
                live.map(|stream| stream.index.clone()).collect::<Vec<_>>()
            };
            let indexes = self.ledger.read(with_policy);
            let work = |index: IndexName| async move {
                let result = match self.keep(&index).await {
                    Ok(true) => "truncated",
                    Ok(false) => "kept",
                    Err(problem) => {
                        tracing::warn!(%index, %problem, "retention waits for its next round");
                        "failed"
                    }
                };
                metrics::RETAINED.with(result).inc();
            };
            stream::iter(indexes).for_each_concurrent(STREAMS_AT_ONCE, work).await;
        }
    }

    /// Looks at one stream, and says whether it was truncated. An idle one costs one call for each of its segments and no event.
    async fn keep(&self, index: &IndexName) -> Result<bool, Problem> {
        let places = self.ledger.read(|state| {
            let graph = state.live_stream(index)?.graph();
            Ok::<_, crate::CoordinatorError>(state.retention().to_measure(graph))
        })?;
        let measured = tail::measure(&self.bus, &places).await?;
        self.submit(Command::Record { index: index.clone(), measured: measured.clone() }).await?;
        let picked = self.pick(index, &measured);
        let (truncated, before) = (picked.is_some(), self.truncated_bytes(index));
        if let Some(cut) = picked {
            tracing::info!(%index, places = cut.0.len(), "stream is truncated by its policy");
            self.streams.truncate(index, cut).await?;
        }
        // Also when somebody else has truncated it.
        self.submit(Command::Forget { index: index.clone() }).await?;
        if truncated {
            metrics::RETAINED_BYTES.add(self.truncated_bytes(index).saturating_sub(before));
        }
        Ok(truncated)
    }

    fn truncated_bytes(&self, index: &IndexName) -> u64 {
        self.ledger.read(|state| {
            let stream = state.live_stream(index).map(|stream| stream.summary().stream);
            stream.map_or(0, |stream| state.retention().truncated_bytes(stream))
        })
    }

    fn pick(&self, index: &IndexName, measured: &[Measured]) -> Option<StreamCut> {
        let now = self.host.clock.now();
        self.ledger.read(|state| {
            let stream = state.live_stream(index).ok()?;
            let (graph, policy) = (stream.graph(), policy_of(stream.summary())?);
            let consumed = state.groups().lower_bound(index, graph);
            state.retention().pick((graph, policy), measured, consumed.as_ref(), now)
        })
    }

    async fn submit(&self, command: Command) -> Result<(), Problem> {
        self.ledger.submit_own(StateCommand::Retention(command)).await.map(drop)
    }
}
