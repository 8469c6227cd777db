//! Continuous jobs: submitting them, and what their tasks report.

use serde::{Deserialize, Serialize};
use types::{IndexName, JobId, RuleId, StreamCut, Timestamp};

use crate::{Empty, page::Page};

mod control;
mod cut;
mod history;

pub use control::{
    JobOptions, JobPlan, RescaleOf, RestartPolicy, RestoreFrom, Savepoint, SavepointName, SavepointOf, Savepoints,
    SavepointsOf, StopOf,
};
pub use cut::SourceCut;
pub use history::{
    Cause, CheckpointFigures, CheckpointHistory, CheckpointOutcome, CheckpointRun, HISTORY_MAX, JobException,
    JobExceptions, JobFigures, SubtaskFigures,
};

calls! {
    /// Starts a continuous job; the same id with the same text answers the running job. Kinds: `InvalidQuery`, `JobDiffers`, `UnknownIndex`.
    SubmitJob(NewJob) -> JobDescription; "lb.v1.job-manager.jobs.submit" [()] @ JobManager, Idempotent
    /// Ends a job and drops its checkpoints; cancelling what is not there succeeds.
    CancelJob(JobName) -> Empty; "lb.v1.job-manager.jobs.cancel" [()] @ JobManager, Idempotent
    /// Describes one job. Kinds: `UnknownJob`.
    DescribeJob(JobName) -> JobDescription; "lb.v1.job-manager.jobs.describe" [()] @ JobManager, Idempotent
    /// Lists jobs by id, in pages. Kinds: `InvalidPage`.
    ListJobs(JobsOf) -> JobList; "lb.v1.job-manager.jobs.list" [()] @ JobManager, Idempotent
    /// A task worker tells that a task runs, failed or ended.
    ReportTask(TaskReport) -> Empty; "lb.v1.job-manager.tasks.report" [()] @ JobManager, Idempotent
    /// A task has stored its part of a checkpoint.
    ReportCheckpoint(CheckpointReport) -> Empty; "lb.v1.job-manager.checkpoints.report" [()] @ JobManager, Idempotent
    /// Takes a savepoint: a checkpoint that is kept until it is deleted; the same name again answers the same one. Kinds: `UnknownJob`, `JobOver`, `JobSuspended`, `InvalidSavepoint`, `TooManySavepoints`, `SavepointPending`.
    TakeSavepoint(SavepointOf) -> Savepoint; "lb.v1.job-manager.savepoints.take" [()] @ JobManager, Idempotent
    /// Drops a savepoint; dropping what is not there succeeds. Kinds: `SavepointInUse`.
    DeleteSavepoint(SavepointName) -> Empty; "lb.v1.job-manager.savepoints.delete" [()] @ JobManager, Idempotent
    /// Lists the savepoints of a job, oldest first.
    ListSavepoints(SavepointsOf) -> Savepoints; "lb.v1.job-manager.savepoints.list" [()] @ JobManager, Idempotent
    /// Stops a job at a savepoint: sources end at its barrier; with `drain` every window closes first and the job is finished, else it is suspended. The answer is the job, which may be stopping still. Kinds: `UnknownJob`, `JobOver`, `JobStopping`, `InvalidSavepoint`, `TooManySavepoints`.
    StopJob(StopOf) -> JobDescription; "lb.v1.job-manager.jobs.stop" [()] @ JobManager, Idempotent
    /// Gives a job another parallelism at a stop-savepoint, and goes on from there; the same parallelism answers at once. The answer is the job, which may be stopping still. Kinds: `UnknownJob`, `JobOver`, `JobSuspended`, `JobStopping`, `InvalidParallelism`.
    RescaleJob(RescaleOf) -> JobDescription; "lb.v1.job-manager.jobs.rescale" [()] @ JobManager, Idempotent
    /// The last checkpoints of a job, newest first. Kinds: `UnknownJob`.
    ShowCheckpoints(JobName) -> CheckpointHistory; "lb.v1.job-manager.jobs.checkpoints" [()] @ JobManager, Idempotent
    /// What ended attempts of a job, newest first. Kinds: `UnknownJob`.
    ShowExceptions(JobName) -> JobExceptions; "lb.v1.job-manager.jobs.exceptions" [()] @ JobManager, Idempotent
    /// The figures of a job's tasks over the last minute. Kinds: `UnknownJob`, `NotBuilt`.
    ShowFigures(JobName) -> JobFigures; "lb.v1.job-manager.jobs.figures" [()] @ JobManager, Idempotent
    /// The plan of a job as it runs, at its parallelism of now. Kinds: `UnknownJob`.
    ShowPlan(JobName) -> JobPlan; "lb.v1.job-manager.jobs.plan" [()] @ JobManager, Idempotent
    /// Plans a job without running it. Kinds: `InvalidQuery`.
    ExplainJob(NewJob) -> JobPlan; "lb.v1.job-manager.jobs.explain" [()] @ JobManager, Idempotent
}

/// Where a job begins to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartAt {
    /// At the first event kept.
    Earliest,
    /// After the last event at the time of submission.
    Latest,
    /// At a stream cut.
    Cut(StreamCut),
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sink {
    /// Rows are appended to a log index as JSON events.
    Index(IndexName),
    /// Rows are observed by an alert rule.
    Alerts(RuleId),
    /// Rows go where the text says, outside the platform; a word for people.
    Elsewhere(String),
}

