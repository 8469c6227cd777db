//! Where a state comes back from.

use std::{collections::BTreeSet, time::Duration};

use bus::{BusError, Journal, Lease};
use snapshot::{Restore, pick_restore};
use store::Local;
use tokio::time::{Instant, sleep};
use wire::views::LEASES;

use super::{READ_BYTES_MAX, recover::recover, snapshots::Snapshots};
use crate::{
    ControlState, Host, StartError,
    control::{Applied, Misfit, Recovered, head_of},
    metrics,
};

/// How long a starting replica waits for NATS to answer for buckets and streams: servers that start together take a while.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const ANSWER_PAUSE: Duration = Duration::from_millis(250);
/// Looks at snapshots and journal together before a refusal is final: they change while they are looked at.
const ATTEMPTS_MAX: usize = 3;

pub(super) struct Begun<S> {
    pub(super) journal: Journal,
    pub(super) local: Local,
    pub(super) snapshots: Snapshots,
    pub(super) lease: Lease,
    pub(super) applied: Applied<S>,
}

/// Everything that a ledger begins with; the state is as new as the journal was a moment ago.
pub(super) async fn begin<S: ControlState>(host: &Host) -> Result<Begun<S>, StartError> {
    let replicas = host.common.journal_replicas;
    let journal = answered(|| host.bus.journal(S::SERVICE, replicas)).await?;
    let ttl = host.common.lease_ttl.0;
    let bucket = answered(|| host.bus.bucket(LEASES, Some(ttl), replicas)).await?;
    let lease = Lease::new(bucket, S::SERVICE.as_str(), host.replica.clone(), ttl);
    let dir = host.data_dir().join("local");
    let local = host.cpu(move || Local::open(&dir)).await;
    metrics::LOCAL_BROKEN.with(S::SERVICE.as_str()).set(local.broken_count());
    let snapshots = Snapshots::new(host.objects.clone(), S::SERVICE.as_str());
    if host.common.recover_from_snapshot {
        recover::<S>(host, &journal, &snapshots).await?;
    }
    let facts = Facts::read(&journal, S::SERVICE).await?;
    let mut applied = match from_local::<S>(host, &local, &facts).await {
        Some(applied) => {
            metrics::RESTORES.with("local").inc();
            applied
        }
        None => anew(host, &journal, &local, &snapshots).await?,
    };
    let mut attempt = 1;
    while let Err(misfit) = replay(&journal, &local, &mut applied).await? {
        // The leader may have purged between the look at a snapshot and the look at the journal.
        if attempt == ATTEMPTS_MAX || !matches!(misfit, Misfit::Gap { .. }) {
            return Err(refused::<S>(misfit));
        }
        attempt += 1;
        applied = anew(host, &journal, &local, &snapshots).await?;
    }
    tracing::info!(service = %S::SERVICE, replica = %host.replica, seq = applied.seq, "state restored");
    Ok(Begun { journal, local, snapshots, lease, applied })
}

/// Applies the journal to its end.
async fn replay<S: ControlState>(
    journal: &Journal,
    local: &Local,
    applied: &mut Applied<S>,
) -> Result<Result<(), Misfit>, StartError> {
    loop {
        let records = journal.read(applied.seq, READ_BYTES_MAX).await?;
        if records.is_empty() {
            return Ok(Ok(()));
        }
        for record in records {
            if let Err(misfit) = applied.take(record.seq, &record.payload) {
                return Ok(Err(misfit));
            }
            local.apply(record.seq, &record.payload);
        }
    }
}

/// The state without the local copy, which is replaced by it.
async fn anew<S: ControlState>(
    host: &Host,
    journal: &Journal,
    local: &Local,
    snapshots: &Snapshots,
) -> Result<Applied<S>, StartError> {
    let applied = from_snapshot::<S>(snapshots, journal).await?;
    rebase(host, local, &applied).await?;
    Ok(applied)
}

pub(super) fn refused<S: ControlState>(reason: impl std::fmt::Display) -> StartError {
    StartError::Refused { service: S::SERVICE, reason: reason.to_string() }
}

/// Replaces the local copy by this state.
pub(super) async fn rebase<S: ControlState>(
    host: &Host,
    local: &Local,
    applied: &Applied<S>,
) -> Result<(), StartError> {
    let (local, applied) = (local.clone(), applied.clone());
    host.cpu(move || applied.encode().map(|base| local.rebase(applied.seq, &base))).await?;
    Ok(())
}

/// What the journal says about itself.
struct Facts {
    first: u64,
    last: u64,
    /// Its identity; empty before its first entry.
    id: String,
    /// What it goes on from, where it has its first entry still and that says so.
    recovered: Option<Recovered>,
}

impl Facts {
    async fn read(journal: &Journal, service: wire::Service) -> Result<Self, StartError> {
        let (first, last) = (journal.first_seq().await?, journal.last_seq().await?);
        let head = async |seq: u64| {
            let records = journal.read(seq - 1, 1).await?;
            let head = records.first().map(|record| head_of(record.seq, &record.payload)).transpose();
            head.map_err(|misfit| StartError::Refused { service, reason: misfit.to_string() })
        };
        let (mut id, mut recovered) = (String::new(), None);
        if last > 0 {
            // The last message is never purged, and every entry names the journal that it belongs to.
            id = head(last).await?.map(|head| head.journal).unwrap_or_default();
            if first > 1 {
                recovered = head(first).await?.and_then(|head| head.recovered);
            }
        }
        Ok(Self { first, last, id, recovered })
    }

