//! Carries out what the plan of a writer says.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use types::{IndexName, SegmentId, TransactionId, WriterId};
use wire::{
    Call, Problem, Retry,
    coordinator::{DescribeTransaction, StreamDescription, TransactionName, TransactionPhase},
    segment_store::{Append, AppendEvents, Appended, DescribeWriter, SegmentPlace, WriterName},
};

use super::{
    block::Contents,
    plan::{Action, Plan, Source},
    receipt::Slot,
};
use crate::{
    Client, TRY_WITHIN,
    error::{WriteCause, WriteError},
    spill::Spill,
    view::version,
};

/// The same call, repeated by nobody but the plan: it must know how often a block was sent, to tell a repeat of its own
/// from somebody else who uses its id.
struct AppendOnce;

impl Call for AppendOnce {
    const NAME: &'static str = AppendEvents::NAME;
    const PATTERN: &'static str = AppendEvents::PATTERN;
    const OWNER: wire::Service = AppendEvents::OWNER;
    const RETRY: Retry = Retry::Never;
    type Key = <AppendEvents as Call>::Key;
    type Request = Append;
    type Reply = Appended;
}

/// What writers and engine share.
pub(crate) struct Shared {
    plan: Mutex<Plan<Arc<Slot>>>,
    begun: Instant,
    /// There is something new to do.
    pub(super) wake: Notify,
    /// There may be room for more events, or there never will be.
    pub(super) room: Notify,
}

impl Shared {
    pub(super) fn new(plan: Plan<Arc<Slot>>) -> Self {
        Self { plan: Mutex::new(plan), begun: Instant::now(), wake: Notify::new(), room: Notify::new() }
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan<Arc<Slot>>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time as the plan counts it.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends the writer.
    pub(crate) fn fail(&self, error: &WriteError) {
        self.plan().fail(error);
        self.wake.notify_one();
        self.room.notify_waiters();
    }
}

/// What the segments belong to.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Stream,
    Transaction(TransactionId),
}

/// Runs one writer until it is closed and nothing waits.
pub(super) struct Engine {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) index: IndexName,
    pub(super) writer: WriterId,
    pub(super) target: Target,
    pub(super) spill: Option<Arc<Spill>>,
}

/// A block and an attempt or key.
type Name = (SegmentId, u64, u64);

enum Done {
    Described(SegmentId, Result<u64, Problem>),
    Appended(Name, Result<Appended, Problem>),
    View(Result<Arc<StreamDescription>, Problem>),
    Over(WriteError),
    Spilled(Name, usize, Result<(), String>),
    Loaded(Name, Result<Contents, String>),
    Unreadable(Name, String),
}

