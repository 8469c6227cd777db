//! One job: what is known of it.

use std::collections::{BTreeMap, BTreeSet};

use flow::{ExecutionGraph, JobGraph, TaskId, Uid};
use serde::{Deserialize, Serialize};
use types::{IndexName, ReplicaId, StreamCut, Timestamp};
use wire::job_manager::{JobDescription, JobException, JobPlan, JobStatus, NewJob, PartRef, Sink, SourceCut};

use crate::{
    error::Error,
    history::{Failure, History, Taken, cut},
    plan::explained,
    restart::{FAILURES_REMEMBERED, Failures},
    state::Stop,
};

/// One job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub(crate) new: NewJob,
    pub(crate) graph: JobGraph,
    pub(crate) sink: Sink,
    /// The first index that it reads.
    #[serde(default)]
    pub(crate) source: Option<IndexName>,
    /// Where the job began to read.
    pub(crate) start: StreamCut,
    /// The same for each index, by the vertex that reads it, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) starts: BTreeMap<u32, StreamCut>,
    pub(crate) status: JobStatus,
    pub(crate) attempt: u32,
    /// The running attempt, with its placement.
    pub(crate) execution: Option<ExecutionGraph>,
    /// When each of its workers started: a worker that starts again has lost its tasks.
    pub(crate) workers: BTreeMap<ReplicaId, Timestamp>,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Numbers up to here may have been used.
    pub(crate) reserved: u64,
    /// Failures since the last complete checkpoint.
    pub(crate) failures: u32,
    /// When the last failures were, ascending; as many as a restart rule can count.
    #[serde(default)]
    pub(crate) failed_at: Vec<Timestamp>,
    /// No attempt is placed before.
    #[serde(default)]
    pub(crate) not_before: Timestamp,
    #[serde(default)]
    pub(crate) history: History,
    pub(crate) failure: Option<String>,
    pub(crate) submitted: Timestamp,
    /// The number of this submission: names what must not be mixed up with another job of the same id.
    pub(crate) order: u64,
    /// Grows with every change of parallelism; part of the names of the sinks' writers.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) generation: u32,
    /// Why it is being stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop: Option<Stop>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A graph as JSON, and as text for people.
pub(crate) fn described(graph: &JobGraph) -> Result<JobPlan, Error> {
    let json = serde_json::to_string(graph).map_err(|error| Error::InvalidQuery(error.to_string()))?;
    Ok(JobPlan { graph: json, text: explained(graph) })
}

/// The indexes that a graph reads, by vertex.
pub(crate) fn indexes_read(graph: &JobGraph) -> Vec<(u32, IndexName)> {
    let heads = (0u32..).zip(&graph.vertices);
    heads.filter_map(|(number, vertex)| Some((number, vertex.operators.first()?.index_read()?.clone()))).collect()
}

/// A complete checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub(crate) number: u64,
    pub(crate) parts: Vec<(TaskId, PartRef)>,
    pub(crate) cut: StreamCut,
    /// Up to where each source has read, by vertex; `cut` holds for the index source of a job of an older release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) cuts: BTreeMap<u32, SourceCut>,
    /// Every object that the parts refer to: what no checkpoint and no savepoint names can be deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blocks: Vec<String>,
    /// Whose state it is, by vertex; another graph takes it over by these names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) uids: BTreeMap<u32, Uid>,
}

impl Checkpoint {
    /// The size of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.bytes).sum()
    }
}

impl Job {
    /// Whether it is neither cancelled nor given up nor finished.
    pub(crate) fn is_live(&self) -> bool {
        !self.status.is_over()
    }

    /// The indexes that it reads, by vertex.
    pub(crate) fn indexes(&self) -> Vec<(u32, IndexName)> {
        indexes_read(&self.graph)
    }

