//! What goes on while things go wrong: publishers, writers, transactions, a group of readers, and a witness that reads along.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bus::Bus;
use client::{Client, Delivered, EventWriter, GroupOptions, GroupReader, WriterOptions};
use logboom_tests::{Binding, Publisher, Seen, Streams, Walker, eventually, patiently};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::Handle,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use types::{RoutingKey, SegmentId, StreamCut, Timestamp};
use wire::{
    block::BlockBuilder,
    coordinator::{
        AbortTransaction, BeginTransaction, CommitTransaction, CutKind, DescribeTransaction, GroupConfig,
        GroupRetention, NewTransaction, Transaction, TransactionName, TransactionPhase, TransactionShare,
    },
    segment_store::Append,
};

use crate::promise::{Ending, Promises, Transacted};

/// Routing keys of plain publishers; each has its own order.
const KEYS: u64 = 6;
/// The pause between two events of a key.
const PACE: Duration = Duration::from_millis(10);
/// How long a publisher waits before it repeats: what is asked of a process that dies is never answered.
const ACK_WITHIN: Duration = Duration::from_secs(1);
/// Exactly-once writers, each with three keys of its own.
const WRITERS: u64 = 2;
/// Events that a writer has under way at once.
const BATCH: u64 = 6;
/// How long a batch may take: longer than any outage of a trial.
const WRITTEN_WITHIN: Duration = Duration::from_secs(90);
/// Readers of the group.
const READERS: u64 = 2;
/// Events of one transaction, over three keys.
const TRANSACTION_EVENTS: u64 = 6;
/// The pause between two transactions.
const TRANSACTION_PACE: Duration = Duration::from_millis(150);
const LEASE_MS: u32 = 20_000;
/// How long one append of a transaction is tried.
const APPEND_WITHIN: Duration = Duration::from_secs(60);
/// How long the group may take behind the witness.
const SHARED_WITHIN: Duration = Duration::from_secs(60);
/// The pause of the witness when nothing is new.
const IDLE: Duration = Duration::from_millis(20);

/// Where the witness stands.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    pub(crate) cut: StreamCut,
    /// Segments read to their ends with all that follows opened.
    pub(crate) past: BTreeSet<SegmentId>,
}

/// The longest that anybody waited for an acknowledgement, in milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Longest(Arc<AtomicU64>);

