//! Everything around the job manager, each a fake at its door.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bus::{Bus, Door, Doors};
use flow::ExecutionGraph;
use host::{Host, InProcess, start_in_process};
use job_manager::JobManager;
use parking_lot::Mutex;
use store::Objects;
use testkit::{World, eventually};
use types::{ContainerId, IndexName, KeyRange, ReplicaId, SegmentId, StreamCut, Timestamp};
use wire::{
    Empty, Problem, Service,
    coordinator::{DescribeStream, ListSegments, SegmentNode, SegmentNodes, StreamDescription},
    job_manager::{
        Cause, CheckpointFigures, CheckpointReport, DescribeJob, JobDescription, JobName, JobOptions, NewJob, PartRef,
        ReportCheckpoint, ReportTask, StartAt, SubmitJob, TaskReport, TaskStatus,
    },
    segment_store::{DescribeSegment, SegmentInfo},
    task_worker::{BarrierKind, CancelTasks, DeployTasks, Deployment, TriggerCheckpoint},
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
    /// One order of each attempt.
    pub(crate) deployments: Vec<Deployment>,
    /// Which worker took which attempt.
    pub(crate) took: BTreeSet<(u32, String)>,
    /// Barriers that were ordered, and what follows them.
    pub(crate) barriers: Vec<BarrierKind>,
    /// Whether workers take checkpoints alone, as those of older releases do.
    pub(crate) refuses: bool,
}

/// A job manager and everything around it.
pub(crate) struct Scene {
    pub(crate) told: Arc<Mutex<Told>>,
    bus: Bus,
    pub(crate) objects: Objects,
    manager: Option<InProcess>,
    set: Vec<String>,
    workers: BTreeMap<String, Worker>,
    _doors: Vec<(Doors, Vec<Door>)>,
    world: World,
}

/// A task worker that says what it is told to say.
struct Worker {
    _doors: (Doors, Vec<Door>),
    /// What others believe of it; a dead one stands there until its lease ends.
    _member: host::Announcement,
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
    Ok(vec![(coordinator, coordinator_doors), (store, vec![info])])
}

async fn worker(host: &Host, told: &Arc<Mutex<Told>>, name: &str) -> anyhow::Result<Worker> {
    let replica: ReplicaId = name.parse()?;
    let doors = Doors::new(&host.bus, Service::TaskWorker, &replica);
    let (deploying, barring, bus) = (Arc::clone(told), Arc::clone(told), host.bus.clone());
    let key = Some(replica.clone());
    let (taker, reporter) = (name.to_owned(), replica.clone());
    let deployed = doors.serve::<DeployTasks, _, _>(key.as_ref(), move |i| {
        let mut told = deploying.lock();
        told.took.insert((i.request.attempt, taker.clone()));
        if told.deployments.iter().all(|known| known.attempt != i.request.attempt) {
            told.read = i.request.cut.clone();
            told.deployments.push(i.request);
        }
        async { Ok(Empty {}) }
    });
    let cancelled = doors.serve::<CancelTasks, _, _>(key.as_ref(), |_| async { Ok(Empty {}) });
    let triggered = doors.serve::<TriggerCheckpoint, _, _>(key.as_ref(), move |i| {
        let reports = {
            let mut told = barring.lock();
            told.barriers.push(i.request.kind);
            match told.refuses && i.request.kind != BarrierKind::Checkpoint {
                true => Err(Problem::bad_request("NotBuilt", "stopping at a barrier")),
                false => Ok(reports(&told, &reporter, i.request.attempt, i.request.checkpoint)),
            }
        };
        let bus = bus.clone();
        async move {
            let reports = reports?;
            for report in reports {
                bus.call::<ReportCheckpoint>(&(), &report).await?;
            }
            Ok(Empty {})
        }
    });
    let open = vec![deployed.await?, cancelled.await?, triggered.await?];
    let member = Member {
        service: Service::TaskWorker,
        replica,
        started: Timestamp::from_millis(1),
        exchange_address: None,
        slots: 8,
        unready: <_>::default(),
    };
    Ok(Worker { _doors: (doors, open), _member: host.announce(member).await? })
}

