//! Carries out what the plan of a writer says.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use types::{IndexName, SegmentId, TransactionId, WriterId};
use wire::{
    Problem,
    coordinator::{DescribeTransaction, StreamDescription, TransactionName, TransactionPhase},
    segment_store::{Append, Appended, DescribeWriter, SegmentPlace, WriterName},
};

use super::{
    note_time::Latest,
    plan::{Action, Plan, Source},
    receipt::Slot,
};
use crate::{
    Client,
    error::{WriteCause, WriteError},
    spill::{Part, Spill},
    view::version,
};

/// What writers and engine share.
pub(crate) struct Shared {
    plan: Mutex<Plan<Arc<Slot>>>,
    begun: Instant,
    /// There is something new to do.
    pub(super) wake: Notify,
    /// There may be room for more events, or there never will be.
    pub(super) room: Notify,
    pub(super) latest: Latest,
    /// Whether the engine has ended, and given its files back.
    over: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(plan: Plan<Arc<Slot>>, latest: Latest) -> Self {
        let (wake, room, over) = (Notify::new(), Notify::new(), watch::Sender::new(false));
        Self { plan: Mutex::new(plan), begun: Instant::now(), wake, room, latest, over }
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

    /// Returns when the engine has ended: after the writer failed, or was closed and nothing waits.
    pub(super) async fn over(&self) {
        // The sender is here, so that it cannot be gone.
        drop(self.over.subscribe().wait_for(|over| *over).await);
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
    Divided(Name, Result<Vec<Part>, String>),
    Released,
    Unreadable(Name, String),
}

/// How the engine goes on.
enum Next {
    /// Until something happens, or until then.
    Wait(Option<Duration>),
    /// Nothing is left to do.
    Over,
}

type Running = FuturesUnordered<BoxFuture<'static, Done>>;

impl Engine {
    pub(super) async fn run(self) {
        let (mut asked, mut filed) = (Running::new(), Running::new());
        while let Next::Wait(wake_at) = self.step(&mut asked, &mut filed) {
            let sleep_until = async {
                match wake_at {
                    Some(at) => sleep_until(self.shared.begun + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.wake.notified() => {}
                Some(done) = asked.next(), if !asked.is_empty() => {
                    self.note(done);
                    while let Some(Some(done)) = asked.next().now_or_never() {
                        self.note(done);
                    }
                }
                Some(done) = filed.next(), if !filed.is_empty() => self.note(done),
                () = sleep_until => {}
            }
        }
        // What was acknowledged, or told to be given up, is not to be found in a file by the next writer.
        while let Some(done) = filed.next().await {
            self.note(done);
            self.step(&mut asked, &mut filed);
        }
        drop(asked);
        let Self { shared, spill, .. } = self;
        drop(spill);
        shared.over.send_replace(true);
    }

    /// Begins what is to be done.
    fn step(&self, asked: &mut Running, filed: &mut Running) -> Next {
        let (actions, next) = {
            let mut plan = self.shared.plan();
            let (actions, wake_at) = plan.poll(self.shared.now());
            let over = plan.failure().is_some() || (plan.refusal().is_some() && plan.is_idle());
            (actions, if over { Next::Over } else { Next::Wait(wake_at) })
        };
        for action in actions {
            match self.start(action) {
                (true, doing) => filed.push(doing),
                (false, doing) => asked.push(doing),
            }
        }
        self.shared.room.notify_waiters();
        next
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
            Done::Divided(name, parts) => plan.divided(name, parts, now),
            Done::Released => {}
            Done::Unreadable(name, reason) => plan.unreadable(name, reason),
        }
    }

    /// Whether it changes files, and is to end before the writer does; and what is done.
    fn start(&self, action: Action) -> (bool, BoxFuture<'static, Done>) {
        match action {
            Action::Describe { place } => (false, self.describe(place).boxed()),
            Action::Append { place, block, attempt, first, source, within } => {
                (false, self.append(place, (place.segment, block, attempt), (first, within), source).boxed())
            }
            Action::View => (false, self.view()),
            Action::Spill { segment, block, key, label, contents } => {
                let (name, bytes) = ((segment, block, key), label.bytes);
                let written = self.with_spill(move |spill| spill.write(key, &label, &contents));
                (true, written.map(move |done| Done::Spilled(name, bytes, done)).boxed())
            }
            Action::Divide { segment, block, key, among, serial } => {
                let divided = self.with_spill(move |spill| spill.divide(key, &among, serial));
                (true, divided.map(move |parts| Done::Divided((segment, block, key), parts)).boxed())
            }
            Action::Release { key } => {
                let released = self.with_spill(move |spill| {
                    spill.release(key);
                    Ok(())
                });
                (true, released.map(|_| Done::Released).boxed())
            }
        }
    }

    fn describe(&self, place: SegmentPlace) -> impl Future<Output = Done> + use<> {
        let name = WriterName { segment: place.segment, writer: self.writer.clone() };
        let client = self.client.clone();
        async move {
            let info = client.ask::<DescribeWriter>(place.container, &name, bus::CALL_DEADLINE).await;
            Done::Described(place.segment, info.map(|info| info.last_event_number))
        }
    }

    fn append(
        &self,
        place: SegmentPlace,
        name: Name,
        (first_event_number, within): (u64, Duration),
        source: Source,
    ) -> impl Future<Output = Done> + use<> {
        let (client, writer) = (self.client.clone(), self.writer.clone());
        let read = match source {
            Source::Memory(contents) => futures::future::ready(Ok(contents)).left_future(),
            Source::Spilled(key) => {
                self.with_spill(move |spill| spill.numbered(key, first_event_number)).right_future()
            }
        };
        async move {
            let block = match read.await {
                Ok(contents) => contents.block,
                Err(reason) => return Done::Unreadable(name, reason),
            };
            let append = Append { segment: place.segment, writer, first_event_number, block, expected_end: None };
            Done::Appended(name, client.append_once(place.container, &append, within).await)
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
