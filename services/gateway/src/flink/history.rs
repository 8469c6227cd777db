//! Checkpoints, failures and the metrics of a job.

use serde_json::{Map, Value, json};
use wire::job_manager::{CheckpointHistory, CheckpointOutcome, CheckpointRun, JobExceptions, SubtaskFigures};

use crate::flink::job::Shown;

fn millis(us: u64) -> u64 {
    us / 1_000
}

fn lasted(run: &CheckpointRun) -> i64 {
    run.ended.map_or(0, |ended| ended.millis().saturating_sub(run.began.millis()).max(0))
}

/// One checkpoint of the history; `tasks` are those that it waits for.
fn entry(run: &CheckpointRun, tasks: u64) -> Value {
    let (class, status) = match &run.outcome {
        CheckpointOutcome::Running => ("in_progress", "IN_PROGRESS"),
        CheckpointOutcome::Complete => ("completed", "COMPLETED"),
        CheckpointOutcome::Lost(_) => ("failed", "FAILED"),
    };
    // A leader that did not take it itself does not know who answered; all have if it is complete.
    let answered = u64::try_from(run.tasks.len()).unwrap_or(u64::MAX);
    let answered = if run.outcome == CheckpointOutcome::Complete { tasks.max(answered) } else { answered };
    let mut entry = json!({
        "className": class,
        "id": run.number,
        "status": status,
        "is_savepoint": run.savepoint.is_some(),
        "savepointFormat": run.savepoint.as_ref().map(|_| "NATIVE"),
        "trigger_timestamp": run.began.millis(),
        "latest_ack_timestamp": run.ended.unwrap_or(run.began).millis(),
        "checkpointed_size": run.bytes,
        "state_size": run.bytes,
        "end_to_end_duration": lasted(run),
        "alignment_buffered": 0,
        "processed_data": 0,
        "persisted_data": 0,
        "num_subtasks": tasks,
        "num_acknowledged_subtasks": answered,
        "checkpoint_type": if run.savepoint.is_some() { "SAVEPOINT" } else { "CHECKPOINT" },
        "tasks": {},
    });
    match &run.outcome {
        CheckpointOutcome::Complete => {
            entry["external_path"] = json!(run.savepoint.as_deref().unwrap_or_default());
            entry["discarded"] = json!(false);
        }
        CheckpointOutcome::Lost(reason) => {
            entry["failure_timestamp"] = json!(run.ended.unwrap_or(run.began).millis());
            entry["failure_message"] = json!(reason);
        }
        CheckpointOutcome::Running => {}
    }
    entry
}

/// Least, most and average; percentiles by rank, as Flink's words have them.
fn summary(mut of: Vec<i64>) -> Value {
    of.sort_unstable();
    let count = i64::try_from(of.len()).unwrap_or(i64::MAX);
    let average = of.iter().sum::<i64>().checked_div(count).unwrap_or(0);
    let rank = |thousandth: usize| {
        // Of nothing there is no percentile.
        let last = of.len().checked_sub(1)?;
        of.get(last * thousandth / 1_000).copied()
    };
    let at = |thousandth: usize| rank(thousandth).map_or(json!("NaN"), |value| json!(value));
    json!({
        "min": of.first().copied().unwrap_or(0), "max": of.last().copied().unwrap_or(0), "avg": average,
        "p50": at(500), "p90": at(900), "p95": at(950), "p99": at(990), "p999": at(999),
    })
}

/// `/jobs/{id}/checkpoints`.
pub(super) fn checkpoints(history: &CheckpointHistory, tasks: u64) -> Value {
    let runs = &history.checkpoints;
    let complete = || runs.iter().filter(|run| run.outcome == CheckpointOutcome::Complete);
    let going = runs.iter().filter(|run| run.outcome == CheckpointOutcome::Running).count();
    let first = |run: Option<&CheckpointRun>| run.map(|run| entry(run, tasks));
    let bytes = |run: &CheckpointRun| i64::try_from(run.bytes).unwrap_or(i64::MAX);
    let lost = runs.iter().find(|run| matches!(run.outcome, CheckpointOutcome::Lost(_)));
    let in_progress = u64::try_from(going).unwrap_or(u64::MAX);
    json!({
        "counts": {
            "restored": 0,
            "total": history.completed + history.lost + in_progress,
            "in_progress": in_progress,
            "completed": history.completed,
            "failed": history.lost,
        },
        "summary": {
            "checkpointed_size": summary(complete().map(bytes).collect()),
            "state_size": summary(complete().map(bytes).collect()),
            "end_to_end_duration": summary(complete().map(lasted).collect()),
            "alignment_buffered": summary(Vec::new()),
            "processed_data": summary(Vec::new()),
            "persisted_data": summary(Vec::new()),
        },
        "latest": {
            "completed": first(complete().find(|run| run.savepoint.is_none())),
            "savepoint": first(complete().find(|run| run.savepoint.is_some())),
            "failed": first(lost),
            "restored": null,
        },
        "history": runs.iter().map(|run| entry(run, tasks)).collect::<Vec<_>>(),
    })
}

