//! What a reader does beside reading: passes checkpoints, finishes segments, keeps its share, tells where it is.

use std::time::Duration;

use bus::SystemClock;
use tokio::time::Instant;
use tracing::{info, warn};
use types::{Clock, SegmentId};
use wire::{Code, Problem};

use super::{Delivered, GroupReader, checkpoint::Kind, state::Share};

/// The pause before a segment is finished that could not be: others have to finish theirs, or to pass a checkpoint.
const FINISH_AGAIN: Duration = Duration::from_millis(500);
/// The pause before the head of a stream is looked for again.
const HEAD_AGAIN: Duration = Duration::from_millis(500);

impl GroupReader {
    /// Does what is due. A checkpoint comes first: until it is passed nothing else changes.
    pub(super) async fn maintain(&mut self) -> Result<(), Problem> {
        while let Some((number, kind, name)) =
            self.state()?.pending(&self.seat).map(|c| (c.number, c.kind, c.name.clone()))
        {
            if kind == Kind::Silent {
                self.pass(number).await?;
            } else {
                if self.offered.is_none() {
                    self.offered = Some(number);
                    self.deliver(Delivered::Checkpoint(name));
                }
                return Ok(());
            }
        }
        self.finish_segments().await?;
        self.skip_truncated().await?;
        if self.balance_at.is_some_and(|at| Instant::now() >= at) {
            self.balance().await?;
        }
        if self.is_refresh_due() {
            self.refresh().await?;
        }
        if self.state()?.is_finished() {
            self.end();
        }
        Ok(())
    }

    /// Passes a checkpoint where this reader is; whoever is the last tells what was consumed.
    pub(super) async fn pass(&mut self, number: u64) -> Result<(), Problem> {
        let (seat, positions) = (self.seat.clone(), self.positions.clone());
        self.change(|state| state.pass(&seat, number, &positions, SystemClock.now())).await?;
        self.report_consumed(number).await;
        Ok(())
    }

    // Not `&self`: a reader may move between threads, but must not be looked at from two at once.
    async fn report_consumed(&mut self, number: u64) {
        let Ok(state) = self.state() else { return };
        let Some((last, _, cuts)) = state.last_completed().filter(|_| state.reports) else { return };
        if last != number {
            return;
        }
        // The next checkpoint says it again: until then retention only keeps more than it must.
        if let Err(problem) = self.group.report(&cuts).await {
            let group = &self.group.description.config.group;
            warn!(%group, %problem, "consumed cuts of a reader group not reported");
        }
    }

    /// Says which segments were read to their ends, and takes from what follows.
    async fn finish_segments(&mut self) -> Result<(), Problem> {
        if self.finish_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.finish_at = None;
        let ended: Vec<SegmentId> = self.ended.keys().copied().collect();
        for segment in ended {
            let Some((at, successors)) = self.ended.get(&segment).cloned() else { continue };
            let seat = self.seat.clone();
            let done = self.change(|state| {
                state.complete(&seat, segment, at, &successors)?;
                state.acquire(&seat)
            });
            match done.await {
                Err(problem) if problem.kind == "CheckpointFirst" || problem.kind == "TooManySegments" => {
                    info!(%segment, %problem, "segment finished later");
                    self.finish_at = Some(Instant::now() + FINISH_AGAIN);
                }
                // Somebody truncated it away meanwhile.
                Err(problem) if problem.kind == "NotHeld" => drop(self.ended.remove(&segment)),
                done => done?,
            }
        }
        Ok(())
    }

    /// Goes on at the head of a stream of which events are gone.
    async fn skip_truncated(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        let due: Vec<SegmentId> = self.truncated.iter().filter(|(_, at)| **at <= now).map(|(s, _)| *s).collect();
        for segment in due {
            let Some(index) = self.state()?.index(segment).cloned() else { continue };
            self.truncated.insert(segment, Instant::now() + HEAD_AGAIN);
            let client = self.group.client.clone();
            let (mut head, graph) = (client.heads(&index).await?, client.graph(&index).await?);
            // The store may have truncated what the coordinator is about to tell.
            if let (Ok(place), Some(offset)) = (graph.place(segment), head.0.get_mut(&segment)) {
                match client.describe_place(place).await {
                    Ok(info) => *offset = (*offset).max(info.start),
                    Err(problem) if problem.code == Code::NotFound => {}
                    Err(problem) => return Err(problem),
                }
            }
            self.change(|state| state.rebase(segment.stream, &graph, &head).map(|_| ())).await?;
            if !self.positions.contains_key(&segment) {
                self.truncated.remove(&segment);
                let resumes = self.state()?.cut(segment.stream);
                self.deliver(Delivered::Truncated { index, resumes });
            }
        }
        Ok(())
    }

    /// Takes what is this reader's share, or gives away what is above it.
    async fn balance(&mut self) -> Result<(), Problem> {
        self.balance_at = None;
        let (seat, positions) = (self.seat.clone(), self.positions.clone());
        let changed = self.change(|state| match state.share(&seat.reader) {
            Share::Take(_) => state.acquire(&seat),
            Share::Give(_) => state.release(&seat, &positions, SystemClock.now()),
            Share::Fair => Ok(()),
        });
        match changed.await {
            // A checkpoint began meanwhile: it is handed out first.
            Err(problem) if problem.kind == "CheckpointFirst" => Ok(()),
            done => done,
        }
    }

    /// Tells where this reader is and that it lives.
    async fn refresh(&mut self) -> Result<(), Problem> {
        let (seat, positions, timeout) = (self.seat.clone(), self.positions.clone(), self.reader_timeout());
        let mut heard = std::mem::take(&mut self.heard);
        let refreshed = self
            .change(|state| {
                let now = SystemClock.now();
                state.report(&seat, &positions, now)?;
                if let Some(timeout) = timeout {
                    // What is changed is what is there now: who spoke while this reader did not listen has said something else.
                    for silent in heard.look(state.last_seen(), timeout, Instant::now()) {
                        if silent != seat.reader {
                            warn!(reader = %silent, "reader is silent and declared offline");
                            state.offline(&silent, None);
                        }
                    }
                }
                state.begin_automatic(now);
                Ok(())
            })
            .await;
        self.heard = heard;
        refreshed
    }
}
