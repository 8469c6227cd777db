//! Everything around task workers: real NATS and objects, and in place of the other services fakes at their doors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow::{array::RecordBatch, ipc::writer::StreamWriter};
use bus::{Bus, Door, Doors};
use bytes::Bytes;
use flow::{ExecutionGraph, FreeSlots, JobGraph};
use host::{Host, Running, Service as _};
use ingest::RawEvent;
use parking_lot::Mutex;
use task_worker::TaskWorker;
use testkit::{World, eventually};
use types::{ContainerId, IndexName, KeyRange, ReplicaId, SegmentId, StreamCut, Timestamp, WriterId};
use wire::{
    Empty, Problem, Service,
    alerter::{Observation, ObserveRows},
    block::Block,
    coordinator::{DescribeStream, ListSegments, SegmentNode, SegmentNodes, SegmentsOf, StreamDescription},
    job_manager::{CheckpointReport, ReportCheckpoint, ReportTask, SourceCut, TaskReport, TaskStatus},
    segment_store::{
        Append, AppendEvents, Appended, DescribeSegment, DescribeWriter, ReadFrom, ReadSegment, SegmentInfo,
        SegmentRead, WriterInfo, WriterName,
    },
    task_worker::{
        AttemptName, Barrier, BarrierKind, CancelTasks, Commit, CommitCheckpoint, DeployTasks, Deployment, Restore,
        TriggerCheckpoint,
    },
    views::{MEMBERS, Member},
};

/// How long anything awaited may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);
/// Rows of one answer of the fake segment store: few, so that batches are cut in many places.
const ANSWER_ROWS: usize = 7;

/// What the fakes hold and were told.
pub(crate) struct Told {
    /// Every segment; one with successors is sealed.
    nodes: BTreeMap<SegmentId, SegmentNode>,
    /// Events by segment.
    pub(crate) events: BTreeMap<SegmentId, Vec<(Timestamp, Bytes)>>,
    writers: BTreeMap<(SegmentId, WriterId), u64>,
    /// Events that were appended again.
    pub(crate) repeated: usize,
    /// Numbers that were left out: a defect of a writer.
    pub(crate) gaps: Vec<String>,
    pub(crate) tasks: Vec<TaskReport>,
    pub(crate) checkpoints: Vec<CheckpointReport>,
    pub(crate) observations: Vec<Observation>,
}

/// Workers and everything around them.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) told: Arc<Mutex<Told>>,
    bus: Bus,
    client: client::Client,
    _doors: Vec<(Doors, Vec<Door>)>,
    workers: BTreeMap<String, Running>,
}

/// One segment of an index.
pub(crate) fn segment(stream: u32, number: u32) -> SegmentId {
    SegmentId { stream, epoch: 0, number }
}

/// `shop` is stream 1, `sums` is stream 2.
fn number(index: &IndexName) -> Result<u32, Problem> {
    match index.as_str() {
        "shop" => Ok(1),
        "sums" => Ok(2),
        _ => Err(Problem::not_found("UnknownIndex", index)),
    }
}

impl Default for Told {
    /// Two segments each.
    fn default() -> Self {
        let mut told = Self {
            nodes: BTreeMap::new(),
            events: BTreeMap::new(),
            writers: BTreeMap::new(),
            repeated: 0,
            gaps: Vec::new(),
            tasks: Vec::new(),
            checkpoints: Vec::new(),
            observations: Vec::new(),
        };
        for stream in [1, 2] {
            told.create(stream, 0, &KeyRange::split_evenly(2), &[]);
        }
        told
    }
}

