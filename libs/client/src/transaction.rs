//! Transactions: events that become visible together or never.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::debug;
use types::{IndexName, RoutingKey, TransactionId};
use wire::{
    Outcome, Problem,
    coordinator::{
        AbortTransaction, BeginTransaction, CommitTransaction, DescribeTransaction, NewTransaction, PingTransaction,
        SegmentRange, Transaction as Described, TransactionName, TransactionPhase, TransactionPing, TransactionShare,
    },
};

use crate::{
    Client, Patience,
    error::{WriteCause, WriteError},
    writer::{EventWriter, Receipt, Shared, WriteBatch, WriterOptions, fresh_writer},
};

/// How long a transaction is tried to be opened.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);
/// How long it is tried to learn the outcome of a commit or abort: longer than a scale that it may have to wait for.
const END_WITHIN: Duration = Duration::from_secs(600);
/// One try of it: a coordinator that died does not answer, and the next one knows what was decided.
const TRY_WITHIN: Duration = bus::CALL_DEADLINE;
/// Pings within one lease: two may get lost.
const PINGS: u32 = 3;

/// An open transaction of a stream: what is written to it is durable and invisible until [`Transaction::commit`].
///
/// Then all of it becomes visible, in each segment in one piece and in order; or, after an abort, none of it ever. It has a
/// lease, which a background task renews while this value lives; when the lease runs out, the coordinator aborts it, and
/// every later call says so. Dropping it without a commit lets the lease run out.
///
/// Order: as that of an [`EventWriter`]. Bounds: 64 MiB in each segment.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use types::RoutingKey;
///
/// let transaction = client.begin_transaction("shop".parse()?, Duration::from_secs(30)).await?;
/// let (debit, credit) = (RoutingKey::new("account-1")?, RoutingKey::new("account-2")?);
/// // The receipt says that the events are durable; they are visible when the commit returns.
/// let kept = transaction.write_batch([(Some(&debit), "-10"), (Some(&credit), "+10")]).await?;
/// kept.await?;
/// transaction.commit().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a transaction that is dropped is aborted when its lease ends"]
pub struct Transaction {
    client: Client,
    name: TransactionName,
    lease: Duration,
    writer: EventWriter,
    pings: AbortHandle,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("name", &self.name).field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.pings.abort();
    }
}

impl Client {
    /// Opens a transaction over the present segments of an index; it ends when nobody pings it for as long as the lease.
    ///
    /// Units: `lease` is 1 s to 600 s. Errors: `Refused` with `UnknownIndex`, `StreamSealed`, `TooManyTransactions`; one that
    /// was opened although its answer got lost is aborted when its lease ends.
    pub async fn begin_transaction(&self, index: IndexName, lease: Duration) -> Result<Transaction, WriteError> {
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        let request = NewTransaction { index: index.clone(), lease_ms };
        let mut patience = Patience::new(BEGIN_WITHIN);
        let begun = loop {
            match self.bus.call::<BeginTransaction>(&(), &request).await {
                Ok(begun) => break begun,
                Err(problem) => match patience.pause_after(&problem) {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(patience.conclude(problem).into()),
                },
            }
        };
        Transaction::open(self, index, lease, &begun).await
    }
}

impl Transaction {
    async fn open(client: &Client, index: IndexName, lease: Duration, begun: &Described) -> Result<Self, WriteError> {
        let shadow = |share: &TransactionShare| SegmentRange {
            segment: share.shadow,
            container: share.container,
            range: share.range,
        };
        let options = WriterOptions::new(fresh_writer("transaction"));
        let shadows = begun.shares.iter().map(shadow).collect();
        let opened = (begun.transaction, begun.epoch);
        let writer = EventWriter::of_transaction(client, index.clone(), options, opened, shadows).await?;
        let name = TransactionName { index, transaction: begun.transaction };
        let pings = tokio::spawn(keep_alive(client.clone(), name.clone(), lease, writer.shared().clone()));
        Ok(Self { client: client.clone(), name, lease, writer, pings: pings.abort_handle() })
    }

    /// Its number within the stream.
    pub fn id(&self) -> TransactionId {
        self.name.transaction
    }

    /// Writes an event into the transaction; as [`EventWriter::write`].
    ///
    /// Errors: also `TransactionOver`, which says how and why it ended.
    pub async fn write(&self, key: Option<&RoutingKey>, event: Bytes) -> Result<Receipt, WriteError> {
        self.writer.write(key, event).await
    }

