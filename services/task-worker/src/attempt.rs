//! One attempt of a job on this worker: its tasks begin together and end together.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use exchange::{Gate, Receiver};
use flow::{Channel, ExecutionGraph, Partition, TaskId, Uid};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::{JobId, ReplicaId, StreamCut};
use wire::{
    Service,
    job_manager::{Cause, SourceCut, TaskReport, TaskStatus},
    task_worker::Restore,
    views::Member,
};

use crate::{
    chain::{Chain, Head, Plan, Tail},
    edges::{Edge, Edges},
    error::TaskError,
    metrics::TASKS_FAILED,
    name::Submitted,
    part::Part,
    report,
    retry::persist,
    run::{self, Begin},
    sink::{AlertSink, IndexSink, Sink},
    source::{Beginning, Output, Source},
    task::{Context, Order, Shared, channel_id},
    window::Window,
};

/// Barriers that wait for one source; beyond it the order is refused and the job manager gives the checkpoint up.
pub(crate) const BARRIERS_MAX: usize = 16;
/// How long an error that only echoes another task's end waits for the news that the attempt is over anyway.
const ECHO_GRACE: Duration = Duration::from_millis(500);

/// One attempt, ready to run.
pub(crate) struct Attempt {
    pub(crate) shared: Shared,
    pub(crate) submitted: Submitted,
    pub(crate) execution: ExecutionGraph,
    pub(crate) plans: Vec<Plan>,
    pub(crate) restore: Vec<Restore>,
    pub(crate) cut: StreamCut,
    /// Where each source begins, by its vertex.
    pub(crate) cuts: BTreeMap<u32, SourceCut>,
    /// The last committed checkpoint.
    pub(crate) commits: watch::Receiver<u64>,
    /// Cancelled from outside.
    pub(crate) token: CancellationToken,
    /// The barriers of each source task, by its number.
    pub(crate) barriers: BTreeMap<u32, mpsc::Receiver<Order>>,
}

struct Failure {
    task: u32,
    error: TaskError,
}

/// Parts that are fetched at once.
const PARTS_AT_ONCE: usize = 8;

/// The parts of the vertices that have tasks here, by vertex.
type Parts = BTreeMap<u32, Vec<Part>>;

type Work = BoxFuture<'static, Result<(), TaskError>>;

impl Attempt {
    /// Runs the worker's tasks until the token is cancelled or one of them fails; when it returns all of them have ended.
    pub(crate) async fn run(mut self) {
        let token = self.token.child_token();
        let failure = match token.run_until_cancelled(self.open().boxed()).await {
            None => None,
            Some(Err(failure)) => Some(failure),
            Some(Ok(tasks)) => self.run_all(tasks, &token).await,
        };
        if let Ok(channels) = self.submitted.channels() {
            self.shared.exchange.close_job(&channels, self.execution.attempt);
        }
        if let Some(failure) = failure {
            self.failed(failure).await;
        }
    }

    async fn run_all(&self, tasks: Vec<(u32, Work)>, token: &CancellationToken) -> Option<Failure> {
        let mut running = JoinSet::new();
        for (number, task) in tasks {
            let token = token.clone();
            self.report(number, TaskStatus::Running);
            running.spawn(async move { (number, token.run_until_cancelled(task).await) });
        }
        let mut failure = None;
        while let Some(ended) = running.join_next().await {
            let failed = match ended {
                Ok((number, Some(Ok(())))) => {
                    self.report(number, TaskStatus::Finished);
                    None
                }
                // What breaks because the tasks are being ended is no failure.
                Ok((_, None)) => None,
                Ok((task, Some(Err(error)))) => Some(Failure { task, error }),
                Err(lost) => Some(Failure { task: 0, error: lost.into() }),
            };
            match (failed, &failure) {
                (Some(failed), None) if !token.is_cancelled() => {
                    failure = Some(failed);
                    token.cancel();
                }
                // A task that fails takes its channels with it, so the cause may come in behind its echo.
                (Some(failed), Some(known)) if known.error.is_echo() && !failed.error.is_echo() => {
                    failure = Some(failed)
                }
                _ => {}
            }
        }
        failure
    }

    async fn failed(&self, failure: Failure) {
        let Failure { task, error } = failure;
        let echo = error.is_echo();
        if echo && self.token.run_until_cancelled(tokio::time::sleep(ECHO_GRACE)).await.is_none() {
            return;
        }
        TASKS_FAILED.inc();
        let reason = error.reason();
        let id =
            usize::try_from(task).ok().and_then(|number| self.execution.tasks.get(number)).map(|t| t.id.to_string());
        let id = id.unwrap_or_default();
        warn!(job = %self.submitted.job, attempt = self.execution.attempt, task = %id, %reason, "task failed");
        self.report(task, TaskStatus::Failed(format!("task {id} on {}: {reason}", self.shared.replica)));
    }

