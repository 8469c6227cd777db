//! Everything around the job manager, each a fake at its door.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bus::{Bus, Door, Doors};
use flow::ExecutionGraph;
use host::{Host, InProcess, start_in_process};
use job_manager::JobManager;
use parking_lot::Mutex;
use testkit::{World, eventually};
use types::{ContainerId, IndexName, KeyRange, ReplicaId, SegmentId, StreamCut, Timestamp};
use wire::{
    Empty, Problem, Service,
    coordinator::{DescribeStream, ListSegments, SegmentNode, SegmentNodes, StreamDescription},
    job_manager::{
        CheckpointReport, DescribeJob, JobDescription, JobName, NewJob, PartRef, ReportCheckpoint, ReportTask, StartAt,
        SubmitJob, TaskReport, TaskStatus,
    },
    segment_store::{DescribeSegment, SegmentInfo},
    task_worker::{CancelTasks, DeployTasks, Deployment, TriggerCheckpoint},
    views::Member,
};

/// How long anything awaited may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);

/// What the fakes hold and were told.
#[derive(Default)]
pub(crate) struct Told {
    nodes: BTreeMap<SegmentId, SegmentNode>,
    /// The ends of segments.
    pub(crate) ends: BTreeMap<SegmentId, u64>,
    /// Up to where the sources say that they have read.
    pub(crate) read: StreamCut,
    pub(crate) deployments: Vec<Deployment>,
    /// Barriers that were ordered.
    barriers: usize,
}

/// A job manager and everything around it.
pub(crate) struct Scene {
    pub(crate) told: Arc<Mutex<Told>>,
    bus: Bus,
    _manager: InProcess,
    _member: host::Announcement,
    _doors: Vec<(Doors, Vec<Door>)>,
    _world: World,
}

/// A segment of `shop`.
pub(crate) fn segment(epoch: u32, number: u32) -> SegmentId {
    SegmentId { stream: 1, epoch, number }
}

fn known(index: &IndexName) -> Result<(), Problem> {
    let known = ["shop", "sums"].contains(&index.as_str());
    known.then_some(()).ok_or_else(|| Problem::not_found("UnknownIndex", index))
}

impl Told {
    fn create(&mut self, epoch: u32, ranges: &[KeyRange], before: &[SegmentId]) -> Vec<SegmentId> {
        let mut created = Vec::new();
        for range in ranges {
            let segment = segment(epoch, u32::try_from(self.nodes.len()).unwrap());
            for before in before {
                self.nodes.get_mut(before).unwrap().successors.push(segment);
            }
            let (container, sealed_in, successors) = (ContainerId(0), None, Vec::new());
            let predecessors = before.to_vec();
            self.nodes.insert(
                segment,
                SegmentNode { segment, container, range: *range, sealed_in, predecessors, successors },
            );
            created.push(segment);
        }
        created
    }

    fn describe(&self, index: &IndexName) -> Result<StreamDescription, Problem> {
        known(index)?;
        let segments: Vec<_> =
            self.nodes.values().filter(|n| n.successors.is_empty()).map(SegmentNode::segment_range).collect();
        let epoch = segments.iter().map(|s| s.segment.epoch).max().unwrap();
        let scope = "tenant".parse().unwrap();
        Ok(StreamDescription { epoch, ..StreamDescription::new((1, Timestamp::MIN), scope, index.clone(), segments) })
    }

    fn info(&self, segment: SegmentId) -> SegmentInfo {
        SegmentInfo {
            segment,
            index: "shop".parse().unwrap(),
            start: 0,
            tail_from: 0,
            end: self.ends.get(&segment).copied().unwrap_or(0),
            sealed: !self.nodes[&segment].successors.is_empty(),
            chunks: Vec::new(),
            bytes: 0,
            truncated_bytes: 0,
            transactional: false,
        }
    }
}

