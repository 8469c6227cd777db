//! The coordinator's view of a job's checkpoints: which may begin, which are complete, which are lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use types::Timestamp;

use crate::TaskId;

/// When checkpoints begin and when they are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointLimits {
    /// The least time between the end of one checkpoint and the start of the next.
    pub pause: Duration,
    /// How long a checkpoint may take before it is given up.
    pub timeout: Duration,
}

impl Default for CheckpointLimits {
    /// A pause of 1 s and a timeout of 60 s.
    fn default() -> Self {
        Self { pause: Duration::from_secs(1), timeout: Duration::from_secs(60) }
    }
}

/// Why a checkpoint does not begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One is being taken or committed.
    #[error("checkpoint {epoch} is still being taken")]
    InProgress {
        /// Its epoch.
        epoch: u64,
    },
    /// The last one ended too recently.
    #[error("the last checkpoint ended less than the pause ago")]
    TooSoon,
    /// The epoch is not newer than every epoch used so far.
    #[error("epoch {epoch} is not newer than {last}: epochs only grow")]
    OldEpoch {
        /// The epoch asked for.
        epoch: u64,
        /// The newest epoch so far.
        last: u64,
    },
    /// The job has no tasks.
    #[error("the job has no tasks to checkpoint")]
    NoTasks,
}

/// Why a checkpoint was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It took longer than the limit.
    #[error("checkpoint {epoch} timed out; {} tasks have not acknowledged, first {}", missing.len(), missing.first().map(TaskId::to_string).unwrap_or_default())]
    TimedOut {
        /// Its epoch.
        epoch: u64,
        /// The tasks that were awaited.
        missing: Vec<TaskId>,
    },
    /// A task could not take its snapshot, or the job is restarting.
    #[error("checkpoint {epoch} was given up")]
    Aborted {
        /// Its epoch.
        epoch: u64,
    },
}

/// The answer to an acknowledgement.
#[derive(Debug, PartialEq)]
pub enum Ack<P> {
    /// Others are still awaited.
    Waiting {
        /// How many.
        missing: usize,
    },
    /// It was the last one: write the manifest, put-if-absent, then [`Checkpoints::committed`].
    Complete(CommitPermit<P>),
    /// It belongs to no running checkpoint, or was told before; its part is garbage unless it was told before.
    Stale,
}

/// The right to commit one complete checkpoint; only [`Checkpoints`] makes one, once per epoch, with every part.
///
/// It cannot be cloned or built elsewhere, so a half-finished or repeated commit does not compile.
#[derive(Debug, PartialEq)]
#[must_use = "a complete checkpoint that is not committed holds all later ones back"]
pub struct CommitPermit<P> {
    epoch: u64,
    parts: BTreeMap<TaskId, P>,
}

impl<P> CommitPermit<P> {
    /// The epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// One part per task of the job.
    pub fn parts(&self) -> &BTreeMap<TaskId, P> {
        &self.parts
    }
}

#[derive(Debug, Clone)]
enum Phase<P> {
    Quiet { since: Option<Timestamp> },
    Taking { epoch: u64, began: Timestamp, parts: BTreeMap<TaskId, P> },
    Committing { epoch: u64 },
}

/// The checkpoints of one attempt of one job; at most one is in progress.
///
/// Pure: it holds no clock and stores nothing. `P` is what a task reports: where its part lies and what it holds.
#[derive(Debug, Clone)]
pub struct Checkpoints<P> {
    tasks: BTreeSet<TaskId>,
    finished: BTreeMap<TaskId, P>,
    limits: CheckpointLimits,
    phase: Phase<P>,
    newest: u64,
    completed: Option<u64>,
    failures: u32,
}

impl<P: Clone> Checkpoints<P> {
    /// Watches the tasks of one attempt; `restored_epoch` is the checkpoint it started from, 0 for none.
    pub fn new(tasks: impl IntoIterator<Item = TaskId>, limits: CheckpointLimits, restored_epoch: u64) -> Self {
        Self {
            tasks: tasks.into_iter().collect(),
            finished: BTreeMap::new(),
            limits,
            phase: Phase::Quiet { since: None },
            newest: restored_epoch,
            completed: (restored_epoch > 0).then_some(restored_epoch),
            failures: 0,
        }
    }

    /// The epoch to trigger next.
    pub fn next_epoch(&self) -> u64 {
        self.newest + 1
    }

