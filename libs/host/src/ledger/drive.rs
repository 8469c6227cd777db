//! The life of a ledger: follow, contend, lead, step down, again.

use std::{sync::Arc, time::Duration};

use bus::{BusError, Lease};
use futures::FutureExt;
use tokio::{
    sync::OwnedMutexGuard,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout},
};

use super::{
    Inner, READ_BYTES_MAX,
    restore::{from_snapshot, rebase, refused},
};
use crate::{
    ControlState, StartError,
    control::{Misfit, head_of},
    metrics,
};

/// How often a replica that does not lead tries to. A dead leader is replaced after its `lease_ttl` and at most two of these: one
/// until its last renewal was seen, one until the end of its lease is; with 2.5 s that is 2.8 s.
const CONTEND_EVERY: Duration = Duration::from_millis(150);
/// How often a leader asks itself whether a snapshot is due.
const SNAPSHOT_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Entries after which the local copy gets a new base, so that a restart replays fewer.
const LOCAL_ENTRIES_MAX: u64 = 20_000;
/// Reads that find nothing although the journal goes on, before that counts as a failure.
const EMPTY_READS_MAX: usize = 5;
/// Pause after a failed snapshot.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(5);
/// The longest that a drain waits for its snapshot; without it the next replica only replays more.
const LAST_SNAPSHOT_MAX: Duration = Duration::from_secs(4);
/// Pause after a failure of NATS.
const PAUSE: Duration = Duration::from_millis(250);

/// Why the journal could not be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lag {
    /// For the moment.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// For good: the service has to end.
    #[error(transparent)]
    End(#[from] StartError),
}

enum Next {
    Lead,
    Follow,
    Close,
}

pub(super) async fn drive<S: ControlState>(inner: Arc<Inner<S>>, mut lease: Lease) {
    let mut next = Next::Follow;
    loop {
        next = match next {
            Next::Follow => match follow(&inner, &mut lease).await {
                Ok(next) => next,
                Err(reason) => {
                    inner.host.condition("ledger", Some(reason.to_string()));
                    inner.host.fail(reason);
                    return;
                }
            },
            Next::Lead => lead(&inner, &mut lease).await,
            Next::Close => break,
        };
    }
    let local = inner.local.clone();
    inner.host.cpu(move || local.flush()).await;
}

/// Keeps the state warm until the lease is won.
async fn follow<S: ControlState>(inner: &Arc<Inner<S>>, lease: &mut Lease) -> Result<Next, StartError> {
    let mut contend = interval(CONTEND_EVERY);
    contend.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut follower = inner.journal.follow(inner.seq());
    loop {
        tokio::select! {
            () = inner.closing.cancelled() => return Ok(Next::Close),
            record = follower.next() => {
                let guard = Arc::clone(&inner.write).lock_owned().await;
                let behind = match record {
                    Ok(record) if record.seq <= inner.seq() => false,
                    Ok(record) => match inner.take(record.seq, &record.payload) {
                        Ok(()) => false,
                        Err(Misfit::Gap { .. }) => true,
                        Err(misfit) => return Err(refused::<S>(misfit)),
                    },
                    Err(error) => {
                        tracing::warn!(service = %S::SERVICE, %error, "journal cannot be followed for the moment");
                        sleep(PAUSE).await;
                        true
                    }
                };
                if behind {
                    hold(catch_up(inner, &guard, None).await)?;
                    follower = inner.journal.follow(inner.seq());
                }
                rebase_if_grown(inner).await?;
            }
            _ = contend.tick() => {
                if !matches!(timeout(PAUSE * 4, lease.try_acquire()).await, Ok(Ok(true))) {
                    continue;
                }
                let guard = Arc::clone(&inner.write).lock_owned().await;
                if hold(catch_up(inner, &guard, None).await)? {
                    // From here on every entry is this replica's own, or the fence says so.
                    inner.lead(true);
                    return Ok(Next::Lead);
                }
                release(lease).await;
            }
        }
    }
}

/// Turns a passing trouble into "not now".
fn hold(result: Result<bool, Lag>) -> Result<bool, StartError> {
    match result {
        Ok(_) => Ok(true),
        Err(Lag::End(reason)) => Err(reason),
        Err(Lag::Bus(error)) => {
            tracing::warn!(%error, "journal cannot be read for the moment");
            Ok(false)
        }
    }
}

