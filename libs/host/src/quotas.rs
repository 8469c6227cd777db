//! Quotas as the doors of a service ask for them: followed from their bucket, shared with every other replica that lets something in.
//!
//! What passes is decided here and now (`quota::Meter`); once a second it is told in the bucket of usage, where the others and the
//! next process of this name read it. So no door waits for anybody, and a restart forgets no more than a second of the day.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use bus::{Bucket, Change};
use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use quota::{Limits, Meter, Refusal, Take, Told};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, warn};
use types::{Clock, IndexName, hash64};
use wire::{
    Problem,
    views::{QUOTAS, Quota, USAGE, Usage, Usages, usage_key},
};

use crate::{Host, StartError, metrics};

/// Indexes with a quota; of one above it nothing is limited, and an ERROR says so.
const QUOTAS_MAX: usize = 100_000;
/// How often others are told what was let in.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// So often open queries are told again although nothing changed: before the others take them for gone.
const TELL_QUERIES_EVERY: u64 = 3;
/// How long one telling may take; it is repeated.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// How long an entry of usage stays that nobody renews: the day that it is about, and the one after.
const USAGE_KEPT: Duration = Duration::from_secs(2 * 86_400);
/// Entries of usage of one replica: each has the indexes whose names fall to it. The number is part of the format.
const PARTS: u8 = 16;

/// What the users of every index may still take; clones share it.
///
/// Bounds: 100,000 indexes with a quota. Order: none between doors; each asks once for what it lets in.
#[derive(Clone)]
pub struct Quotas {
    meters: Arc<RwLock<HashMap<IndexName, Arc<Mutex<Meter>>>>>,
    clock: Arc<dyn Clock>,
}

/// A quota is used up.
///
/// As a [`Problem`]: Throttled `QuotaBytes`, `QuotaRate`, `QuotaQueries`; not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverQuota {
    index: IndexName,
    refusal: Refusal,
}

/// An open query; closed by being dropped.
#[must_use = "a query counts as long as its permit lives"]
pub struct QueryPermit(Option<Arc<Mutex<Meter>>>);

impl Drop for QueryPermit {
    fn drop(&mut self) {
        if let Some(meter) = &self.0 {
            meter.lock().close();
        }
    }
}

impl Quotas {
    /// Follows the quotas and what everybody takes of them; returns when both are known.
    pub async fn open(host: &Host) -> Result<Self, StartError> {
        let replicas = host.common.journal_replicas;
        let limits = host.bus.bucket(QUOTAS, None, replicas).await?;
        let usage = host.bus.bucket(USAGE, Some(USAGE_KEPT), replicas).await?;
        let this = Self::without(Arc::clone(&host.clock));
        let keys = (0..PARTS).map(|part| usage_key(host.service, &host.replica, part)).collect();
        let own = Arc::new(Own { bucket: usage.clone(), keys, unsent: Mutex::default() });
        let (known, all_known) = oneshot::channel();
        let (following, stop) = (this.clone().follow(limits, usage, Arc::clone(&own), known), host.stop.clone());
        host.spawn("quotas", async move {
            stop.run_until_cancelled(following).await;
        });
        all_known.await.map_err(|_| StartError::other("the service stopped before the quotas were known"))?;
        let (telling, stop) = (this.clone().keep_telling(Arc::clone(&own)), host.stop.clone());
        host.spawn("usage", async move {
            stop.run_until_cancelled(telling).await;
        });
        let last = this.clone();
        host.on_drain(move || async move { last.tell(&own, false).await }.boxed());
        Ok(this)
    }

    /// Without any quota, and without anybody to share it with.
    pub fn without(clock: Arc<dyn Clock>) -> Self {
        Self { meters: Arc::default(), clock }
    }

    /// Sets or removes the quota of an index.
    pub fn set(&self, index: &IndexName, quota: Option<Quota>) {
        let Some(quota) = quota.filter(|quota| *quota != Quota::default()) else {
            self.meters.write().remove(index);
            return;
        };
        let Quota { bytes_per_day, events_per_second, queries } = quota;
        let (limits, now) = (Limits { bytes_per_day, events_per_second, queries }, self.clock.now());
        let mut meters = self.meters.write();
        match meters.get(index) {
            Some(meter) => meter.lock().set(limits, now),
            None if meters.len() >= QUOTAS_MAX => error!(%index, "index without limits, too many have a quota"),
            None => drop(meters.insert(index.clone(), Arc::new(Mutex::new(Meter::new(limits, now))))),
        }
    }