impl Told {
    fn create(&mut self, stream: u32, epoch: u32, ranges: &[KeyRange], ended: &[SegmentId]) -> Vec<SegmentId> {
        let first = self.nodes.keys().filter(|s| s.stream == stream).count();
        let mut created = Vec::new();
        for (number, range) in (u32::try_from(first).unwrap()..).zip(ranges) {
            let segment = SegmentId { stream, epoch, number };
            let overlapping = ended.iter().filter(|s| self.nodes[s].range.overlaps(*range));
            let predecessors: Vec<SegmentId> = overlapping.copied().collect();
            for before in &predecessors {
                self.nodes.get_mut(before).unwrap().successors.push(segment);
                let known = self.writers.iter().filter(|((s, _), _)| s == before);
                let known: Vec<(WriterId, u64)> = known.map(|((_, writer), last)| (writer.clone(), *last)).collect();
                for (writer, last) in known {
                    let seeded = self.writers.entry((segment, writer)).or_default();
                    *seeded = last.max(*seeded);
                }
            }
            let (container, sealed_in, successors) = (ContainerId(0), None, Vec::new());
            let node = SegmentNode { segment, container, range: *range, sealed_in, predecessors, successors };
            self.nodes.insert(segment, node);
            created.push(segment);
        }
        created
    }

    /// Replaces segments by others; the new ones count on from the writers of those that they follow.
    pub(crate) fn scale(&mut self, ended: &[SegmentId], ranges: &[KeyRange]) -> Vec<SegmentId> {
        let epoch = self.nodes.keys().filter(|s| s.stream == ended[0].stream).map(|s| s.epoch).max().unwrap() + 1;
        self.create(ended[0].stream, epoch, ranges, ended)
    }

    /// The keys of a segment.
    pub(crate) fn range(&self, segment: SegmentId) -> KeyRange {
        self.nodes[&segment].range
    }

    fn is_sealed(&self, segment: SegmentId) -> bool {
        self.nodes.get(&segment).is_some_and(|node| !node.successors.is_empty())
    }

    fn describe(&self, index: &IndexName) -> Result<StreamDescription, Problem> {
        let stream = number(index)?;
        let present = self.nodes.values().filter(|n| n.segment.stream == stream && n.successors.is_empty());
        let segments: Vec<_> = present.map(SegmentNode::segment_range).collect();
        let epoch = segments.iter().map(|s| s.segment.epoch).max().unwrap();
        let scope = "tenant".parse().unwrap();
        let described = StreamDescription::new((stream, Timestamp::MIN), scope, index.clone(), segments);
        Ok(StreamDescription { epoch, ..described })
    }

    fn list(&self, of: &SegmentsOf) -> Result<SegmentNodes, Problem> {
        let stream = number(&of.index)?;
        let all = self.nodes.values().filter(|n| n.segment.stream == stream && Some(n.segment) > of.after);
        let segments: Vec<SegmentNode> = all.take(usize::try_from(of.limit).unwrap()).cloned().collect();
        Ok(SegmentNodes { segments, more: false })
    }

    fn info(&self, segment: SegmentId) -> SegmentInfo {
        SegmentInfo {
            segment,
            index: "any".parse().unwrap(),
            start: 0,
            tail_from: 0,
            end: u64::try_from(self.events.get(&segment).map_or(0, Vec::len)).unwrap(),
            sealed: self.is_sealed(segment),
            chunks: Vec::new(),
            bytes: 0,
            truncated_bytes: 0,
            transactional: false,
        }
    }

    fn writer(&self, name: &WriterName) -> WriterInfo {
        let last = self.writers.get(&(name.segment, name.writer.clone()));
        WriterInfo { last_event_number: last.copied().unwrap_or(0) }
    }

    fn append(&mut self, append: &Append) -> Result<Appended, Problem> {
        let block = Block::open(append.block.clone()).map_err(|e| Problem::bad_request("MalformedBlock", e))?;
        let sealed = self.is_sealed(append.segment);
        let last = self.writers.entry((append.segment, append.writer.clone())).or_default();
        if sealed && append.first_event_number + u64::try_from(block.iter().count()).unwrap() > *last + 1 {
            return Err(Problem::conflict("SegmentSealed", append.segment));
        }
        if append.first_event_number > *last + 1 {
            let gap = format!("{} after {last} of {}", append.first_event_number, append.writer);
            self.gaps.push(gap.clone());
            return Err(Problem::conflict("EventNumberGap", gap));
        }
        let stored = self.events.entry(append.segment).or_default();
        let mut appended = Appended { offsets: Vec::new(), duplicate_count: 0, duplicates: Vec::new() };
        for (number, event) in (append.first_event_number..).zip(block.iter()) {
            if number <= *last {
                appended.duplicate_count += 1;
                appended.offsets.push(None);
                self.repeated += 1;
            } else {
                *last = number;
                appended.offsets.push(Some(u64::try_from(stored.len()).unwrap()));
                stored.push((event.received, event.payload));
            }
        }
        Ok(appended)
    }

