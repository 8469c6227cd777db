//! Where checkpoints lie: task parts first, the manifest last with put-if-absent.

use std::collections::BTreeSet;

use bytes::Bytes;
use store::{Objects, StoreError};
use tracing::warn;
use types::JobId;
use wire::Problem;

use crate::state::Checkpoint;

/// What a manifest is called in the folder of its checkpoint.
const MANIFEST: &str = "manifest.lb";
/// Most checkpoints removed at a time; the next one removes the rest.
const REMOVED_MAX: usize = 100;
/// Most objects of one checkpoint that are removed at a time: more than a job has tasks.
const OBJECTS_MAX: usize = 20_000;

/// The checkpoints of one submission of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) job: &'a JobId,
    pub(crate) submission: u64,
}

impl Place<'_> {
    pub(crate) fn prefix(self) -> String {
        format!("ckpt/{}-{}/", self.job, self.submission)
    }

    fn folder(self, number: u64) -> String {
        format!("{}{number:020}/", self.prefix())
    }
}

/// The object that holds the manifest of a checkpoint.
pub(crate) fn key(place: Place<'_>, number: u64) -> String {
    format!("{}{MANIFEST}", place.folder(number))
}

/// Stores the manifest; a repeat finds its own.
pub(crate) async fn store(objects: &Objects, place: Place<'_>, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    objects.put_if_absent(&key(place, checkpoint.number), Bytes::from(wire::encode(checkpoint))).await.map(drop)
}

/// Reads a manifest.
pub(crate) async fn load(objects: &Objects, key: &str) -> Result<Checkpoint, Problem> {
    let bytes = objects.get(key).await.map_err(|error| Problem::unavailable("ObjectsUnavailable", error))?;
    wire::decode(&bytes)
}

/// Removes the objects of one checkpoint, named by its manifest.
pub(crate) async fn forget_one(objects: &Objects, manifest: &str) {
    if let Some(folder) = manifest.strip_suffix(MANIFEST) {
        remove(objects, folder, |_| true).await;
    }
}

/// Removes the blocks of a submission that nobody names any more. No checkpoint may be under way: it may be about to name one of them.
pub(crate) async fn forget_blocks(objects: &Objects, place: Place<'_>, named: &BTreeSet<String>) {
    remove(objects, &format!("{}blocks/", place.prefix()), |key| !named.contains(key)).await;
}

/// Removes the last parts of tasks that came to their end.
pub(crate) async fn forget_ended(objects: &Objects, place: Place<'_>) {
    remove(objects, &format!("{}ended/", place.prefix()), |_| true).await;
}

/// Removes objects below a folder; what cannot be removed stays behind.
async fn remove(objects: &Objects, folder: &str, goes: impl Fn(&str) -> bool) {
    let listed = match objects.list(folder, OBJECTS_MAX).await {
        Ok(listed) => listed,
        Err(error) => {
            warn!(%error, folder, "objects of old checkpoints not listed");
            return;
        }
    };
    for object in listed.iter().filter(|object| goes(&object.key)) {
        if let Err(error) = objects.delete(&object.key).await {
            warn!(%error, key = %object.key, "object of an old checkpoint not removed");
        }
    }
}

/// Which of some checkpoints, as their folders are called, go: what is older than `before` and not kept.
fn obsolete(folders: &[String], before: u64, keep: &BTreeSet<u64>) -> Vec<u64> {
    let numbers = folders.iter().filter_map(|name| name.parse::<u64>().ok());
    numbers.filter(|number| *number < before && !keep.contains(number)).take(REMOVED_MAX).collect()
}

/// Removes the objects of checkpoints before that number, complete or not, but for those that are kept; what stays behind is removed next time.
pub(crate) async fn forget(objects: &Objects, place: Place<'_>, before: u64, keep: &BTreeSet<u64>) {
    let folders = match objects.folders(&place.prefix()).await {
        Ok(folders) => folders,
        Err(error) => {
            warn!(%error, "old checkpoints not listed");
            return;
        }
    };
    for number in obsolete(&folders, before, keep) {
        remove(objects, &place.folder(number), |_| true).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_kept_however_the_numbers_jump() {
        let folders: Vec<String> =
            [7u64, 8, 9, 1_001, 1_002, 2_001].iter().map(|n| format!("{n:020}")).chain(["blocks".to_owned()]).collect();
        // Two are kept over a change of the leader; 8 is pinned; 2001 is being taken.
        let keep = BTreeSet::from([8, 9, 1_002]);
        assert_eq!(obsolete(&folders, 1_002, &keep), [7, 1_001]);
        assert_eq!(obsolete(&folders, u64::MAX, &BTreeSet::from([8])), [7, 9, 1_001, 1_002, 2_001]);
        assert!(obsolete(&folders, 0, &BTreeSet::new()).is_empty());
    }

    #[tokio::test]
    async fn the_objects_of_one_checkpoint_go_together() {
        let dir = testkit::World::start().await.unwrap();
        let host = host::Host::connect(wire::Service::JobManager, dir.common("m", &[]).unwrap()).await.unwrap();
        let objects = host.objects.clone();
        let job: JobId = "sums".parse().unwrap();
        let place = Place { job: &job, submission: 3 };
        for number in [1, 2, 3] {
            for part in ["0-0-1.lb", "1-0-1.lb", "manifest.lb"] {
                objects.put_if_absent(&format!("{}{part}", place.folder(number)), Bytes::from("x")).await.unwrap();
            }
        }
        let other = Place { job: &job, submission: 4 };
        objects.put_if_absent(&format!("{}manifest.lb", other.folder(1)), Bytes::from("x")).await.unwrap();
        forget(&objects, place, 3, &BTreeSet::from([2])).await;
        let left: Vec<String> = objects.list("ckpt/", 100).await.unwrap().into_iter().map(|o| o.key).collect();
        assert_eq!(left.len(), 7, "{left:?}");
        assert!(!left.iter().any(|key| key.starts_with(&place.folder(1))), "{left:?}");
    }
}
