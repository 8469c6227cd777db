//! A control service's state, its journal and the lease of its leader, as one thing.

mod drive;
mod look;
mod recover;
mod restore;
mod snapshots;

use std::{sync::Arc, time::Duration};

use bus::{AppendError, Journal};
use futures::FutureExt;
use parking_lot::RwLock;
use store::Local;
use tokio::{
    sync::{Mutex, Notify, OwnedMutexGuard, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use wire::Problem;

use crate::{
    ControlState, Host, StartError,
    control::{Applied, Entry, Misfit, encode_entry},
    metrics,
};

/// How long an append whose outcome is unknown is repeated before the leader steps down. Longer than most elections of NATS.
const SETTLE_MAX: Duration = Duration::from_secs(8);
/// Pause between two such repeats.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of the journal read in one go.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A replicated state: decided by one leader, journaled before it is applied, followed by every other replica.
///
/// Durable/Order: what [`Ledger::submit`] answers is in the journal, and was decided on a state with everything before it.
/// Clones are handles on the same state.
pub struct Ledger<S: ControlState> {
    inner: Arc<Inner<S>>,
}

impl<S: ControlState> Clone for Ledger<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// Counts gains and losses of leadership; odd while this replica leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Term(u64);

impl Term {
    pub(crate) fn leads(self) -> bool {
        self.0 % 2 == 1
    }
}

struct Inner<S: ControlState> {
    host: Host,
    journal: Journal,
    local: Local,
    snapshots: snapshots::Snapshots,
    applied: RwLock<Applied<S>>,
    /// Whoever holds it may append and apply; taken before `applied`.
    write: Arc<Mutex<()>>,
    leader: watch::Sender<bool>,
    term: watch::Sender<Term>,
    changes: watch::Sender<u64>,
    /// Asks the driver to stop leading.
    lost: Notify,
    closing: CancellationToken,
}

impl<S: ControlState> Ledger<S> {
    /// Restores the state (local copy, else snapshot, else journal from its start), replays the journal to its end, and begins to
    /// follow it and to contend for the lease in the background.
    ///
    /// Errors: `Refused` when something between the newest usable snapshot and the journal is missing; nothing is changed then.
    pub async fn start(host: &Host) -> Result<Self, StartError> {
        let begun = restore::begin::<S>(host).await?;
        let seq = begun.applied.seq;
        let closing = CancellationToken::new();
        let inner = Arc::new(Inner {
            host: host.clone(),
            journal: begun.journal,
            local: begun.local,
            snapshots: begun.snapshots,
            applied: RwLock::new(begun.applied),
            write: Arc::default(),
            leader: watch::Sender::new(false),
            term: watch::Sender::new(Term::default()),
            changes: watch::Sender::new(seq),
            lost: Notify::new(),
            closing: closing.clone(),
        });
        let driver = tokio::spawn(drive::drive(Arc::clone(&inner), begun.lease));
        host.on_drain(move || {
            async move {
                closing.cancel();
                drop(driver.await);
            }
            .boxed()
        });
        Ok(Self { inner })
    }

    /// Decides a command, journals what it makes happen, applies it, and answers with it.
    ///
    /// An empty answer means that nothing had to happen; nothing is journaled then, as after a refusal, but the journal is asked
    /// whether it goes on without this replica. Commands are decided one at a time, in the order
    /// in which they come; a door bounds how many wait. It goes on to its end even if the caller stops waiting.
    /// Errors: the state's own refusal, `NotLeader`, `JournalFull`: not applied. `JournalUnknown`: may be applied.
    pub async fn submit(&self, command: S::Command) -> Result<Vec<S::Event>, Problem> {
        counted(self.decide_and_append(command, true).await)
    }

    /// The same for what a leader does by itself and again soon: where nothing is journaled, the journal is not asked.
    ///
    /// An empty answer or a refusal may be that of a leader whose time is over, so nobody else is told of it, and no effect follows.
    pub async fn submit_own(&self, command: S::Command) -> Result<Vec<S::Event>, Problem> {
        counted(self.decide_and_append(command, false).await)
    }

    async fn decide_and_append(&self, command: S::Command, asks: bool) -> Result<Vec<S::Event>, Problem> {
        let inner = &self.inner;
        let guard = Arc::clone(&inner.write).lock_owned().await;
        if !self.is_leader() {
            return Err(inner.not_leader());
        }
        let decided = {
            let applied = inner.applied.read();
            // A clock that steps back must not make the journal's time do so.
            let now = inner.host.clock.now().max(applied.at);
            let events: Result<_, Problem> = applied.state.decide(command, now).map_err(Into::into);
            let journal = match applied.journal.as_str() {
                "" => uuid::Uuid::new_v4().simple().to_string(),
                known => known.to_owned(),
            };
            let id = uuid::Uuid::new_v4().simple().to_string();
            let replica = inner.host.replica.clone();
            events.map(|events| (Entry { id, at: now, replica, journal, recovered: None, events }, applied.seq))
        };
        let (entry, expected) = match decided {
            Ok((entry, expected)) if !entry.events.is_empty() => (entry, expected),
            // Nothing is appended, so no fence tells a leader whose time is over that it decided on an old state.
            unchanged => {
                drop(guard);
                if asks {
                    inner.confirm().await?;
                }
                return unchanged.map(|(entry, _)| entry.events);
            }
        };
        let payload = encode_entry(&entry)?;
        // In a task of its own: an append that is cut off half-way would leave this state behind its journal.
        let append = tokio::spawn(append(Arc::clone(inner), guard, expected, entry, payload));
        append.await.unwrap_or_else(|error| Err(Problem::internal(format_args!("append did not end: {error}"))))
    }

    /// Passes if this replica leads, and its state has everything that the journal had when this was called.
    ///
    /// Two may believe to lead for a moment, and the one whose time is over does not know what the other began; so nobody is told that
    /// something is not there before this.
    ///
    /// What is written elsewhere on the strength of the state is made sure of so: first the version that is to be replaced is read,
    /// then this, then the state, then the write on the condition of that version. A former leader's write fails then.
    /// Errors: `NotLeader`, or that NATS does not answer.
    pub async fn confirm(&self) -> Result<(), Problem> {
        self.inner.confirm().await
    }

    /// Reads the state as this replica has it; on a replica that does not lead it may lag behind by the way of one message.
    ///
    /// Bounds: writers wait while `f` runs, so it only looks and copies.
    pub fn read<R>(&self, f: impl FnOnce(&S) -> R) -> R {
        f(&self.inner.applied.read().state)
    }

    /// Whether this replica leads, now and at every change.
    pub fn leadership(&self) -> watch::Receiver<bool> {
        self.inner.leader.subscribe()
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        *self.inner.leader.borrow()
    }

    /// The sequence of the last applied entry, now and at every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    pub(crate) fn terms(&self) -> watch::Receiver<Term> {
        self.inner.term.subscribe()
    }

    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.inner.host.stop.clone()
    }
}

