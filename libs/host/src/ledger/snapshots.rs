//! Snapshots in object storage: carries out what the crate `snapshot` decides.

use bytes::Bytes;
use snapshot::{
    FORMAT, KEEP, MANIFESTS_MAX, Manifest, SnapshotError, may_commit, next_number, pack, plan_gc, purge_bound,
    service_and_number, unpack,
};
use store::{LIST_MAX, Objects, Put, StoreError};
use wire::Problem;

/// Numbers that are tried when another writer takes them first.
const NUMBERS_MAX: usize = 8;

pub(super) struct Snapshots {
    objects: Objects,
    service: String,
}

impl Snapshots {
    pub(super) fn new(objects: Objects, service: &str) -> Self {
        Self { objects, service: service.to_owned() }
    }

    pub(super) fn prefix(&self) -> String {
        snapshot::prefix(&self.service)
    }

    async fn keys(&self) -> Result<Vec<String>, StoreError> {
        let found = self.objects.list(&self.prefix(), LIST_MAX).await?;
        Ok(found.into_iter().map(|object| object.key).collect())
    }

    /// The number of the newest manifest, whether or not it can be read.
    pub(super) async fn newest_number(&self) -> Result<Option<u64>, StoreError> {
        let keys = self.keys().await?;
        let found = keys.iter().filter_map(|key| service_and_number(key)).filter(|(.., manifest)| *manifest);
        Ok(found.map(|(_, number, _)| number).max())
    }

    /// The readable manifests, newest first; a damaged one is as good as none and is reported.
    pub(super) async fn manifests(&self) -> Result<Vec<Manifest>, StoreError> {
        let keys = self.keys().await?;
        let mut named: Vec<&String> =
            keys.iter().filter(|key| service_and_number(key).is_some_and(|(.., manifest)| manifest)).collect();
        named.sort_unstable_by(|a, b| b.cmp(a));
        let mut manifests = Vec::new();
        for key in named.into_iter().take(MANIFESTS_MAX) {
            match self.objects.get(key).await {
                Ok(bytes) => match Manifest::decode(&bytes) {
                    Ok(manifest) if manifest.key() == *key => manifests.push(manifest),
                    Ok(_) => tracing::error!(key, "manifest names another snapshot"),
                    Err(error) => tracing::error!(key, %error, "manifest cannot be read"),
                },
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(manifests)
    }

    /// The state of a snapshot; the inner error says that the snapshot is damaged, the outer one that storage does not answer.
    pub(super) async fn fetch(&self, manifest: &Manifest) -> Result<Result<Vec<u8>, SnapshotError>, StoreError> {
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for info in &manifest.parts {
            match self.objects.get(&manifest.part_key(info)).await {
                Ok(bytes) => parts.push(bytes),
                Err(error) if error.is_not_found() => return Ok(Err(SnapshotError::Part { name: info.name.clone() })),
                Err(error) => return Err(error),
            }
        }
        Ok(unpack(manifest, &parts))
    }

    /// Writes a snapshot: its parts, then the manifest, each only where nothing is.
    ///
    /// `None` if a newer one is there already.
    pub(super) async fn write(
        &self,
        generation: u64,
        position: u64,
        state: &[u8],
    ) -> Result<Option<Manifest>, Problem> {
        let parts = pack(state).map_err(Problem::internal)?;
        for _ in 0..NUMBERS_MAX {
            let keys = self.keys().await.map_err(unavailable)?;
            let manifest = Manifest {
                service: self.service.clone(),
                generation,
                number: next_number(keys.iter().map(String::as_str)),
                format: FORMAT,
                position,
                parts: parts.iter().map(|(info, _)| info.clone()).collect(),
            };
            let mut stored = Vec::new();
            for (info, bytes) in &parts {
                let put = self.objects.put_if_absent(&manifest.part_key(info), Bytes::from(bytes.clone())).await;
                if put.map_err(unavailable)? == Put::Stored {
                    stored.push(info.clone());
                }
            }
            if stored.len() < parts.len() {
                continue;
            }
            let newest = self.manifests().await.map_err(unavailable)?;
            if !may_commit(&manifest, &stored, newest.first()) {
                return Ok(None);
            }
            let put = self.objects.put_if_absent(&manifest.key(), Bytes::from(manifest.encode())).await;
            if put.map_err(unavailable)? == Put::Stored {
                return Ok(Some(manifest));
            }
        }
        Err(Problem::unavailable(
            "SnapshotContended",
            format_args!("{NUMBERS_MAX} numbers were taken by other writers"),
        ))
    }

    /// Deletes what is no longer kept and gives the first journal entry that must stay; `None` if none may go.
    pub(super) async fn clean(&self) -> Result<Option<u64>, StoreError> {
        let keys = self.keys().await?;
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        for key in plan_gc(&keys) {
            self.objects.delete(key).await?;
        }
        let mut usable = Vec::new();
        for manifest in self.manifests().await?.into_iter().take(KEEP) {
            match self.fetch(&manifest).await? {
                Ok(_) => usable.push(manifest),
                Err(error) => {
                    tracing::error!(key = manifest.key(), %error, "snapshot is damaged; the journal is kept for it")
                }
            }
        }
        Ok(purge_bound(&usable))
    }
}

fn unavailable(error: StoreError) -> Problem {
    Problem::unavailable("ObjectStore", error)
}
