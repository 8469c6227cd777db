//! One attempt of a job on this worker: its tasks begin together and end together.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use exchange::{Gate, Receiver};
use flow::{Channel, ExecutionGraph, Partition, TaskId};
use futures::future::BoxFuture;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use types::{JobId, ReplicaId, StreamCut};
use wire::{
    Service,
    job_manager::{PartRef, TaskReport, TaskStatus},
    views::Member,
};

use crate::{
    chain::{Chain, Head, Tail},
    edges::{Edge, Edges},
    error::TaskError,
    metrics::TASKS_FAILED,
    name::Submitted,
    part::Part,
    report,
    retry::persist,
    sink::{AlertSink, IndexSink, Sink},
    source::{Beginning, Output, Parts, Source},
    task::{Context, Shared, channel_id},
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
    pub(crate) chains: Vec<Chain>,
    pub(crate) restore: BTreeMap<u32, PartRef>,
    pub(crate) cut: StreamCut,
    /// Cancelled from outside.
    pub(crate) token: CancellationToken,
    /// The barriers of each source task, by its number.
    pub(crate) barriers: BTreeMap<u32, mpsc::Receiver<u64>>,
}

struct Failure {
    task: u32,
    error: TaskError,
}

type Work = BoxFuture<'static, Result<(), TaskError>>;

impl Attempt {
    /// Runs the worker's tasks until the token is cancelled or one of them fails; when it returns all of them have ended.
    pub(crate) async fn run(mut self) {
        let token = self.token.child_token();
        let failure = match token.run_until_cancelled(self.open()).await {
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
        let report = TaskReport { job: self.submitted.job.clone(), attempt: self.execution.attempt, task, status };
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
        let mut tasks = Vec::with_capacity(contexts.len());
        for context in contexts {
            let number = context.number;
            let receivers = inputs.remove(&number).unwrap_or_default();
            let work = self.task(context, &channels, receivers, &peers).await;
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
        channels: &JobId,
        receivers: Vec<Receiver>,
        peers: &BTreeMap<ReplicaId, SocketAddr>,
    ) -> Result<Work, TaskError> {
        let lost = || TaskError::Plan(format!("vertex {} does not exist", context.id.vertex));
        let chain =
            usize::try_from(context.id.vertex).ok().and_then(|v| self.chains.get(v)).cloned().ok_or_else(lost)?;
        let restored = match self.restore.get(&context.number) {
            Some(part) => Some(Part::fetch(&self.shared.objects, part, context.id, &context.uid).await?),
            None => None,
        };
        let Chain { head, stages, tail } = chain;
        match (head, tail) {
            (Head::Source(spec), tail) => {
                let output = match tail {
                    Tail::Index(index) => {
                        Output::Index(Box::new(IndexSink::open(&context, &index, restored.as_ref()).await?))
                    }
                    Tail::Edges => Output::Edges(self.edges(channels, context.id, peers).await?),
                    Tail::Alerts(_) => return Err(TaskError::Plan("a source cannot feed a rule".to_owned())),
                };
                let barriers = self.barriers.remove(&context.number).ok_or_else(lost)?;
                let parts = self.parts_of(context.id.vertex);
                let beginning = Beginning { cut: &self.cut, restored, parts };
                let source = Source::open(context, spec, stages, beginning, output).await?;
                Ok(Box::pin(source.run(self.shared.client.clone(), barriers)))
            }
            (Head::Window(spec), tail) => {
                let sink = match tail {
                    Tail::Index(index) => {
                        Sink::Index(Box::new(IndexSink::open(&context, &index, restored.as_ref()).await?))
                    }
                    Tail::Alerts(rule) => {
                        Sink::Alerts(Box::new(AlertSink::new(Arc::clone(&context), rule, spec.clone())))
                    }
                    Tail::Edges => return Err(TaskError::Plan("a window ends with a sink".to_owned())),
                };
                let window = Window::open(&context, spec, stages, Gate::new(receivers), restored.as_ref(), sink)?;
                Ok(Box::pin(window.run()))
            }
        }
    }

    /// The parts from which the subtasks of a vertex begin.
    fn parts_of(&self, vertex: u32) -> Parts {
        let numbered = (0u32..).zip(&self.execution.tasks).filter(|(_, task)| task.id.vertex == vertex);
        numbered
            .filter_map(|(number, task)| Some((self.restore.get(&number)?.clone(), task.id, task.uid.clone())))
            .collect()
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
            edges.entry(channel.edge).or_insert_with(|| Edge { keys, senders: Vec::new() }).senders.push(sender);
        }
        Ok(Edges(edges.into_values().collect()))
    }
}
