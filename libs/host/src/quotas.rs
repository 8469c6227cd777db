//! Quotas as the doors of a service ask for them: followed from their bucket, shared with every other replica that lets something in.
//!
//! What passes is decided here and now (`quota::Meter`); once a second it is told in the bucket of usage, where the others and the
//! next process of this name read it. So no door waits for anybody, and a restart forgets no more than a second of the day.

mod telling;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use bus::{Bucket, Change};
use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use quota::{Limits, Meter, Refusal, Take, Told, day_of};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, warn};
use types::{Clock, IndexName, Timestamp};
use wire::{
    Problem,
    views::{QUOTAS, Quota, USAGE, Usage, Usages, usage_key},
};

use self::telling::{Due, PARTS, TELL_BYTES_MAX, Telling, part_of};
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
/// As a [`Problem`]: Throttled `QuotaBytes`, `QuotaRate`, `QuotaQueries`; not applied. A `QuotaBytes` without a time to wait is for
/// more than any day takes: it never passes.
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
        let keys = (0..2 * PARTS).map(|entry| usage_key(host.service, &host.replica, entry)).collect();
        let since = AtomicI64::new(host.clock.now().nanos());
        let own = Arc::new(Own { bucket: usage.clone(), keys, since, telling: Mutex::default() });
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
        host.on_drain(move || async move { last.tell(&own, false, usize::MAX).await }.boxed());
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
        // Streams are the coordinator's affair.
        let Quota { bytes_per_day, events_per_second, queries, streams: _ } = quota;
        let (limits, now) = (Limits { bytes_per_day, events_per_second, queries }, self.clock.now());
        let mut meters = self.meters.write();
        match meters.get(index) {
            Some(meter) => meter.lock().set(limits, now),
            None if meters.len() >= QUOTAS_MAX => error!(%index, "index without limits, too many have a quota"),
            None => drop(meters.insert(index.clone(), Arc::new(Mutex::new(Meter::new(limits, now))))),
        }
    }

    /// Lets events with so many bytes of payload pass, all of them or none; answers when that was, for [`Quotas::give_back`].
    ///
    /// Bounds: the index's quota; more than two seconds of its rate at once pass when it was silent before, and are paid for by
    /// silence afterwards. Errors: `QuotaBytes`, `QuotaRate`; not applied.
    pub fn take(&self, index: &IndexName, events: u64, bytes: u64) -> Result<Timestamp, OverQuota> {
        let now = self.clock.now();
        let Some(meter) = self.meter(index) else { return Ok(now) };
        let taken = meter.lock().take(Take { events, bytes }, now);
        taken.map(|()| now).map_err(|refusal| OverQuota::of(index, refusal))
    }

    /// Takes note that what was let pass at a time added nothing to the index: events, bytes, and the time.
    pub fn give_back(&self, index: &IndexName, back: impl IntoIterator<Item = (u64, u64, Timestamp)>) {
        let Some(meter) = self.meter(index) else { return };
        let mut meter = meter.lock();
        for (events, bytes, taken) in back {
            meter.give_back(Take { events, bytes }, taken);
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

    /// What all replicas let in of an index today, in bytes, and the queries that are open; `None` without limits, for then nobody counts.
    pub fn taken(&self, index: &IndexName) -> Option<(u64, u32)> {
        let (meter, now) = (self.meter(index)?, self.clock.now());
        let meter = meter.lock();
        Some((meter.bytes_on(day_of(now)), meter.open_everywhere(now)))
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
                        let since = self.learn(&key, entry.as_ref().map(|entry| &entry.value[..]), whose);
                        if matches!(whose, Whose::Own { first: true }) {
                            own.since.fetch_max(since.saturating_add(1), Relaxed);
                        }
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

    /// Takes in what somebody let in; answers when the process began that says so, 0 where nobody does.
    fn learn(&self, key: &str, usages: Option<&[u8]>, whose: Whose) -> i64 {
        // Both entries of a part, and all parts, are of one replica.
        let who = key.rsplit_once('.').map_or(key, |(replica, _)| replica);
        let now = self.clock.now();
        let Some(usages) = usages else {
            self.meters.read().values().for_each(|meter| meter.lock().forget(who, now));
            return 0;
        };
        let usages = match wire::decode::<Usages>(usages) {
            Ok(usages) => usages,
            Err(problem) => {
                warn!(key, %problem, "usage cannot be read");
                return 0;
            }
        };
        let (who, since): (Arc<str>, _) = (who.into(), usages.since);
        for (index, Usage { day, bytes, events, queries }) in usages.indexes {
            let Some(meter) = self.meter(&index) else { continue };
            let told = Told { since, day, bytes, events, queries };
            match whose {
                Whose::Other => meter.lock().hear(&who, told, now),
                Whose::Own { first: true } => meter.lock().resume(told),
                Whose::Own { first: false } => {}
            }
        }
        since
    }

    async fn keep_telling(self, own: Arc<Own>) {
        let mut ticks = interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0u64.. {
            ticks.tick().await;
            self.tell(&own, tick % TELL_QUERIES_EVERY == 0, TELL_BYTES_MAX).await;
        }
    }

    /// Tells what changed since it was told last, until so many bytes are sent; what is left, or cannot be told, is told next time.
    async fn tell(&self, own: &Own, queries_too: bool, bytes_max: usize) {
        self.look(&mut own.telling.lock(), queries_too);
        let mut sent = 0;
        // As many steps as there are parts: what changes meanwhile is noted by the next look.
        while sent < bytes_max
            && let Some(due) = own.next_due()
        {
            let entry = due.part + if due.news.is_some() { PARTS } else { 0 };
            let Some(key) = own.keys.get(usize::from(entry)) else { return };
            let usages = wire::encode(&Usages { since: own.since.load(Relaxed), indexes: self.usages(&due) });
            sent += usages.len();
            match timeout(TELL_WITHIN, own.bucket.put(key, usages)).await {
                Ok(Ok(_)) => own.telling.lock().told(&due),
                Ok(Err(error)) => return warn!(key, %error, "usage cannot be told, it is told again"),
                Err(_) => return warn!(key, "usage cannot be told in time, it is told again"),
            }
        }
    }

    /// Notes of which indexes there is something to tell.
    fn look(&self, telling: &mut Telling, queries_too: bool) {
        let (meters, now) = (self.meters.read(), self.clock.now());
        telling.look();
        for (index, meter) in meters.iter() {
            let mut meter = meter.lock();
            let changed = meter.take_changed() || (queries_too && meter.queries() > 0);
            if changed || is_worth_telling(&meter.tell(now)) {
                telling.seen(index, changed);
            }
        }
    }

    /// What is told of the indexes of a part, or of its news.
    fn usages(&self, due: &Due) -> BTreeMap<IndexName, Usage> {
        let (meters, now) = (self.meters.read(), self.clock.now());
        let usage = |meter: &Mutex<Meter>| {
            let Told { since: _, day, bytes, events, queries } = meter.lock().tell(now);
            Usage { day, bytes, events, queries }
        };
        if let Some(news) = &due.news {
            let known = news.iter().filter_map(|index| Some((index.clone(), usage(meters.get(index)?))));
            return known.collect();
        }
        let of_part = meters.iter().filter(|(index, _)| part_of(index) == due.part);
        let worth = of_part.filter(|(_, meter)| is_worth_telling(&meter.lock().tell(now)));
        worth.map(|(index, meter)| (index.clone(), usage(meter))).collect()
    }
}

fn is_worth_telling(told: &Told) -> bool {
    told.bytes > 0 || told.events > 0 || told.queries > 0
}

/// Where this replica tells what it let in.
struct Own {
    bucket: Bucket,
    /// By part: of all its indexes, and behind those of its news.
    keys: Vec<String>,
    /// When this process began; later than any before it of this name, whatever the clock says.
    since: AtomicI64,
    telling: Mutex<Telling>,
}

impl Own {
    fn next_due(&self) -> Option<Due> {
        self.telling.lock().due()
    }
}

#[derive(Clone, Copy)]
enum Whose {
    /// Of a process of this name; only what it told before this one began is news.
    Own {
        first: bool,
    },
    Other,
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
            Refusal::Bytes { .. } | Refusal::Never { .. } => "QuotaBytes",
            Refusal::Rate { .. } => "QuotaRate",
            Refusal::Queries { .. } => "QuotaQueries",
        }
    }

    /// How long to wait; `None` where that helps nobody.
    fn wait(&self) -> Option<Duration> {
        match self.refusal {
            Refusal::Bytes { wait, .. } | Refusal::Rate { wait, .. } => Some(wait),
            Refusal::Queries { .. } => Some(TELL_EVERY),
            Refusal::Never { .. } => None,
        }
    }
}

impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log index {} {}: ", self.index, self.refusal)?;
        match (&self.refusal, self.wait()) {
            (Refusal::Queries { .. }, _) => write!(f, "wait for one to end, or change the plan"),
            (_, None) => write!(f, "send less at once, or change the plan"),
            (_, Some(wait)) if wait < Duration::from_secs(1) => write!(f, "try again in {} ms", wait.as_millis() + 1),
            (_, Some(wait)) => write!(f, "try again in {} s", wait.as_secs() + 1),
        }
    }
}

impl std::error::Error for OverQuota {}

impl From<OverQuota> for Problem {
    fn from(error: OverQuota) -> Self {
        let wait = error.wait().map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1));
        // Without advice it is for good: nobody is to wait for it.
        Self { retry_after_ms: wait, ..Self::throttled(error.kind(), &error) }
    }
}

#[cfg(test)]
#[path = "quotas_tests.rs"]
mod tests;
