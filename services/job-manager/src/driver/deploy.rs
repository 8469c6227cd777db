//! How the tasks of an attempt are started: from which cut, with which state, and on whom.

use std::{collections::BTreeMap, time::Duration};

use flow::{ExecutionGraph, TaskId};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time;
use tracing::info;
use types::{IndexName, ReplicaId, StreamCut};
use wire::{
    Problem,
    job_manager::{Cause, PartRef},
    task_worker::{DeployTasks, Deployment, Restore},
};

use super::{Driver, End, SLOTS_PAUSE, TICK, workers_of};
use crate::{history::Failure, state::Job};

/// How long a worker may take to start its tasks: it fetches their state first.
const DEPLOY_WITHIN: Duration = Duration::from_secs(10);

/// The state with which tasks begin: the parts of a vertex are shared out over its subtasks, however many there were when they were taken.
/// A task takes what is its own from all parts of its vertex.
///
/// Errors: the tasks whose state nobody takes over: leaving it out would give wrong results without a word.
fn restores(execution: &ExecutionGraph, parts: Vec<(TaskId, PartRef)>) -> Result<Vec<Restore>, Vec<TaskId>> {
    let (mut restores, mut left) = (Vec::with_capacity(parts.len()), Vec::new());
    for (id, part) in parts {
        let vertex = usize::try_from(id.vertex).ok().and_then(|vertex| execution.graph.vertices.get(vertex));
        let new = vertex.map(|vertex| TaskId { subtask: id.subtask % vertex.parallelism.max(1), ..id });
        let number = new.and_then(|new| execution.tasks.iter().position(|task| task.id == new));
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(task) => restores.push(Restore { task, part }),
            None => left.push(id),
        }
    }
    if left.is_empty() { Ok(restores) } else { Err(left) }
}

impl Driver {
    /// The cut from which an attempt begins in an index, with the segments that there are now; tries until the coordinator is there.
    async fn beginning(&self, index: &IndexName, cut: &StreamCut, attempt: u32) -> Result<StreamCut, End> {
        loop {
            match self.client.advance(index, cut).await {
                Ok(cut) => return Ok(cut),
                Err(problem) if problem.is_transient() => {
                    info!(job = %self.job, %index, %problem, "segments of a source not known; the job waits");
                    self.pause(SLOTS_PAUSE).await;
                }
                Err(problem) => {
                    let gone = matches!(problem.code, wire::Code::NotFound | wire::Code::Forbidden);
                    let cause = if gone { Cause::User } else { Cause::System };
                    return Err(End::failed(cause, format!("index {index} cannot be read: {problem}")));
                }
            }
            if self.stop.is_cancelled() || self.ledger.read(|s| s.current(&self.job, attempt).is_none()) {
                return Err(End::Over);
            }
        }
    }

    /// Starts the tasks of an attempt on all its workers; gives up as soon as one of them is gone.
    pub(super) async fn deploy(&self, job: &Job, execution: &ExecutionGraph) -> Result<(), End> {
        let restore = restores(execution, job.parts()).map_err(|left| {
            let left: Vec<String> =
                left.iter().map(|task| format!("{task} of checkpoint {}", job.begins_at())).collect();
            let left = left.join(", ");
            End::failed(Cause::User, format!("the state of task {left} has no operator that takes it over"))
        })?;
        let (mut cut, mut read) = (StreamCut::default(), BTreeMap::new());
        for (vertex, index) in job.indexes() {
            let begin = self.beginning(&index, &job.begin(vertex), execution.attempt).await?;
            cut.0.extend(begin.0.iter().map(|(segment, offset)| (*segment, *offset)));
            read.insert(vertex, begin);
        }
        let cuts = job.cuts(|vertex| read.get(&vertex).cloned().unwrap_or_default());
        let graph = bytes::Bytes::from(wire::encode(execution));
        let workers = workers_of(execution);
        let mut calls: FuturesUnordered<_> = workers
            .iter()
            .map(|worker| {
                let deployment = Deployment {
                    job: self.job.clone(),
                    attempt: execution.attempt,
                    graph: graph.clone(),
                    restore: restore.clone(),
                    cut: cut.clone(),
                    submission: job.order,
                    worker_started: job.workers.get(worker).copied().unwrap_or_default(),
                    cuts: cuts.clone(),
                    generation: job.generation,
                    checkpoint: job.begins_at(),
                };
                async move { (worker, self.bus.call_within::<DeployTasks>(worker, &deployment, DEPLOY_WITHIN).await) }
            })
            .collect();
        let meant = workers.iter().filter_map(|w| job.workers.get_key_value(w)).map(|(w, s)| (w.clone(), *s)).collect();
        let mut tick = time::interval(TICK / 2);
        loop {
            tokio::select! {
                deployed = calls.next() => match deployed {
                    None => return Ok(()),
                    Some((_, Ok(_))) => {}
                    Some((worker, Err(problem))) => return Err(self.refused(worker, &problem)),
                },
                // An order to a dead worker would be repeated until its time is over.
                _ = tick.tick() => if let Some((worker, presence)) = self.workers.missing(&meant) {
                    return Err(End::lost(&worker, presence));
                },
                () = self.stop.cancelled() => return Err(End::Over),
            }
        }
    }

    fn refused(&self, worker: &ReplicaId, problem: &Problem) -> End {
        self.workers.told(worker, problem);
        let reason = format!("tasks could not be started on worker {worker}: {problem}");
        let cause = match problem.kind.as_str() {
            "NoSlots" => return End::Waits(reason),
            "WorkerRestarted" | "NoResponders" => Cause::WorkerLost,
            _ => Cause::System,
        };
        End::Failed(Failure::new(cause, reason).on(worker))
    }
}

#[cfg(test)]
mod tests {
    use flow::{FreeSlots, JobGraph};
    use wire::job_manager::{NewJob, StartAt};

    use super::*;

    fn graph(parallelism: u16) -> JobGraph {
        let new = NewJob {
            job: "a".parse().unwrap(),
            text: "INSERT INTO sums SELECT service, window_start, count(*) AS n \
                   FROM tumble(shop, INTERVAL '10 seconds') GROUP BY service, window_start"
                .into(),
            sink: None,
            start: StartAt::Earliest,
            parallelism,
            early: None,
            options: wire::job_manager::JobOptions::default(),
        };
        crate::plan::plan(&new, parallelism).unwrap().graph
    }

    #[test]
    fn state_that_no_task_takes_over_is_named_and_not_dropped() {
        let offers = [FreeSlots { worker: "w".parse().unwrap(), free: 8 }];
        let execution = |parallelism| ExecutionGraph::place(graph(parallelism), 1, &offers).unwrap();
        let part = PartRef { key: "k".into(), bytes: 1, crc32c: 2 };
        let parts: Vec<_> = execution(4).tasks.iter().map(|task| (task.id, part.clone())).collect();
        let tasks = |parallelism: u16, parts: &[(TaskId, PartRef)]| -> Vec<u32> {
            restores(&execution(parallelism), parts.to_vec()).unwrap().iter().map(|restore| restore.task).collect()
        };
        assert_eq!(tasks(4, &parts), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(tasks(2, &parts), [0, 1, 0, 1, 2, 3, 2, 3], "every part goes to its vertex");
        assert_eq!(tasks(1, &parts), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(tasks(6, &parts), [0, 1, 2, 3, 6, 7, 8, 9]);
        let strange = TaskId { vertex: 2, subtask: 1 };
        let left = restores(&execution(4), vec![(strange, part.clone()), (TaskId { vertex: 1, subtask: 0 }, part)]);
        assert_eq!(left.unwrap_err(), [strange]);
    }
}