    /// Writes events into the transaction; as [`EventWriter::write_batch`].
    pub fn write_batch<'w, 'k, E: AsRef<[u8]> + Send + 'w>(
        &'w self,
        events: impl IntoIterator<Item = (Option<&'k RoutingKey>, E)>,
    ) -> WriteBatch<'w> {
        self.writer.write_batch(events)
    }

    /// Waits until everything written is durable; it is not visible yet.
    pub async fn flush(&self) -> Result<(), WriteError> {
        self.writer.flush().await
    }

    /// Renews the lease now; a background task does it three times a lease.
    ///
    /// Errors: `TransactionOver`; others say nothing about the transaction.
    pub async fn ping(&self) -> Result<(), WriteError> {
        match ping(&self.client, &self.name, self.lease, bus::CALL_DEADLINE).await? {
            None => Ok(()),
            Some(over) => {
                self.writer.shared().fail(&over);
                Err(over)
            }
        }
    }

    /// How far it is.
    pub async fn status(&self) -> Result<TransactionPhase, WriteError> {
        Ok(self.client.bus.call::<DescribeTransaction>(&(), &self.name).await?.phase)
    }

    /// Makes everything written visible, and waits until it is.
    ///
    /// Repeated by itself for up to 10 min; only the first answer that says how it ended counts.
    /// Errors: not applied, and never visible: an event could not be stored, or `TransactionOver`. Outcome unknown: nobody
    /// answered for 10 min; [`Client::transaction_phase`] tells later.
    pub async fn commit(self) -> Result<(), WriteError> {
        if let Err(error) = self.writer.flush().await {
            // Whatever was stored of it belongs to a transaction that nobody commits.
            return Err(WriteError::not_applied(error.cause));
        }
        let over = |ended: &Described| self.over(ended.phase, ended.reason.clone());
        let mut patience = Patience::new(END_WITHIN);
        loop {
            let within = patience.left().min(TRY_WITHIN);
            let problem = match self.client.bus.call_within::<CommitTransaction>(&(), &self.name, within).await {
                Ok(ended) if ended.phase == TransactionPhase::Committed => return Ok(()),
                Ok(ended) if is_aborted(ended.phase) => return Err(over(&ended)),
                Ok(_) => Problem::unavailable("Committing", "the commit is decided and not yet visible").unknown(),
                Err(problem) if problem.kind == "TransactionOver" => match self.how_it_ended().await {
                    Ok(ended) if ended.phase == TransactionPhase::Committed => return Ok(()),
                    Ok(ended) => return Err(over(&ended)),
                    Err(unheard) => unheard.unknown(),
                },
                Err(problem) => problem,
            };
            match patience.pause_after(&problem) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(patience.conclude(problem).into()),
            }
        }
    }

    /// Drops everything written. Aborting what is aborted succeeds.
    ///
    /// Errors: `TransactionOver` when it is committed.
    pub async fn abort(self) -> Result<(), WriteError> {
        self.writer.shared().fail(&self.over(TransactionPhase::Aborting, Some("asked for".to_owned())));
        let mut patience = Patience::new(END_WITHIN);
        loop {
            let within = patience.left().min(TRY_WITHIN);
            let problem = match self.client.bus.call_within::<AbortTransaction>(&(), &self.name, within).await {
                Ok(ended) if is_aborted(ended.phase) => return Ok(()),
                Ok(ended) => return Err(self.over(ended.phase, ended.reason)),
                Err(problem) if problem.kind == "TransactionOver" => match self.how_it_ended().await {
                    Ok(ended) if is_aborted(ended.phase) => return Ok(()),
                    Ok(ended) => return Err(self.over(ended.phase, ended.reason)),
                    Err(unheard) => unheard,
                },
                Err(problem) => problem,
            };
            match patience.pause_after(&problem) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(patience.conclude(problem).into()),
            }
        }
    }

    async fn how_it_ended(&self) -> Result<Described, Problem> {
        self.client.bus.call::<DescribeTransaction>(&(), &self.name).await
    }

    fn over(&self, phase: TransactionPhase, reason: Option<String>) -> WriteError {
        WriteError::not_applied(WriteCause::TransactionOver { transaction: self.name.transaction, phase, reason })
    }
}

impl Client {
    /// How far a transaction is, also one of another process or one whose commit was not answered.
    pub async fn transaction_phase(
        &self,
        index: IndexName,
        transaction: TransactionId,
    ) -> Result<TransactionPhase, WriteError> {
        let name = TransactionName { index, transaction };
        Ok(self.bus.call::<DescribeTransaction>(&(), &name).await?.phase)
    }
}

fn is_aborted(phase: TransactionPhase) -> bool {
    matches!(phase, TransactionPhase::Aborting | TransactionPhase::Aborted)
}

/// Renews the lease; answers how the transaction ended, if it did.
async fn ping(
    client: &Client,
    name: &TransactionName,
    lease: Duration,
    within: Duration,
) -> Result<Option<WriteError>, Problem> {
    let (index, transaction) = (name.index.clone(), name.transaction);
    let over = |phase, reason| WriteError {
        outcome: Outcome::NotApplied,
        cause: WriteCause::TransactionOver { transaction, phase, reason },
    };
    let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
    let request = TransactionPing { index, transaction, lease_ms };
    match client.bus.call_within::<PingTransaction>(&(), &request, within).await {
        Ok(known) if is_aborted(known.phase) => Ok(Some(over(known.phase, known.reason))),
        Ok(_) => Ok(None),
        Err(problem) if problem.kind == "TransactionOver" => {
            let known = client.bus.call::<DescribeTransaction>(&(), name).await?;
            Ok(is_aborted(known.phase).then(|| over(known.phase, known.reason)))
        }
        Err(problem) if problem.kind == "UnknownTransaction" => {
            Ok(Some(over(TransactionPhase::Aborted, Some("forgotten".to_owned()))))
        }
        Err(problem) => Err(problem),
    }
}

/// Renews the lease until the transaction ends or its owner is gone; whoever writes learns at once when it ended.
async fn keep_alive(client: Client, name: TransactionName, lease: Duration, shared: Arc<Shared>) {
    let every = lease / PINGS;
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Each has its own third of the lease: one that gets lost does not hold up the next.
        match ping(&client, &name, lease, every).await {
            Ok(None) => {}
            Ok(Some(over)) => return shared.fail(&over),
            Err(problem) => debug!(transaction = %name.transaction, %problem, "ping not answered"),
        }
    }
}
