//! `logboom admin export`: a copy of an index that can be restored anywhere.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use segment_store::ADOPTED_MAX;
use serde_json::json;
use store::Put;
use types::{ContainerId, IndexName, Offset, SegmentId, Timestamp};
use wire::{
    coordinator::{EpochsOf, ListEpochs, StreamDescription},
    segment_store::{ChunkMeta, DescribeSegment, SegmentInfo, SegmentName},
};

use super::{
    Admin,
    archive::{Archive, Copied, Plan, Planned, Window, file_name, folder},
    recast::recast,
    time,
    window::{Known, select, too_large},
};

/// Segments copied at the same time: each holds a chunk in memory, twice.
const COPIED_AT_ONCE: usize = 4;
/// Segments asked for at once.
const ASKED_MAX: usize = 16;
/// Looks at a stream that changes while it is looked at.
const LOOKS_MAX: usize = 5;
/// Times in a row that a named chunk may be gone before that is a defect.
const GONE_MAX: u32 = 3;
/// Epochs in one answer of the coordinator.
const PAGE: u32 = 1_000;

const EXAMPLES: &str = "Examples:
  logboom admin export shop --to /backup/shop-2026-01-02
  logboom admin export shop --to s3://backup/shop --from 2026-01-01T00:00:00Z --until 2026-02-01T00:00:00Z

What is there when the command begins is exported; what comes meanwhile is not. Run again after an interruption, it goes on
with the same cut; run again on a complete export, it checks every file. --from and --until take whole chunks that touch the
time, and what lies between two of them, so that offsets stay without holes.";

/// Copy an index to a folder or to S3, so that it can be restored
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// Index
    index: IndexName,
    /// Folder, or s3://bucket/prefix: empty, or with a part of this export
    #[arg(long, value_name = "PLACE")]
    to: String,
    /// Only chunks with events at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<Timestamp>,
    /// Only chunks with events before this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<Timestamp>,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let at: jiff::Timestamp = text.parse().map_err(|_| "write a time as 2026-01-02T03:04:05Z".to_owned())?;
    i64::try_from(at.as_nanosecond()).map(Timestamp::from_nanos).map_err(|_| "it is too far away".to_owned())
}

impl Admin {
    pub(super) async fn export(&self, args: ExportArgs) -> anyhow::Result<()> {
        let archive = Archive::open(&args.to, &self.host.tls)?;
        let window = Window { from: args.from, until: args.until };
        let (plan, went_on) = match archive.plan().await? {
            Some(plan) => (checked(plan, &args.index, window, archive.place())?, true),
            None => {
                let plan = self.plan_export(&args.index, window).await?;
                archive.begin(&plan).await?;
                (plan, false)
            }
        };
        if archive.manifest().await?.is_some() {
            return self.verify(&archive).await;
        }
        let containers = self.containers_of(&args.index, plan.stream.stream).await?;
        let events: u64 = plan.segments.iter().map(|planned| planned.end - planned.start).sum();
        let bar = self.bar(usize::try_from(events).unwrap_or(usize::MAX), "exporting events");
        let copies = plan.segments.iter().map(|planned| {
            let (archive, bar) = (&archive, &bar);
            let container = containers.get(&planned.segment).copied();
            async move { self.copy_segment(archive, planned, container, bar).await }
        });
        let files: Vec<Vec<Copied>> = stream::iter(copies).buffered(COPIED_AT_ONCE).try_collect().await?;
        bar.finish_and_clear();
        let manifest = archive.complete(files.concat()).await?;
        let how = if went_on { "completed" } else { "exported" };
        self.tell_export(&plan, &manifest.files, how, archive.place());
        Ok(())
    }

    /// The cut first, then everything before it to object storage, then what is there.
    async fn plan_export(&self, index: &IndexName, window: Window) -> anyhow::Result<Plan> {
        let taken = self.host.clock.now();
        for _ in 0..LOOKS_MAX {
            let found = self.found(index).await?;
            let description = self.stream(index).await?;
            let Some(cut) = cut(&found, &description) else { continue };
            let late = found.iter().filter_map(|(node, info)| {
                info.as_ref().is_some_and(|info| info.tail_from < info.end).then_some(node.container)
            });
            let mut late: Vec<ContainerId> = late.collect();
            late.sort_unstable();
            late.dedup();
            self.flush_all(&late).await?;
            let Some(known) = self.look_again(&found, &cut, description.sealed).await? else { continue };
            let segments = select(&known, window);
            if let Some((segment, count)) = too_large(&known, &segments, ADOPTED_MAX) {
                anyhow::bail!(
                    "segment {segment} would have {count} files, and a restore makes a segment of at most {ADOPTED_MAX}: export \
                     parts of the time with --from and --until, each to a place of its own"
                );
            }
            let opened = self.opened(index).await?;
            return Ok(Plan::new(taken, description, opened, window, segments));
        }
        anyhow::bail!("index {index} is scaled or truncated all the time: try again when it is calm")
    }

