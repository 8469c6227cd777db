//! The execution graph: one attempt to run a job graph, every subtask on a worker.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use types::{Invalid, ReplicaId};

use crate::{
    Error, JobGraph, Partition, Uid,
    graph::{Edge, place},
};

/// One subtask of one vertex; written `<vertex>-<subtask>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The vertex, by its place in the job graph.
    pub vertex: u32,
    /// The subtask, from 0.
    pub subtask: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.vertex, self.subtask)
    }
}

impl FromStr for TaskId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts = text.split_once('-').and_then(|(v, s)| Some((v.parse().ok()?, s.parse().ok()?)));
        let (vertex, subtask) = parts.ok_or_else(|| Invalid::new("task id", text, "<vertex>-<subtask>"))?;
        Ok(Self { vertex, subtask })
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// What a worker offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSlots {
    /// The worker.
    pub worker: ReplicaId,
    /// Its free slots.
    pub free: u32,
}

/// One subtask and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The subtask.
    pub id: TaskId,
    /// The uid of its vertex, which names its state.
    pub uid: Uid,
    /// The slot of the job, from 0; tasks with one number share it.
    pub slot: u32,
    /// The worker.
    pub worker: ReplicaId,
}

/// One way for batches from one subtask to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Channel {
    /// The edge, by its place in the job graph.
    pub edge: u32,
    /// The sending subtask.
    pub from: TaskId,
    /// The receiving subtask.
    pub to: TaskId,
}

/// One attempt to run a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutionGraph {
    /// Grows with every restart; a message of another attempt is stale.
    pub attempt: u32,
    /// What is run, with uids.
    pub graph: JobGraph,
    /// Every subtask, by vertex and subtask.
    pub tasks: Vec<Task>,
}

impl ExecutionGraph {
    /// Places every subtask of the graph.
    ///
    /// A slot holds one subtask of each vertex, so forward edges stay within a worker. Slots are spread: each goes
    /// to the worker with the fewest slots of this job, then the most free ones, then the smallest name.
    /// Errors: `SlotsMissing`; whatever [`JobGraph::validate`] says.
    pub fn place(graph: JobGraph, attempt: u32, offers: &[FreeSlots]) -> Result<Self, Error> {
        let graph = graph.with_uids()?;
        let needed = graph.slots();
        let mut left: BTreeMap<&ReplicaId, (u32, u32)> = BTreeMap::new();
        for offer in offers {
            let (_, free) = left.entry(&offer.worker).or_default();
            *free = free.saturating_add(offer.free);
        }
        let workers = left.len();
        let free = left.values().fold(0u32, |sum, (_, free)| sum.saturating_add(*free));
        let mut homes = Vec::with_capacity(place(needed));
        for _ in 0..needed {
            let best = left
                .iter_mut()
                .filter(|(_, (_, free))| *free > 0)
                .min_by_key(|(worker, (used, free))| (*used, std::cmp::Reverse(*free), **worker));
            let Some((worker, (used, free_here))) = best else {
                return Err(Error::SlotsMissing { needed, free, workers });
            };
            *used += 1;
            *free_here -= 1;
            homes.push((*worker).clone());
        }
        let mut tasks = Vec::new();
        for (vertex, spec) in (0u32..).zip(&graph.vertices) {
            for (slot, worker) in (0..spec.parallelism).zip(&homes) {
                let id = TaskId { vertex, subtask: slot };
                tasks.push(Task { id, uid: spec.uid.clone(), slot, worker: worker.clone() });
            }
        }
        Ok(Self { attempt, graph, tasks })
    }