    fn read(&self, from: &ReadFrom) -> SegmentRead {
        let none = Vec::new();
        let events = self.events.get(&from.segment).unwrap_or(&none);
        let end = u64::try_from(events.len()).unwrap();
        let rows = events.iter().skip(usize::try_from(from.from).unwrap()).take(ANSWER_ROWS);
        let rows: Vec<RawEvent<'_>> =
            rows.map(|(received, payload)| RawEvent { payload, received: *received }).collect();
        let columns = match rows.len() {
            0 => Bytes::new(),
            _ => stream(&ingest::to_batch(from.segment, from.from, rows.iter().copied())),
        };
        let next = from.from + u64::try_from(rows.len()).unwrap();
        SegmentRead { from: from.from, next, end, sealed: self.is_sealed(from.segment), chunks: Vec::new(), columns }
    }
}

fn stream(batch: &RecordBatch) -> Bytes {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap().into()
}

async fn fakes(host: &Host, told: &Arc<Mutex<Told>>) -> anyhow::Result<Vec<(Doors, Vec<Door>)>> {
    let doors = |service| Doors::new(&host.bus, service, &host.replica);
    let coordinator = doors(Service::Coordinator);
    let (describing, listing) = (Arc::clone(told), Arc::clone(told));
    let described = coordinator.serve::<DescribeStream, _, _>(None, move |i| {
        let described = describing.lock().describe(&i.request.index);
        async { described }
    });
    let listed = coordinator.serve::<ListSegments, _, _>(None, move |i| {
        let listed = listing.lock().list(&i.request);
        async { listed }
    });
    let coordinator_doors = vec![described.await?, listed.await?];
    let store = doors(Service::SegmentStore);
    let (appending, reading) = (Arc::clone(told), Arc::clone(told));
    let appended = store.serve::<AppendEvents, _, _>(None, move |i| {
        let told = Arc::clone(&appending);
        async move { told.lock().append(&i.request) }
    });
    let read = store.serve::<ReadSegment, _, _>(None, move |i| {
        let told = Arc::clone(&reading);
        async move {
            let read = told.lock().read(&i.request);
            if read.next == read.from {
                tokio::time::sleep(Duration::from_millis(u64::from(i.request.wait_ms).min(20))).await;
            }
            Ok(told.lock().read(&i.request))
        }
    });
    let (looking, asking) = (Arc::clone(told), Arc::clone(told));
    let info = store.serve::<DescribeSegment, _, _>(None, move |i| {
        let info = looking.lock().info(i.request.segment);
        async { Ok(info) }
    });
    let writer = store.serve::<DescribeWriter, _, _>(None, move |i| {
        let writer = asking.lock().writer(&i.request);
        async { Ok(writer) }
    });
    let store_doors = vec![appended.await?, read.await?, info.await?, writer.await?];
    let manager = doors(Service::JobManager);
    let (tasks, checkpoints) = (Arc::clone(told), Arc::clone(told));
    let reported = manager.serve::<ReportTask, _, _>(None, move |i| {
        tasks.lock().tasks.push(i.request);
        async { Ok(Empty {}) }
    });
    let stored = manager.serve::<ReportCheckpoint, _, _>(None, move |i| {
        checkpoints.lock().checkpoints.push(i.request);
        async { Ok(Empty {}) }
    });
    let manager_doors = vec![reported.await?, stored.await?];
    let alerter = doors(Service::Alerter);
    let rows = Arc::clone(told);
    let observed = alerter.serve::<ObserveRows, _, _>(None, move |i| {
        rows.lock().observations.push(i.request);
        async { Ok(Empty {}) }
    });
    let observed = observed.await?;
    Ok(vec![
        (coordinator, coordinator_doors),
        (store, store_doors),
        (manager, manager_doors),
        (alerter, vec![observed]),
    ])
}