    /// Lets events with so many bytes of payload pass, all of them or none.
    ///
    /// Bounds: the index's quota; more than two seconds of its rate at once pass when it was silent before, and are paid for by
    /// silence afterwards. Errors: `QuotaBytes`, `QuotaRate`; not applied.
    pub fn take(&self, index: &IndexName, events: u64, bytes: u64) -> Result<(), OverQuota> {
        let Some(meter) = self.meter(index) else { return Ok(()) };
        let taken = meter.lock().take(Take { events, bytes }, self.clock.now());
        taken.map_err(|refusal| OverQuota::of(index, refusal))
    }

    /// Takes note that what was let pass was certainly not stored.
    pub fn give_back(&self, index: &IndexName, events: u64, bytes: u64) {
        if let Some(meter) = self.meter(index) {
            meter.lock().give_back(Take { events, bytes }, self.clock.now());
        }
    }

    /// Opens a query or a tail. `besides` are continuous queries of the index, which are counted elsewhere.
    ///
    /// Errors: `QuotaQueries`.
    pub fn query(&self, index: &IndexName, besides: u32) -> Result<QueryPermit, OverQuota> {
        let Some(meter) = self.meter(index) else { return Ok(QueryPermit(None)) };
        let opened = meter.lock().open(besides, self.clock.now());
        opened.map_err(|refusal| OverQuota::of(index, refusal))?;
        Ok(QueryPermit(Some(meter)))
    }

    /// Whether the queries of the index are limited.
    pub fn limits_queries(&self, index: &IndexName) -> bool {
        self.meter(index).is_some_and(|meter| meter.lock().limits().queries.is_some())
    }

    fn meter(&self, index: &IndexName) -> Option<Arc<Mutex<Meter>>> {
        self.meters.read().get(index).cloned()
    }

    async fn follow(self, limits: Bucket, usage: Bucket, own: Arc<Own>, known: oneshot::Sender<()>) {
        let mut limits = limits.watch("");
        // Limits first: what was taken of an index is kept only where it has some.
        while let Change::Key { key, entry } = limits.next().await {
            self.limit(&key, entry.as_ref().map(|entry| &entry.value[..]));
        }
        let mut usage = usage.watch("");
        let mut known = Some(known);
        loop {
            tokio::select! {
                change = limits.next() => if let Change::Key { key, entry } = change {
                    self.limit(&key, entry.as_ref().map(|entry| &entry.value[..]));
                },
                change = usage.next() => match change {
                    Change::Ready => drop(known.take().map(|known| known.send(()))),
                    Change::Key { key, entry } => {
                        let whose = if own.keys.contains(&key) { Whose::Own { first: known.is_some() } } else { Whose::Other };
                        self.learn(&key, entry.as_ref().map(|entry| &entry.value[..]), whose);
                    }
                },
            }
        }
    }

    fn limit(&self, key: &str, quota: Option<&[u8]>) {
        let Ok(index) = key.parse::<IndexName>() else {
            warn!(key, "quota with a name that no index has");
            return;
        };
        match quota.map(wire::decode::<Quota>).transpose() {
            Ok(quota) => self.set(&index, quota),
            Err(problem) => warn!(%index, %problem, "quota cannot be read, the last one stays"),
        }
    }

    /// Takes in what somebody let in.
    fn learn(&self, key: &str, usages: Option<&[u8]>, whose: Whose) {
        let Some(usages) = usages else {
            self.meters.read().values().for_each(|meter| meter.lock().forget(key));
            return;
        };
        let usages = match wire::decode::<Usages>(usages) {
            Ok(usages) => usages,
            Err(problem) => return warn!(key, %problem, "usage cannot be read"),
        };
        let (who, now): (Arc<str>, _) = (key.into(), self.clock.now());
        for (index, Usage { day, bytes, events, queries }) in usages.indexes {
            let Some(meter) = self.meter(&index) else { continue };
            let told = Told { day, bytes, events, queries };
            match whose {
                Whose::Other => meter.lock().hear(&who, told, now),
                Whose::Own { first: true } => meter.lock().resume(told),
                Whose::Own { first: false } => {}
            }
        }
    }