    fn report(&self, task: u32, status: TaskStatus) {
        let (job, attempt, cause) = (self.submitted.job.clone(), self.execution.attempt, Cause::default());
        let report = TaskReport { job, attempt, task, status, cause };
        report::tell(&self.shared.bus, report);
    }

    /// Makes every task of this worker ready: inputs first, so that no peer waits for them longer than it must.
    async fn open(&mut self) -> Result<Vec<(u32, Work)>, Failure> {
        let replica = self.shared.replica.clone();
        let numbered = (0u32..).zip(&self.execution.tasks).filter(|(_, task)| task.worker == replica);
        let contexts: Vec<Arc<Context>> = numbered.map(|(number, task)| Arc::new(self.context(number, task))).collect();
        let first = contexts.first().map_or(0, |context| context.number);
        let channels = self.submitted.channels().map_err(|error| Failure { task: first, error })?;
        let mut inputs: BTreeMap<u32, Vec<Receiver>> = BTreeMap::new();
        for context in &contexts {
            let receivers = self.receivers(&channels, context.id);
            inputs.insert(context.number, receivers.map_err(|error| Failure { task: context.number, error })?);
        }
        let peers = self.peers().await.map_err(|error| Failure { task: first, error })?;
        let parts = self.parts(&contexts).await.map_err(|error| Failure { task: first, error })?;
        let mut tasks = Vec::with_capacity(contexts.len());
        for context in contexts {
            let number = context.number;
            let receivers = inputs.remove(&number).unwrap_or_default();
            let of_vertex = parts.get(&context.id.vertex).map_or(&[][..], Vec::as_slice);
            let edges = self.edges(&channels, context.id, &peers).await;
            let edges = edges.map_err(|error| Failure { task: number, error })?;
            let work = self.task(context, receivers, edges, of_vertex).boxed().await;
            tasks.push((number, work.map_err(|error| Failure { task: number, error })?));
        }
        Ok(tasks)
    }

    fn context(&self, number: u32, task: &flow::Task) -> Context {
        Context {
            shared: self.shared.clone(),
            submitted: self.submitted.clone(),
            attempt: self.execution.attempt,
            number,
            id: task.id,
            uid: task.uid.clone(),
            parallelism: self.vertex(task.id).map_or(1, |vertex| vertex.parallelism),
            label: format!("{}/{}", self.submitted.job, task.id),
            commits: self.commits.clone(),
        }
    }

    fn vertex(&self, task: TaskId) -> Option<&flow::Vertex> {
        usize::try_from(task.vertex).ok().and_then(|vertex| self.execution.graph.vertices.get(vertex))
    }

    fn receivers(&self, channels: &JobId, task: TaskId) -> Result<Vec<Receiver>, TaskError> {
        let inputs = self.execution.inputs(task);
        let open = |c: &Channel| Ok(self.shared.exchange.receiver(channel_id(channels, self.execution.attempt, c))?);
        inputs.iter().map(open).collect()
    }

    /// The exchange of every worker of the attempt.
    async fn peers(&self) -> Result<BTreeMap<ReplicaId, SocketAddr>, TaskError> {
        let mut peers = BTreeMap::from([(self.shared.replica.clone(), self.shared.exchange.local_addr())]);
        for task in &self.execution.tasks {
            if peers.contains_key(&task.worker) {
                continue;
            }
            let unknown = || TaskError::UnknownPeer(task.worker.clone());
            let key = format!("{}.{}", Service::TaskWorker, task.worker);
            let members = &self.shared.members;
            let entry =
                persist("looking a worker up", || async { Ok(members.get(&key).await?) }).await?.ok_or_else(unknown)?;
            let member: Member = wire::decode(&entry.value).map_err(|_| unknown())?;
            let address = member.exchange_address.and_then(|address| address.parse().ok()).ok_or_else(unknown)?;
            peers.insert(task.worker.clone(), address);
        }
        Ok(peers)
    }