impl Scene {
    /// A world without workers.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let world = World::start().await?;
        let host = Host::connect(Service::Coordinator, world.common("fakes", &[])?).await?;
        let told = Arc::default();
        let doors = fakes(&host, &told).await?;
        let client = client::Client::new(host.bus.clone(), host.objects.clone());
        Ok(Self { world, told, bus: host.bus.clone(), client, _doors: doors, workers: BTreeMap::new() })
    }

    /// Starts a worker with four slots.
    pub(crate) async fn worker(&mut self, replica: &str) -> anyhow::Result<()> {
        self.worker_with(replica, &[]).await
    }

    /// The same with more settings.
    pub(crate) async fn worker_with(&mut self, replica: &str, more: &[&str]) -> anyhow::Result<()> {
        let set = [&["task_worker.slots=4"], more].concat();
        let host = Host::connect(Service::TaskWorker, self.world.common(replica, &set)?).await?;
        let config = self.world.settings(replica, &set)?.section()?;
        self.workers.insert(replica.to_owned(), TaskWorker::start(config, host).await?);
        Ok(())
    }

    /// Ends a worker without a word to anybody.
    pub(crate) fn kill(&mut self, replica: &str) {
        drop(self.workers.remove(replica).expect("the worker runs"));
    }

    /// What a worker says of itself.
    pub(crate) async fn member(&self, replica: &str) -> anyhow::Result<Member> {
        let common = self.world.common("fakes", &[])?;
        let members = self.bus.bucket(MEMBERS, Some(common.lease_ttl.0), 1).await?;
        let entry = members.get(&format!("task-worker.{replica}")).await?.expect("the worker is a member");
        Ok(wire::decode(&entry.value)?)
    }

    /// Stores an event in a segment of `shop`.
    pub(crate) fn publish(&self, segment: SegmentId, received: Timestamp, event: String) {
        let mut told = self.told.lock();
        assert!(!told.is_sealed(segment), "nothing is stored in {segment} any more");
        told.events.entry(segment).or_default().push((received, event.into()));
    }

    /// Events of `sums`, as JSON.
    pub(crate) fn results(&self) -> Vec<serde_json::Value> {
        let told = self.told.lock();
        let events = told.events.iter().filter(|(segment, _)| segment.stream == 2).flat_map(|(_, events)| events);
        events.map(|(_, event)| serde_json::from_slice(event).unwrap()).collect()
    }

    /// Places a graph over workers.
    pub(crate) fn place(graph: &JobGraph, attempt: u32, workers: &[&str]) -> ExecutionGraph {
        let offers = workers.iter().map(|w| FreeSlots { worker: w.parse().unwrap(), free: 4 });
        ExecutionGraph::place(graph.clone(), attempt, &offers.collect::<Vec<_>>()).unwrap()
    }

    /// What a worker would be told to run.
    pub(crate) async fn deployment(
        &self,
        execution: &ExecutionGraph,
        worker: &ReplicaId,
        from: Option<u64>,
    ) -> anyhow::Result<Deployment> {
        let mut cut = match from {
            None => StreamCut([(segment(1, 0), 0), (segment(1, 1), 0)].into()),
            Some(_) => StreamCut::default(),
        };
        let mut restore = Vec::new();
        for report in self.told.lock().checkpoints.iter().filter(|r| Some(r.checkpoint) == from) {
            cut.0.extend(report.cut.0.iter().map(|(segment, offset)| (*segment, *offset)));
            restore.extend(report.part.clone().map(|part| Restore { task: report.task, part }));
        }
        let cut = self.client.advance(&"shop".parse()?, &cut).await?;
        let index = SourceCut::Index { index: "shop".parse()?, cut: cut.clone() };
        let cuts = BTreeMap::from([(0, index)]);
        Ok(Deployment {
            job: "job".parse()?,
            attempt: execution.attempt,
            graph: wire::encode(execution).into(),
            restore,
            cut,
            submission: 1,
            worker_started: self.member(worker.as_str()).await?.started,
            cuts,
            generation: 0,
            checkpoint: 0,
        })
    }

    /// Deploys an attempt on all its workers, from a checkpoint if one is named.
    pub(crate) async fn deploy(&self, execution: &ExecutionGraph, from: Option<u64>) -> anyhow::Result<()> {
        for worker in workers_of(execution) {
            let deployment = self.deployment(execution, &worker, from).await?;
            self.order_deploy(&worker, &deployment).await?;
        }
        Ok(())
    }

    /// Sends one order.
    pub(crate) async fn order_deploy(&self, worker: &ReplicaId, deployment: &Deployment) -> Result<Empty, Problem> {
        self.bus.call_within::<DeployTasks>(worker, deployment, Duration::from_secs(10)).await
    }

    /// Ends an attempt on a worker.
    pub(crate) async fn cancel(&self, worker: &ReplicaId, attempt: u32) -> Result<Empty, Problem> {
        self.bus.call::<CancelTasks>(worker, &AttemptName { job: "job".parse().unwrap(), attempt, submission: 1 }).await
    }

    /// Orders a barrier of one worker.
    pub(crate) async fn order_barrier(
        &self,
        worker: &ReplicaId,
        attempt: u32,
        checkpoint: u64,
    ) -> Result<Empty, Problem> {
        let barrier =
            Barrier { job: "job".parse().unwrap(), attempt, checkpoint, submission: 1, kind: BarrierKind::Checkpoint };
        self.bus.call::<TriggerCheckpoint>(worker, &barrier).await
    }

    /// Takes a checkpoint and waits until every task has reported its part.
    pub(crate) async fn checkpoint(&self, execution: &ExecutionGraph, checkpoint: u64) -> anyhow::Result<()> {
        for worker in workers_of(execution) {
            self.order_barrier(&worker, execution.attempt, checkpoint).await?;
        }
        let all: BTreeSet<u32> = (0..u32::try_from(execution.tasks.len())?).collect();
        self.until("every task reports its part", |told| {
            let parts =
                told.checkpoints.iter().filter(|r| (r.attempt, r.checkpoint) == (execution.attempt, checkpoint));
            parts.map(|r| r.task).collect::<BTreeSet<_>>() == all
        })
        .await;
        Ok(())
    }

    /// Tells every worker that a checkpoint is committed.
    pub(crate) async fn commit(&self, execution: &ExecutionGraph, checkpoint: u64) -> anyhow::Result<()> {
        for worker in workers_of(execution) {
            let commit = Commit { job: "job".parse()?, attempt: execution.attempt, submission: 1, checkpoint };
            self.bus.call::<CommitCheckpoint>(&worker, &commit).await?;
        }
        Ok(())
    }

    /// Waits until every task of an attempt has come to its end.
    pub(crate) async fn until_finished(&self, execution: &ExecutionGraph) {
        self.until("every task comes to its end", |told| {
            let mine = told.tasks.iter().filter(|r| r.attempt == execution.attempt && r.status == TaskStatus::Finished);
            mine.map(|r| r.task).collect::<BTreeSet<_>>().len() == execution.tasks.len()
        })
        .await;
    }

    /// Waits until the fakes were told something.
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&Told) -> bool) {
        let holds = tokio::time::timeout(WITHIN, eventually(WITHIN * 2, async || check(&self.told.lock()))).await;
        assert!(holds.is_ok(), "{what}: not within {WITHIN:?}; failures: {:?}", self.failures());
    }

    /// Waits for a number of results.
    pub(crate) async fn until_results(&self, count: usize) {
        let stored = |told: &Told| -> usize {
            told.events.iter().filter(|(segment, _)| segment.stream == 2).map(|(_, events)| events.len()).sum()
        };
        self.until(&format!("{count} results"), |told| stored(told) >= count).await;
    }

    /// The failures that tasks reported.
    pub(crate) fn failures(&self) -> Vec<(u32, String)> {
        let told = self.told.lock();
        let failed = told.tasks.iter().filter_map(|report| match &report.status {
            TaskStatus::Failed(reason) => Some((report.attempt, reason.clone())),
            _ => None,
        });
        failed.collect()
    }
}

fn workers_of(execution: &ExecutionGraph) -> BTreeSet<ReplicaId> {
    execution.tasks.iter().map(|task| task.worker.clone()).collect()
}