    /// Where an attempt begins in an index: at the last checkpoint, else where the job began.
    pub(crate) fn begin(&self, vertex: u32) -> StreamCut {
        match &self.checkpoint {
            Some(checkpoint) => match checkpoint.cuts.get(&vertex) {
                Some(SourceCut::Index { cut, .. }) => cut.clone(),
                // Of a release that knew one index.
                Some(SourceCut::Splits(_)) | None => checkpoint.cut.clone(),
            },
            None => self.starts.get(&vertex).unwrap_or(&self.start).clone(),
        }
    }

    /// The state with which an attempt begins.
    pub(crate) fn parts(&self) -> Vec<(TaskId, PartRef)> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.parts.clone()).unwrap_or_default()
    }

    /// The number of the checkpoint from which an attempt begins; 0 is none.
    pub(crate) fn begins_at(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.number)
    }

    /// What is known of its failures.
    pub(crate) fn past(&self) -> Failures<'_> {
        Failures { in_row: self.failures, recent: &self.failed_at }
    }

    /// The checkpoints that stay: those from which it may begin, and as many of the last complete ones as are wanted.
    pub(crate) fn kept(&self, wanted: usize) -> BTreeSet<u64> {
        self.history.newest(wanted).chain(self.checkpoint.as_ref().map(|c| c.number)).collect()
    }

    /// Takes a failure.
    pub(crate) fn failed(&mut self, failure: Failure, at: Timestamp) {
        let Failure { cause, reason, task, worker } = failure;
        let reason = cut(&reason);
        self.execution = None;
        self.failures += 1;
        self.failed_at.push(at);
        let surplus = self.failed_at.len().saturating_sub(FAILURES_REMEMBERED);
        self.failed_at.drain(..surplus);
        self.failure = Some(reason.clone());
        let (task, worker) = (task.map(|task| task.to_string()), worker.map(|worker| worker.to_string()));
        self.history.failed(JobException { at, attempt: self.attempt, task, worker, cause, reason });
    }

    /// Begins again, without anything that runs.
    pub(crate) fn again(&mut self) {
        self.execution = None;
        // Whoever stops it goes on to do so with the next attempt.
        self.status = if self.stop.is_some() { JobStatus::Stopping } else { JobStatus::Restarting };
    }

    /// Takes a complete checkpoint; failures before it are forgiven.
    pub(crate) fn completed(&mut self, checkpoint: &Checkpoint, began: Option<Timestamp>, ended: Timestamp) {
        let (number, bytes) = (checkpoint.number, checkpoint.bytes());
        self.history.completed(Taken { number, began, ended, bytes });
        self.checkpoint = Some(checkpoint.clone());
        self.failures = 0;
    }

    /// What it runs.
    pub(crate) fn plan(&self) -> Result<JobPlan, Error> {
        described(&self.graph)
    }

    /// The job as people see it.
    pub(crate) fn describe(&self) -> JobDescription {
        let tasks = self.execution.iter().flat_map(|e| &e.tasks);
        JobDescription {
            job: self.new.job.clone(),
            text: self.new.text.clone(),
            sink: self.sink.clone(),
            source: self.source.clone(),
            status: self.status,
            attempt: self.attempt,
            parallelism: u16::try_from(self.graph.slots()).unwrap_or(u16::MAX),
            checkpoint: self.checkpoint.as_ref().map(|c| c.number),
            cut: self.checkpoint.as_ref().map_or_else(|| self.start.clone(), |c| c.cut.clone()),
            submitted: self.submitted,
            failure: self.failure.clone(),
            tasks: tasks.map(|t| (t.id.to_string(), t.worker.to_string())).collect(),
            generation: self.generation,
            cuts: self.cuts(|vertex| self.begin(vertex)),
            options: self.new.options.clone(),
        }
    }

    /// Where each source begins: as the last checkpoint says, an index at the cut that is given for it.
    pub(crate) fn cuts(&self, read: impl Fn(u32) -> StreamCut) -> BTreeMap<u32, SourceCut> {
        let mut cuts = self.checkpoint.as_ref().map(|c| c.cuts.clone()).unwrap_or_default();
        for (vertex, index) in self.indexes() {
            cuts.insert(vertex, SourceCut::Index { index, cut: read(vertex) });
        }
        cuts
    }
}