    /// The task of that id.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.tasks.iter().find(|task| task.id == id)
    }

    /// The tasks of one worker.
    pub fn tasks_on<'a>(&'a self, worker: &'a ReplicaId) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().filter(move |task| task.worker == *worker)
    }

    /// The channels into a task, by edge and sending subtask: the numbering of its inputs.
    pub fn inputs(&self, task: TaskId) -> Vec<Channel> {
        self.along(|edge| edge.to == task.vertex, |edge| self.senders(edge, task))
    }

    /// The channels out of a task, by edge and receiving subtask: the numbering of a scatter's outputs.
    pub fn outputs(&self, task: TaskId) -> Vec<Channel> {
        self.along(|edge| edge.from == task.vertex, |edge| self.receivers(edge, task))
    }

    fn along(&self, wanted: impl Fn(&Edge) -> bool, ends: impl Fn(&Edge) -> Vec<(TaskId, TaskId)>) -> Vec<Channel> {
        let mut out = Vec::new();
        for (number, edge) in (0u32..).zip(&self.graph.edges) {
            if wanted(edge) {
                out.extend(ends(edge).into_iter().map(|(from, to)| Channel { edge: number, from, to }));
            }
        }
        out
    }

    fn senders(&self, edge: &Edge, to: TaskId) -> Vec<(TaskId, TaskId)> {
        let subtasks = match edge.partition {
            Partition::Forward => to.subtask..to.subtask + 1,
            Partition::Hash { .. } => 0..self.graph.vertices[place(edge.from)].parallelism,
        };
        subtasks.map(|subtask| (TaskId { vertex: edge.from, subtask }, to)).collect()
    }

    fn receivers(&self, edge: &Edge, from: TaskId) -> Vec<(TaskId, TaskId)> {
        let subtasks = match edge.partition {
            Partition::Forward => from.subtask..from.subtask + 1,
            Partition::Hash { .. } => 0..self.graph.vertices[place(edge.to)].parallelism,
        };
        subtasks.map(|subtask| (from, TaskId { vertex: edge.to, subtask })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tests::graph;

    fn offers(free: &[u32]) -> Vec<FreeSlots> {
        (0..).zip(free).map(|(i, free)| FreeSlots { worker: format!("w{i}").parse().unwrap(), free: *free }).collect()
    }

    fn used(graph: &ExecutionGraph, vertex: u32) -> Vec<(String, usize)> {
        let mut count = BTreeMap::new();
        for task in graph.tasks.iter().filter(|t| t.id.vertex == vertex) {
            *count.entry(task.worker.to_string()).or_insert(0) += 1;
        }
        count.into_iter().collect()
    }

    #[test]
    fn placement_spreads() {
        let cases: &[(u32, &[u32], &[usize])] = &[
            (4, &[8, 8], &[2, 2]),
            (4, &[1, 8], &[1, 3]),
            (3, &[1, 1, 1, 1], &[1, 1, 1]),
            (1, &[2, 5], &[1]),
            (6, &[4, 0, 2], &[4, 2]),
        ];
        for (parallelism, free, wanted) in cases {
            let placed = ExecutionGraph::place(graph(*parallelism), 3, &offers(free)).unwrap();
            let found: Vec<usize> = used(&placed, 0).into_iter().map(|(_, n)| n).collect();
            assert_eq!(found, *wanted, "{parallelism} over {free:?}");
            assert_eq!(used(&placed, 0), used(&placed, 1), "a slot holds one subtask of each vertex");
            assert_eq!(placed.attempt, 3);
        }
    }

    #[test]
    fn missing_slots_are_named() {
        let found = ExecutionGraph::place(graph(4), 0, &offers(&[2, 1])).unwrap_err();
        assert!(matches!(found, Error::SlotsMissing { needed: 4, free: 3, workers: 2 }), "{found}");
        assert!(ExecutionGraph::place(graph(1), 0, &[]).is_err());
    }

    #[test]
    fn channels_meet_in_the_middle() {
        let placed = ExecutionGraph::place(graph(3), 0, &offers(&[2, 2])).unwrap();
        let ids = |vertex| (0..3).map(move |subtask| TaskId { vertex, subtask });
        let out: Vec<Channel> = ids(0).flat_map(|t| placed.outputs(t)).collect();
        let mut into: Vec<Channel> = ids(1).flat_map(|t| placed.inputs(t)).collect();
        into.sort_unstable();
        assert_eq!(out.len(), 9);
        assert_eq!(out, into);
        assert!(placed.inputs(TaskId { vertex: 0, subtask: 0 }).is_empty());
        let json = serde_json::to_string(&placed).unwrap();
        assert_eq!(serde_json::from_str::<ExecutionGraph>(&json).unwrap(), placed);
    }
}
