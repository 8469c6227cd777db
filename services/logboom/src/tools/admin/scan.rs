//! The chunks of an installation as its object storage has them, each read and checked.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use store::{LIST_MAX, ObjectInfo, Objects, SEALED, StoreError};
use types::{IndexName, SegmentId};

use super::{Admin, rebuild::Found};

/// Where chunks are.
pub(super) const CHUNKS: &str = "chunks/";
/// Chunks read at the same time.
const READ_AT_ONCE: usize = 8;

/// What lies in the folder of an index.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// By the number of the stream: an index that was deleted and created again may have left chunks of another one.
    pub(super) streams: BTreeMap<u32, Vec<Found>>,
    /// Chunks that cannot be used, and why.
    pub(super) damaged: Vec<(String, String)>,
    /// Objects that are no chunks.
    pub(super) foreign: Vec<String>,
}

/// The indexes that have chunks.
pub(super) async fn indexes(objects: &Objects) -> anyhow::Result<Vec<IndexName>> {
    Ok(objects.folders(CHUNKS).await?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The folder of a segment.
pub(super) fn folder(index: &IndexName, segment: SegmentId) -> String {
    format!("{CHUNKS}{index}/{segment}/")
}

/// What lies in a folder; refuses one that a listing cannot hold.
pub(super) async fn list(objects: &Objects, folder: &str) -> anyhow::Result<Vec<ObjectInfo>> {
    let listed = objects.list(folder, LIST_MAX).await?;
    ensure!(listed.len() < LIST_MAX, "{folder} holds {LIST_MAX} objects or more, which is more than can be looked at");
    Ok(listed)
}

impl Admin {
    /// Reads every chunk of an index.
    pub(super) async fn scan(&self, objects: &Objects, index: &IndexName) -> anyhow::Result<Scan> {
        let mut scan = Scan::default();
        let mut wanted = Vec::new();
        let home = format!("{CHUNKS}{index}/");
        for name in objects.folders(&home).await? {
            let listed = list(objects, &format!("{home}{name}/")).await?;
            match name.parse::<SegmentId>() {
                Ok(segment) => wanted.extend(listed.into_iter().map(|object| (segment, object))),
                Err(_) => scan.foreign.extend(listed.into_iter().map(|object| object.key)),
            }
        }
        let bar = self.bar(wanted.len(), "reading chunks");
        let read = wanted.into_iter().map(|(segment, object)| {
            let bar = &bar;
            async move {
                let found = look(objects, segment, &object).await;
                bar.inc(1);
                found.map(|found| (object.key, found))
            }
        });
        let mut read = stream::iter(read).buffered(READ_AT_ONCE);
        while let Some(found) = read.next().await {
            match found? {
                (key, Look::Damaged(why)) => scan.damaged.push((key, why)),
                (key, Look::Foreign) => scan.foreign.push(key),
                (_, Look::Whole(found)) => scan.streams.entry(found.segment.stream).or_default().push(*found),
            }
        }
        bar.finish_and_clear();
        Ok(scan)
    }
}

enum Look {
    Whole(Box<Found>),
    Damaged(String),
    Foreign,
}

/// Reads an object; one that is gone meanwhile is none.
async fn look(objects: &Objects, segment: SegmentId, object: &ObjectInfo) -> anyhow::Result<Look> {
    let key = object.key.clone();
    if !key.strip_suffix(SEALED).unwrap_or(&key).ends_with(".parquet") {
        return Ok(Look::Foreign);
    }
    let bytes = match objects.get(&key).await {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Look::Damaged("it is gone".to_owned())),
        Err(error @ (StoreError::Key { .. } | StoreError::Sealed { .. })) => {
            return Ok(Look::Damaged(error.to_string()));
        }
        Err(error) => return Err(error).with_context(|| format!("chunk {key} cannot be fetched")),
    };
    let length = bytes.len() as u64;
    let info = match tokio::task::spawn_blocking(move || chunk::info(&bytes)).await? {
        Ok(info) => info,
        Err(error) => return Ok(Look::Damaged(error.to_string())),
    };
    if info.segment != segment {
        return Ok(Look::Damaged(format!("it is of segment {} and lies in the folder of {segment}", info.segment)));
    }
    let origin = info.origin.map(|origin| (origin.scope, origin.range));
    let (from, to, bytes) = (info.first, info.last + 1, length);
    let (time_min, time_max) = (info.time_min, info.time_max);
    Ok(Look::Whole(Box::new(Found { key, segment, from, to, bytes, time_min, time_max, origin })))
}
