//! After the loss of a journal: the newest snapshot becomes what a new journal goes on from, because a person said so.
//!
//! Two steps, each decided by one conditional append, so that replicas which start together agree: an entry in the empty journal
//! names the snapshot; then the journal is moved behind the snapshot's position, and the same entry stands there for good. Whoever
//! dies in between is followed by whoever starts next.

use bus::{AppendError, Journal};
use snapshot::Manifest;
use wire::Problem;

use super::{restore::refused, snapshots::Snapshots};
use crate::{
    ControlState, Host, StartError,
    control::{Applied, Entry, Head, Recovered, encode_entry, head_of},
    metrics,
};

/// Looks at the journal before the recovery is given up: each step takes one, and another replica may be quicker.
const STEPS_MAX: usize = 8;

/// How far a recovery is.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The journal has, or had, entries of its own: there is nothing to recover.
    Nothing,
    /// It never had an entry: name the snapshot in it.
    Name,
    /// A snapshot is named: move the journal behind it.
    Move(u64),
    /// The journal stands behind the snapshot at this position and is empty: write there what it goes on from.
    Stand(u64),
}

/// The next step, from where the journal begins and ends and from what its only entry says.
fn step(first: u64, last: u64, only: Option<&Head>) -> Step {
    match only.map(|head| head.recovered.as_ref().map(|from| from.seq)) {
        _ if last == 0 => Step::Name,
        None if first > last => Step::Stand(last),
        Some(Some(position)) if position >= last => Step::Move(position),
        _ => Step::Nothing,
    }
}

/// Makes an empty journal go on from the newest snapshot; a journal that has entries is left as it is.
///
/// Errors: `Refused` if the newest snapshot is damaged, or if the journal was emptied in another way.
pub(super) async fn recover<S: ControlState>(
    host: &Host,
    journal: &Journal,
    snapshots: &Snapshots,
) -> Result<(), StartError> {
    for _ in 0..STEPS_MAX {
        let (first, last) = (journal.first_seq().await?, journal.last_seq().await?);
        let record = if last > 0 && first == last { journal.read(last - 1, 1).await?.pop() } else { None };
        let only = record.map(|record| head_of(record.seq, &record.payload)).transpose().map_err(refused::<S>)?;
        let position = match step(first, last, only.as_ref()) {
            Step::Nothing => return Ok(()),
            Step::Move(position) => {
                journal.begin_behind(position).await?;
                continue;
            }
            Step::Name => None,
            Step::Stand(position) => Some(position),
        };
        let Some((manifest, applied)) = newest::<S>(snapshots).await? else {
            tracing::warn!(service = %S::SERVICE, "there is no snapshot to recover from; the state begins empty");
            return Ok(());
        };
        if position.is_some_and(|position| position != manifest.position) {
            return Err(refused::<S>(format_args!(
                "it is empty and ends at {last}, but the newest snapshot stands at {}: entries behind it were removed",
                manifest.position
            )));
        }
        let entry = going_on::<S>(host, &applied);
        let payload = encode_entry(&entry).map_err(StartError::other)?;
        match journal.append(0, &entry.id, payload).await {
            Ok(seq) if seq == applied.seq + 1 => {
                metrics::RESTORES.with("recovered").inc();
                tracing::error!(
                    service = %S::SERVICE,
                    snapshot = manifest.number,
                    position = manifest.position,
                    at = %applied.at,
                    "journal was lost: the state comes back from its newest snapshot, and everything behind that is gone; set \
                     common.recover_from_snapshot back to false"
                );
                return Ok(());
            }
            // Named; or somebody else was quicker.
            Ok(_) | Err(AppendError::Fenced { .. }) => {}
            Err(error) => return Err(StartError::other(Problem::from(error))),
        }
    }
    Err(refused::<S>("it changes while it is recovered; start again"))
}

/// The newest snapshot, which must be whole: an older one would lose more than has to be lost.
async fn newest<S: ControlState>(snapshots: &Snapshots) -> Result<Option<(Manifest, Applied<S>)>, StartError> {
    let Some(number) = snapshots.newest_number().await? else { return Ok(None) };
    let damaged = |reason: &dyn std::fmt::Display| {
        refused::<S>(format_args!(
            "it is empty, and its newest snapshot {number} below {} is damaged ({reason}); bring its objects back, or delete them to \
             recover from the one before",
            snapshots.prefix()
        ))
    };
    let manifest = snapshots.manifests().await?.into_iter().next().filter(|manifest| manifest.number == number);
    let manifest = manifest.ok_or_else(|| damaged(&"its manifest cannot be read"))?;
    let bytes = snapshots.fetch(&manifest).await?.map_err(|damage| damaged(&damage))?;
    let applied = Applied::<S>::decode(&bytes).map_err(|unreadable| damaged(&unreadable))?;
    Ok(Some((manifest, applied)))
}

/// The first entry of the journal that goes on from this state; it makes nothing happen.
fn going_on<S: ControlState>(host: &Host, applied: &Applied<S>) -> Entry<S::Event> {
    let id = || uuid::Uuid::new_v4().simple().to_string();
    Entry {
        id: id(),
        at: host.clock.now().max(applied.at),
        replica: host.replica.clone(),
        journal: id(),
        recovered: Some(Recovered { journal: applied.journal.clone(), seq: applied.seq }),
        events: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_journal_without_entries_of_its_own_is_recovered() {
        let plain = Head { id: "i".into(), journal: "j".into(), recovered: None };
        let from = |seq| Head { recovered: Some(Recovered { journal: "lost".into(), seq }), ..plain.clone() };
        for (first, last, only, expected) in [
            (1, 0, None, Step::Name),
            (1, 1, Some(plain.clone()), Step::Nothing),
            (1, 7, None, Step::Nothing),
            (5, 7, None, Step::Nothing),
            (7, 7, Some(plain.clone()), Step::Nothing),
            (1, 1, Some(from(50)), Step::Move(50)),
            // The second replica named the same one while the first had moved the journal already.
            (51, 50, None, Step::Stand(50)),
            (51, 51, Some(from(50)), Step::Nothing),
        ] {
            assert_eq!(step(first, last, only.as_ref()), expected, "{first}..{last} {only:?}");
        }
    }
}
