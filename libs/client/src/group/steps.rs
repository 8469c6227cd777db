//! What a reader does beside reading: passes checkpoints, finishes segments, keeps its share, tells where it is.

use bus::SystemClock;
use tokio::time::Instant;
use tracing::{info, warn};
use types::{Clock, SegmentId};
use wire::{Code, Problem};

use super::{Delivered, GroupReader, checkpoint::Kind, spoken_since, state::Share};
use crate::cut::Follows;

impl GroupReader {
    /// Does what is due. A checkpoint comes first: until it is passed nothing else changes.
    pub(super) async fn maintain(&mut self) -> Result<(), Problem> {
        while let Some((number, kind, name)) =
            self.state()?.pending(&self.seat).map(|c| (c.number, c.kind, c.name.clone()))
        {
            if kind == Kind::Silent {
                self.pass(number).await?;
            } else {
                if self.handed_out.is_none() {
                    self.handed_out = Some(number);
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

    async fn report_consumed(&self, number: u64) {
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

    /// Finds what follows the segments that were read to their ends.
    async fn finish_segments(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        let due: Vec<SegmentId> = self.ended.iter().filter(|(_, e)| e.ask_at <= now).map(|(s, _)| *s).collect();
        for segment in due {
            let (Some(index), Some(ended)) = (self.state()?.index(segment).cloned(), self.ended.get_mut(&segment))
            else {
                continue;
            };
            let at = ended.at;
            ended.later();
            let bounded = self.state()?.end(segment).is_some();
            let follows = if bounded { Follows::Nothing } else { self.group.client.follows(&index, segment).await? };
            let successors = match follows {
                Follows::Segments(successors) => successors,
                Follows::Nothing => Vec::new(),
                Follows::NotYet => continue,
                Follows::Gone => {
                    if let Some(ended) = self.ended.remove(&segment) {
                        self.truncated.insert(segment, ended);
                    }
                    continue;
                }
            };
            let seat = self.seat.clone();
            let done = self.change(|state| {
                state.complete(&seat, segment, at, &successors)?;
                state.acquire(&seat)
            });
            match done.await {
                // It is tried again: a checkpoint has to be passed first, or others have to finish segments.
                Err(problem) if problem.kind == "CheckpointFirst" || problem.kind == "TooManySegments" => {
                    info!(%segment, %problem, "segment finished later");
                }
                // Somebody truncated it away meanwhile.
                Err(problem) if problem.kind == "NotHeld" => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Goes on at the head of a stream of which events are gone.
    async fn skip_truncated(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        let due: Vec<SegmentId> = self.truncated.iter().filter(|(_, t)| t.ask_at <= now).map(|(s, _)| *s).collect();
        for segment in due {
            let Some(index) = self.state()?.index(segment).cloned() else { continue };
            if let Some(truncated) = self.truncated.get_mut(&segment) {
                truncated.later();
            }
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
        self.change(|state| {
            let now = SystemClock.now();
            state.report(&seat, &positions, now)?;
            for silent in timeout.map(|timeout| state.silent_since(spoken_since(timeout))).unwrap_or_default() {
                warn!(reader = %silent, "reader is silent and declared offline");
                state.offline(&silent, None);
            }
            state.begin_automatic(now);
            Ok(())
        })
        .await
    }
}
