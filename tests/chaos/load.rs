//! Publishers that never stop by themselves, and remember what was acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use logboom_tests::{Binding, Publisher, event};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{INDEX, WINDOW_SECONDS};

/// Routing keys; each has its own order.
const KEYS: usize = 24;
/// Services, which are what windows are grouped by.
const SERVICES: usize = 6;
/// The pause between two events of a key.
const PACE: Duration = Duration::from_millis(15);
/// Errors of one burst: far above the rule's threshold.
const BURST: i64 = 25;
/// The pause between two bursts.
const BURST_EVERY: Duration = Duration::from_secs(11);
/// Event time lies this far back, so that the markers at the end are not in the future.
const BACK: SignedDuration = SignedDuration::from_mins(40);
/// How long after the last event its windows are closed: above the watermark delay.
const CLOSE_AFTER: SignedDuration = SignedDuration::from_mins(15);

/// One acknowledged event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) at: Timestamp,
    /// `None` where the job leaves it out.
    pub(crate) amount: Option<i64>,
}

/// What one key has published, in order, all of it acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) key: String,
    pub(crate) service: String,
    /// Whether it is a burst of errors.
    pub(crate) alarm: bool,
    pub(crate) events: Vec<Event>,
}

/// Running publishers.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<Vec<Sent>>>,
}

impl Load {
    /// Starts one publisher for each key, and one of bursts.
    pub(crate) async fn start(binding: &Binding, seed: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let clock = Clock { begun: Instant::now(), base: Timestamp::now() - BACK };
        let connections = [binding.publisher().await?, binding.publisher().await?, binding.publisher().await?];
        for number in 0..KEYS {
            let (stop, publisher) = (Arc::clone(&stop), connections[number % connections.len()].clone());
            tasks.spawn(async move { Ok(vec![steady(number, seed, clock, &publisher, &stop).await?]) });
        }
        let (stopped, publisher) = (Arc::clone(&stop), connections[0].clone());
        tasks.spawn(async move { bursts(clock, &publisher, &stopped).await });
        Ok(Self { stop, tasks })
    }

    /// Lets every publisher end with the event that it has begun.
    pub(crate) async fn finish(mut self) -> Result<Vec<Sent>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(sent) = self.tasks.join_next().await {
            all.extend(sent??);
        }
        ensure!(all.iter().any(|sent| sent.alarm), "there was no burst");
        Ok(all)
    }
}

/// Event time that runs with the wall clock.
#[derive(Clone, Copy)]
struct Clock {
    begun: Instant,
    base: Timestamp,
}

impl Clock {
    fn now(self) -> Timestamp {
        let millis = i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0);
        self.base + SignedDuration::from_millis(millis)
    }
}

/// One event at a time: the next one only when this one is acknowledged, so that the key's order is known.
async fn steady(number: usize, seed: u64, clock: Clock, publisher: &Publisher, stop: &AtomicBool) -> Result<Sent> {
    let (key, service) = (format!("k{number:02}"), format!("svc-{}", number % SERVICES));
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(u64::try_from(number)?));
    let mut events = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let amount = random.random_range(0..1_000i64);
        let at = to_millis(clock.now())?;
        let more =
            json!({ "id": format!("{key}-{}", events.len()), "key": key, "seq": events.len(), "amount": amount });
        let payload = event(at, &service, "info", "steady", more);
        publisher.until_acked(&format!("logs.{INDEX}.{key}"), &format!("{key}-{}", events.len()), payload).await?;
        events.push(Event { at, amount: Some(amount) });
        sleep(PACE).await;
    }
    Ok(Sent { key, service, alarm: false, events })
}

/// Every burst is a service of its own, with all of its errors in one window: it must fire once and resolve once.
async fn bursts(clock: Clock, publisher: &Publisher, stop: &AtomicBool) -> Result<Vec<Sent>> {
    let mut all = Vec::new();
    let mut next = Instant::now() + Duration::from_secs(2);
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() < next {
            sleep(PACE).await;
            continue;
        }
        next += BURST_EVERY;
        let key = format!("alarm-{}", all.len());
        let window = clock.now().as_second().div_euclid(WINDOW_SECONDS) * WINDOW_SECONDS;
        let mut events = Vec::new();
        for seq in 0..BURST {
            let at = Timestamp::from_millisecond(window * 1_000 + seq * WINDOW_SECONDS * 1_000 / BURST)?;
            let more = json!({ "id": format!("{key}-{seq}"), "key": key, "seq": seq });
            let payload = event(at, &key, "error", "burst", more);
            publisher.until_acked(&format!("logs.{INDEX}.{key}"), &format!("{key}-{seq}"), payload).await?;
            events.push(Event { at, amount: None });
        }
        all.push(Sent { service: key.clone(), key, alarm: true, events });
    }
    Ok(all)
}

/// One later event for every key, so that the watermark passes every window.
pub(crate) async fn close_windows(binding: &Binding, sent: &[Sent]) -> Result<()> {
    let last = sent.iter().filter_map(|of_key| of_key.events.last()).map(|event| event.at).max();
    let at = last.unwrap_or_default() + CLOSE_AFTER;
    let markers = sent.iter().map(|of_key| {
        let id = format!("marker-{}", of_key.key);
        (format!("logs.{INDEX}.{}", of_key.key), id, event(at, "marker", "info", "time goes on", json!({})))
    });
    binding.publisher().await?.all(8, markers.collect::<Vec<_>>()).await
}

/// The payload shows milliseconds; the recomputation has to see the same.
fn to_millis(at: Timestamp) -> Result<Timestamp> {
    Ok(Timestamp::from_millisecond(at.as_millisecond())?)
}