    /// Begins a checkpoint; if granted, inject the barrier of that epoch at every source task.
    pub fn trigger(&mut self, epoch: u64, now: Timestamp) -> Result<(), Refused> {
        match &self.phase {
            Phase::Taking { epoch, .. } | Phase::Committing { epoch } => {
                return Err(Refused::InProgress { epoch: *epoch });
            }
            Phase::Quiet { since: Some(since) } if now.since(*since) < self.limits.pause => {
                return Err(Refused::TooSoon);
            }
            Phase::Quiet { .. } => {}
        }
        if epoch <= self.newest {
            return Err(Refused::OldEpoch { epoch, last: self.newest });
        }
        if self.tasks.len() == self.finished.len() {
            return Err(Refused::NoTasks);
        }
        self.newest = epoch;
        self.phase = Phase::Taking { epoch, began: now, parts: self.finished.clone() };
        Ok(())
    }

    /// Takes a task's acknowledgement.
    pub fn ack(&mut self, task: TaskId, epoch: u64, part: P) -> Ack<P> {
        let Phase::Taking { epoch: running, parts, .. } = &mut self.phase else { return Ack::Stale };
        if *running != epoch || !self.tasks.contains(&task) || parts.contains_key(&task) {
            return Ack::Stale;
        }
        parts.insert(task, part);
        self.settle()
    }

    /// Takes a task's end: `last_part` stands for it in the running and every later checkpoint.
    pub fn finish(&mut self, task: TaskId, last_part: P) -> Ack<P> {
        if !self.tasks.contains(&task) || self.finished.contains_key(&task) {
            return Ack::Stale;
        }
        self.finished.insert(task, last_part.clone());
        let Phase::Taking { parts, .. } = &mut self.phase else { return Ack::Stale };
        parts.entry(task).or_insert(last_part);
        self.settle()
    }

    fn settle(&mut self) -> Ack<P> {
        let Phase::Taking { epoch, parts, .. } = &mut self.phase else { return Ack::Stale };
        let missing = self.tasks.len() - parts.len();
        if missing > 0 {
            return Ack::Waiting { missing };
        }
        let permit = CommitPermit { epoch: *epoch, parts: std::mem::take(parts) };
        self.phase = Phase::Committing { epoch: permit.epoch };
        Ack::Complete(permit)
    }

    /// Takes the news that the manifest is durable; returns the epoch for the notice to the tasks.
    ///
    /// A permit stays good after [`Checkpoints::abort`]: what all tasks acknowledged is complete, whatever happens next.
    pub fn committed(&mut self, permit: CommitPermit<P>, now: Timestamp) -> u64 {
        if matches!(self.phase, Phase::Committing { epoch } if epoch == permit.epoch) {
            self.phase = Phase::Quiet { since: Some(now) };
        }
        self.completed = self.completed.max(Some(permit.epoch));
        self.failures = 0;
        permit.epoch
    }

    /// Gives the running checkpoint up if it is that epoch: a task declined or failed, or the commit failed.
    pub fn abort(&mut self, epoch: u64, now: Timestamp) -> Option<Stopped> {
        match &self.phase {
            Phase::Taking { epoch: running, .. } | Phase::Committing { epoch: running } if *running == epoch => {
                self.phase = Phase::Quiet { since: Some(now) };
                self.failures += 1;
                Some(Stopped::Aborted { epoch })
            }
            _ => None,
        }
    }

    /// Gives the running checkpoint up if its time is over; committing has no limit here, storage has its own.
    pub fn tick(&mut self, now: Timestamp) -> Option<Stopped> {
        let Phase::Taking { epoch, began, parts } = &self.phase else { return None };
        if now.since(*began) < self.limits.timeout {
            return None;
        }
        let missing = self.tasks.iter().filter(|task| !parts.contains_key(task)).copied().collect();
        let stopped = Stopped::TimedOut { epoch: *epoch, missing };
        self.phase = Phase::Quiet { since: Some(now) };
        self.failures += 1;
        Some(stopped)
    }

    /// The newest committed epoch: where a restart begins.
    pub fn completed(&self) -> Option<u64> {
        self.completed
    }