    /// The segments with their chunks up to the cut; `None` if one was truncated away meanwhile. `whole`: the stream was sealed.
    async fn look_again(
        &self,
        found: &[super::streams::Found],
        cut: &BTreeMap<SegmentId, Offset>,
        whole: bool,
    ) -> anyhow::Result<Option<Vec<Known>>> {
        let looks = stream::iter(found).map(|(node, _)| async move {
            let info = self.info(node).await?;
            Ok::<_, anyhow::Error>((node.clone(), info))
        });
        let now: Vec<_> = looks.buffered(ASKED_MAX).try_collect().await?;
        let mut known = Vec::new();
        for (node, info) in now {
            let (Some(info), Some(end)) = (info, cut.get(&node.segment).copied()) else { return Ok(None) };
            ensure!(
                info.tail_from >= end,
                "segment {} has events that are not in object storage although its container was flushed: run this again",
                node.segment
            );
            let end = end.max(info.start);
            known.push(Known { node, info, end, sealed: whole });
        }
        Ok(Some(known))
    }

    async fn opened(&self, index: &IndexName) -> anyhow::Result<BTreeMap<u32, Timestamp>> {
        let mut opened = BTreeMap::new();
        loop {
            let from = opened.last_key_value().map_or(0, |(epoch, _)| *epoch + 1);
            let page = self.call::<ListEpochs>(&(), &EpochsOf { index: index.clone(), from, limit: PAGE }).await?;
            let more = page.more && !page.epochs.is_empty();
            opened.extend(page.epochs.into_iter().map(|record| (record.epoch, record.at)));
            if !more {
                return Ok(opened);
            }
        }
    }

    async fn containers_of(&self, index: &IndexName, stream: u32) -> anyhow::Result<BTreeMap<SegmentId, ContainerId>> {
        let now = self.stream(index).await?.stream;
        ensure!(
            now == stream,
            "index {index} was deleted and created again since this export was begun: begin another one"
        );
        let nodes = self.nodes(index).await?;
        Ok(nodes.into_iter().map(|node| (node.segment, node.container)).collect())
    }

    async fn copy_segment(
        &self,
        archive: &Archive,
        planned: &Planned,
        container: Option<ContainerId>,
        bar: &indicatif::ProgressBar,
    ) -> anyhow::Result<Vec<Copied>> {
        let segment = planned.segment;
        let mut there = there(archive, segment).await?;
        let mut copied: Vec<Copied> = Vec::new();
        let mut source = Source { admin: self, segment, container, info: None };
        let mut next = planned.start;
        while next < planned.end {
            let file = match there.remove(&next) {
                Some(key) => check_file(archive, segment, key, next).await?,
                None => {
                    let (meta, bytes) = source.chunk(next).await?;
                    store_part(archive, segment, &meta, bytes, (next, meta.to.min(planned.end))).await?
                }
            };
            bar.inc(file.to - next);
            next = file.to;
            copied.push(file);
        }
        Ok(copied)
    }

    /// Reads every file of a complete export.
    async fn verify(&self, archive: &Archive) -> anyhow::Result<()> {
        let (plan, manifest) = archive.read().await?;
        let bar = self.bar(manifest.files.len(), "checking files");
        let checks = manifest.files.iter().map(|file| {
            let bar = &bar;
            async move {
                archive.file(file).await?;
                bar.inc(1);
                Ok::<_, anyhow::Error>(())
            }
        });
        stream::iter(checks).buffer_unordered(COPIED_AT_ONCE).try_collect::<()>().await?;
        bar.finish_and_clear();
        self.tell_export(&plan, &manifest.files, "was complete and is whole", archive.place());
        Ok(())
    }

    fn tell_export(&self, plan: &Plan, files: &[Copied], how: &str, place: &str) {
        let events: u64 = plan.segments.iter().map(|planned| planned.end - planned.start).sum();
        let bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let (index, segments) = (&plan.stream.index, plan.segments.len());
        if self.screen.is_json() {
            return self.screen.value(&json!({
                "index": index, "stream": plan.stream.stream, "place": place, "state": how, "taken": time(plan.taken),
                "segments": segments, "files": files.len(), "events": events, "bytes": bytes,
                "cut": plan.segments.iter().map(|p| (p.segment.to_string(), p.end)).collect::<BTreeMap<_, _>>(),
            }));
        }
        self.screen.line(format_args!(
            "index {index} {how}: {events} events of {segments} segments in {} files, {bytes} bytes, as of {}, in {place}",
            files.len(),
            time(plan.taken)
        ));
    }
}

/// Where each segment ends, if what was found is one stream at one time: all present segments are in it.
fn cut(found: &[super::streams::Found], stream: &StreamDescription) -> Option<BTreeMap<SegmentId, Offset>> {
    let ends = found.iter().map(|(node, info)| Some((node.segment, info.as_ref()?.end)));
    let ends: BTreeMap<_, _> = ends.collect::<Option<_>>()?;
    stream.segments.iter().all(|present| ends.contains_key(&present.segment)).then_some(ends)
}