/// `/jobs/{id}/checkpoints/details/{number}`: with what it cost each vertex.
pub(super) fn detailed(run: &CheckpointRun, shown: &Shown) -> Value {
    let mut entry = entry(run, shown.tasks());
    let mut tasks = Map::new();
    let vertex_of = |part: &SubtaskFigures| part.task.split_once('-').and_then(|(vertex, _)| vertex.parse().ok());
    for number in 0.. {
        let Some(id) = shown.vertex_id(number) else { break };
        let parts: Vec<&SubtaskFigures> = run.tasks.iter().filter(|part| vertex_of(part) == Some(number)).collect();
        let bytes: u64 = parts.iter().map(|part| part.figures.bytes).sum();
        let longest = parts.iter().map(|part| {
            let figures = &part.figures;
            millis(figures.start_delay_us + figures.align_us + figures.sync_us + figures.async_us)
        });
        let vertex = json!({
            "id": run.number,
            "status": entry["status"],
            "latest_ack_timestamp": entry["latest_ack_timestamp"],
            "checkpointed_size": parts.iter().map(|part| part.figures.new_bytes).sum::<u64>(),
            "state_size": bytes,
            "end_to_end_duration": longest.max().unwrap_or(0),
            "alignment_buffered": 0,
            "processed_data": 0,
            "persisted_data": 0,
            "num_subtasks": parts.len(),
            "num_acknowledged_subtasks": parts.len(),
        });
        tasks.insert(id.to_owned(), vertex);
    }
    entry["tasks"] = Value::Object(tasks);
    entry
}

/// `/jobs/{id}/exceptions`, newest first.
pub(super) fn exceptions(all: &JobExceptions) -> Value {
    let entries = all.exceptions.iter().map(|exception| {
        let cause = json!(exception.cause);
        let mut entry = json!({
            "exceptionName": cause,
            "stacktrace": exception.reason,
            "timestamp": exception.at.millis(),
            "failureLabels": { "cause": cause },
            "concurrentExceptions": [],
        });
        if let Some(task) = &exception.task {
            entry["taskName"] = json!(task);
        }
        if let Some(worker) = &exception.worker {
            entry["endpoint"] = json!(worker);
            entry["taskManagerId"] = json!(worker);
        }
        entry
    });
    json!({ "exceptionHistory": { "entries": entries.collect::<Vec<_>>(), "truncated": false } })
}

/// The metrics of a job that there are.
const METRICS: [&str; 6] = [
    "numRestarts",
    "numberOfCompletedCheckpoints",
    "numberOfFailedCheckpoints",
    "numberOfInProgressCheckpoints",
    "lastCheckpointDuration",
    "lastCheckpointSize",
];

/// `/jobs/{id}/metrics`: their names.
pub(super) fn metric_names() -> Value {
    json!(METRICS.map(|name| json!({ "id": name })))
}

/// `/jobs/{id}/metrics?get=a,b`: their values, as text.
pub(super) fn metrics(history: &CheckpointHistory, shown: &Shown, query: &str) -> Value {
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("get=")).unwrap_or_default();
    let last = history.checkpoints.iter().find(|run| run.outcome == CheckpointOutcome::Complete);
    let going = history.checkpoints.iter().filter(|run| run.outcome == CheckpointOutcome::Running).count();
    let value = |name: &str| {
        Some(match name {
            "numRestarts" => shown.job.attempt.saturating_sub(1).to_string(),
            "numberOfCompletedCheckpoints" => history.completed.to_string(),
            "numberOfFailedCheckpoints" => history.lost.to_string(),
            "numberOfInProgressCheckpoints" => going.to_string(),
            "lastCheckpointDuration" => last.map_or(-1, lasted).to_string(),
            "lastCheckpointSize" => last.map_or_else(|| "-1".to_owned(), |run| run.bytes.to_string()),
            _ => return None,
        })
    };
    let found = wanted.split([',', '%']).map(|name| name.trim_start_matches("2C"));
    let found = found.filter_map(|name| Some(json!({ "id": name, "value": value(name)? })));
    json!(found.collect::<Vec<_>>())
}