/// What the tasks of the last deployment say to a barrier: the first one has read everything, each has a part.
fn reports(told: &Told, worker: &ReplicaId, attempt: u32, checkpoint: u64) -> Vec<CheckpointReport> {
    let Some(deployment) = told.deployments.iter().find(|d| d.attempt == attempt) else { return Vec::new() };
    let execution: ExecutionGraph = wire::decode(&deployment.graph).unwrap();
    let part = |task: u32| PartRef { key: format!("parts/{checkpoint}/{task}"), bytes: 0, crc32c: 0 };
    let tasks = (0u32..).zip(&execution.tasks).filter(|(_, task)| task.worker == *worker).map(|(number, _)| number);
    let report = |task| CheckpointReport {
        job: deployment.job.clone(),
        attempt,
        checkpoint,
        task,
        part: Some(part(task)),
        cut: if task == 0 { told.read.clone() } else { StreamCut::default() },
        splits: BTreeMap::new(),
        blocks: Vec::new(),
        figures: CheckpointFigures::default(),
    };
    tasks.map(report).collect()
}

impl Scene {
    /// A job manager with one worker, and an index of two segments.
    pub(crate) async fn start(set: &[&str]) -> anyhow::Result<Self> {
        Self::with_workers(&["w"], set).await
    }

    /// A job manager with some workers of eight slots, and an index of two segments.
    pub(crate) async fn with_workers(workers: &[&str], set: &[&str]) -> anyhow::Result<Self> {
        let world = World::start().await?;
        let host = Host::connect(Service::TaskWorker, world.common("w", &[])?).await?;
        let told = Arc::<Mutex<Told>>::default();
        told.lock().create(0, &KeyRange::split_evenly(2), &[]);
        let doors = fakes(&host, &told).await?;
        let mut announced = BTreeMap::new();
        for name in workers {
            announced.insert((*name).to_owned(), worker(&host, &told, name).await?);
        }
        let all = std::iter::once("job_manager.checkpoint_interval=100ms").chain(set.iter().copied());
        let set = all.map(str::to_owned).collect();
        let (bus, objects) = (host.bus.clone(), host.objects.clone());
        let mut scene = Self { told, bus, objects, manager: None, set, workers: announced, _doors: doors, world };
        scene.manage("m").await?;
        Ok(scene)
    }

    /// Lets a job manager of that name take over from the one that there is.
    pub(crate) async fn manage(&mut self, name: &str) -> anyhow::Result<()> {
        if let Some(before) = self.manager.take() {
            before.stop().await?;
        }
        let set: Vec<&str> = self.set.iter().map(String::as_str).collect();
        self.manager = Some(start_in_process::<JobManager>(&self.world.settings(name, &set)?, None).await?);
        Ok(())
    }

    /// One call, repeated while the doors are not open.
    pub(crate) async fn call<C: wire::Call<Key = ()>>(&self, request: &C::Request) -> Result<C::Reply, Problem> {
        let until = tokio::time::Instant::now() + WITHIN;
        loop {
            match self.bus.call::<C>(&(), request).await {
                Err(problem) if problem.is_transient() && tokio::time::Instant::now() < until => {}
                answer => return answer,
            }
        }
    }

    /// The folders of checkpoints that there are.
    pub(crate) async fn folders(&self) -> Vec<u64> {
        let names = self.objects.folders("ckpt/job-1/").await.unwrap_or_default();
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Ends a worker as `kill -9` does: nobody answers at its doors, and nobody has said so.
    pub(crate) fn kill(&mut self, name: &str) {
        self.workers.get_mut(name).expect("the worker lives")._doors.1.clear();
    }

    /// Submits a windowed job over `shop`.
    pub(crate) async fn submit(&self, start: StartAt) -> Result<JobDescription, Problem> {
        let text = "INSERT INTO sums SELECT window_start, count(*) AS n \
                    FROM tumble(shop, INTERVAL '10 seconds') GROUP BY window_start";
        let job = "job".parse().unwrap();
        let new = NewJob {
            job,
            text: text.into(),
            sink: None,
            start,
            parallelism: 2,
            early: None,
            options: JobOptions::default(),
        };
        // The doors open when the replica leads.
        self.call::<SubmitJob>(&new).await
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
        self.report(deployment, task, TaskStatus::EndOfSplit).await;
    }

    /// Tells what became of a task.
    pub(crate) async fn report(&self, deployment: &Deployment, task: u32, status: TaskStatus) {
        let (job, attempt, cause) = (deployment.job.clone(), deployment.attempt, Cause::default());
        let report = TaskReport { job, attempt, task, status, cause };
        self.bus.call::<ReportTask>(&(), &report).await.unwrap();
    }
}