/// Applies the journal to its end, as its leader has it; says whether the entry `wanted` was among what was read.
pub(super) async fn catch_up<S: ControlState>(
    inner: &Inner<S>,
    _write: &OwnedMutexGuard<()>,
    wanted: Option<&str>,
) -> Result<bool, Lag> {
    let (mut found, mut empty) = (false, 0);
    loop {
        let records = inner.journal.read(inner.seq(), READ_BYTES_MAX).await?;
        if records.is_empty() {
            let last = inner.journal.last_seq().await?;
            if last <= inner.seq() {
                return Ok(found);
            }
            empty += 1;
            if empty == EMPTY_READS_MAX {
                let reason = format!("it ends at {last}, but nothing is read behind {}", inner.seq());
                return Err(BusError::Unavailable { what: format!("journal of {}", S::SERVICE), reason }.into());
            }
            continue;
        }
        for record in records {
            match inner.take(record.seq, &record.payload) {
                Ok(()) => {}
                Err(Misfit::Gap { applied, seq }) if seq > applied => {
                    from_newer_snapshot(inner).await?;
                    break;
                }
                Err(misfit) => return Err(refused::<S>(misfit).into()),
            }
            found |= wanted.is_some_and(|id| head_of(record.seq, &record.payload).is_ok_and(|head| head.id == id));
        }
    }
}

/// The journal was purged past a replica that was away for long: a snapshot takes it over the gap.
async fn from_newer_snapshot<S: ControlState>(inner: &Inner<S>) -> Result<(), Lag> {
    let applied = from_snapshot::<S>(&inner.snapshots, &inner.journal).await?;
    let seq = applied.seq;
    if seq <= inner.seq() {
        let reason = format!("entry {} is missing, though it was not purged", inner.seq() + 1);
        return Err(refused::<S>(reason).into());
    }
    rebase(&inner.host, &inner.local, &applied).await?;
    *inner.applied.write() = applied;
    inner.changes.send_replace(seq);
    Ok(())
}

/// Holds the lease and writes snapshots until leadership is lost or the service closes.
async fn lead<S: ControlState>(inner: &Arc<Inner<S>>, lease: &mut Lease) -> Next {
    let ttl = inner.host.common.lease_ttl.0;
    let mut renew = interval_at(Instant::now() + ttl / 3, ttl / 3);
    renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(SNAPSHOT_LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    let mut clerk = Clerk::new(inner.seq());
    let next = loop {
        tokio::select! {
            biased;
            () = inner.closing.cancelled() => break Next::Close,
            () = inner.lost.notified() => {
                // A notice that was meant for a term before this one changes nothing.
                if !*inner.leader.borrow() {
                    break Next::Follow;
                }
            }
            _ = renew.tick() => match timeout(ttl / 3, lease.renew()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    inner.step_down("the lease has another holder");
                    break Next::Follow;
                }
                Ok(Err(_)) | Err(_) if renewed.elapsed() < ttl => {}
                Ok(Err(_)) | Err(_) => {
                    inner.step_down("the lease could not be renewed");
                    break Next::Follow;
                }
            },
            _ = look.tick() => clerk.look(inner),
        }
    };
    if matches!(next, Next::Close) {
        // Waits for the command that is being journaled; after it nothing more is decided.
        drop(inner.write.lock().await);
        inner.lead(false);
        clerk.finish(inner).await;
    }
    release(lease).await;
    next
}

async fn release(lease: &mut Lease) {
    match timeout(PAUSE * 4, lease.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "lease could not be given back; it will expire"),
        Err(_) => tracing::warn!("lease could not be given back in time; it will expire"),
    }
}

async fn rebase_if_grown<S: ControlState>(inner: &Inner<S>) -> Result<(), StartError> {
    if inner.local.entry_count() < LOCAL_ENTRIES_MAX {
        return Ok(());
    }
    let applied = inner.applied.read().clone();
    rebase(&inner.host, &inner.local, &applied).await
}

/// Decides when a snapshot is due; one piece of its work at a time runs beside that of the service.
struct Clerk {
    generation: u64,
    /// Where the newest snapshot stands, once that is known.
    newest: Option<u64>,
    /// When the next one may be due by time alone.
    due: Option<Instant>,
    /// After a failure.
    paused_until: Option<Instant>,
    work: Option<JoinHandle<Option<u64>>>,
}

