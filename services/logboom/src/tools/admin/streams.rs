//! Streams: their segments, chunks, transactions and reader groups, and what changes them.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use types::{IndexName, ScopeName, SegmentId, StreamCut};
use wire::{
    coordinator::{
        DescribeStream, GroupDescription, GroupsOf, ListGroups, ListSegments, ListTransactions, Scale, ScaleStream,
        SealStream, SegmentNode, SegmentsOf, StreamDescription, StreamName, Transaction, TransactionsOf, TruncateAt,
        TruncateStream,
    },
    segment_store::{DescribeSegment, SegmentInfo, SegmentName},
};

use super::{
    Admin,
    ranges::{Cut, Ranges},
    refused, time,
};

/// Segments in one answer of the coordinator.
const PAGE: u32 = 1_000;
/// Segments that a stream may have, ended ones included.
const SEGMENTS_MAX: usize = 250_000;
/// Segments asked for at once.
const ASKED_MAX: usize = 16;

/// A segment as the coordinator knows it, and as its container does, where it has it.
pub(super) type Found = (SegmentNode, Option<SegmentInfo>);

impl Admin {
    pub(super) async fn stream(&self, index: &IndexName) -> anyhow::Result<StreamDescription> {
        Ok(self.call::<DescribeStream>(&(), &StreamName { index: index.clone() }).await?)
    }

    pub(super) async fn nodes(&self, index: &IndexName) -> anyhow::Result<Vec<SegmentNode>> {
        let mut nodes: Vec<SegmentNode> = Vec::new();
        loop {
            let after = nodes.last().map(|node| node.segment);
            let page = self.call::<ListSegments>(&(), &SegmentsOf { index: index.clone(), after, limit: PAGE }).await?;
            let more = page.more && !page.segments.is_empty();
            nodes.extend(page.segments);
            if !more || nodes.len() > SEGMENTS_MAX {
                return Ok(nodes);
            }
        }
    }

    /// A segment that its container does not have was deleted between the two questions.
    pub(super) async fn info(&self, node: &SegmentNode) -> anyhow::Result<Option<SegmentInfo>> {
        let name = SegmentName { segment: node.segment };
        match self.host.bus.call::<DescribeSegment>(&node.container, &name).await {
            Ok(info) => Ok(Some(info)),
            Err(problem) if problem.kind == "UnknownSegment" => Ok(None),
            Err(problem) => Err(refused(problem).into()),
        }
    }

    pub(super) async fn found(&self, index: &IndexName) -> anyhow::Result<Vec<Found>> {
        let nodes = self.nodes(index).await?;
        let bar = self.bar(nodes.len(), "asking for segments");
        let found = stream::iter(nodes).map(|node| {
            let bar = &bar;
            async move {
                let info = self.info(&node).await?;
                bar.inc(1);
                Ok::<Found, anyhow::Error>((node, info))
            }
        });
        let found = found.buffered(ASKED_MAX).try_collect().await;
        bar.finish_and_clear();
        found
    }

    pub(super) async fn segments(&self, index: &IndexName) -> anyhow::Result<()> {
        let rows: Vec<Value> = self.found(index).await?.iter().map(segment_row).collect();
        let columns = [
            "segment",
            "container",
            "range",
            "epoch",
            "sealed_in",
            "predecessors",
            "start",
            "tail",
            "end",
            "chunks",
            "bytes",
        ];
        self.show(&rows, &columns);
        Ok(())
    }

    pub(super) async fn chunks(&self, index: &IndexName, only: Option<SegmentId>) -> anyhow::Result<()> {
        let found = self.found(index).await?;
        if let Some(segment) = only {
            let known = found.iter().any(|(node, _)| node.segment == segment);
            anyhow::ensure!(known, "{index} has no segment {segment}; `logboom admin segments {index}` lists them");
        }
        let wanted = found.iter().filter(|(node, _)| only.is_none_or(|segment| node.segment == segment));
        let rows: Vec<Value> = wanted.filter_map(|(_, info)| info.as_ref()).flat_map(chunk_rows).collect();
        self.show(&rows, &["segment", "from", "to", "bytes", "time_min", "time_max", "key"]);
        Ok(())
    }

    pub(super) async fn scale(&self, index: IndexName, seal: Vec<SegmentId>, how: Ranges) -> anyhow::Result<()> {
        let present = self.stream(&index).await?;
        let (seal, ranges) = how.plan(&present.segments, &seal).map_err(anyhow::Error::msg)?;
        let scaled = self.call::<ScaleStream>(&(), &Scale { index, seal, ranges }).await?;
        self.tell(&scaled, "scaled");
        Ok(())
    }

    pub(super) async fn truncate(&self, index: IndexName, cut: Cut) -> anyhow::Result<()> {
        let cut = match cut {
            Cut::At(cut) => cut,
            Cut::Tail => self.tail(&index).await?,
        };
        let truncated = self.call::<TruncateStream>(&(), &TruncateAt { index, cut }).await?;
        self.tell(&truncated, "truncated");
        Ok(())
    }

