//! Keys of encrypted indexes, and chunks for readers that have none.

use std::{collections::BTreeMap, fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::Context;
use bus::{Bucket, BucketError};
use serde_json::{Value, json};
use types::IndexName;
use wire::{
    coordinator::{DescribeIndexKeys, IndexKeyList, IndexKeyVersion, RotateIndexKey, StreamName},
    views::{INDEX_KEYS, IndexKeys},
};

use super::{Admin, time};

impl Admin {
    pub(super) async fn keys(&self, index: &IndexName) -> anyhow::Result<()> {
        let keys = self.call::<DescribeIndexKeys>(&(), &StreamName { index: index.clone() }).await?;
        self.tell_keys(index, &keys);
        Ok(())
    }

    pub(super) async fn rotate_key(&self, index: &IndexName) -> anyhow::Result<()> {
        let keys = self.call::<RotateIndexKey>(&(), &StreamName { index: index.clone() }).await?;
        self.tell_keys(index, &keys);
        Ok(())
    }

    fn tell_keys(&self, index: &IndexName, keys: &IndexKeyList) {
        let row = |IndexKeyVersion { version, created, master }: &IndexKeyVersion| {
            let created = time(*created);
            json!({"index": index, "stream": keys.stream, "version": version, "created": created, "master": master})
        };
        let rows: Vec<Value> = keys.versions.iter().map(row).collect();
        self.screen.rows(&rows, &["index", "stream", "version", "created", "master"]);
    }

    /// Writes an object as those see it that have its key.
    pub(super) async fn open(&self, key: &str, to: &Path) -> anyhow::Result<()> {
        let bytes = self.host.objects.get(key).await?;
        write_new(to, &bytes)?;
        self.say(&json!({"key": key, "bytes": bytes.len(), "file": to}), &format!("{key} is in {}", to.display()));
        Ok(())
    }

    pub(super) async fn save_keys(&self, to: &Path) -> anyhow::Result<()> {
        let mut saved: BTreeMap<String, IndexKeys> = BTreeMap::new();
        for (stream, entry) in self.key_bucket().await?.list("").await? {
            saved.insert(stream, wire::decode(&entry.value)?);
        }
        write_new(to, &serde_json::to_vec_pretty(&saved)?)?;
        let streams = saved.len();
        let words = format!("the keys of {streams} streams are in {}, wrapped", to.display());
        self.say(&json!({"streams": streams, "file": to}), &words);
        Ok(())
    }

    /// What is there is newer than what was saved, also where it says that keys were destroyed.
    pub(super) async fn load_keys(&self, from: &Path) -> anyhow::Result<()> {
        let text = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let saved: BTreeMap<u32, IndexKeys> =
            serde_json::from_slice(&text).with_context(|| format!("{} is no file of save-keys", from.display()))?;
        let (bucket, mut loaded) = (self.key_bucket().await?, 0_usize);
        for (stream, keys) in &saved {
            match bucket.update(&stream.to_string(), wire::encode(keys), 0).await {
                Ok(_) => loaded += 1,
                Err(BucketError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let streams = saved.len();
        let words = format!("the keys of {loaded} streams of {streams} were missing and are back");
        self.say(&json!({"streams": streams, "loaded": loaded}), &words);
        Ok(())
    }

    async fn key_bucket(&self) -> anyhow::Result<Bucket> {
        Ok(self.host.bus.join_bucket(INDEX_KEYS, self.host.common.journal_replicas).await?)
    }

    fn say(&self, value: &Value, words: &str) {
        if self.screen.is_json() { self.screen.value(value) } else { self.screen.line(words) }
    }
}

/// A file that only its owner reads.
fn write_new(to: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut file = file.with_context(|| format!("cannot make {}", to.display()))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {}", to.display()))
}
