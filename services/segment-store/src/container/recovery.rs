//! Recovery: claim the container, restore its newest snapshot, replay its log, and only then serve.

use std::{future::Future, time::Duration};

use bus::{ClaimError, ContainerLog, LogRecord};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use types::ReplicaId;
use wire::segment_store::OwnerRecord;

use crate::{
    container::{
        Container,
        books::{Phase, Places, Record},
        frame::Frame,
        snapshots::Snapshots,
    },
    error::{Damage, Error},
    metrics,
};

/// Log read at once: sixteen full frames, far below what makes a server drop its client as too slow.
const READ_BYTES_MAX: usize = 8 << 20;
/// The first pause before something is tried again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Why an owner ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    /// It was told to.
    Stopped,
    /// Another owner took over.
    Superseded,
}

/// Repeats until it works or the container is told to stop, with growing pauses; each new reason is logged once.
pub(crate) async fn insist<T, E, Fut>(
    stop: &CancellationToken,
    what: &'static str,
    container: &Container,
    mut attempt: impl FnMut() -> Fut,
) -> Result<T, Ended>
where
    E: std::fmt::Display,
    Fut: Future<Output = Result<T, E>>,
{
    let mut pause = PAUSE_MIN;
    let mut said = String::new();
    loop {
        let tried = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Ended::Stopped),
            tried = attempt() => tried,
        };
        match tried {
            Ok(done) => return Ok(done),
            Err(error) => {
                let why = error.to_string();
                if why != said {
                    warn!(container = %container.id, error = why, what, "container waits, the attempt is repeated");
                    said = why;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Err(Ended::Stopped),
            () = tokio::time::sleep(jittered(pause)) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// Between half and all of the pause, so that containers do not try in step.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}

/// Writes the owner record and answers its sequence; from then on nobody else's frames are taken.
pub(crate) async fn claim(
    container: &Container,
    log: &ContainerLog,
    replica: &ReplicaId,
    stop: &CancellationToken,
) -> Result<u64, Ended> {
    let record = OwnerRecord { generation: container.generation, replica: replica.clone() };
    let claimed = insist(stop, "claim", container, || async {
        match log.claim(&record).await {
            Ok(seq) => Ok(Some(seq)),
            Err(ClaimError::Superseded(other)) => {
                info!(container = %container.id, generation = %other.generation, replica = %other.replica, "container belongs to another owner");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    });
    claimed.await?.ok_or(Ended::Superseded)
}

/// Restores the newest snapshot and everything after it; answers the number of the frame that the snapshot ended with.
///
/// `claimed` is the sequence of this owner's record, the log's newest. A snapshot that is not older than that was written
/// with another log: nothing of this one may be applied to it, or taken.
pub(crate) async fn restore(
    container: &Container,
    log: &ContainerLog,
    claimed: u64,
    snapshots: &mut Snapshots,
    stop: &CancellationToken,
) -> Result<u64, Ended> {
    let mut pause = PAUSE_MIN;
    let state = loop {
        match snapshots.restore().await {
            Ok(state) => break state,
            Err(error) => {
                warn!(container = %container.id, %error, "snapshot could not be read, the attempt is repeated")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Err(Ended::Stopped),
            () = tokio::time::sleep(jittered(pause)) => pause = (pause * 2).min(PAUSE_MAX),
        }
    };
    let position = state.as_ref().map_or(0, |state| state.applied_seq);
    let exchanged = position >= claimed && !is_superseded(container, log, claimed, stop).await?;
    let (after, snapshot_frame) = {
        let mut books = container.books.write();
        if let Some(state) = state {
            books.restore(state);
        }
        // What the state names as not in Tier 2 may lie before its own position.
        (books.state.tail_seq().saturating_sub(1), books.state.frame_number)
    };
    if exchanged {
        read_only(container, Damage::LogExchanged { position, end: claimed });
        return Ok(snapshot_frame);
    }
    replay(container, log, after, stop).await?;
    let holes = container.books.read().holes();
    if let Some(damage) = holes {
        read_only(container, damage);
    }
    Ok(snapshot_frame)
}

/// Whether somebody else claimed meanwhile; its replay ends then at the other's record.
async fn is_superseded(
    container: &Container,
    log: &ContainerLog,
    claimed: u64,
    stop: &CancellationToken,
) -> Result<bool, Ended> {
    let owner = insist(stop, "owner", container, || log.owner()).await?;
    Ok(owner.is_some_and(|(seq, _)| seq > claimed))
}

/// Applies the log after a sequence to its end, unless it is damaged: then the container is read-only.
pub(crate) async fn replay(
    container: &Container,
    log: &ContainerLog,
    mut after: u64,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let (restored, places) = {
        let books = container.books.read();
        let restored = books.state.applied_seq;
        // Only a restored state has pieces whose events are not in the tail.
        (restored, if after < restored { books.places() } else { Places::new() })
    };
    loop {
        let records = insist(stop, "replay", container, || log.read(after, READ_BYTES_MAX)).await?;
        let Some(last) = records.last() else { return Ok(()) };
        after = last.seq;
        let decoded = tokio::task::spawn_blocking(move || records.into_iter().map(decode).collect::<Vec<_>>());
        let decoded = decoded.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let now = container.clock.now();
        for record in decoded {
            let applied = record.and_then(|record| {
                let mut books = container.books.write();
                if record.seq <= restored {
                    books.refill(&record, &places, now);
                    return Ok(());
                }
                books.apply(&record, now).map(drop)
            });
            if let Err(damage) = applied {
                read_only(container, damage);
                return Ok(());
            }
        }
    }
}

fn decode(record: LogRecord) -> Result<Record, Damage> {
    let LogRecord { seq, payload, .. } = record;
    let bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    let (frame, link) = Frame::decode(&payload).map_err(|source| Damage::Frame { seq, source })?;
    Ok(Record { seq, bytes, frame, link })
}

/// Stops all appends of a container whose log is not what was written to it.
pub(crate) fn read_only(container: &Container, damage: Damage) {
    let mut books = container.books.write();
    if matches!(books.phase, Phase::ReadOnly(_) | Phase::Over) {
        return;
    }
    error!(
        container = %container.id,
        generation = %container.generation,
        error = %Error::ReadOnly { container: container.id, damage: damage.clone() },
        detail = ?damage,
        "container log damaged; appends are refused until it is repaired"
    );
    metrics::DAMAGES.inc();
    metrics::READ_ONLY.add(1);
    books.phase = Phase::ReadOnly(damage);
}