impl Engine {
    pub(super) async fn run(self) {
        let mut running: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
        loop {
            let (actions, wake_at, over) = {
                let mut plan = self.shared.plan();
                let (actions, wake_at) = plan.poll(self.shared.now());
                let over = plan.failure().is_some() || (plan.refusal().is_some() && plan.is_idle());
                (actions, wake_at, over)
            };
            running.extend(actions.into_iter().filter_map(|action| self.start(action)));
            self.shared.room.notify_waiters();
            if over {
                return;
            }
            let sleep_until = async {
                match wake_at {
                    Some(at) => sleep_until(self.shared.begun + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.wake.notified() => {}
                Some(done) = running.next(), if !running.is_empty() => {
                    self.note(done);
                    while let Some(Some(done)) = running.next().now_or_never() {
                        self.note(done);
                    }
                }
                () = sleep_until => {}
            }
        }
    }

    fn note(&self, done: Done) {
        let now = self.shared.now();
        let mut plan = self.shared.plan();
        match done {
            Done::Described(segment, last) => plan.described(segment, last, now),
            Done::Appended(name, answer) => plan.appended(name, answer, now),
            Done::View(Ok(stream)) => plan.view(version(&stream), stream.segments.clone(), stream.sealed, now),
            Done::View(Err(problem)) => plan.view_failed(problem, now),
            Done::Over(error) => plan.fail(&error),
            Done::Spilled(name, bytes, done) => plan.spilled(name, (bytes, done), now),
            Done::Loaded(name, contents) => plan.loaded(name, contents),
            Done::Unreadable(name, reason) => plan.unreadable(name, reason),
        }
    }

    fn start(&self, action: Action) -> Option<BoxFuture<'static, Done>> {
        match action {
            Action::Describe { place } => Some(self.describe(place).boxed()),
            Action::Append { place, block, attempt, first, source } => {
                Some(self.append(place, (place.segment, block, attempt), first, source).boxed())
            }
            Action::View => Some(self.view()),
            Action::Spill { segment, block, key, bytes, contents } => {
                let name = (segment, block, key);
                let written = self.with_spill(move |spill| spill.write(key, &contents));
                Some(written.map(move |done| Done::Spilled(name, bytes, done)).boxed())
            }
            Action::Load { segment, block, key } => {
                let read = self.with_spill(move |spill| spill.read(key));
                Some(read.map(move |read| Done::Loaded((segment, block, key), read)).boxed())
            }
            Action::Release { key } => {
                if let Some(spill) = &self.spill {
                    spill.release(key);
                }
                None
            }
        }
    }

    fn describe(&self, place: SegmentPlace) -> impl Future<Output = Done> + use<> {
        let name = WriterName { segment: place.segment, writer: self.writer.clone() };
        let bus = self.client.bus.clone();
        async move {
            let info = bus.call::<DescribeWriter>(&place.container, &name).await;
            Done::Described(place.segment, info.map(|info| info.last_event_number))
        }
    }

    fn append(
        &self,
        place: SegmentPlace,
        name: Name,
        first_event_number: u64,
        source: Source,
    ) -> impl Future<Output = Done> + use<> {
        let (bus, writer) = (self.client.bus.clone(), self.writer.clone());
        let read = match source {
            Source::Memory(contents) => futures::future::ready(Ok(contents)).left_future(),
            Source::Spilled(key) => self.with_spill(move |spill| spill.read(key)).right_future(),
        };
        async move {
            let block = match read.await {
                Ok(contents) => contents.block,
                Err(reason) => return Done::Unreadable(name, reason),
            };
            let append = Append { segment: place.segment, writer, first_event_number, block, expected_end: None };
            Done::Appended(name, bus.call_within::<AppendOnce>(&place.container, &append, TRY_WITHIN).await)
        }
    }

    fn view(&self) -> BoxFuture<'static, Done> {
        let (client, index) = (self.client.clone(), self.index.clone());
        match self.target {
            Target::Stream => async move { Done::View(client.stream_now(&index).await) }.boxed(),
            Target::Transaction(transaction) => async move {
                match describe_transaction(&client, &index, transaction).await {
                    Ok(error) => Done::Over(error),
                    Err(problem) => Done::View(Err(problem)),
                }
            }
            .boxed(),
        }
    }

    fn with_spill<T, F>(&self, work: F) -> impl Future<Output = Result<T, String>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Spill) -> std::io::Result<T> + Send + 'static,
    {
        let spill = self.spill.clone();
        let work = tokio::task::spawn_blocking(move || match spill {
            Some(spill) => work(&spill).map_err(|error| error.to_string()),
            None => Err("there is no spill directory".to_owned()),
        });
        async move { work.await.unwrap_or_else(|error| Err(error.to_string())) }
    }
}

/// How a transaction whose segments take no more ended; an error while it is open, or while nobody knows.
async fn describe_transaction(
    client: &Client,
    index: &IndexName,
    transaction: TransactionId,
) -> Result<WriteError, Problem> {
    let name = TransactionName { index: index.clone(), transaction };
    let over = |phase, reason| WriteError::not_applied(WriteCause::TransactionOver { transaction, phase, reason });
    match client.bus.call::<DescribeTransaction>(&(), &name).await {
        Ok(known) if known.phase == TransactionPhase::Open => {
            Err(Problem::unavailable("TransactionOpen", "the transaction is open and its segments take nothing"))
        }
        Ok(known) => Ok(over(known.phase, known.reason)),
        Err(problem) if problem.kind == "UnknownTransaction" => {
            Ok(over(TransactionPhase::Aborted, Some("forgotten".to_owned())))
        }
        Err(problem) => Err(problem),
    }
}
