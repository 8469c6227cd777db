//! `logboom admin repair`: compares the state of containers with their objects and logs, and mends what can be mended safely.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use store::{Objects, Put, StoreError};
use types::{ContainerId, Generation, SegmentId};
use wire::{
    Empty,
    coordinator::{ListStreams, StreamsOf},
    segment_store::{
        ChunkMeta, DescribeContainer, DescribeSegment, GarbageOf, ListContainerSegments, ListGarbage, PageOf,
        Quarantine, QuarantineObjects, SegmentInfo, SegmentName,
    },
};

use super::{
    Admin,
    archive::{Archive, Copied},
    findings::{Finding, Kind, in_a_row, nameless},
    refused,
    scan::{CHUNKS, folder, indexes, list},
};

/// Where things go that were taken away; they stay there until a person removes them.
const ASIDE: &str = "quarantine/";
/// Segments or keys in one answer.
const PAGE: u32 = 1_000;
/// Segments looked at at the same time.
const LOOKED_AT_ONCE: usize = 8;
/// Objects named in one call.
const MOVED_MAX: usize = 1_000;

const EXAMPLES: &str = "Examples:
  logboom admin repair --all                      looks at every container and changes nothing
  logboom admin repair 3 --deep                   reads every chunk of container 3 and checks it
  logboom admin repair --all --apply --from /backup/shop

What is mended: objects that nothing names go below quarantine/; a chunk that is missing or damaged is put back if quarantine/ or
the export that --from names has the very same, and a damaged one goes below quarantine/ first. Nothing is ever deleted. Exits
with 1 if something is wrong and was not mended.";

/// Compare containers with their objects and logs, and mend what can be mended safely
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RepairArgs {
    /// Container
    #[arg(required_unless_present = "all")]
    container: Option<u16>,
    /// Every container
    #[arg(long, conflicts_with = "container")]
    all: bool,
    /// Mend; without it nothing is changed
    #[arg(long)]
    apply: bool,
    /// Read every chunk and check it
    #[arg(long)]
    deep: bool,
    /// An export from which missing and damaged chunks are taken
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// Look at the log too, as `logboom admin log` does
    #[arg(long)]
    pub(super) log: bool,
    /// The settings are those of the installation
    #[arg(long)]
    pub(super) yes: bool,
}

/// What the coordinator knows of a container.
type Expected = BTreeMap<ContainerId, BTreeSet<SegmentId>>;

/// Files of an export by segment and offsets.
struct Spare {
    archive: Archive,
    files: BTreeMap<(SegmentId, u64, u64), Copied>,
}

impl Admin {
    pub(super) async fn repair(&self, args: RepairArgs, config: &segment_store::Config) -> anyhow::Result<()> {
        let wanted = self.wanted(args.container.map(ContainerId)).await?;
        let spare = match &args.from {
            Some(place) => Some(spare(Archive::open(place, &self.host.tls)?).await?),
            None => None,
        };
        let expected = self.expected().await?;
        let mut rows: Vec<Value> = Vec::new();
        let mut open = 0;
        let bar = self.bar(wanted.len(), "looking at containers");
        for container in wanted {
            let mut found = self.look_at(container, expected.get(&container), args.deep).await?;
            if args.log {
                found.extend(self.log_findings(container, config).await?);
            }
            if args.apply {
                self.mend(container, &mut found, spare.as_ref()).await?;
            }
            found.sort_by_key(|finding| (finding.kind, finding.segment));
            open += found.iter().filter(|finding| finding.is_open()).count();
            rows.extend(found.iter().map(|finding| finding.row(container.0)));
            bar.inc(1);
        }
        bar.finish_and_clear();
        if args.all {
            rows.extend(self.strange_folders(&expected).await?);
        }
        self.screen.rows(&rows, &["container", "finding", "segment", "key", "detail", "done"]);
        let hint = if args.apply { "" } else { "; --apply mends what can be mended" };
        ensure!(open == 0, "{open} findings are open{hint}");
        Ok(())
    }