async fn fakes(host: &Host, told: &Arc<Mutex<Told>>) -> anyhow::Result<Vec<(Doors, Vec<Door>)>> {
    let doors = |service| Doors::new(&host.bus, service, &host.replica);
    let coordinator = doors(Service::Coordinator);
    let (describing, listing, looking) = (Arc::clone(told), Arc::clone(told), Arc::clone(told));
    let described = coordinator.serve::<DescribeStream, _, _>(None, move |i| {
        let described = describing.lock().describe(&i.request.index);
        async { described }
    });
    let listed = coordinator.serve::<ListSegments, _, _>(None, move |i| {
        let of = i.request;
        let segments = listing.lock().nodes.values().filter(|n| Some(n.segment) > of.after).cloned().collect();
        let listed = known(&of.index).map(|()| SegmentNodes { segments, more: false });
        async { listed }
    });
    let coordinator_doors = vec![described.await?, listed.await?];
    let store = doors(Service::SegmentStore);
    let info = store.serve::<DescribeSegment, _, _>(None, move |i| {
        let info = looking.lock().info(i.request.segment);
        async { Ok(info) }
    });
    let info = info.await?;
    let worker = doors(Service::TaskWorker);
    let (deploying, barring, bus) = (Arc::clone(told), Arc::clone(told), host.bus.clone());
    let key: Option<ReplicaId> = Some("w".parse()?);
    let deployed = worker.serve::<DeployTasks, _, _>(key.as_ref(), move |i| {
        let mut told = deploying.lock();
        if told.deployments.iter().all(|known| known.attempt != i.request.attempt) {
            told.read = i.request.cut.clone();
            told.deployments.push(i.request);
        }
        async { Ok(Empty {}) }
    });
    let cancelled = worker.serve::<CancelTasks, _, _>(key.as_ref(), |_| async { Ok(Empty {}) });
    let triggered = worker.serve::<TriggerCheckpoint, _, _>(key.as_ref(), move |i| {
        let reports = {
            let mut told = barring.lock();
            told.barriers += 1;
            reports(&told, i.request.attempt, i.request.checkpoint)
        };
        let bus = bus.clone();
        async move {
            for report in reports {
                bus.call::<ReportCheckpoint>(&(), &report).await?;
            }
            Ok(Empty {})
        }
    });
    let worker_doors = vec![deployed.await?, cancelled.await?, triggered.await?];
    Ok(vec![(coordinator, coordinator_doors), (store, vec![info]), (worker, worker_doors)])
}

/// What the tasks of the last deployment say to a barrier: the first one has read everything, each has a part.
fn reports(told: &Told, attempt: u32, checkpoint: u64) -> Vec<CheckpointReport> {
    let Some(deployment) = told.deployments.iter().find(|d| d.attempt == attempt) else { return Vec::new() };
    let execution: ExecutionGraph = wire::decode(&deployment.graph).unwrap();
    let part = |task: u32| PartRef { key: format!("parts/{checkpoint}/{task}"), bytes: 0, crc32c: 0 };
    let tasks = 0..u32::try_from(execution.tasks.len()).unwrap();
    let report = |task| CheckpointReport {
        job: deployment.job.clone(),
        attempt,
        checkpoint,
        task,
        part: Some(part(task)),
        cut: if task == 0 { told.read.clone() } else { StreamCut::default() },
    };
    tasks.map(report).collect()
}

impl Scene {
    /// A job manager with one worker, and an index of two segments.
    pub(crate) async fn start(set: &[&str]) -> anyhow::Result<Self> {
        let world = World::start().await?;
        let host = Host::connect(Service::TaskWorker, world.common("w", &[])?).await?;
        let told = Arc::<Mutex<Told>>::default();
        told.lock().create(0, &KeyRange::split_evenly(2), &[]);
        let doors = fakes(&host, &told).await?;
        let member = Member {
            service: Service::TaskWorker,
            replica: "w".parse()?,
            started: Timestamp::from_millis(1),
            exchange_address: None,
            slots: 8,
            unready: <_>::default(),
        };
        let announced = host.announce(member).await?;
        let mut all = vec!["job_manager.checkpoint_interval=100ms"];
        all.extend(set);
        let manager = start_in_process::<JobManager>(&world.settings("m", &all)?, None).await?;
        Ok(Self { told, bus: host.bus.clone(), _manager: manager, _member: announced, _doors: doors, _world: world })
    }

