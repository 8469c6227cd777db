//! Continuous jobs: submitting them, and what their tasks report.

use serde::{Deserialize, Serialize};
use types::{IndexName, JobId, RuleId, StreamCut, Timestamp};

use crate::{Empty, page::Page};

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
    /// What it reads.
    pub source: IndexName,
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
    /// It came to the end of its input.
    Finished,
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
    /// Up to where a source has read.
    #[serde(default)]
    pub cut: StreamCut,
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
