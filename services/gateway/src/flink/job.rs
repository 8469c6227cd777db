//! One job: its states, its vertices and their subtasks.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wire::job_manager::{JobDescription, JobStatus, RestartPolicy};

use crate::flink::ids;

/// Every state of a task.
const TASK_STATES: [&str; 10] = [
    "FINISHED",
    "FAILED",
    "SCHEDULED",
    "DEPLOYING",
    "RUNNING",
    "CANCELED",
    "CANCELING",
    "INITIALIZING",
    "CREATED",
    "RECONCILING",
];
/// Every state of a job.
const JOB_STATES: [&str; 11] = [
    "FINISHED",
    "RUNNING",
    "FAILING",
    "CANCELED",
    "INITIALIZING",
    "SUSPENDED",
    "RECONCILING",
    "CANCELLING",
    "FAILED",
    "RESTARTING",
    "CREATED",
];
/// The key groups that keys are spread over.
const KEY_GROUPS: u32 = 256;

/// The state of a job in Flink's words.
pub(super) fn state(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Scheduling => "CREATED",
        JobStatus::Running | JobStatus::Stopping => "RUNNING",
        JobStatus::Restarting => "RESTARTING",
        JobStatus::Cancelled => "CANCELED",
        JobStatus::Failed => "FAILED",
        JobStatus::Suspended => "SUSPENDED",
        JobStatus::Finished => "FINISHED",
    }
}

/// The state of a task of a job that has placed it.
fn task_state(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Running | JobStatus::Stopping => "RUNNING",
        JobStatus::Scheduling | JobStatus::Restarting => "DEPLOYING",
        JobStatus::Cancelled => "CANCELED",
        JobStatus::Failed => "FAILED",
        JobStatus::Suspended | JobStatus::Finished => "FINISHED",
    }
}

fn counts(of: &str, count: usize) -> Value {
    let counts = TASK_STATES.iter().map(|state| ((*state).to_owned(), json!(if *state == of { count } else { 0 })));
    Value::Object(counts.collect::<Map<_, _>>())
}

/// The same in the small letters of the overview, with their sum.
fn line_counts(of: &str, count: usize) -> Value {
    let mut counts: Map<String, Value> =
        TASK_STATES.iter().map(|state| (state.to_lowercase(), json!(if *state == of { count } else { 0 }))).collect();
    counts.insert("total".to_owned(), json!(count));
    Value::Object(counts)
}

/// Flink's `end-time`: -1 while there is none. Nobody notes when a job ended, so one that is over has its beginning.
fn end(job: &JobDescription) -> i64 {
    if job.status.is_over() { job.submitted.millis() } else { -1 }
}

fn duration(job: &JobDescription, now: i64) -> i64 {
    if job.status.is_over() { 0 } else { now.saturating_sub(job.submitted.millis()).max(0) }
}

/// A job in the overview.
pub(super) fn line(job: &JobDescription, now: i64) -> Value {
    json!({
        "jid": ids::job(&job.job),
        "name": job.job,
        "jobType": "STREAMING",
        "schedulerType": "Default",
        "start-time": job.submitted.millis(),
        "end-time": end(job),
        "duration": duration(job, now),
        "state": state(job.status),
        "last-modification": job.submitted.millis(),
        "tasks": line_counts(task_state(job.status), job.tasks.len()),
        "pending-operators": 0,
    })
}

/// What is not measured.
fn no_metrics() -> Value {
    json!({
        "read-bytes": 0, "read-bytes-complete": false, "write-bytes": 0, "write-bytes-complete": false,
        "read-records": 0, "read-records-complete": false, "write-records": 0, "write-records-complete": false,
        "accumulated-backpressured-time": 0, "accumulated-idle-time": 0, "accumulated-busy-time": 0.0,
    })
}

fn no_aggregate() -> Value {
    json!({ "p25": 0, "min": 0, "avg": 0, "median": 0, "max": 0, "sum": 0, "p95": 0, "p75": 0 })
}

fn aggregated() -> Value {
    let names = [
        "write-records",
        "accumulated-backpressured-time",
        "accumulated-idle-time",
        "write-bytes",
        "read-bytes",
        "read-records",
        "accumulated-busy-time",
    ];
    let metrics: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), no_aggregate())).collect();
    let states = ["CREATED", "RUNNING", "INITIALIZING", "SCHEDULED", "DEPLOYING"];
    let durations: Map<String, Value> = states.iter().map(|state| ((*state).to_owned(), no_aggregate())).collect();
    json!({ "metrics": metrics, "status-duration": durations })
}

