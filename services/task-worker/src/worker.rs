//! The attempts of a worker: what is deployed, what is ended, and which slots that takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flow::ExecutionGraph;
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::info;
use types::{JobId, Timestamp};
use wire::{
    Empty, Problem,
    task_worker::{AttemptName, Barrier, Commit, Deployment, StateOf, StateRows},
};

use crate::{
    attempt::{Attempt, BARRIERS_MAX},
    chain::{Plan, plans},
    error::Error,
    metrics::SLOTS_USED,
    name::Submitted,
    task::{Order, Shared},
};

/// Ended attempts that are remembered, the latest of each job; beyond it the one of the first job by name is forgotten.
const ENDED_MAX: usize = 4_096;

/// Runs attempts.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Inner>);

struct Inner {
    shared: Shared,
    started: Timestamp,
    slots: u16,
    /// Where tasks run.
    tasks: Handle,
    attempts: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    running: BTreeMap<JobId, Running>,
    /// The last attempt of a job that ended here; it and older ones never begin again.
    ended: BTreeMap<JobId, Place>,
}

/// Submission and attempt: what was submitted again counts its attempts anew.
type Place = (u64, u32);

struct Running {
    order: Place,
    slots: usize,
    token: CancellationToken,
    barriers: Vec<mpsc::Sender<Order>>,
    commits: watch::Sender<u64>,
    done: JoinHandle<()>,
}

impl Worker {
    /// A worker without tasks; they will run on `tasks`.
    pub(crate) fn new(shared: Shared, started: Timestamp, slots: u16, tasks: Handle) -> Self {
        Self(Arc::new(Inner { shared, started, slots, tasks, attempts: Mutex::default() }))
    }

    /// Starts the worker's tasks of an attempt, after every older one has ended.
    pub(crate) async fn deploy(&self, deployment: Deployment) -> Result<Empty, Problem> {
        let Deployment { job, attempt, submission, worker_started, .. } = &deployment;
        let (is, meant) = (self.0.started, *worker_started);
        if is != meant {
            return Err(Error::WorkerRestarted { is, meant }.into());
        }
        let mut attempts = self.0.attempts.lock().await;
        attempts.sweep();
        let order = (*submission, *attempt);
        let over = attempts.ended.get(job).is_some_and(|ended| order <= *ended);
        match attempts.running.get(job).map(|running| running.order) {
            Some(running) if running == order => return Ok(Empty {}),
            Some(running) if running > order => return Err(self.over(&deployment).into()),
            _ if over => return Err(self.over(&deployment).into()),
            _ => {}
        }
        let (execution, plans) = self.read(&deployment)?;
        attempts.end(job).await;
        let needed = execution.tasks_on(&self.0.shared.replica).map(|t| t.slot).collect::<BTreeSet<_>>().len();
        let free = usize::from(self.0.slots).saturating_sub(attempts.slots());
        if needed > free {
            return Err(Error::NoSlots { needed, free, slots: self.0.slots }.into());
        }
        let running = self.start(deployment, execution, plans, needed);
        attempts.running.insert(running.0, running.1);
        SLOTS_USED.set(attempts.slots());
        Ok(Empty {})
    }

    fn over(&self, deployment: &Deployment) -> Error {
        Error::AttemptOver { job: deployment.job.clone(), attempt: deployment.attempt }
    }

    fn read(&self, deployment: &Deployment) -> Result<(ExecutionGraph, Vec<Plan>), Error> {
        let bad = |why: String| Error::BadPlan(why);
        let execution: ExecutionGraph = wire::decode(&deployment.graph).map_err(|problem| bad(problem.to_string()))?;
        if execution.attempt != deployment.attempt {
            return Err(bad(format!("the graph is of attempt {}, not {}", execution.attempt, deployment.attempt)));
        }
        if execution.tasks_on(&self.0.shared.replica).next().is_none() {
            return Err(bad(format!("no task is placed on worker {}", self.0.shared.replica)));
        }
        let plans = plans(&execution)?;
        Ok((execution, plans))
    }