impl<S: ControlState> Inner<S> {
    fn not_leader(&self) -> Problem {
        let message = format!("{} of {} does not lead; ask again", self.host.replica, S::SERVICE);
        Problem::unavailable("NotLeader", message).retry_after_ms(100)
    }

    fn lead(&self, leads: bool) {
        if self.leader.send_replace(leads) != leads {
            self.term.send_modify(|term| term.0 += 1);
            metrics::LEADER.with(S::SERVICE.as_str()).set(u64::from(leads));
            tracing::info!(service = %S::SERVICE, replica = %self.host.replica, leads, "leadership changed");
        }
    }

    /// Fails unless this replica leads, and nobody else has appended anything while it does.
    ///
    /// Others may decide and append meanwhile: only what the journal had when it was asked must be in the state.
    async fn confirm(&self) -> Result<(), Problem> {
        let term = *self.term.borrow();
        if !term.leads() {
            return Err(self.not_leader());
        }
        let last =
            self.closing.run_until_cancelled(self.journal.last_seq()).await.ok_or_else(|| self.not_leader())??;
        if last > self.seq() {
            // An append of its own may be on its way into the state.
            drop(self.write.lock().await);
        }
        if last > self.seq() && *self.term.borrow() == term {
            self.step_down(&format!("the journal went on to {last} without it"));
        }
        if *self.term.borrow() == term { Ok(()) } else { Err(self.not_leader()) }
    }

