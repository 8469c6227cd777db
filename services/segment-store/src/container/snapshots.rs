//! Container snapshots: the state in object storage, written so that a damaged newest one is not the end.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::try_join_all;
use snapshot::{FORMAT, Manifest, PartInfo, Restore};
use store::Objects;
use tracing::{info, warn};
use types::ContainerId;

use crate::{container::state::State, crash, error::Error, metrics};

/// Objects looked at per container: a handful of snapshots with their parts.
const KEYS_MAX: usize = 10_000;

/// The snapshots of one container.
pub(crate) struct Snapshots {
    objects: Objects,
    service: String,
    /// Numbers whose parts this process wrote or read without fault.
    verified: BTreeSet<u64>,
}

impl Snapshots {
    pub(crate) fn new(objects: Objects, container: ContainerId) -> Self {
        Self { objects, service: format!("segment-store/{container}"), verified: BTreeSet::new() }
    }

    /// The newest usable state; `None` if there is no snapshot, and then the log must be whole, which replaying it proves.
    pub(crate) async fn restore(&mut self) -> Result<Option<State>, Error> {
        let manifests = self.manifests(&self.keys().await?).await?;
        let mut states = Vec::new();
        // Reading is asynchronous and the decision is not: verify from the newest down to the first that is whole.
        for manifest in manifests.iter().rev() {
            if let Some(state) = self.verified_state(manifest).await? {
                states.push((manifest.number, state));
                break;
            }
            warn!(container = %self.service, number = manifest.number, "snapshot damaged, an older one is used");
        }
        let whole = |m: &Manifest| states.iter().any(|(number, _)| *number == m.number);
        // Whether the log continues where the snapshot ends is proved by the numbers of its frames.
        let Restore::From(chosen) = snapshot::pick_restore(&manifests, whole, 1) else { return Ok(None) };
        let bytes = states.into_iter().find(|(number, _)| *number == chosen.number).map(|(_, bytes)| bytes);
        let decode = move || bytes.map(|bytes| rmp_serde::from_slice::<State>(&bytes)).transpose();
        let state = aside(decode).await.map_err(|e| {
            Error::Objects(format!("snapshot {} of {} cannot be read: {e}", chosen.number, self.service))
        })?;
        info!(container = %self.service, number = chosen.number, position = chosen.position, "snapshot restored");
        Ok(state)
    }

    /// Writes the state, deletes what is no longer needed, and answers the first sequence that the log must keep.
    ///
    /// `None`: nothing may be purged yet.
    pub(crate) async fn write(&mut self, state: State) -> Result<Option<u64>, Error> {
        let keys = self.keys().await?;
        let manifests = self.manifests(&keys).await?;
        let (generation, position) = (state.generation.0, state.applied_seq);
        let parts = aside(move || {
            let encoded = rmp_serde::to_vec_named(&state).map_err(|e| Error::Columns(e.to_string()))?;
            drop(state);
            snapshot::pack(&encoded).map_err(|e| Error::Objects(e.to_string()))
        })
        .await?;
        let manifest = Manifest {
            service: self.service.clone(),
            generation,
            number: snapshot::next_number(keys.iter().map(String::as_str)),
            format: FORMAT,
            position,
            parts: parts.iter().map(|(part, _)| part.clone()).collect(),
        };
        let mut stored: Vec<PartInfo> = Vec::new();
        for (part, bytes) in parts {
            self.put(&manifest.part_key(&part), bytes).await?;
            crash::point("after_snapshot_part");
            stored.push(part);
        }
        if !snapshot::may_commit(&manifest, &stored, manifests.last()) {
            // Another owner is further on: its snapshots serve, this one is left to the garbage collection.
            return Ok(None);
        }
        crash::point("before_manifest");
        self.put(&manifest.key(), manifest.encode()).await?;
        crash::point("after_manifest");
        self.verified.insert(manifest.number);
        metrics::SNAPSHOTS.inc();
        self.collect().await?;
        self.bound().await
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
        match self.objects.put_if_absent(key, Bytes::from(bytes)).await.map_err(failed)? {
            store::Put::Stored => Ok(()),
            store::Put::Exists => Err(Error::Objects(format!("{key} is taken: another owner writes snapshots"))),
        }
    }