impl Longest {
    fn note(&self, begun: Instant) {
        self.0.fetch_max(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Running traffic of one trial.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    publishers: JoinSet<Result<Vec<(String, u64)>>>,
    transactions: JoinHandle<Result<Vec<Transacted>>>,
    witness: JoinHandle<Result<(Walker, Vec<Seen>)>>,
    readers: Vec<JoinHandle<Result<()>>>,
    shared: Arc<Mutex<Vec<Seen>>>,
    /// For the readers, who go on longest.
    end: Arc<AtomicBool>,
    pub(crate) standing: Arc<Mutex<Standing>>,
    pub(crate) longest: Longest,
}

impl Drop for Traffic {
    /// A trial that failed leaves nobody behind.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.end.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    /// Plain publishers share a connection; everybody else is a client of segments.
    pub(crate) async fn start(
        connection: async_nats::Client,
        binding: &Binding,
        client: &Client,
        streams: &Streams,
        seed: u64,
    ) -> Result<Self> {
        let (stop, longest) = (Arc::new(AtomicBool::new(false)), Longest::default());
        let mut publishers = JoinSet::new();
        let publisher = Publisher::hasty(connection, ACK_WITHIN);
        for number in 0..KEYS {
            let (stop, publisher, subject) = (Arc::clone(&stop), publisher.clone(), binding.subject.clone());
            let longest = longest.clone();
            publishers.spawn(async move { publish(format!("k{number}"), &subject, &publisher, &stop, &longest).await });
        }
        for number in 0..WRITERS {
            let options = WriterOptions::new(format!("writer-{number}").parse()?);
            let writer = client.event_writer(streams.index.clone(), options).await?;
            let (stop, longest) = (Arc::clone(&stop), longest.clone());
            publishers.spawn(async move { write(number, writer, &stop, &longest).await });
        }
        let (end, shared) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let readers = readers(client, streams, &end, &shared).await?;
        let transactor = Transactor { bus: streams.bus.clone(), client: client.clone(), streams: streams.clone() };
        let stopped = Arc::clone(&stop);
        let transactions = tokio::spawn(async move { transactor.run(seed, &stopped).await });
        let walker = Walker::from_head(client, streams).await?;
        let standing = Arc::new(Mutex::new(Standing { cut: walker.cut(), past: walker.past() }));
        let (stopped, told) = (Arc::clone(&stop), Arc::clone(&standing));
        let witness = tokio::spawn(async move { witness(walker, &stopped, &told).await });
        Ok(Self { stop, publishers, transactions, witness, readers, shared, end, standing, longest })
    }

    /// Lets everybody end with what is begun; answers what the witness has read to the end, and what the group has.
    pub(crate) async fn finish(mut self, promises: &mut Promises) -> Result<(Vec<Seen>, Vec<Seen>)> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(sent) = self.publishers.join_next().await {
            promises.keys.extend(sent??);
        }
        promises.transactions = (&mut self.transactions).await?.context("transactions")?;
        let (mut walker, mut seen) = (&mut self.witness).await?.context("the witness")?;
        seen.extend(walker.read_all().await.context("the witness at the end")?);
        let due = seen.iter().filter(|one| !promises.is_before_head(one)).count();
        // What is missing then is told by name.
        drop(
            eventually("the group has it all", SHARED_WITHIN, async || {
                let shared = self.shared.lock();
                let there = shared.iter().filter(|one| !promises.is_before_head(one)).count();
                ensure!(there >= due, "{there} of {due}");
                Ok(())
            })
            .await,
        );
        self.end.store(true, Ordering::Relaxed);
        for reader in std::mem::take(&mut self.readers) {
            reader.await?.context("a reader of the group")?;
        }
        let shared = std::mem::take(&mut *self.shared.lock());
        Ok((seen, shared))
    }
}

/// One event at a time: the next one only when this one is acknowledged, so that the key's order is known.
async fn publish(
    key: String,
    subject: &str,
    publisher: &Publisher,
    stop: &AtomicBool,
    longest: &Longest,
) -> Result<Vec<(String, u64)>> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{key} {number}");
        let payload = format!("{{\"msg\":\"{text}\"}}");
        let begun = Instant::now();
        publisher.until_acked(&format!("{subject}.{key}"), &text.replace(' ', "-"), payload).await?;
        longest.note(begun);
        number += 1;
        sleep(PACE).await;
    }
    Ok(vec![(key, number)])
}

/// Batches over three keys, each acknowledged before the next.
async fn write(number: u64, writer: EventWriter, stop: &AtomicBool, longest: &Longest) -> Result<Vec<(String, u64)>> {
    let names: Vec<String> = (0..3).map(|key| format!("w{number}.{key}")).collect();
    let keys = names.iter().map(|name| RoutingKey::new(name)).collect::<Result<Vec<_>, _>>()?;
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut batch = Vec::new();
        for next in count..count + BATCH / 3 {
            let events = names.iter().map(|name| format!("{{\"msg\":\"{name} {next}\"}}"));
            batch.extend(keys.iter().map(Some).zip(events));
        }
        let begun = Instant::now();
        let written = writer.write_batch(batch).await?;
        timeout(WRITTEN_WITHIN, written).await.context("a writer makes no progress")??;
        longest.note(begun);
        count += BATCH / 3;
        sleep(PACE).await;
    }
    Ok(names.into_iter().map(|name| (name, count)).collect())
}

/// A group that reads the stream from its beginning.
async fn readers(
    client: &Client,
    streams: &Streams,
    end: &Arc<AtomicBool>,
    shared: &Arc<Mutex<Vec<Seen>>>,
) -> Result<Vec<JoinHandle<Result<()>>>> {
    let config = GroupConfig {
        group: format!("of-{}", streams.index).parse()?,
        scope: "tests".parse()?,
        from: [(streams.index.clone(), CutKind::Unbounded)].into(),
        to: Default::default(),
        checkpoint_ms: 1_000,
        retention: GroupRetention::None,
    };
    let group = client.create_group(&config).await?;
    let mut readers = Vec::new();
    for number in 0..READERS {
        let options = GroupOptions { refresh: Duration::from_millis(300), ..GroupOptions::default() };
        let reader = group.reader(format!("r{number}").parse()?, options).await?;
        let (end, shared, runtime) = (Arc::clone(end), Arc::clone(shared), Handle::current());
        // A thread of its own, as in a process of its own.
        readers.push(spawn_blocking(move || runtime.block_on(follow(reader, &end, &shared))));
    }
    Ok(readers)
}

