//! Where checkpoints lie: task parts first, the manifest last with put-if-absent.

use bytes::Bytes;
use store::{Objects, StoreError};
use tracing::warn;
use types::JobId;

use crate::state::Checkpoint;

/// Most objects removed at a time; the next checkpoint removes the rest.
const REMOVED_MAX: usize = 1_000;

/// The checkpoints of one submission of a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) job: &'a JobId,
    pub(crate) submission: u64,
}

impl Place<'_> {
    fn prefix(self) -> String {
        format!("ckpt/{}-{}/", self.job, self.submission)
    }

    fn folder(self, number: u64) -> String {
        format!("{}{number:020}/", self.prefix())
    }
}

/// Stores the manifest; a repeat finds its own.
pub(crate) async fn store(objects: &Objects, place: Place<'_>, checkpoint: &Checkpoint) -> Result<(), StoreError> {
    let key = format!("{}manifest.lb", place.folder(checkpoint.number));
    objects.put_if_absent(&key, Bytes::from(wire::encode(checkpoint))).await.map(drop)
}

/// Removes the objects of checkpoints older than the one before `number`; what stays behind is removed next time.
pub(crate) async fn forget_older(objects: &Objects, place: Place<'_>, number: u64) {
    let listed = match objects.list(&place.prefix(), REMOVED_MAX).await {
        Ok(listed) => listed,
        Err(error) => {
            warn!(%error, "old checkpoints not listed");
            return;
        }
    };
    let keep = place.folder(number.saturating_sub(1));
    for object in listed.iter().filter(|o| o.key < keep) {
        if let Err(error) = objects.delete(&object.key).await {
            warn!(%error, key = %object.key, "old checkpoint not removed");
        }
    }
}

/// Removes every checkpoint of a job that is over.
pub(crate) async fn forget_all(objects: &Objects, place: Place<'_>) {
    forget_older(objects, place, u64::MAX).await;
}