    /// Checkpoints given up since the last commit; the job decides how many it tolerates.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The epoch in progress.
    pub fn running(&self) -> Option<u64> {
        match &self.phase {
            Phase::Quiet { .. } => None,
            Phase::Taking { epoch, .. } | Phase::Committing { epoch } => Some(*epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn task(subtask: u32) -> TaskId {
        TaskId { vertex: 0, subtask }
    }

    fn two() -> Checkpoints<&'static str> {
        Checkpoints::new([task(0), task(1)], CheckpointLimits::default(), 0)
    }

    #[test]
    fn complete_when_all_have_acknowledged() {
        let mut c = two();
        c.trigger(1, at(0)).unwrap();
        assert_eq!(c.trigger(2, at(0)), Err(Refused::InProgress { epoch: 1 }));
        assert_eq!(c.ack(task(0), 1, "a"), Ack::Waiting { missing: 1 });
        assert_eq!(c.ack(task(0), 1, "again"), Ack::Stale);
        assert_eq!(c.ack(task(9), 1, "stranger"), Ack::Stale);
        assert_eq!(c.ack(task(1), 7, "other epoch"), Ack::Stale);
        let Ack::Complete(permit) = c.ack(task(1), 1, "b") else { panic!("complete") };
        assert_eq!(permit.parts().values().copied().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(c.trigger(2, at(0)), Err(Refused::InProgress { epoch: 1 }), "committing");
        assert_eq!(c.completed(), None);
        assert_eq!(c.committed(permit, at(1)), 1);
        assert_eq!((c.completed(), c.running()), (Some(1), None));
        assert_eq!(c.trigger(2, at(1)), Err(Refused::TooSoon));
        assert_eq!(c.trigger(1, at(2)), Err(Refused::OldEpoch { epoch: 1, last: 1 }));
        c.trigger(2, at(2)).unwrap();
    }

    #[test]
    fn a_checkpoint_that_takes_too_long_is_given_up() {
        let mut c = two();
        c.trigger(1, at(0)).unwrap();
        c.ack(task(0), 1, "a");
        assert_eq!(c.tick(at(59)), None);
        assert_eq!(c.tick(at(60)), Some(Stopped::TimedOut { epoch: 1, missing: vec![task(1)] }));
        assert_eq!(c.ack(task(1), 1, "late"), Ack::Stale);
        c.trigger(c.next_epoch(), at(61)).unwrap();
        assert_eq!(c.abort(1, at(61)), None, "an old failure does not hit the new one");
        assert!(c.abort(2, at(61)).is_some());
        assert_eq!(c.failures(), 2);
    }

    #[test]
    fn a_finished_task_is_in_every_later_checkpoint() {
        let mut c = two();
        assert_eq!(c.finish(task(0), "end"), Ack::Stale, "nothing was running");
        c.trigger(1, at(0)).unwrap();
        let Ack::Complete(permit) = c.ack(task(1), 1, "b") else { panic!("complete") };
        assert_eq!(permit.parts()[&task(0)], "end");
        c.committed(permit, at(0));
        c.trigger(2, at(9)).unwrap();
        assert!(matches!(c.finish(task(1), "end"), Ack::Complete(_)));
        assert!(c.abort(2, at(9)).is_some());
        assert_eq!(c.trigger(3, at(19)), Err(Refused::NoTasks));
    }

    proptest! {
        #[test]
        fn a_permit_is_complete_unique_and_rising(
            steps in prop::collection::vec((0u8..8, 0u32..3, 0u64..6), 0..200),
        ) {
            let tasks = [task(0), task(1), task(2)];
            let mut c = Checkpoints::new(tasks, CheckpointLimits { pause: Duration::ZERO, timeout: Duration::from_secs(5) }, 0);
            let (mut now, mut last) = (0, 0);
            for (kind, who, back) in steps {
                let newest = c.next_epoch() - 1;
                match kind {
                    0 | 1 => { c.trigger(c.next_epoch(), at(now)).ok(); }
                    2 => { now += 1; c.tick(at(now)); }
                    3 => { c.abort(newest.saturating_sub(back), at(now)); }
                    _ => {
                        let epoch = newest.saturating_sub(back / 3);
                        if let Ack::Complete(permit) = c.ack(task(who), epoch, epoch) {
                            prop_assert!(permit.epoch() > last);
                            last = permit.epoch();
                            prop_assert_eq!(permit.parts().keys().copied().collect::<Vec<_>>(), tasks.to_vec());
                            prop_assert!(permit.parts().values().all(|e| *e == last));
                            c.committed(permit, at(now));
                            prop_assert_eq!(c.completed(), Some(last));
                        }
                    }
                }
            }
        }
    }
}