async fn follow(mut reader: GroupReader, end: &AtomicBool, shared: &Mutex<Vec<Seen>>) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        match reader.next(Duration::from_millis(100)).await {
            Ok(Some(Delivered::Events { segment, batch, .. })) => shared.lock().extend(Seen::of(segment, &batch)?),
            Ok(_) => {}
            Err(problem) if problem.is_transient() => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    Ok(reader.close().await?)
}

async fn witness(mut walker: Walker, stop: &AtomicBool, shared: &Mutex<Standing>) -> Result<(Walker, Vec<Seen>)> {
    let mut all = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let seen = walker.poll().await?;
        let nothing = seen.is_empty();
        all.extend(seen);
        *shared.lock() = Standing { cut: walker.cut(), past: walker.past() };
        if nothing {
            sleep(IDLE).await;
        }
    }
    Ok((walker, all))
}

/// Opens transactions one after another; two in three are committed.
struct Transactor {
    bus: Bus,
    client: Client,
    streams: Streams,
}

impl Transactor {
    async fn run(&self, seed: u64, stop: &AtomicBool) -> Result<Vec<Transacted>> {
        let mut random = StdRng::seed_from_u64(seed ^ 2);
        let mut all = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let (commit, hold) = (random.random_range(0..3u8) > 0, random.random_range(0..300));
            let name = format!("t{}", all.len());
            if let Some(one) = self.transact(&name, commit, Duration::from_millis(hold)).await? {
                all.push(one);
            }
            sleep(TRANSACTION_PACE).await;
        }
        Ok(all)
    }

    /// `None` if it is not known whether one was opened; then nothing was written.
    async fn transact(&self, name: &str, commit: bool, hold: Duration) -> Result<Option<Transacted>> {
        let index = self.streams.index.clone();
        let new = NewTransaction { index: index.clone(), lease_ms: LEASE_MS };
        let begun = match self.bus.call::<BeginTransaction>(&(), &new).await {
            Ok(begun) => begun,
            Err(problem) if problem.is_transient() => return Ok(None),
            Err(problem) => return Err(problem.into()),
        };
        let mut events = Vec::new();
        let mut written = true;
        let mut numbers = std::collections::BTreeMap::new();
        for number in 0..TRANSACTION_EVENTS {
            let key = format!("{name}.{}", number % 3);
            let text = format!("{key} {}", number / 3);
            let hash = RoutingKey::new(&key)?.hash();
            let share = begun.route_hash(hash).context("a transaction's shares cover the key space")?;
            let next = numbers.entry(share.shadow).or_insert(0u64);
            *next += 1;
            written &= self.append(&share, *next, &text).await;
            events.push(text);
            if !written {
                break;
            }
        }
        sleep(hold).await;
        let ending = self.end(&begun, commit && written).await?;
        Ok(Some(Transacted { name: name.to_owned(), events, ending }))
    }

    async fn append(&self, share: &TransactionShare, first_event_number: u64, text: &str) -> bool {
        let mut block = BlockBuilder::new();
        block.push(Timestamp::from_millis(1), 0, format!("{{\"msg\":\"{text}\"}}").as_bytes());
        let Ok(writer) = "transactor".parse() else { return false };
        let append =
            Append { segment: share.shadow, writer, first_event_number, block: block.finish(), expected_end: None };
        self.client.append(share.container, append, APPEND_WITHIN).await.is_ok()
    }

    async fn end(&self, begun: &Transaction, commit: bool) -> Result<Ending> {
        let name = TransactionName { index: begun.index.clone(), transaction: begun.transaction };
        let answer = if commit {
            patiently::<CommitTransaction>(&self.bus, &(), &name).await
        } else {
            patiently::<AbortTransaction>(&self.bus, &(), &name).await
        };
        let answer = match answer {
            // Over by itself, or by an earlier attempt: its phase says how.
            Err(problem) if problem.kind == "TransactionOver" => {
                patiently::<DescribeTransaction>(&self.bus, &(), &name).await
            }
            other => other,
        };
        Ok(match answer.map(|transaction| transaction.phase) {
            Ok(TransactionPhase::Committed | TransactionPhase::Committing) => Ending::Committed,
            Ok(TransactionPhase::Aborted | TransactionPhase::Aborting) => Ending::Aborted,
            Ok(TransactionPhase::Open) => Ending::Unknown,
            Err(problem) if problem.is_transient() => Ending::Unknown,
            Err(problem) => return Err(problem.into()),
        })
    }
}