impl Clerk {
    fn new(generation: u64) -> Self {
        Self { generation, newest: None, due: None, paused_until: None, work: None }
    }

    fn look<S: ControlState>(&mut self, inner: &Arc<Inner<S>>) {
        let now = Instant::now();
        if let Some(work) = &mut self.work {
            let Some(done) = work.now_or_never() else { return };
            self.work = None;
            self.settle(done.ok().flatten(), now);
        }
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        let common = &inner.host.common;
        let Some(newest) = self.newest else {
            self.work = Some(tokio::spawn(look_up(Arc::clone(inner))));
            return;
        };
        let due = *self.due.get_or_insert(now + common.snapshot_interval.0);
        let grown = inner.seq().saturating_sub(newest);
        if grown >= common.snapshot_events || (grown > 0 && now >= due) {
            self.work = Some(tokio::spawn(write(Arc::clone(inner), self.generation)));
        } else if inner.local.entry_count() >= LOCAL_ENTRIES_MAX {
            let inner = Arc::clone(inner);
            self.work = Some(tokio::spawn(async move { rebase_if_grown(&inner).await.is_ok().then_some(newest) }));
        }
    }

    fn settle(&mut self, newest: Option<u64>, now: Instant) {
        match newest {
            Some(_) if newest == self.newest => {}
            Some(_) => (self.newest, self.due, self.paused_until) = (newest, None, None),
            None => self.paused_until = Some(now + SNAPSHOT_PAUSE),
        }
    }

    /// The last snapshot of a term, so that the next replica replays little.
    async fn finish<S: ControlState>(mut self, inner: &Arc<Inner<S>>) {
        let last = async {
            if let Some(work) = self.work.take() {
                self.newest = work.await.ok().flatten().or(self.newest);
            }
            if inner.seq() > self.newest.unwrap_or(0) {
                write(Arc::clone(inner), self.generation).await;
            }
        };
        if timeout(LAST_SNAPSHOT_MAX, last).await.is_err() {
            tracing::warn!(service = %S::SERVICE, "last snapshot took too long; the journal keeps everything");
        }
    }
}

/// Where the newest snapshot stands; 0 if there is none.
async fn look_up<S: ControlState>(inner: Arc<Inner<S>>) -> Option<u64> {
    match inner.snapshots.manifests().await {
        Ok(manifests) => Some(manifests.first().map_or(0, |manifest| manifest.position)),
        Err(error) => {
            tracing::warn!(service = %S::SERVICE, %error, "snapshots cannot be listed");
            None
        }
    }
}

/// Writes a snapshot, lets go of what it replaces, and gives the local copy a new base; answers where it stands.
///
/// A failure leaves everything as it was.
async fn write<S: ControlState>(inner: Arc<Inner<S>>, generation: u64) -> Option<u64> {
    let begun = Instant::now();
    let applied = inner.applied.read().clone();
    let seq = applied.seq;
    let encoded = inner.host.cpu(move || applied.encode()).await;
    let written = match &encoded {
        Ok(bytes) => inner.snapshots.write(generation, seq, bytes).await,
        Err(problem) => Err(problem.clone()),
    };
    let outcome = match &written {
        Ok(Some(_)) => "written",
        Ok(None) => "superseded",
        Err(_) => "failed",
    };
    metrics::SNAPSHOTS.with(outcome).inc();
    if let Err(problem) = written {
        tracing::error!(service = %S::SERVICE, seq, %problem, "snapshot could not be written; the journal keeps everything");
        return None;
    }
    metrics::SNAPSHOT_TIME.observe_duration(begun.elapsed());
    tracing::info!(service = %S::SERVICE, seq, outcome, "snapshot written");
    match inner.snapshots.clean().await {
        Ok(Some(bound)) => {
            if let Err(error) = inner.journal.purge_below(bound).await {
                tracing::warn!(service = %S::SERVICE, bound, %error, "journal could not be purged; the next snapshot tries again");
            }
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(service = %S::SERVICE, %error, "old snapshots could not be deleted"),
    }
    let local = inner.local.clone();
    if let Ok(base) = encoded {
        inner.host.cpu(move || local.rebase(seq, &base)).await;
    }
    metrics::LOCAL_BROKEN.with(S::SERVICE.as_str()).set(inner.local.broken_count());
    Some(seq)
}