    /// Where the next events come.
    async fn tail(&self, index: &IndexName) -> anyhow::Result<StreamCut> {
        let present = self.stream(index).await?.segments;
        let ends = stream::iter(present).map(|place| async move {
            let name = SegmentName { segment: place.segment };
            let info = self.call::<DescribeSegment>(&place.container, &name).await?;
            Ok::<_, anyhow::Error>((place.segment, info.end))
        });
        Ok(StreamCut(ends.buffer_unordered(ASKED_MAX).try_collect().await?))
    }

    pub(super) async fn seal(&self, index: IndexName) -> anyhow::Result<()> {
        let sealed = self.call::<SealStream>(&(), &StreamName { index }).await?;
        self.tell(&sealed, "sealed");
        Ok(())
    }

    pub(super) async fn groups(&self, scope: Option<ScopeName>) -> anyhow::Result<()> {
        let mut groups: Vec<GroupDescription> = Vec::new();
        let mut wanted = GroupsOf { scope, ..GroupsOf::default() };
        // Each page begins behind the one before it.
        loop {
            let page = self.call::<ListGroups>(&(), &wanted).await?;
            let more = page.more && !page.groups.is_empty();
            groups.extend(page.groups);
            if !more {
                break;
            }
            wanted.after = groups.last().map(|group| group.config.group.clone());
        }
        let rows = groups.iter().map(|group| {
            let config = &group.config;
            json!({
                "group": config.group, "scope": config.scope, "generation": group.generation,
                "indexes": config.from.keys().collect::<Vec<_>>(), "checkpoint_ms": config.checkpoint_ms,
                "retention": config.retention, "created": time(group.created), "consumed": group.consumed,
            })
        });
        let rows: Vec<Value> = rows.collect();
        self.show(&rows, &["group", "scope", "generation", "indexes", "checkpoint_ms", "retention", "created"]);
        Ok(())
    }

    pub(super) async fn transactions(&self, index: IndexName) -> anyhow::Result<()> {
        let mut list: Vec<Transaction> = Vec::new();
        let mut wanted = TransactionsOf::all(index);
        loop {
            let page = self.call::<ListTransactions>(&(), &wanted).await?;
            let more = page.more && !page.transactions.is_empty();
            list.extend(page.transactions);
            if !more {
                break;
            }
            wanted.before = list.last().map(|one| one.transaction);
        }
        let rows = list.iter().map(|one| {
            json!({
                "transaction": one.transaction.to_string(), "phase": one.phase, "epoch": one.epoch,
                "shares": one.shares.len(), "begun": time(one.begun), "expires": time(one.expires),
                "reason": one.reason,
            })
        });
        let rows: Vec<Value> = rows.collect();
        self.show(&rows, &["transaction", "phase", "epoch", "shares", "begun", "expires", "reason"]);
        Ok(())
    }

    /// Rows with lists in their cells: JSON as it is, in a table with commas.
    fn show(&self, rows: &[Value], columns: &[&str]) {
        if self.screen.is_json() {
            return self.screen.rows(rows, columns);
        }
        let flat = |row: &Value| {
            let mut row = row.clone();
            for value in row.as_object_mut().into_iter().flat_map(|members| members.values_mut()) {
                if let Value::Array(items) = value {
                    let words = items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                    *value = words.collect::<Vec<_>>().join(",").into();
                }
            }
            row
        };
        self.screen.rows(&rows.iter().map(flat).collect::<Vec<_>>(), columns);
    }

    fn tell(&self, stream: &StreamDescription, done: &str) {
        if self.screen.is_json() {
            return self.screen.value(&json!(stream));
        }
        let (index, epoch, count) = (&stream.index, stream.epoch, stream.segments.len());
        self.screen.line(format_args!("index {index} {done}: epoch {epoch}, {count} present segments"));
    }
}

fn segment_row((node, info): &Found) -> Value {
    let mut row = json!({
        "segment": node.segment, "container": node.container.0,
        "range": format!("{:016x}-{:016x}", node.range.first, node.range.last),
        "epoch": node.segment.epoch, "sealed_in": node.sealed_in,
        "predecessors": node.predecessors, "successors": node.successors,
    });
    if let Some(info) = info {
        row["start"] = info.start.into();
        row["tail"] = info.tail_from.into();
        row["end"] = info.end.into();
        row["sealed"] = info.sealed.into();
        row["chunks"] = info.chunks.len().into();
        row["bytes"] = info.bytes.into();
        row["truncated_bytes"] = info.truncated_bytes.into();
    }
    row
}

fn chunk_rows(info: &SegmentInfo) -> impl Iterator<Item = Value> {
    info.chunks.iter().map(|chunk| {
        json!({
            "segment": info.segment, "from": chunk.from, "to": chunk.to, "bytes": chunk.bytes,
            "time_min": time(chunk.time_min), "time_max": time(chunk.time_max), "key": chunk.key,
        })
    })
}