/// One vertex of the plan.
struct Vertex {
    id: String,
    name: String,
    description: String,
    parallelism: u64,
    /// Who feeds it, and how.
    inputs: Vec<(usize, &'static str)>,
}

/// A job with its plan.
pub(super) struct Shown {
    pub(super) job: JobDescription,
    vertices: Vec<Vertex>,
    now: i64,
}

/// `{"source": {…}}`: the word of an operator.
fn word(operator: &Value) -> &str {
    operator.as_object().and_then(|o| o.keys().next()).map(String::as_str).or(operator.as_str()).unwrap_or("operator")
}

impl Shown {
    /// Reads the graph as the job manager writes it; what cannot be read is left out.
    pub(super) fn new(job: JobDescription, graph: &str, now: i64) -> Self {
        let graph: Value = serde_json::from_str(graph).unwrap_or_default();
        let edges = graph["edges"].as_array().cloned().unwrap_or_default();
        let vertices = graph["vertices"].as_array().into_iter().flatten().enumerate().map(|(number, vertex)| {
            let operators: Vec<&str> = vertex["operators"].as_array().into_iter().flatten().map(word).collect();
            let into = edges.iter().filter(|edge| edge["to"].as_u64() == u64::try_from(number).ok());
            let inputs = into.filter_map(|edge| {
                let hash = edge["partition"].get("hash").is_some();
                Some((usize::try_from(edge["from"].as_u64()?).ok()?, if hash { "HASH" } else { "FORWARD" }))
            });
            Vertex {
                id: ids::vertex(vertex["uid"].as_str().unwrap_or_default()),
                name: format!("{}: {}", vertex["name"].as_str().unwrap_or("vertex"), operators.join(" -> ")),
                description: operators.join("<br/>+- "),
                parallelism: vertex["parallelism"].as_u64().unwrap_or(0),
                inputs: inputs.collect(),
            }
        });
        let vertices = vertices.collect();
        Self { job, vertices, now }
    }

    /// How many tasks there are.
    pub(super) fn tasks(&self) -> u64 {
        self.vertices.iter().map(|vertex| vertex.parallelism).sum()
    }

    /// The id of a vertex by its place.
    pub(super) fn vertex_id(&self, number: usize) -> Option<&str> {
        self.vertices.get(number).map(|vertex| vertex.id.as_str())
    }

    /// The subtasks of a vertex that are placed, and where.
    fn subtasks(&self, number: usize) -> Vec<(u32, &str)> {
        let numbered = self.job.tasks.iter().filter_map(|(task, on)| {
            let (vertex, subtask) = task.split_once('-')?;
            Some((vertex.parse::<usize>().ok()?, subtask.parse().ok()?, on.as_str()))
        });
        numbered.filter(|(vertex, ..)| *vertex == number).map(|(_, subtask, on)| (subtask, on)).collect()
    }

    fn place(&self, id: &str) -> Option<(usize, &Vertex)> {
        self.vertices.iter().enumerate().find(|(_, vertex)| vertex.id == id)
    }

    fn times(&self) -> Map<String, Value> {
        let (start, state) = (self.job.submitted.millis(), state(self.job.status));
        let at = |of: &str| if of == state || of == "INITIALIZING" { start } else { 0 };
        JOB_STATES.iter().map(|state| ((*state).to_owned(), json!(at(state)))).collect()
    }

    /// The plan alone.
    pub(super) fn plan(&self) -> Value {
        let nodes = self.vertices.iter().map(|vertex| {
            let mut node = json!({
                "id": vertex.id,
                "operator": "",
                "parallelism": vertex.parallelism,
                "operator_strategy": "",
                "description": vertex.description,
                "optimizer_properties": {},
            });
            let inputs = vertex.inputs.iter().enumerate().filter_map(|(num, (from, strategy))| {
                let id = self.vertex_id(*from)?;
                Some(json!({ "id": id, "num": num, "exchange": "pipelined_bounded", "ship_strategy": strategy }))
            });
            let inputs: Vec<Value> = inputs.collect();
            if !inputs.is_empty() {
                node["inputs"] = json!(inputs);
            }
            node
        });
        // What feeds comes last.
        let mut nodes: Vec<Value> = nodes.collect();
        nodes.reverse();
        json!({ "jid": ids::job(&self.job.job), "name": self.job.job, "type": "STREAMING", "nodes": nodes })
    }

    /// Everything of the job.
    pub(super) fn whole(&self) -> Value {
        let (job, start) = (&self.job, self.job.submitted.millis());
        let task = task_state(job.status);
        let vertices = self.vertices.iter().enumerate().map(|(number, vertex)| {
            json!({
                "id": vertex.id,
                // One group of slots: a slot holds a subtask of each vertex.
                "slotSharingGroupId": ids::job(&job.job),
                "name": vertex.name,
                "maxParallelism": KEY_GROUPS,
                "parallelism": vertex.parallelism,
                "status": task,
                "start-time": start,
                "end-time": end(job),
                "duration": duration(job, self.now),
                "tasks": counts(task, self.subtasks(number).len()),
                "metrics": no_metrics(),
            })
        });
        json!({
            "jid": ids::job(&job.job),
            "application-id": ids::job(&job.job),
            "name": job.job,
            "isStoppable": false,
            "state": state(job.status),
            "job-type": "STREAMING",
            "schedulerType": "Default",
            "start-time": start,
            "end-time": end(job),
            "duration": duration(job, self.now),
            "maxParallelism": -1,
            "now": self.now,
            "timestamps": self.times(),
            "vertices": vertices.collect::<Vec<_>>(),
            "status-counts": counts(task, self.vertices.len()),
            "plan": self.plan(),
            "pending-operators": 0,
        })
    }