    /// Submits a windowed job over `shop`.
    pub(crate) async fn submit(&self, start: StartAt) -> Result<JobDescription, Problem> {
        let text = "INSERT INTO sums SELECT service, window_start, count(*) AS n \
                    FROM tumble(shop, INTERVAL '10 seconds') GROUP BY service, window_start";
        let job = "job".parse().unwrap();
        let new = NewJob { job, text: text.into(), sink: None, start, parallelism: 2, early: None };
        // The doors open when the replica leads.
        let mut answer = self.bus.call::<SubmitJob>(&(), &new).await;
        let until = tokio::time::Instant::now() + WITHIN;
        while answer.as_ref().is_err_and(Problem::is_transient) && tokio::time::Instant::now() < until {
            answer = self.bus.call::<SubmitJob>(&(), &new).await;
        }
        answer
    }

    /// The job as people see it.
    pub(crate) async fn describe(&self) -> Result<JobDescription, Problem> {
        self.bus.call::<DescribeJob>(&(), &JobName { job: "job".parse().unwrap() }).await
    }

    /// Waits until the job looks as wanted.
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&JobDescription) -> bool) {
        let holds = async || self.describe().await.is_ok_and(|job| check(&job));
        let held = tokio::time::timeout(WITHIN, eventually(WITHIN * 2, holds)).await;
        assert!(held.is_ok(), "{what}: not within {WITHIN:?}; {:?}", self.describe().await);
    }

    /// Waits for an attempt, and returns what the worker was told.
    pub(crate) async fn deployed(&self, attempt: u32) -> Deployment {
        let of = || self.told.lock().deployments.iter().find(|d| d.attempt == attempt).cloned();
        let held = tokio::time::timeout(WITHIN, eventually(WITHIN * 2, async || of().is_some())).await;
        assert!(held.is_ok(), "attempt {attempt} does not begin; {:?}", self.describe().await);
        of().unwrap()
    }

    /// Waits for some more complete checkpoints.
    pub(crate) async fn checkpoints(&self, count: u64) {
        let now = self.describe().await.unwrap().checkpoint.unwrap_or(0);
        self.until("checkpoints complete", |job| job.checkpoint.unwrap_or(0) >= now + count).await;
    }

    /// Replaces segments, in order of their keys, by `count` others.
    pub(crate) fn scale(&self, ended: &[SegmentId], count: u32) -> Vec<SegmentId> {
        let mut told = self.told.lock();
        let (first, last) = (told.nodes[&ended[0]].range.first, told.nodes[&ended[ended.len() - 1]].range.last);
        let epoch = told.nodes.keys().map(|s| s.epoch).max().unwrap() + 1;
        let middle = first + (last - first) / 2;
        let ranges = match count {
            1 => vec![KeyRange { first, last }],
            _ => vec![KeyRange { first, last: middle }, KeyRange { first: middle + 1, last }],
        };
        told.create(epoch, &ranges, ended)
    }

    /// Tells that a task came to the end of a segment.
    pub(crate) async fn finished(&self, deployment: &Deployment, task: u32) {
        self.report(deployment, task, TaskStatus::Finished).await;
    }

    /// Tells what became of a task.
    pub(crate) async fn report(&self, deployment: &Deployment, task: u32, status: TaskStatus) {
        let report = TaskReport { job: deployment.job.clone(), attempt: deployment.attempt, task, status };
        self.bus.call::<ReportTask>(&(), &report).await.unwrap();
    }
}