    /// Whether a state fits the journal: of the same one, not ahead of it, and with nothing missing between.
    fn misfit<S>(&self, applied: &Applied<S>) -> Option<String> {
        let (seq, first, last) = (applied.seq, self.first, self.last);
        if seq > last {
            return Some(format!("it stands at {seq}, the journal ends at {last}"));
        }
        let goes_on = |from: &Recovered| from.journal == applied.journal && from.seq == seq;
        let is_its_own = applied.journal.is_empty() || applied.journal == self.id;
        if !is_its_own && !self.recovered.as_ref().is_some_and(goes_on) {
            return Some("it belongs to another journal".to_owned());
        }
        (seq + 1 < first).then(|| format!("it stands at {seq}, the journal begins at {first}"))
    }
}

async fn from_local<S: ControlState>(host: &Host, local: &Local, facts: &Facts) -> Option<Applied<S>> {
    let reader = local.clone();
    let read = host.cpu(move || reader.load().map(|kept| replayed::<S>(&kept))).await?;
    let unusable = match read {
        Ok(applied) => match facts.misfit(&applied) {
            None => return Some(applied),
            Some(misfit) => misfit,
        },
        Err(unreadable) => unreadable,
    };
    tracing::warn!(service = %S::SERVICE, reason = unusable, "local state is not used; it is rebuilt");
    let stale = local.clone();
    host.cpu(move || stale.reset()).await;
    None
}

fn replayed<S: ControlState>(kept: &store::LocalState) -> Result<Applied<S>, String> {
    let mut applied = Applied::<S>::decode(&kept.base)?;
    for (seq, payload) in &kept.entries {
        applied.take(*seq, payload).map_err(|misfit| misfit.to_string())?;
    }
    Ok(applied)
}

/// The newest snapshot that is whole, of this journal, and continued by it; else nothing, if the journal is whole.
///
/// Errors: `Refused` if events are missing, or if the journal ends before a snapshot: then the journal was lost, not the snapshot.
pub(super) async fn from_snapshot<S: ControlState>(
    snapshots: &Snapshots,
    journal: &Journal,
) -> Result<Applied<S>, StartError> {
    let mut attempt = 1;
    loop {
        match pick_and_fetch::<S>(snapshots, journal).await {
            // While this replica looks, the leader may delete what it found and purge what it counted on.
            Err(StartError::Refused { reason, .. }) if attempt < ATTEMPTS_MAX => {
                tracing::warn!(service = %S::SERVICE, reason, attempt, "state cannot be restored; looking again");
                attempt += 1;
                sleep(ANSWER_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn pick_and_fetch<S: ControlState>(snapshots: &Snapshots, journal: &Journal) -> Result<Applied<S>, StartError> {
    // In this order: the journal only grows, so a snapshot that was seen before never stands beyond its end.
    let manifests = snapshots.manifests().await?;
    let facts = Facts::read(journal, S::SERVICE).await?;
    if let Some(ahead) = manifests.iter().find(|manifest| manifest.position > facts.last) {
        let otherwise = match facts.last {
            0 => "start with common.recover_from_snapshot=true to go on from the newest snapshot".to_owned(),
            _ => format!("delete {} to begin without what was lost", snapshots.prefix()),
        };
        return Err(refused::<S>(format_args!(
            "it ends at {}, but snapshot {} below {} stands at {}: journal entries were lost; bring its JetStream files back, or {otherwise}",
            facts.last,
            ahead.number,
            snapshots.prefix(),
            ahead.position,
        )));
    }
    let mut broken = BTreeSet::new();
    loop {
        match pick_restore(&manifests, |manifest| !broken.contains(&manifest.number), facts.first) {
            Restore::From(manifest) => {
                let unusable = match snapshots.fetch(manifest).await? {
                    Ok(bytes) => match Applied::<S>::decode(&bytes) {
                        Ok(applied) => match facts.misfit(&applied) {
                            None => {
                                metrics::RESTORES.with("snapshot").inc();
                                tracing::info!(service = %S::SERVICE, number = manifest.number, seq = applied.seq, "snapshot restored");
                                return Ok(applied);
                            }
                            Some(misfit) => misfit,
                        },
                        Err(unreadable) => unreadable,
                    },
                    Err(damage) => damage.to_string(),
                };
                tracing::error!(service = %S::SERVICE, number = manifest.number, reason = unusable, "snapshot cannot be used");
                broken.insert(manifest.number);
            }
            Restore::Replay => {
                metrics::RESTORES.with("journal").inc();
                return Ok(Applied::empty());
            }
            Restore::Refuse { usable, first } => {
                let newest = usable.map_or("there is no usable snapshot".to_owned(), |position| {
                    format!("the newest usable snapshot stands at {position}")
                });
                return Err(refused::<S>(format_args!(
                    "its first entry is {first}, and {newest}: entries between are missing; bring the damaged objects below {} back",
                    snapshots.prefix(),
                )));
            }
        }
    }
}

/// Repeats a question for as long as NATS does not answer it.
async fn answered<T, Fut>(ask: impl Fn() -> Fut) -> Result<T, StartError>
where
    Fut: Future<Output = Result<T, BusError>>,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(BusError::Unavailable { .. } | BusError::Unknown { .. }) if begun.elapsed() < ANSWER_MAX => {
                sleep(ANSWER_PAUSE).await;
            }
            other => return Ok(other?),
        }
    }
}