fn checked(plan: Plan, index: &IndexName, window: Window, place: &str) -> anyhow::Result<Plan> {
    let there = &plan.stream.index;
    ensure!(there == index, "{place} holds an export of index {there}: choose another place for {index}");
    ensure!(
        plan.window == window,
        "{place} holds an export of index {index} with another --from or --until: repeat those, or choose another place"
    );
    Ok(plan)
}

/// Files of a segment that a run before has left, by their first offset.
async fn there(archive: &Archive, segment: SegmentId) -> anyhow::Result<BTreeMap<Offset, String>> {
    let listed = archive.objects.list(&folder(segment), store::LIST_MAX).await?;
    Ok(listed.into_iter().filter_map(|object| Some((chunk::copied_range(&object.key)?.0, object.key))).collect())
}

/// A file that a run before has left, if it is what its name says.
async fn check_file(archive: &Archive, segment: SegmentId, key: String, from: Offset) -> anyhow::Result<Copied> {
    let bytes = archive.get(&key).await?.with_context(|| format!("{key} is gone"))?;
    let whole = bytes.clone();
    let info = tokio::task::spawn_blocking(move || chunk::info(&whole)).await?;
    let place = archive.place();
    let info = info.with_context(|| format!("{place}/{key} is damaged: delete it and run this again"))?;
    let (to, right) = (info.last + 1, info.segment == segment && info.first == from);
    ensure!(
        right && file_name(segment, from, to) == key,
        "{place}/{key} holds offsets {} to {to} of segment {}: delete it and run this again",
        info.first,
        info.segment
    );
    let (time_min, time_max) = (info.time_min, info.time_max);
    let (bytes, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
    Ok(Copied { file: key, segment, from, to, bytes, crc32c, time_min, time_max })
}

/// Stores a part of a chunk, and reads it back.
async fn store_part(
    archive: &Archive,
    segment: SegmentId,
    meta: &ChunkMeta,
    bytes: Bytes,
    (from, to): (Offset, Offset),
) -> anyhow::Result<Copied> {
    let (key, place) = (meta.key.clone(), (meta.from, meta.to));
    let part = tokio::task::spawn_blocking(move || {
        let info = chunk::info(&bytes).with_context(|| format!("chunk {key} is damaged"))?;
        ensure!(
            info.segment == segment && (info.first, info.last + 1) == place,
            "chunk {key} holds offsets {} to {} of segment {} instead of {} to {} of {segment}",
            info.first,
            info.last + 1,
            info.segment,
            place.0,
            place.1
        );
        recast(bytes, &info, segment, None, (from, to))
    });
    let part = part.await??;
    let (file, crc32c) = (file_name(segment, from, to), crc32c::crc32c(&part.bytes));
    let (time_min, time_max, bytes) = (part.time_min, part.time_max, part.bytes.len() as u64);
    let put = archive.objects.put_if_absent(&file, part.bytes).await?;
    ensure!(put == Put::Stored, "another export writes to {} at the same time: let it end", archive.place());
    let copied = Copied { file, segment, from, to, bytes, crc32c, time_min, time_max };
    archive.file(&copied).await?;
    Ok(copied)
}

/// The chunks of a segment while they may be merged.
struct Source<'a> {
    admin: &'a Admin,
    segment: SegmentId,
    container: Option<ContainerId>,
    info: Option<SegmentInfo>,
}

impl Source<'_> {
    /// The chunk that holds an offset.
    async fn chunk(&mut self, offset: Offset) -> anyhow::Result<(ChunkMeta, Bytes)> {
        let segment = self.segment;
        for _ in 0..GONE_MAX {
            let info = match self.info.take() {
                Some(info) => info,
                None => self.describe().await?,
            };
            let at = info.chunks.partition_point(|chunk| chunk.to <= offset);
            let meta = info.chunks.get(at).filter(|chunk| chunk.from <= offset && info.start <= offset).cloned();
            let meta = meta.with_context(|| {
                format!(
                    "offset {offset} of segment {segment} was truncated since this export was begun: begin another one in \
                     another place"
                )
            })?;
            match self.admin.host.objects.get(&meta.key).await {
                Ok(bytes) => {
                    self.info = Some(info);
                    return Ok((meta, bytes));
                }
                // Merged or truncated since it was named: whoever named it knows better now.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!(
            "a chunk with offset {offset} of segment {segment} is named and does not exist: `logboom admin repair` tells more"
        )
    }

    async fn describe(&self) -> anyhow::Result<SegmentInfo> {
        let segment = self.segment;
        let container = self.container.with_context(|| {
            format!("segment {segment} was truncated since this export was begun: begin another one in another place")
        })?;
        Ok(self.admin.call::<DescribeSegment>(&container, &SegmentName { segment }).await?)
    }
}
