//! What becomes of a checkpoint of which every task has given its part: it is committed, told, kept, and the older ones go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flow::TaskId;
use tracing::{info, warn};
use types::{Clock, StreamCut};
use wire::{
    job_manager::{PartRef, Savepoint, SavepointName, SourceCut},
    task_worker::{BarrierKind, Commit, CommitCheckpoint},
};

use super::{
    Driver, End,
    attempt::{Part, Running},
    workers_of,
};
use crate::{
    manifest,
    metrics::CHECKPOINTS_COMPLETED,
    state::{Checkpoint, Command},
};

/// How long a worker is told that a checkpoint is committed; the next one tells it again.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

impl Driver {
    fn checkpoint(&self, running: &Running<'_>, permit: &flow::CommitPermit<Part>) -> Checkpoint {
        let mut cut = StreamCut::default();
        let mut parts: Vec<(TaskId, PartRef)> = Vec::new();
        let (mut cuts, mut blocks) = (BTreeMap::new(), BTreeSet::new());
        for (task, part) in permit.parts() {
            cut.0.extend(part.cut.0.iter().map(|(s, o)| (*s, *o)));
            if let Some((_, index)) = running.indexes.iter().find(|(vertex, _)| *vertex == task.vertex) {
                let none = || SourceCut::Index { index: index.clone(), cut: StreamCut::default() };
                if let SourceCut::Index { cut, .. } = cuts.entry(task.vertex).or_insert_with(none) {
                    cut.0.extend(part.cut.0.iter().map(|(s, o)| (*s, *o)));
                }
            }
            if !part.splits.is_empty() {
                let entry = cuts.entry(task.vertex).or_insert_with(|| SourceCut::Splits(BTreeMap::new()));
                if let SourceCut::Splits(splits) = entry {
                    splits.extend(part.splits.clone());
                }
            }
            blocks.extend(part.blocks.iter().cloned());
            parts.extend(part.part.clone().map(|p| (*task, p)));
        }
        let uids = (0u32..).zip(&running.execution.graph.vertices).map(|(n, vertex)| (n, vertex.uid.clone())).collect();
        Checkpoint { number: permit.epoch(), parts, cut, cuts, blocks: blocks.into_iter().collect(), uids }
    }

    /// Manifest first, then the journal: what the journal names is complete in storage.
    pub(super) async fn commit(&self, running: &mut Running<'_>, permit: flow::CommitPermit<Part>) -> Result<(), End> {
        let checkpoint = self.checkpoint(running, &permit);
        let place = manifest::Place { job: &self.job, submission: running.submission };
        if let Err(error) = manifest::store(&self.objects, place, &checkpoint).await {
            running.checkpoints.abort(permit.epoch(), bus::SystemClock.now());
            return self.lost(running, &format!("its manifest could not be stored: {error}"));
        }
        let (number, bytes, cuts) = (checkpoint.number, checkpoint.bytes(), checkpoint.cuts.clone());
        running.blocks.insert(number, checkpoint.blocks.clone());
        let (job, attempt, began) = (self.job.clone(), running.execution.attempt, running.began);
        if let Err(problem) = self.ledger.submit(Command::Complete { job, attempt, checkpoint, began }).await {
            warn!(job = %self.job, %problem, "checkpoint not recorded");
            return Err(End::Over);
        }
        let now = bus::SystemClock.now();
        running.checkpoints.committed(permit, now);
        running.quiet_since = Some(now);
        CHECKPOINTS_COMPLETED.inc();
        self.board.lock().complete(number);
        let named = running.named.take();
        if let Some(wish) = named {
            self.wishes.lock().remove(&wish);
            let name = if wish.is_empty() { number.to_string() } else { wish };
            let name = SavepointName { job: self.job.clone(), name };
            let manifest = manifest::key(place, number);
            let savepoint = Savepoint { name, checkpoint: number, taken: now, bytes, manifest };
            if let Err(problem) = self.ledger.submit(Command::Keep(savepoint)).await {
                warn!(job = %self.job, %problem, "savepoint not recorded");
                return Err(End::Over);
            }
        }
        self.tell_commit(running, number);
        if matches!(running.kind, BarrierKind::Stop | BarrierKind::Drain) {
            return Err(End::Stopped);
        }
        self.clean(running, number);
        if running.ended { self.look_ahead(&cuts).await } else { Ok(()) }
    }

    /// Tells the workers of an attempt that a checkpoint is committed, beside everything else; one that does not hear it learns it with
    /// the next one, or with its next deployment.
    pub(super) fn tell_commit(&self, running: &Running<'_>, checkpoint: u64) {
        let commit = Commit {
            job: self.job.clone(),
            attempt: running.execution.attempt,
            submission: running.submission,
            checkpoint,
        };
        for worker in workers_of(running.execution) {
            let (bus, commit) = (self.bus.clone(), commit.clone());
            drop(tokio::spawn(async move {
                match bus.call_within::<CommitCheckpoint>(&worker, &commit, COMMIT_WITHIN).await {
                    Ok(_) => {}
                    Err(problem) => tracing::debug!(%worker, %problem, "commit not taken"),
                }
            }));
        }
    }

    /// Removes what is older than the last checkpoint and not kept, unless that is still being done.
    fn clean(&self, running: &mut Running<'_>, number: u64) {
        if running.is_cleaning() {
            return;
        }
        let place = manifest::Place { job: &self.job, submission: running.submission };
        let (wanted, folder) = (usize::from(self.config.checkpoints_kept), place.prefix());
        let keep = self.ledger.read(|state| {
            let kept = state.live(&self.job).map(|job| job.kept(wanted))?;
            Some(kept.into_iter().chain(state.pinned(&folder)).collect::<BTreeSet<u64>>())
        });
        let Some(keep) = keep else { return };
        running.blocks.retain(|number, _| keep.contains(number));
        let known = running.blocks.clone();
        // Without blocks there is nothing to find out.
        let has_blocks = known.values().any(|blocks| !blocks.is_empty());
        let (objects, job, submission) = (self.objects.clone(), self.job.clone(), running.submission);
        running.cleaning = Some(tokio::spawn(async move {
            let place = manifest::Place { job: &job, submission };
            manifest::forget(&objects, place, number, &keep).await;
            if !has_blocks {
                return;
            }
            let mut named: BTreeSet<String> = known.values().flatten().cloned().collect();
            for number in keep.iter().filter(|number| !known.contains_key(number)) {
                match manifest::load(&objects, &manifest::key(place, *number)).await {
                    Ok(checkpoint) => named.extend(checkpoint.blocks),
                    // Better too much stays than too little.
                    Err(problem) => return info!(%job, number, %problem, "manifest not read; no block is removed"),
                }
            }
            manifest::forget_blocks(&objects, place, &named).await;
        }));
    }

    /// Ends the attempt if there are segments behind a complete checkpoint; else the next checkpoint looks again.
    async fn look_ahead(&self, cuts: &BTreeMap<u32, SourceCut>) -> Result<(), End> {
        for read in cuts.values() {
            let SourceCut::Index { index, cut } = read else { continue };
            match self.client.advance(index, cut).await {
                Ok(advanced) if advanced.0.keys().any(|segment| !cut.0.contains_key(segment)) => {
                    return Err(End::Anew(format!(
                        "index {index} was scaled: the job goes on with the successors of its segments"
                    )));
                }
                Ok(_) => {}
                Err(problem) => {
                    info!(job = %self.job, %index, %problem, "what follows the segments of a source is not known");
                }
            }
        }
        Ok(())
    }
}