    /// The segments of every stream by container.
    async fn expected(&self) -> anyhow::Result<Expected> {
        let mut expected = Expected::new();
        let mut wanted = StreamsOf::default();
        loop {
            let page = self.call::<ListStreams>(&(), &wanted).await?;
            wanted.after = page.streams.last().map(|stream| stream.stream);
            let more = page.more && !page.streams.is_empty();
            for there in page.streams {
                for node in self.nodes(&there.index).await? {
                    expected.entry(node.container).or_default().insert(node.segment);
                }
            }
            if !more {
                return Ok(expected);
            }
        }
    }

    async fn look_at(
        &self,
        container: ContainerId,
        expected: Option<&BTreeSet<SegmentId>>,
        deep: bool,
    ) -> anyhow::Result<Vec<Finding>> {
        let about = self.call::<DescribeContainer>(&container, &Empty {}).await?;
        let mut found: Vec<Finding> =
            about.damage.iter().map(|damage| Finding::new(Kind::Log, None, damage.clone())).collect();
        let segments = self.segments_of(container).await?;
        let there: BTreeSet<SegmentId> = segments.iter().map(|info| info.segment).collect();
        let none = BTreeSet::new();
        let expected = expected.unwrap_or(&none);
        for segment in expected.difference(&there) {
            // It may have been created or deleted between the two questions.
            if self.describe_in(container, *segment).await?.is_none() {
                let detail = "the coordinator names it, and its container does not have it".to_owned();
                found.push(Finding::new(Kind::Unknown, Some(*segment), detail));
            }
        }
        for info in segments.iter().filter(|info| !info.transactional && !expected.contains(&info.segment)) {
            let detail = format!("of index {}, up to offset {}: no stream names it", info.index, info.end);
            found.push(Finding::new(Kind::Stray, Some(info.segment), detail));
        }
        let looks = segments
            .iter()
            .filter(|info| !info.transactional)
            .map(|brief| async move { self.look_at_segment(container, about.generation, brief, deep).await });
        let more: Vec<Vec<Finding>> = stream::iter(looks).buffered(LOOKED_AT_ONCE).try_collect().await?;
        found.extend(more.into_iter().flatten());
        Ok(found)
    }

    async fn segments_of(&self, container: ContainerId) -> anyhow::Result<Vec<SegmentInfo>> {
        let mut segments: Vec<SegmentInfo> = Vec::new();
        loop {
            let after = segments.last().map(|info| info.segment);
            let page = self.call::<ListContainerSegments>(&container, &PageOf { after, limit: PAGE }).await?;
            let more = page.more && !page.segments.is_empty();
            segments.extend(page.segments);
            if !more {
                return Ok(segments);
            }
        }
    }

    async fn describe_in(&self, container: ContainerId, segment: SegmentId) -> anyhow::Result<Option<SegmentInfo>> {
        match self.host.bus.call::<DescribeSegment>(&container, &SegmentName { segment }).await {
            Ok(info) => Ok(Some(info)),
            Err(problem) if problem.kind == "UnknownSegment" => Ok(None),
            Err(problem) => Err(refused(problem).into()),
        }
    }

    /// Objects are listed before the state is asked for: what was put meanwhile is no orphan, and what was named meanwhile is
    /// looked for by itself.
    async fn look_at_segment(
        &self,
        container: ContainerId,
        owner: Generation,
        brief: &SegmentInfo,
        deep: bool,
    ) -> anyhow::Result<Vec<Finding>> {
        let objects = list(&self.host.objects, &folder(&brief.index, brief.segment)).await?;
        let listed: BTreeMap<String, u64> = objects.into_iter().map(|object| (object.key, object.bytes)).collect();
        let garbage = self.garbage_of(container).await?;
        let Some(info) = self.describe_in(container, brief.segment).await? else { return Ok(Vec::new()) };
        let mut found = in_a_row(&info);
        for finding in nameless(&info, &listed, &garbage, owner) {
            // Merged and removed since it was listed, it is gone.
            let key = finding.key.as_deref().unwrap_or_default();
            if self.host.objects.head(key).await?.is_some() {
                found.push(finding);
            }
        }
        for chunk in &info.chunks {
            found.extend(
                self.look_at_chunk(container, (info.segment, chunk), listed.get(&chunk.key).copied(), deep).await?,
            );
        }
        Ok(found)
    }

