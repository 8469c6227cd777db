//! The keys of encrypted streams: made before their segments, destroyed behind them, and wrapped anew when the master key is another.

use std::time::Duration;

use encryption::MasterKeys;
use types::IndexName;
use wire::{
    Problem,
    coordinator::{IndexKeyList, IndexKeyVersion, StreamDescription},
    views::IndexKeys,
};

use super::Streams;

/// How often it is looked whether the first master key is another one.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Streams {
    /// Refuses a stream for which no key can be made, before anything is written down.
    pub(super) fn check_master(&self, encrypted: bool) -> Result<(), Problem> {
        if !encrypted || self.keys.master()?.is_some() {
            return Ok(());
        }
        let why = "an index cannot be encrypted here: common.encryption_keys of the coordinator holds no master key";
        Err(Problem::bad_request("EncryptionOff", why))
    }

    /// Makes the first key of a stream, if it is to have one; a repeat changes nothing.
    pub(super) async fn make_key(&self, stream: u32) -> Result<(), Problem> {
        if self.is_encrypted(stream) { self.keys.create(stream, self.clock.now()).await } else { Ok(()) }
    }

    /// Destroys the keys of a stream, if it has any; its segments are deleted, so that nothing is sealed with them any more.
    pub(super) async fn destroy_keys(&self, stream: u32) -> Result<(), Problem> {
        if self.is_encrypted(stream) { self.keys.destroy(stream).await } else { Ok(()) }
    }

    fn is_encrypted(&self, stream: u32) -> bool {
        self.ledger.read(|state| state.stream_of(stream).is_some_and(|there| there.summary().encrypted))
    }

    /// The versions of the key of an index.
    pub(crate) async fn describe_keys(&self, index: &IndexName) -> Result<IndexKeyList, Problem> {
        let stream = self.encrypted(index).await?;
        self.keys.list(stream).await.map(|keys| shown(stream, keys))
    }

    /// Gives an index the next version of its key.
    pub(crate) async fn rotate_key(&self, index: &IndexName) -> Result<IndexKeyList, Problem> {
        let _turn = self.turn(index).lock().await;
        let stream = self.encrypted(index).await?;
        let keys = self.keys.rotate(stream, self.clock.now()).await.map(|keys| shown(stream, keys))?;
        tracing::info!(%index, stream, version = keys.versions.last().map(|last| last.version), "key of an index rotated");
        Ok(keys)
    }

    async fn encrypted(&self, index: &IndexName) -> Result<u32, Problem> {
        let StreamDescription { stream, encrypted, .. } = self.ledger.look(|state| state.describe(index)).await?;
        let plain = || Problem::bad_request("NotEncrypted", format_args!("index {index} is not encrypted"));
        if encrypted { Ok(stream) } else { Err(plain()) }
    }

    /// Lets the first master key wrap all keys whenever it is another one than before, for ever.
    pub(crate) async fn keep_wrapped(&self) {
        let mut wrapped_by = None;
        loop {
            match self.keys.master() {
                Ok(Some(master)) if wrapped_by.as_ref() != Some(&master) => match self.keys.rewrap().await {
                    Ok(done) => {
                        if done.streams > 0 {
                            tracing::info!(streams = done.streams, unopened = done.unopened, %master, "keys of indexes wrapped anew");
                        }
                        wrapped_by = Some(master).filter(|_| done.missed == 0);
                    }
                    Err(problem) => tracing::warn!(%problem, "keys of indexes are wrapped by their former master key"),
                },
                Ok(_) => {}
                Err(problem) => tracing::warn!(%problem, "master keys cannot be read"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn shown(stream: u32, keys: IndexKeys) -> IndexKeyList {
    let versions = keys.keys.into_iter().map(|key| IndexKeyVersion {
        version: key.version,
        created: key.created,
        master: MasterKeys::wrapped_by(&key.wrapped).unwrap_or_default().to_owned(),
    });
    IndexKeyList { stream, versions: versions.collect() }
}
