//! Task workers as Flink's task managers.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wire::{job_manager::JobDescription, views::Member};

use crate::flink::ids;

/// Slots of a worker that no job has: subtasks of one number share one.
pub(crate) fn free(worker: &Member, jobs: &[JobDescription]) -> u32 {
    let used: usize = jobs.iter().map(|job| subtasks_on(worker, job).len()).sum();
    u32::from(worker.slots).saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
}

/// What is not measured of a worker.
const METRICS: [&str; 17] = [
    "heapUsed",
    "heapCommitted",
    "heapMax",
    "nonHeapUsed",
    "nonHeapCommitted",
    "nonHeapMax",
    "directCount",
    "directUsed",
    "directMax",
    "mappedCount",
    "mappedUsed",
    "mappedMax",
    "nettyShuffleMemorySegmentsAvailable",
    "nettyShuffleMemorySegmentsUsed",
    "nettyShuffleMemorySegmentsTotal",
    "nettyShuffleMemoryAvailable",
    "nettyShuffleMemoryUsed",
];

/// One worker with its slots.
pub(crate) fn detailed(worker: &Member, jobs: &[JobDescription]) -> Value {
    let mut shown = shown(worker, jobs);
    let slots = jobs.iter().flat_map(|job| {
        let slots = subtasks_on(worker, job).into_iter();
        slots.map(|tasks| json!({ "jobId": ids::job(&job.job), "resource": resource(1), "assignedTasks": tasks }))
    });
    shown["allocatedSlots"] = json!(slots.collect::<Vec<_>>());
    let mut metrics: Map<String, Value> = METRICS.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
    metrics.insert("nettyShuffleMemoryTotal".to_owned(), json!(0));
    metrics.insert("garbageCollectors".to_owned(), json!([]));
    shown["metrics"] = Value::Object(metrics);
    shown
}

fn resource(slots: u32) -> Value {
    json!({
        "cpuCores": f64::from(slots), "taskHeapMemory": 0, "taskOffHeapMemory": 0, "managedMemory": 0,
        "networkMemory": 0, "extendedResources": {},
    })
}

/// How many tasks share each slot of a worker that a job has.
fn subtasks_on(worker: &Member, job: &JobDescription) -> Vec<usize> {
    let mut slots: BTreeMap<&str, usize> = BTreeMap::new();
    for (task, _) in job.tasks.iter().filter(|(_, replica)| replica == worker.replica.as_str()) {
        if let Some((_, subtask)) = task.split_once('-') {
            *slots.entry(subtask).or_default() += 1;
        }
    }
    slots.into_values().collect()
}

/// One worker; nothing is said of its memory, which is not divided here.
pub(crate) fn shown(worker: &Member, jobs: &[JobDescription]) -> Value {
    let free = free(worker, jobs);
    let assigned = jobs.iter().flat_map(|job| &job.tasks).filter(|(_, on)| on == worker.replica.as_str()).count();
    let address = worker.exchange_address.clone().unwrap_or_default();
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    json!({
        "id": worker.replica,
        "path": address,
        "dataPort": port.map_or(-1, i32::from),
        "jmxPort": -1,
        // Flink says when, too: the time of the last sign of life. Ours is renewed all the while that it is a member.
        "timeSinceLastHeartbeat": worker.started.millis(),
        "slotsNumber": worker.slots,
        "freeSlots": free,
        "assignedTasks": assigned,
        "totalResource": resource(u32::from(worker.slots)),
        "freeResource": resource(free),
        "hardware": { "cpuCores": 0, "physicalMemory": 0, "freeMemory": 0, "managedMemory": 0 },
        "memoryConfiguration": {
            "frameworkHeap": 0, "taskHeap": 0, "frameworkOffHeap": 0, "taskOffHeap": 0, "networkMemory": 0,
            "managedMemory": 0, "jvmMetaspace": 0, "jvmOverhead": 0, "totalFlinkMemory": 0, "totalProcessMemory": 0,
        },
    })
}
