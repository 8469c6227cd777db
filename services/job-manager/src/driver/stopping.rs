//! What follows a stop-savepoint: nothing runs any more, and the job is suspended, finished, or goes on with another parallelism.

use flow::{ExecutionGraph, JobGraph, Partition};
use tracing::{info, warn};
use types::Clock;
use wire::Problem;

use super::Driver;
use crate::state::{Command, Job, Stop};

/// The same graph with another parallelism; what has one owner for all rows keeps it.
pub(crate) fn rescaled(graph: &JobGraph, parallelism: u16) -> JobGraph {
    let mut graph = graph.clone();
    for number in 0..graph.vertices.len() {
        let one_owner = |partition: &Partition| matches!(partition, Partition::Hash { columns } if columns.is_empty());
        let single = graph.edges_into(number).any(|edge| one_owner(&edge.partition));
        graph.vertices[number].parallelism = if single { 1 } else { u32::from(parallelism.max(1)) };
    }
    graph
}

impl Driver {
    /// The stop-savepoint is complete, so sources have ended at its barrier and every row before it is acknowledged. Writers that count
    /// anew cannot repeat one.
    pub(super) async fn stopped(&self, job: &Job, execution: &ExecutionGraph) -> Result<(), Problem> {
        let stop = self.live().and_then(|job| job.stop);
        info!(job = %self.job, attempt = execution.attempt, ?stop, "job stands at its savepoint");
        self.end_tasks(execution, job.order).await;
        let graph = match stop {
            Some(Stop::Rescale(parallelism)) => Some(Box::new(rescaled(&job.graph, parallelism))),
            _ => None,
        };
        let (job, attempt) = (self.job.clone(), execution.attempt);
        self.ledger.submit(Command::Stopped { job, attempt, graph }).await.map(drop)
    }

    /// Some of its sources may have ended at the barrier, so another attempt begins; the job goes on as if nobody had asked.
    pub(super) async fn stop_lost(&self, job: &Job, execution: &ExecutionGraph, reason: String) -> Result<(), Problem> {
        warn!(job = %self.job, attempt = execution.attempt, %reason, "job could not be stopped; it goes on");
        self.board.lock().lose(bus::SystemClock.now(), &reason);
        self.end_tasks(execution, job.order).await;
        let (job, attempt) = (self.job.clone(), execution.attempt);
        let reason = format!("it could not be stopped at a savepoint: {reason}");
        self.ledger.submit(Command::StopLost { job, attempt, reason }).await.map(drop)
    }

    /// Every task came to the end of its input.
    pub(super) async fn finished(&self, job: &Job, execution: &ExecutionGraph) -> Result<(), Problem> {
        info!(job = %self.job, attempt = execution.attempt, "job is finished");
        self.end_tasks(execution, job.order).await;
        self.ledger.submit(Command::Finish(self.job.clone(), execution.attempt)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use wire::job_manager::{JobOptions, NewJob, StartAt};

    use super::*;

    #[test]
    fn another_parallelism_keeps_uids_and_single_owners() {
        let plan = |group: &str| {
            let text = format!(
                "INSERT INTO sums SELECT {group}window_start, count(*) AS n \
                 FROM tumble(shop, INTERVAL '10 seconds') GROUP BY {group}window_start"
            );
            let (job, start) = ("a".parse().unwrap(), StartAt::Earliest);
            let options = JobOptions::default();
            let new = NewJob { job, text, sink: None, start, parallelism: 2, early: None, options };
            crate::plan::plan(&new, 2).unwrap().graph
        };
        let parallelism = |graph: &JobGraph| graph.vertices.iter().map(|v| v.parallelism).collect::<Vec<_>>();
        let keyed = plan("service, ");
        let wide = rescaled(&keyed, 4);
        assert_eq!(parallelism(&wide), [4, 4]);
        assert!(wide.vertices.iter().zip(&keyed.vertices).all(|(new, old)| new.uid == old.uid));
        assert_eq!(wide.fingerprint(), keyed.fingerprint());
        assert_eq!(rescaled(&wide, 2), keyed);
        assert_eq!(parallelism(&rescaled(&plan(""), 4)), [4, 1], "one group has one owner");
    }
}