    async fn keep_telling(self, own: Arc<Own>) {
        let mut ticks = interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0u64.. {
            ticks.tick().await;
            self.tell(&own, tick % TELL_QUERIES_EVERY == 0).await;
        }
    }

    /// Tells what changed since it was told last; what cannot be told now is told next time.
    async fn tell(&self, own: &Own, queries_too: bool) {
        let unsent: Vec<u8> = {
            let mut unsent = own.unsent.lock();
            unsent.extend(self.changed(queries_too));
            unsent.iter().copied().collect()
        };
        for part in unsent {
            let Some(key) = own.keys.get(usize::from(part)) else { continue };
            match timeout(TELL_WITHIN, own.bucket.put(key, wire::encode(&self.usages(part)))).await {
                Ok(Ok(_)) => drop(own.unsent.lock().remove(&part)),
                Ok(Err(error)) => return warn!(key, %error, "usage cannot be told, it is told again"),
                Err(_) => return warn!(key, "usage cannot be told in time, it is told again"),
            }
        }
    }

    /// The parts of which there is something to tell.
    fn changed(&self, queries_too: bool) -> BTreeSet<u8> {
        let meters = self.meters.read();
        let changed = meters.iter().filter(|(_, meter)| {
            let mut meter = meter.lock();
            meter.take_changed() || (queries_too && meter.queries() > 0)
        });
        changed.map(|(index, _)| part_of(index)).collect()
    }

    /// What was let in of the indexes of a part.
    fn usages(&self, part: u8) -> Usages {
        let (meters, now) = (self.meters.read(), self.clock.now());
        let of_part = meters.iter().filter(|(index, _)| part_of(index) == part);
        let indexes = of_part.filter_map(|(index, meter)| {
            let Told { day, bytes, events, queries } = meter.lock().tell(now);
            (bytes > 0 || events > 0 || queries > 0).then(|| (index.clone(), Usage { day, bytes, events, queries }))
        });
        Usages { indexes: indexes.collect() }
    }
}

/// Where this replica tells what it let in.
struct Own {
    bucket: Bucket,
    /// By part.
    keys: Vec<String>,
    /// Parts that could not be told.
    unsent: Mutex<BTreeSet<u8>>,
}

#[derive(Clone, Copy)]
enum Whose {
    /// Of a process of this name; only what it told before this one began is news.
    Own {
        first: bool,
    },
    Other,
}

fn part_of(index: &IndexName) -> u8 {
    u8::try_from(hash64(index.as_str().as_bytes()) % u64::from(PARTS)).unwrap_or(0)
}

impl OverQuota {
    fn of(index: &IndexName, refusal: Refusal) -> Self {
        let refused = Self { index: index.clone(), refusal };
        metrics::QUOTA_REFUSED.with(refused.kind()).inc();
        refused
    }

    /// The name of the quota that is used up.
    pub fn kind(&self) -> &'static str {
        match self.refusal {
            Refusal::Bytes { .. } => "QuotaBytes",
            Refusal::Rate { .. } => "QuotaRate",
            Refusal::Queries { .. } => "QuotaQueries",
        }
    }

    fn wait(&self) -> Duration {
        match self.refusal {
            Refusal::Bytes { wait, .. } | Refusal::Rate { wait, .. } => wait,
            Refusal::Queries { .. } => TELL_EVERY,
        }
    }
}

impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log index {} {}: ", self.index, self.refusal)?;
        let wait = self.wait();
        match self.refusal {
            Refusal::Queries { .. } => write!(f, "wait for one to end, or change the plan"),
            _ if wait < Duration::from_secs(1) => write!(f, "try again in {} ms", wait.as_millis() + 1),
            _ => write!(f, "try again in {} s", wait.as_secs() + 1),
        }
    }
}

impl std::error::Error for OverQuota {}

impl From<OverQuota> for Problem {
    fn from(error: OverQuota) -> Self {
        let wait = u64::try_from(error.wait().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        Self::throttled(error.kind(), &error).retry_after_ms(wait)
    }
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