    async fn garbage_of(&self, container: ContainerId) -> anyhow::Result<BTreeSet<String>> {
        let mut keys = BTreeSet::new();
        loop {
            let after = keys.last().cloned();
            let page = self.call::<ListGarbage>(&container, &GarbageOf { after, limit: PAGE }).await?;
            let more = page.more && !page.keys.is_empty();
            keys.extend(page.keys);
            if !more {
                return Ok(keys);
            }
        }
    }

    async fn look_at_chunk(
        &self,
        container: ContainerId,
        (segment, chunk): (SegmentId, &ChunkMeta),
        listed: Option<u64>,
        deep: bool,
    ) -> anyhow::Result<Option<Finding>> {
        let size = match listed {
            Some(size) => Some(size),
            None => self.host.objects.head(&chunk.key).await?,
        };
        let what = match size {
            None => Some((Kind::Missing, "it is not in object storage".to_owned())),
            Some(size) if size != chunk.bytes => {
                Some((Kind::Damaged, format!("it has {size} bytes instead of {}", chunk.bytes)))
            }
            Some(_) if deep => match self.host.objects.get(&chunk.key).await {
                Err(error) if error.is_not_found() => Some((Kind::Missing, "it is not in object storage".to_owned())),
                Err(error @ (StoreError::Key { .. } | StoreError::Sealed { .. })) => {
                    Some((Kind::Damaged, error.to_string()))
                }
                Err(error) => return Err(error.into()),
                Ok(bytes) => fault(bytes, segment, chunk).await?,
            },
            Some(_) => None,
        };
        let Some((kind, detail)) = what else { return Ok(None) };
        // A chunk that was merged since is no loss.
        let now = self.describe_in(container, segment).await?;
        let still = now.is_some_and(|now| now.chunks.iter().any(|named| named.key == chunk.key));
        Ok(still.then(|| Finding::of_chunk(kind, segment, chunk, detail)))
    }