    async fn task(
        &mut self,
        context: Arc<Context>,
        receivers: Vec<Receiver>,
        edges: Edges,
        parts: &[Part],
    ) -> Result<Work, TaskError> {
        let lost = || TaskError::Plan(format!("vertex {} does not exist", context.id.vertex));
        let plan = usize::try_from(context.id.vertex).ok().and_then(|v| self.plans.get(v)).cloned();
        let orders = self.barriers.remove(&context.number);
        match plan.ok_or_else(lost)? {
            Plan::Free(free) => {
                let begin = Begin { parts, cut: self.cuts.get(&context.id.vertex) };
                let run = run::open(&context, &self.execution.graph, &free, receivers, edges, begin).await?;
                Ok(Box::pin(run.run(context, orders)))
            }
            Plan::Fixed(Chain { head: Head::Source(spec), stages, tail }) => {
                let output = match tail {
                    Tail::Index(index) => {
                        let mine = run::own(&context, parts);
                        Output::Index(Box::new(IndexSink::open(&context, &index, mine).await?))
                    }
                    Tail::Edges => Output::Edges(edges),
                    Tail::Alerts(_) => return Err(TaskError::Plan("a source cannot feed a rule".to_owned())),
                };
                let cut = match self.cuts.get(&context.id.vertex) {
                    Some(SourceCut::Index { cut, .. }) => cut,
                    _ => &self.cut,
                };
                let beginning = Beginning { cut, parts };
                let orders = orders.ok_or_else(lost)?;
                let source = Source::open(context, spec, stages, beginning, output).await?;
                Ok(Box::pin(source.run(self.shared.client.clone(), orders)))
            }
            Plan::Fixed(Chain { head: Head::Window(spec), stages, tail }) => {
                let restored = whole(&context, parts)?;
                let sink = match tail {
                    Tail::Index(index) => {
                        let mine = run::own(&context, parts);
                        Sink::Index(Box::new(IndexSink::open(&context, &index, mine).await?))
                    }
                    Tail::Alerts(rule) => {
                        Sink::Alerts(Box::new(AlertSink::new(Arc::clone(&context), rule, spec.clone())))
                    }
                    Tail::Edges => return Err(TaskError::Plan("a window ends with a sink".to_owned())),
                };
                let window = Window::open(&context, spec, stages, Gate::new(receivers), restored, sink)?;
                Ok(Box::pin(window.run()))
            }
        }
    }

    /// Fetches the parts of every subtask of the vertices that have tasks here: splits and keys may have moved between them.
    async fn parts(&self, contexts: &[Arc<Context>]) -> Result<Parts, TaskError> {
        let uids: BTreeMap<u32, &Uid> = contexts.iter().map(|context| (context.id.vertex, &context.uid)).collect();
        let wanted = self.restore.iter().filter_map(|restore| {
            let task = usize::try_from(restore.task).ok().and_then(|number| self.execution.tasks.get(number))?;
            let (vertex, objects, part) = (task.id.vertex, self.shared.objects.clone(), restore.part.clone());
            let uid = Uid::clone(uids.get(&vertex)?);
            Some(async move { Ok((vertex, Part::fetch(&objects, &part, &uid).await?)) }.boxed())
        });
        let fetches: Vec<BoxFuture<'static, Result<(u32, Part), TaskError>>> = wanted.collect();
        let fetched: Vec<(u32, Part)> = stream::iter(fetches).buffered(PARTS_AT_ONCE).try_collect().await?;
        let mut parts = Parts::new();
        fetched.into_iter().for_each(|(vertex, part)| parts.entry(vertex).or_default().push(part));
        Ok(parts)
    }

    async fn edges(
        &self,
        channels: &JobId,
        task: TaskId,
        peers: &BTreeMap<ReplicaId, SocketAddr>,
    ) -> Result<Edges, TaskError> {
        let mut edges: BTreeMap<u32, Edge> = BTreeMap::new();
        for channel in self.execution.outputs(task) {
            let to = self.execution.task(channel.to).map(|t| &t.worker);
            let address = to.and_then(|worker| peers.get(worker)).copied();
            let address = address.ok_or_else(|| TaskError::Plan(format!("task {} has no worker", channel.to)))?;
            let id = channel_id(channels, self.execution.attempt, &channel);
            let sender = self.shared.exchange.sender(address, id).await?;
            let partition = usize::try_from(channel.edge).ok().and_then(|e| self.execution.graph.edges.get(e));
            let keys = match partition.map(|edge| &edge.partition) {
                Some(Partition::Hash { columns }) => columns.clone(),
                Some(Partition::Forward) | None => Vec::new(),
            };
            let port = partition.map(|edge| edge.port).unwrap_or_default();
            let edge = edges.entry(channel.edge).or_insert_with(|| Edge { keys, port, senders: Vec::new() });
            edge.senders.push(sender);
        }
        Ok(Edges(edges.into_values().collect()))
    }
}

/// The part of a window whose state is one block, which no other number of subtasks can share.
fn whole<'a>(context: &Context, parts: &'a [Part]) -> Result<Option<&'a Part>, TaskError> {
    let others = u32::try_from(parts.len()).is_ok_and(|count| count != context.parallelism);
    if others && parts.iter().any(|part| part.window.is_some()) {
        let problem = format!(
            "the windows of {} subtasks are whole and cannot be shared by {}: keep the parallelism, or submit the job anew",
            parts.len(),
            context.parallelism
        );
        return Err(TaskError::Plan(problem));
    }
    Ok(parts.iter().find(|part| part.task == context.id))
}