    async fn collect(&self) -> Result<(), Error> {
        let keys = self.keys().await?;
        for key in snapshot::plan_gc(&keys.iter().map(String::as_str).collect::<Vec<_>>()) {
            self.objects.delete(key).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn bound(&mut self) -> Result<Option<u64>, Error> {
        let manifests = self.manifests(&self.keys().await?).await?;
        let mut usable = Vec::new();
        for manifest in manifests {
            let known = self.verified.contains(&manifest.number);
            if known || self.verified_state(&manifest).await?.is_some() {
                usable.push(manifest);
            }
        }
        self.verified.retain(|number| usable.iter().any(|m| m.number == *number));
        Ok(snapshot::purge_bound(&usable))
    }

    /// The bytes of a state, if every part is whole.
    async fn verified_state(&mut self, manifest: &Manifest) -> Result<Option<Vec<u8>>, Error> {
        let mut parts = Vec::new();
        for part in &manifest.parts {
            match self.objects.get(&manifest.part_key(part)).await {
                Ok(bytes) => parts.push(bytes),
                Err(e) if e.is_not_found() => return Ok(None),
                Err(e) => return Err(failed(e)),
            }
        }
        let unpacked = manifest.clone();
        let state = aside(move || snapshot::unpack(&unpacked, &parts).ok()).await;
        if state.is_some() {
            self.verified.insert(manifest.number);
        }
        Ok(state)
    }

    async fn keys(&self) -> Result<Vec<String>, Error> {
        let listed = self.objects.list(&snapshot::prefix(&self.service), KEYS_MAX).await.map_err(failed)?;
        Ok(listed.into_iter().map(|object| object.key).collect())
    }

    /// The manifests that can be read, oldest first.
    async fn manifests(&self, keys: &[String]) -> Result<Vec<Manifest>, Error> {
        let complete =
            keys.iter().filter(|key| snapshot::service_and_number(key).is_some_and(|(.., manifest)| manifest));
        let read = complete.map(|key| async move {
            match self.objects.get(key).await {
                Ok(bytes) => {
                    Ok(Manifest::decode(&bytes).inspect_err(|e| warn!(%key, error = %e, "manifest damaged")).ok())
                }
                Err(e) if e.is_not_found() => Ok(None),
                Err(e) => Err(failed(e)),
            }
        });
        let mut manifests: Vec<Manifest> = try_join_all(read).await?.into_iter().flatten().collect();
        manifests.sort_by_key(|manifest| manifest.number);
        Ok(manifests)
    }
}

/// Runs what takes more than a moment off the service's thread.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn failed(error: store::StoreError) -> Error {
    Error::Objects(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(applied_seq: u64) -> State {
        let mut state = State::new(ContainerId(3));
        state.applied_seq = applied_seq;
        state
    }

    async fn keys(snapshots: &Snapshots) -> Vec<String> {
        snapshots.keys().await.unwrap()
    }

    #[tokio::test]
    async fn a_damaged_newest_snapshot_is_not_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path().to_str().unwrap()).unwrap();
        let mut snapshots = Snapshots::new(objects.clone(), ContainerId(3));
        assert!(snapshots.restore().await.unwrap().is_none());
        assert_eq!(snapshots.write(state(10)).await.unwrap(), None, "one snapshot is not enough to purge");
        assert_eq!(snapshots.write(state(20)).await.unwrap(), Some(11));
        assert_eq!(snapshots.write(state(30)).await.unwrap(), Some(11));
        assert_eq!(snapshots.write(state(40)).await.unwrap(), Some(21), "three are kept");
        let newest = keys(&snapshots).await.into_iter().rev().find(|key| key.contains("part-")).unwrap();
        objects.delete(&newest).await.unwrap();
        objects.put_if_absent(&newest, Bytes::from_static(b"rubbish")).await.unwrap();
        let mut other = Snapshots::new(objects, ContainerId(3));
        assert_eq!(other.restore().await.unwrap(), Some(state(30)));
        assert_eq!(other.write(state(50)).await.unwrap(), Some(31), "a damaged one does not count");
    }

    #[tokio::test]
    async fn an_owner_that_fell_behind_does_not_step_back() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path().to_str().unwrap()).unwrap();
        let mut owner = Snapshots::new(objects.clone(), ContainerId(3));
        owner.write(state(50)).await.unwrap();
        owner.write(state(60)).await.unwrap();
        let mut zombie = Snapshots::new(objects.clone(), ContainerId(3));
        assert_eq!(zombie.write(state(20)).await.unwrap(), None);
        assert_eq!(Snapshots::new(objects, ContainerId(3)).restore().await.unwrap(), Some(state(60)));
    }

    /// Prints what a large container costs; run it with `--ignored --nocapture`, in a release build for figures that count.
    #[tokio::test]
    #[ignore = "prints figures"]
    async fn ten_thousand_segments_with_ten_chunks_each() {
        use crate::container::frame::{Entry, Frame};
        let mut large = state(1);
        let segment = |number| types::SegmentId { stream: 1, epoch: 0, number };
        let entries = (0..10_000).map(|n| Entry::create(segment(n), "shop".parse().unwrap())).collect();
        let (container, generation) = (ContainerId(3), types::Generation(1));
        large.apply(2, &Frame { container, generation, number: 1, previous: 0, entries }, 0).unwrap();
        for (id, known) in &mut large.segments {
            for n in 0..10 {
                let (from, to) = (n * 1_000, n * 1_000 + 1_000);
                let key = format!("chunks/shop/{id}/{from:020}-G1-{}.parquet", uuid::Uuid::new_v4());
                let time = types::Timestamp::from_millis(1_790_000_000_000);
                known.chunks.push(wire::segment_store::ChunkMeta {
                    key,
                    from,
                    to,
                    bytes: 123_456,
                    time_min: time,
                    time_max: time,
                });
            }
        }
        let begun = std::time::Instant::now();
        let took = |what: &str, bytes: usize| println!("{what}: {:?} so far, {bytes} bytes", begun.elapsed());
        let copy = large.clone();
        took("clone under the lock", 0);
        let encoded = rmp_serde::to_vec_named(&copy).unwrap();
        took("encode", encoded.len());
        let packed = snapshot::pack(&encoded).unwrap();
        took("pack", packed.iter().map(|(_, bytes)| bytes.len()).sum());
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path().to_str().unwrap()).unwrap();
        Snapshots::new(objects.clone(), container).write(copy).await.unwrap();
        took("all that again, and store", 0);
        assert_eq!(Snapshots::new(objects, container).restore().await.unwrap(), Some(large));
        took("restore", 0);
    }
}