    /// How it is run.
    pub(super) fn config(&self) -> Value {
        let restart = match &self.job.options.restart {
            RestartPolicy::Service => "Cluster level default restart strategy".to_owned(),
            RestartPolicy::None => "Restart deactivated.".to_owned(),
            RestartPolicy::Fixed { attempts, delay } => {
                format!("Restart with fixed delay ({delay}). #{attempts} restart attempts.")
            }
            RestartPolicy::Exponential { first, max, reset_after } => {
                format!("Restart with exponential delay: from {first} to {max}, anew after {reset_after}.")
            }
            RestartPolicy::FailureRate { failures, interval, delay } => {
                format!("Failure rate restart with maximum of {failures} failures within {interval} and delay {delay}.")
            }
        };
        json!({
            "jid": ids::job(&self.job.job),
            "name": self.job.job,
            "execution-config": {
                "restart-strategy": restart,
                "job-parallelism": self.job.parallelism,
                "object-reuse-mode": true,
                "user-config": { "sql": self.job.text },
            },
        })
    }

    /// How its checkpoints are taken.
    pub(super) fn checkpoints_config(&self) -> Value {
        let interval = self.job.options.checkpoint_interval.map_or(0, |interval| interval.0.as_millis());
        json!({
            "mode": "exactly_once",
            // 0: the setting of the job manager.
            "interval": u64::try_from(interval).unwrap_or(u64::MAX),
            "timeout": 0,
            "min_pause": 0,
            "max_concurrent": 1,
            "externalization": { "enabled": true, "delete_on_cancellation": true },
            "state_backend": "columns in memory",
            "checkpoint_storage": "object storage",
            "unaligned_checkpoints": false,
            "tolerable_failed_checkpoints": -1,
            "aligned_checkpoint_timeout": 0,
            "checkpoints_after_tasks_finish": true,
            "state_changelog_enabled": false,
            "changelog_periodic_materialization_interval": 0,
            "changelog_storage": "none",
        })
    }

    /// One vertex with its subtasks.
    pub(super) fn vertex(&self, id: &str) -> Option<Value> {
        let (number, vertex) = self.place(id)?;
        let (start, task) = (self.job.submitted.millis(), task_state(self.job.status));
        let lasts = duration(&self.job, self.now);
        let subtasks = self.subtasks(number).into_iter().map(|(subtask, on)| {
            json!({
                "subtask": subtask,
                "status": task,
                "attempt": self.job.attempt,
                "endpoint": on,
                "start-time": start,
                "end-time": end(&self.job),
                "duration": lasts,
                "metrics": no_metrics(),
                "taskmanager-id": on,
                "status-duration": { "SCHEDULED": 0, "DEPLOYING": 0, "RUNNING": lasts, "INITIALIZING": 0, "CREATED": 0 },
                "start_time": start,
            })
        });
        Some(json!({
            "id": vertex.id,
            "name": vertex.name,
            "parallelism": vertex.parallelism,
            "maxParallelism": KEY_GROUPS,
            "now": self.now,
            "subtasks": subtasks.collect::<Vec<_>>(),
            "aggregated": aggregated(),
        }))
    }

    /// Since when its subtasks are as they are.
    pub(super) fn subtask_times(&self, id: &str) -> Option<Value> {
        let (number, vertex) = self.place(id)?;
        let state = task_state(self.job.status);
        let at = |of: &str| if of == state { self.job.submitted.millis() } else { 0 };
        let times: Map<String, Value> = TASK_STATES.iter().map(|of| ((*of).to_owned(), json!(at(of)))).collect();
        let subtasks = self.subtasks(number).into_iter().map(|(subtask, on)| {
            let lasts = duration(&self.job, self.now);
            json!({ "subtask": subtask, "endpoint": on, "duration": lasts, "timestamps": times })
        });
        let subtasks: Vec<Value> = subtasks.collect();
        Some(json!({ "id": vertex.id, "name": vertex.name, "now": self.now, "subtasks": subtasks }))
    }

    /// Which workers run it.
    pub(super) fn workers_of(&self, id: &str) -> Option<Value> {
        let (number, vertex) = self.place(id)?;
        let mut by_worker: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, on) in self.subtasks(number) {
            *by_worker.entry(on).or_default() += 1;
        }
        let task = task_state(self.job.status);
        let workers = by_worker.into_iter().map(|(on, count)| {
            json!({
                "endpoint": on,
                "status": task,
                "start-time": self.job.submitted.millis(),
                "end-time": end(&self.job),
                "duration": duration(&self.job, self.now),
                "metrics": no_metrics(),
                "status-counts": counts(task, count),
                "taskmanager-id": on,
                "aggregated": aggregated(),
            })
        });
        let workers: Vec<Value> = workers.collect();
        Some(json!({ "id": vertex.id, "name": vertex.name, "now": self.now, "taskmanagers": workers }))
    }
}