    /// Stops deciding at once; the driver gives the lease back, catches up and contends again.
    fn step_down(&self, why: &str) {
        tracing::warn!(service = %S::SERVICE, replica = %self.host.replica, why, "leader steps down");
        self.lead(false);
        self.lost.notify_one();
    }

    /// Applies an entry to the state and then to its local copy; the caller holds `write`.
    fn take(&self, seq: u64, payload: &[u8]) -> Result<(), Misfit> {
        self.applied.write().take(seq, payload)?;
        self.taken(seq, payload);
        Ok(())
    }

    fn taken(&self, seq: u64, payload: &[u8]) {
        self.local.apply(seq, payload);
        metrics::APPLIED.with(S::SERVICE.as_str()).set(seq);
        self.changes.send_replace(seq);
    }

    fn seq(&self) -> u64 {
        self.applied.read().seq
    }
}

fn counted<E>(result: Result<Vec<E>, Problem>) -> Result<Vec<E>, Problem> {
    let outcome = match &result {
        Ok(_) => "applied",
        Err(problem) if problem.outcome == wire::Outcome::Unknown => "unknown",
        Err(problem) if problem.is_transient() => "unavailable",
        Err(_) => "refused",
    };
    metrics::COMMANDS.with(outcome).inc();
    result
}

/// Appends a decided entry; however it ends, the state is not ahead of the journal.
async fn append<S: ControlState>(
    inner: Arc<Inner<S>>,
    guard: OwnedMutexGuard<()>,
    expected: u64,
    entry: Entry<S::Event>,
    payload: Vec<u8>,
) -> Result<Vec<S::Event>, Problem> {
    let begun = Instant::now();
    let mut doubt = None;
    loop {
        let failure = match inner.journal.append(expected, &entry.id, payload.clone()).await {
            Ok(seq) if seq == expected + 1 => {
                metrics::APPEND.observe_duration(begun.elapsed());
                let taken = inner.applied.write().take_decoded(seq, &entry);
                if let Err(misfit) = taken {
                    inner.step_down("its own entry does not fit");
                    return Err(Problem::internal(misfit));
                }
                inner.taken(seq, &payload);
                return Ok(entry.events);
            }
            // Nobody else could have stored this id, and only directly after `expected`.
            Ok(seq) => AppendError::Unknown(format!("stored as {seq}, expected {}", expected + 1)),
            Err(failure) => failure,
        };
        match failure {
            AppendError::Unknown(reason) => {
                tracing::warn!(service = %S::SERVICE, reason, "append has no answer; it is repeated with the same id");
                doubt = Some(reason);
                if begun.elapsed() > SETTLE_MAX || inner.closing.is_cancelled() {
                    break;
                }
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            // After a doubt the answer may be about this very entry, so the journal has the word.
            _ if doubt.is_some() => break,
            AppendError::Fenced { last } => {
                inner.step_down(&format!("fenced: the journal ends at {last}, not at {expected}"));
                return Err(inner.not_leader());
            }
            AppendError::Full => {
                return Err(Problem::throttled("JournalFull", "the journal is full; nothing can change"));
            }
            AppendError::Refused(reason) => {
                return Err(Problem::unavailable(
                    "JournalRefused",
                    format_args!("the journal takes nothing: {reason}"),
                ));
            }
        }
    }
    let found = match drive::catch_up(&inner, &guard, Some(&entry.id)).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(service = %S::SERVICE, %error, "journal cannot be read after an append without an answer");
            false
        }
    };
    inner.step_down("an append was in doubt");
    if found {
        return Ok(entry.events);
    }
    // The fence stands at `expected` or above it: if something else took its place, this entry can never be stored.
    if inner.seq() > expected {
        return Err(inner.not_leader());
    }
    let reason = doubt.unwrap_or_default();
    Err(Problem::unavailable("JournalUnknown", format_args!("the journal did not answer: {reason}")).unknown())
}
