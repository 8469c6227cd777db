//! One seed: a stream of its own, its faults under load, and the debts afterwards.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use logboom_tests::{Streams, Walker, eventually};
use tokio::time::sleep;
use types::KeyRange;

use crate::{arena::Arena, promise::Promises, schedule::Schedule, traffic::Traffic};

/// Traffic before the first fault and after the last.
const CALM: Duration = Duration::from_millis(500);
/// How long a client may take to connect: a server on a busy machine gives up those who are slow to say who they are.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);

/// What a trial came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Faults by kind.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Kinds that this machine does not allow, or that found nothing to strike.
    pub(crate) skipped: BTreeMap<&'static str, u64>,
    pub(crate) acknowledged: u64,
    pub(crate) transactions: usize,
    /// For an acknowledgement.
    pub(crate) longest_wait_ms: u64,
    pub(crate) broken: Vec<String>,
    pub(crate) times: Times,
}

impl Outcome {
    pub(crate) fn count(&mut self, kind: &'static str, done: bool) {
        *if done { &mut self.faults } else { &mut self.skipped }.entry(kind).or_default() += 1;
    }
}

/// Where the time of a trial went.
#[derive(Debug, Default)]
pub(crate) struct Times {
    begun: Option<Instant>,
    last: Duration,
    spent: Vec<(String, Duration)>,
}

impl Times {
    fn begin() -> Self {
        Self { begun: Some(Instant::now()), ..Self::default() }
    }

    /// All of it until now.
    pub(crate) fn total(&self) -> Duration {
        self.last
    }

    fn note(&mut self, what: &str) {
        let now = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        self.spent.push((what.to_owned(), now - self.last));
        self.last = now;
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = self.spent.iter().map(|(what, took)| format!("{what} {:.1}", took.as_secs_f32()));
        write!(f, "{:.1} s: {}", self.last.as_secs_f32(), each.collect::<Vec<_>>().join(", "))
    }
}

impl Arena {
    /// Runs one schedule; an error is a broken promise too, of the kind that nothing passes any more.
    pub(crate) async fn run(&mut self, schedule: &Schedule) -> Outcome {
        let mut outcome = Outcome { times: Times::begin(), ..Outcome::default() };
        if let Err(error) = self.trial(schedule, &mut outcome).await {
            outcome.broken.push(format!("{error:#}"));
        }
        outcome.times.note("end");
        outcome
    }

    async fn trial(&mut self, schedule: &Schedule, outcome: &mut Outcome) -> Result<()> {
        let bus = self.cluster.steady_bus("gateway/chaos").await?;
        let index = format!("trial-{}", schedule.seed);
        let streams = Streams::create(&bus, &index, 2).await.context("a stream for the trial")?;
        let binding = self.cluster.binding(&index)?;
        let connection = eventually("a connection", CONNECTED_WITHIN, async || binding.connect().await).await?;
        let traffic = Traffic::start(connection, &binding, &self.client, &streams, schedule.seed).await?;
        let mut promises = Promises::default();
        sleep(CALM).await;
        outcome.times.note("begin");
        for (number, step) in schedule.steps.iter().enumerate() {
            sleep(step.after).await;
            let kind = step.fault.kind();
            let done = self.inject(step.fault, &streams, &traffic, &mut promises).await;
            let done = done.with_context(|| format!("step {number}: {:?}", step.fault))?;
            if let Some(done) = done {
                outcome.count(kind, done);
            }
            self.replace_dead()?;
            self.cluster.check().with_context(|| format!("after step {number}: {:?}", step.fault))?;
            outcome.times.note(kind);
        }
        sleep(CALM).await;
        self.heal(outcome).await.context("everything is whole again")?;
        outcome.times.note("heal");
        let longest = traffic.longest.clone();
        let (live, shared) = traffic.finish(&mut promises).await?;
        outcome.times.note("finish");
        outcome.longest_wait_ms = longest.millis();
        let again = Walker::from_head(&self.client, &streams).await?.read_all().await.context("read again")?;
        outcome.acknowledged = promises.count();
        outcome.transactions = promises.transactions.len();
        outcome.broken = promises.broken(&live, &again, &shared);
        outcome.times.note("judge");
        streams.check_epochs().await?;
        let head = streams.describe().await?.head;
        ensure!(
            promises.head.0.iter().all(|(segment, offset)| head.offset(*segment) >= *offset),
            "the stream was cut off at {:?}, and says that it begins at {head:?}",
            promises.head
        );
        let publisher = eventually("a new connection", CONNECTED_WITHIN, async || binding.publisher().await).await?;
        let subject = format!("{}.fresh", binding.subject);
        publisher.until_acked(&subject, "fresh", "{\"msg\":\"fresh 0\"}").await.context("a fresh event")?;
        let mut walker = Walker::from_head(&self.client, &streams).await?;
        walker.read_until(|seen| seen.iter().any(|one| one.text == "fresh 0")).await.context("a fresh event")?;
        self.cluster.check()
    }
}

/// Cuts the stream off where the witness stands, so that nothing is lost that was not seen.
pub(crate) async fn truncate(streams: &Streams, traffic: &Traffic, promises: &mut Promises) -> Result<()> {
    let (cut, past) = {
        let standing = traffic.standing.lock();
        (standing.cut.clone(), standing.past.clone())
    };
    let nodes = streams.nodes().await?;
    let ranges: Vec<KeyRange> = nodes.iter().filter(|n| cut.0.contains_key(&n.segment)).map(|n| n.range).collect();
    ensure!(KeyRange::cover_once(&ranges), "{cut:?} of the witness does not cover the key space once: {ranges:?}");
    streams.truncate(cut.clone()).await?;
    promises.head = cut;
    promises.forgotten = past;
    Ok(())
}