    fn start(
        &self,
        deployment: Deployment,
        execution: ExecutionGraph,
        plans: Vec<Plan>,
        slots: usize,
    ) -> (JobId, Running) {
        let Deployment { job, attempt, restore, cut, cuts, submission, generation, checkpoint, .. } = deployment;
        let replica = &self.0.shared.replica;
        let is_source = |vertex: u32| {
            let plan = usize::try_from(vertex).ok().and_then(|vertex| plans.get(vertex));
            plan.is_some_and(Plan::is_source)
        };
        let mine = (0u32..).zip(&execution.tasks).filter(|(_, task)| task.worker == *replica);
        let (mut senders, mut barriers) = (Vec::new(), BTreeMap::new());
        for (number, _) in mine.filter(|(_, task)| is_source(task.id.vertex)) {
            let (sender, receiver) = mpsc::channel(BARRIERS_MAX);
            senders.push(sender);
            barriers.insert(number, receiver);
        }
        let token = CancellationToken::new();
        let (commits, committed) = watch::channel(checkpoint);
        let work = Attempt {
            shared: self.0.shared.clone(),
            submitted: Submitted { job: job.clone(), submission, generation, unordered: None },
            execution,
            plans,
            restore,
            cut,
            cuts,
            commits: committed,
            token: token.clone(),
            barriers,
        };
        info!(%job, attempt, slots, "attempt begins");
        let done = self.0.tasks.spawn(work.run());
        (job, Running { order: (submission, attempt), slots, token, barriers: senders, commits, done })
    }

    /// Ends the tasks of a job up to an attempt; when it returns they have ended.
    pub(crate) async fn cancel(&self, name: AttemptName) -> Result<Empty, Problem> {
        let mut attempts = self.0.attempts.lock().await;
        attempts.sweep();
        if attempts.running.get(&name.job).is_some_and(|running| running.order <= (name.submission, name.attempt)) {
            attempts.end(&name.job).await;
        }
        SLOTS_USED.set(attempts.slots());
        Ok(Empty {})
    }

    /// Hands a barrier to the sources of an attempt.
    pub(crate) async fn trigger(&self, barrier: Barrier) -> Result<Empty, Problem> {
        let mut attempts = self.0.attempts.lock().await;
        attempts.sweep();
        let Barrier { job, attempt, checkpoint, submission, kind } = barrier;
        let order = Order { checkpoint, kind, came: Instant::now() };
        let Some(running) = attempts.running.get(&job).filter(|running| running.order == (submission, attempt)) else {
            return Err(Error::AttemptOver { job, attempt }.into());
        };
        for source in &running.barriers {
            match source.try_send(order) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => return Err(Error::TooManyBarriers { job }.into()),
                // It came to its end: its last part stands for it. Where the attempt is over, the job manager hears it.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        Ok(Empty {})
    }

    /// Tells the tasks of an attempt that a checkpoint is committed.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Empty, Problem> {
        let mut attempts = self.0.attempts.lock().await;
        attempts.sweep();
        let Commit { job, attempt, submission, checkpoint } = commit;
        let Some(running) = attempts.running.get(&job).filter(|running| running.order == (submission, attempt)) else {
            return Err(Error::AttemptOver { job, attempt }.into());
        };
        running.commits.send_if_modified(|known| {
            let newer = checkpoint > *known;
            *known = checkpoint.max(*known);
            newer
        });
        Ok(Empty {})
    }

    /// Reads rows of live state.
    pub(crate) fn state(_: &StateOf) -> Result<StateRows, Problem> {
        Err(Error::NotBuilt("reading live state").into())
    }

    /// Ends everything.
    pub(crate) async fn stop(&self) {
        let mut attempts = self.0.attempts.lock().await;
        let jobs: Vec<JobId> = attempts.running.keys().cloned().collect();
        // All at once first: the tasks of one attempt may wait for each other.
        attempts.running.values().for_each(|running| running.token.cancel());
        for job in jobs {
            attempts.end(&job).await;
        }
        SLOTS_USED.set(0);
    }
}

impl Attempts {
    /// Forgets attempts whose tasks have ended by themselves.
    fn sweep(&mut self) {
        let over: Vec<(JobId, Place)> =
            self.running.iter().filter(|(_, r)| r.done.is_finished()).map(|(job, r)| (job.clone(), r.order)).collect();
        for (job, order) in over {
            self.running.remove(&job);
            self.remember(job, order);
        }
    }

    /// Ends the running attempt of a job and waits until its last task has.
    async fn end(&mut self, job: &JobId) {
        let Some(running) = self.running.remove(job) else { return };
        running.token.cancel();
        if let Err(error) = running.done.await {
            tracing::error!(%job, %error, "attempt did not end in order");
        }
        info!(%job, attempt = running.order.1, "attempt ended");
        self.remember(job.clone(), running.order);
    }

    fn remember(&mut self, job: JobId, order: Place) {
        self.ended.insert(job, order);
        while self.ended.len() > ENDED_MAX {
            self.ended.pop_first();
        }
    }

    fn slots(&self) -> usize {
        self.running.values().map(|running| running.slots).sum()
    }
}