    /// An object; one that is sealed and does not open is as good as none.
    async fn fetch(&self, objects: &Objects, key: &str) -> anyhow::Result<Option<Bytes>> {
        match objects.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(StoreError::Sealed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Folders of segments that nobody knows: of a lost installation, or of a restore that did not end.
    async fn strange_folders(&self, expected: &Expected) -> anyhow::Result<Vec<Value>> {
        let known: BTreeSet<SegmentId> = expected.values().flatten().copied().collect();
        let mut rows = Vec::new();
        for index in indexes(&self.host.objects).await? {
            for name in self.host.objects.folders(&format!("{CHUNKS}{index}/")).await? {
                let segment = name.parse::<SegmentId>().ok();
                if segment.is_none_or(|segment| !known.contains(&segment)) {
                    let detail = "no stream names it: of a deleted index, or `logboom admin restore --from-chunks` brings it back";
                    rows.push(json!({
                        "container": Value::Null, "finding": "folder", "segment": segment,
                        "key": format!("{CHUNKS}{index}/{name}/"), "detail": detail, "done": Value::Null,
                    }));
                }
            }
        }
        Ok(rows)
    }

    async fn mend(&self, container: ContainerId, found: &mut [Finding], spare: Option<&Spare>) -> anyhow::Result<()> {
        let mut orphans: BTreeMap<SegmentId, Vec<String>> = BTreeMap::new();
        for finding in found.iter_mut() {
            match (finding.kind, finding.segment, &finding.key, &finding.chunk) {
                (Kind::Orphan, Some(segment), Some(key), _) => {
                    orphans.entry(segment).or_default().push(key.clone());
                }
                (Kind::Missing | Kind::Damaged | Kind::Mismatch, Some(segment), _, Some(chunk)) => {
                    let chunk = chunk.clone();
                    match self.put_back(segment, &chunk, spare).await? {
                        Some(from) => finding.done = Some(format!("put back from {from}")),
                        None => finding.detail += "; nothing has the same chunk",
                    }
                }
                _ => {}
            }
        }
        let mut moved: BTreeSet<String> = BTreeSet::new();
        for (segment, keys) in orphans {
            for keys in keys.chunks(MOVED_MAX) {
                let request = Quarantine { segment, keys: keys.to_vec() };
                moved.extend(self.call::<QuarantineObjects>(&container, &request).await?.moved);
            }
        }
        for finding in found.iter_mut().filter(|finding| finding.kind == Kind::Orphan) {
            if let Some(key) = finding.key.as_ref().filter(|key| moved.contains(*key)) {
                finding.done = Some(format!("moved to {ASIDE}{key}"));
            }
        }
        Ok(())
    }

    /// Puts the very same chunk in its place, if there is one; what is in its place goes aside first.
    async fn put_back(
        &self,
        segment: SegmentId,
        chunk: &ChunkMeta,
        spare: Option<&Spare>,
    ) -> anyhow::Result<Option<String>> {
        let aside = format!("{ASIDE}{}", chunk.key);
        let mut right: Option<(Bytes, String)> = None;
        if let Some(bytes) = self.fetch(&self.host.objects, &aside).await?
            && fits(bytes.clone(), segment, chunk).await?
        {
            right = Some((bytes, aside.clone()));
        }
        if let (None, Some(spare)) = (&right, spare)
            && let Some(file) = spare.files.get(&(segment, chunk.from, chunk.to))
        {
            let bytes = spare.archive.file(file).await?;
            if fits(bytes.clone(), segment, chunk).await? {
                right = Some((bytes, format!("{}/{}", spare.archive.place(), file.file)));
            }
        }
        let Some((bytes, from)) = right else { return Ok(None) };
        let lying = self.host.objects.as_they_lie();
        if let Some(damaged) = self.fetch(&lying, &chunk.key).await? {
            let name = format!("{ASIDE}damaged-{:08x}/{}", crc32c::crc32c(&damaged), chunk.key);
            let put = lying.put_if_absent(&name, damaged.clone()).await?;
            if put == Put::Exists && self.fetch(&lying, &name).await?.as_ref() != Some(&damaged) {
                bail!("{name} is taken by another object: move that one first");
            }
            self.host.objects.delete(&chunk.key).await?;
        }
        self.host.objects.put_if_absent(&chunk.key, bytes).await?;
        Ok(Some(from))
    }
}

async fn spare(archive: Archive) -> anyhow::Result<Spare> {
    let (_, manifest) = archive.read().await?;
    let files = manifest.files.into_iter().map(|file| ((file.segment, file.from, file.to), file)).collect();
    Ok(Spare { archive, files })
}

/// What is wrong with the bytes of a chunk.
async fn fault(bytes: Bytes, segment: SegmentId, chunk: &ChunkMeta) -> anyhow::Result<Option<(Kind, String)>> {
    let read =
        tokio::task::spawn_blocking(move || chunk::info(&bytes)).await.context("a check of a chunk ended early")?;
    Ok(match read {
        Err(error) => Some((Kind::Damaged, error.to_string())),
        Ok(info) if (info.segment, info.first, info.last + 1) == (segment, chunk.from, chunk.to) => None,
        Ok(info) => {
            let (first, to) = (info.first, info.last + 1);
            Some((Kind::Mismatch, format!("it holds offsets {first} to {to} of segment {}", info.segment)))
        }
    })
}

/// Whether bytes are what the state says of a chunk, also in their number: readers take it for granted.
async fn fits(bytes: Bytes, segment: SegmentId, chunk: &ChunkMeta) -> anyhow::Result<bool> {
    let same = bytes.len() as u64 == chunk.bytes;
    Ok(same && fault(bytes, segment, chunk).await?.is_none())
}