/// A condition that can only become true as a window grows, so that a row may be told before its window closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlyFire {
    /// The aggregate's output name.
    pub column: String,
    /// True for `>=`, false for `>`.
    pub or_equal: bool,
    /// The threshold.
    pub threshold: f64,
}

/// A job to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// Its id, chosen by the caller.
    pub job: JobId,
    /// Continuous SQL; `INSERT INTO <index> SELECT …` names the sink itself.
    pub text: String,
    /// Where results go when the text does not say.
    #[serde(default)]
    pub sink: Option<Sink>,
    /// Where to begin.
    pub start: StartAt,
    /// Subtasks per vertex: 1 to 64; 0 takes the default.
    #[serde(default)]
    pub parallelism: u16,
    /// Tells rows before their window closes.
    #[serde(default)]
    pub early: Option<EarlyFire>,
    /// How it is run.
    #[serde(default)]
    pub options: JobOptions,
}

/// Names a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobName {
    /// The job.
    pub job: JobId,
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waiting for slots.
    Scheduling,
    /// All tasks run.
    Running,
    /// Waiting to begin again from the last checkpoint.
    Restarting,
    /// Ended by its owner.
    Cancelled,
    /// Given up; `failure` says why.
    Failed,
    /// Being stopped at a savepoint: its tasks run up to the savepoint's barrier.
    Stopping,
    /// Stopped at a savepoint, from which it can go on; it holds no slots.
    Suspended,
    /// Came to the end of everything that it reads; all its rows are out.
    Finished,
}

impl JobStatus {
    /// Whether nothing runs any more and nothing will: cancelled, failed or finished.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Cancelled | Self::Failed | Self::Finished)
    }

    /// Whether it has slots or waits for some.
    pub fn wants_slots(self) -> bool {
        !self.is_over() && self != Self::Suspended
    }
}

/// A job as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDescription {
    /// The job.
    pub job: JobId,
    /// Its text.
    pub text: String,
    /// Where results go.
    pub sink: Sink,
    /// The first index that it reads; none if it reads none.
    #[serde(default)]
    pub source: Option<IndexName>,
    /// What it is doing.
    pub status: JobStatus,
    /// Grows with every restart.
    pub attempt: u32,
    /// Subtasks per vertex.
    pub parallelism: u16,
    /// The last complete checkpoint.
    #[serde(default)]
    pub checkpoint: Option<u64>,
    /// Up to where that checkpoint has read.
    #[serde(default)]
    pub cut: StreamCut,
    /// When it was submitted.
    pub submitted: Timestamp,
    /// The last failure.
    #[serde(default)]
    pub failure: Option<String>,
    /// Task placement, `task -> replica`, for pictures.
    #[serde(default)]
    pub tasks: Vec<(String, String)>,
    /// Grows with every change of parallelism; names the writers of its sinks.
    #[serde(default)]
    pub generation: u32,
    /// Up to where each source has read, by the vertex of the graph; `source` and `cut` repeat the first index among them.
    #[serde(default)]
    pub cuts: std::collections::BTreeMap<u32, SourceCut>,
    /// How it is run.
    #[serde(default)]
    pub options: JobOptions,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsOf {
    /// Behind this one; from the first without it.
    #[serde(default)]
    pub after: Option<JobId>,
    /// How many at most.
    #[serde(default)]
    pub limit: Page,
}

/// Jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobList {
    /// In the order of their ids.
    pub jobs: Vec<JobDescription>,
    /// Whether there are more.
    #[serde(default)]
    pub more: bool,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskStatus {
    /// It runs.
    Running,
    /// It failed; the text is for people.
    Failed(String),
    /// It came to the end of its input and ended. Its last checkpoint was acknowledged before, so that it counts as having taken part in every later one.
    Finished,
    /// A source read one of its splits to the end; the task runs on.
    EndOfSplit,
}

/// A task's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The job.
    pub job: JobId,
    /// The attempt; reports of older attempts are ignored.
    pub attempt: u32,
    /// The task's number in the execution graph.
    pub task: u32,
    /// What became of it.
    pub status: TaskStatus,
    /// Of a failure: what kind of thing it was.
    #[serde(default)]
    pub cause: Cause,
}

/// A task's part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The checkpoint's number.
    pub checkpoint: u64,
    /// The task's number in the execution graph.
    pub task: u32,
    /// The object that holds the task's state; `None` for a task without state.
    #[serde(default)]
    pub part: Option<PartRef>,
    /// Up to where a source of an index has read.
    #[serde(default)]
    pub cut: StreamCut,
    /// Up to where another source has read: position by split.
    #[serde(default)]
    pub splits: std::collections::BTreeMap<String, u64>,
    /// Every object that `part` refers to, so that what no checkpoint needs can be deleted. `part` itself is not among them.
    #[serde(default)]
    pub blocks: Vec<String>,
    /// What it cost.
    #[serde(default)]
    pub figures: CheckpointFigures,
}

/// An object that holds state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRef {
    /// The object's key.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Its checksum.
    pub crc32c: u32,
}
