//! `logboom admin restore`: an index from an export, or from nothing but its chunks.

use std::{collections::BTreeMap, str::FromStr};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use store::{Objects, SEALED};
use types::{IndexName, KeyRange, ScopeName, SegmentId, Timestamp};
use wire::coordinator::ScalingPolicy;

use super::{
    Admin,
    archive::{Archive, Manifest, Plan},
    comeback::{Comeback, Piece, Returning, Source, What},
    rebuild::{Outcome, Part, Rebuilt, rebuild},
    recast::LOST_ROWS_MAX,
    scan::{Scan, indexes},
};

/// Events that may be lost: each takes a row that says so.
const LOST_MAX: u64 = 10_000_000;
/// Gaps and damaged chunks that are named.
const NAMED_MAX: usize = 20;

const EXAMPLES: &str = "Examples:
  logboom admin restore --from /backup/shop-2026-01-02
  logboom admin restore --from s3://backup/shop --as shop-of-january
  logboom admin restore shop --from-chunks --dry-run        JetStream and local state are lost, the chunks are there
  logboom admin restore --from-chunks --all
  logboom admin restore shop --from-chunks --from s3://old-installation/logs

Offsets stay the same, so that stream cuts and positions stay valid. Restoring twice changes nothing. With --as the index gets
another name, and another stream number if the old one is taken: then positions of the old one do not fit it.";

/// Make an index from an export, or from its chunks alone
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestoreArgs {
    /// Index, as it is called in the export or in the chunks' folder
    index: Option<IndexName>,
    /// Where the export is: a folder, or s3://bucket/prefix. With --from-chunks: another installation's object storage
    #[arg(long, value_name = "PLACE", required_unless_present = "from_chunks")]
    from: Option<String>,
    /// Use nothing but chunks: those of this installation unless --from names another one
    #[arg(long)]
    from_chunks: bool,
    /// Every index that has chunks and is not there
    #[arg(long, requires = "from_chunks", conflicts_with_all = ["index", "new_name"])]
    all: bool,
    /// Name of the restored index
    #[arg(long = "as", value_name = "NAME")]
    new_name: Option<IndexName>,
    /// Scope of the restored index; without it that of the export, or that which the chunks name
    #[arg(long)]
    scope: Option<ScopeName>,
    /// The stream, where an index has chunks of several
    #[arg(long, value_name = "NUMBER", requires = "from_chunks")]
    stream: Option<u32>,
    /// Keys of a segment whose chunks do not say them
    #[arg(long, value_name = "SEGMENT=FIRST-LAST", value_delimiter = ',', requires = "from_chunks")]
    range: Vec<Told>,
    /// Go on where chunks are missing: each lost event is replaced by one that says so
    #[arg(long, requires = "from_chunks")]
    allow_gaps: bool,
    /// Only tell what would come back
    #[arg(long)]
    dry_run: bool,
}

/// The keys of a segment as they are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told(SegmentId, KeyRange);

impl FromStr for Told {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write SEGMENT=FIRST-LAST with two hashes in hexadecimal, as `logboom admin segments` shows them";
        let (segment, range) = text.split_once('=').ok_or(form)?;
        let segment = segment.parse().map_err(|error: types::Invalid| error.to_string())?;
        let hash = |text: &str| u64::from_str_radix(text, 16).ok();
        let ends = range.split_once('-').and_then(|(first, last)| hash(first).zip(hash(last)));
        let (first, last) = ends.filter(|(first, last)| first <= last).ok_or(form)?;
        Ok(Self(segment, KeyRange { first, last }))
    }
}

impl Admin {
    pub(super) async fn restore(&self, args: RestoreArgs) -> anyhow::Result<()> {
        let told =
            if args.from_chunks { self.restore_from_chunks(&args).await? } else { self.restore_export(&args).await? };
        if self.screen.is_json() {
            self.screen.value(&told);
        }
        Ok(())
    }

    async fn restore_export(&self, args: &RestoreArgs) -> anyhow::Result<Value> {
        let archive = Archive::open(args.from.as_deref().context("--from names the export")?, &self.host.tls)?;
        let (plan, manifest) = archive.read().await?;
        let there = &plan.stream.index;
        if let Some(index) = &args.index {
            ensure!(
                index == there,
                "{} holds an export of index {there}; --as {index} restores it under that name",
                archive.place()
            );
        }
        let back = of_export(&plan, &manifest, args);
        if args.dry_run {
            return Ok(self.tell_plan(&back, &[]));
        }
        let done = self.bring_back(&back, &Source::Export(&archive), args.new_name.is_some()).await?;
        Ok(self.tell_restore(&back, &done, &[]))
    }

    async fn restore_from_chunks(&self, args: &RestoreArgs) -> anyhow::Result<Value> {
        let own = args.from.is_none();
        let objects = match &args.from {
            Some(place) => Archive::open(place, &self.host.tls)?.objects,
            None => self.host.objects.clone(),
        };
        let Some(index) = &args.index else {
            let there = indexes(&objects).await?;
            if args.all {
                return self.restore_all(args, &there, &objects, own).await;
            }
            let names: Vec<&str> = there.iter().map(IndexName::as_str).collect();
            bail!("name an index, or --all; {} has chunks of {}", objects.location(), names.join(", "));
        };
        self.restore_chunks(args, index, &objects, own).await
    }

    /// One after the other; what one index lacks does not keep the others.
    async fn restore_all(
        &self,
        args: &RestoreArgs,
        there: &[IndexName],
        objects: &Objects,
        own: bool,
    ) -> anyhow::Result<Value> {
        let (mut told, mut failed): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
        for index in there {
            if let Some(there) = self.existing(index).await? {
                told.push(self.tell_before(&there));
                continue;
            }
            match self.restore_chunks(args, index, objects, own).await {
                Ok(one) => told.push(one),
                Err(error) => failed.push(format!("{index}: {error:#}")),
            }
        }
        ensure!(failed.is_empty(), "not restored:\n  {}", failed.join("\n  "));
        Ok(Value::Array(told))
    }

    async fn restore_chunks(
        &self,
        args: &RestoreArgs,
        index: &IndexName,
        objects: &Objects,
        own: bool,
    ) -> anyhow::Result<Value> {
        let name = args.new_name.as_ref().unwrap_or(index);
        if !args.dry_run
            && let Some(there) = self.came_back(name).await?
        {
            return Ok(self.tell_before(&there));
        }
        let (stream, outcome, damaged, foreign) = self.put_together(args, index, objects).await?;
        refuse_gaps(index, &outcome, &damaged, args.allow_gaps || args.dry_run)?;
        let scope = scope(args.scope.as_ref(), &outcome, index)?;
        let notes = notes(&outcome, &damaged, &foreign);
        let back = of_chunks(stream, scope, name.clone(), outcome);
        if args.dry_run {
            return Ok(self.tell_plan(&back, &notes));
        }
        let source = Source::Chunks { objects, own };
        let done = self.bring_back(&back, &source, args.new_name.is_some()).await?;
        Ok(self.tell_restore(&back, &done, &notes))
    }

    /// Number and segments of the stream that the chunks of an index make; what is damaged, and what is no chunk.
    async fn put_together(&self, args: &RestoreArgs, index: &IndexName, objects: &Objects) -> anyhow::Result<Together> {
        let Scan { mut streams, damaged, foreign } = self.scan(objects, index).await?;
        let stream = match (args.stream, streams.len()) {
            (Some(stream), _) => stream,
            (None, 1) => streams.keys().next().copied().unwrap_or_default(),
            (None, 0) => bail!("{} has no whole chunk of index {index}{}", objects.location(), list_damaged(&damaged)),
            _ => {
                let each = streams.iter().map(|(stream, found)| format!("{stream} ({} chunks)", found.len()));
                let each = each.collect::<Vec<_>>().join(", ");
                bail!("index {index} has chunks of the streams {each}: choose one with --stream");
            }
        };
        let found =
            streams.remove(&stream).with_context(|| format!("index {index} has no chunks of stream {stream}"))?;
        let told: BTreeMap<_, _> = args.range.iter().map(|told| (told.0, told.1)).collect();
        Ok((stream, rebuild(found, &told).map_err(anyhow::Error::msg)?, damaged, foreign))
    }

    fn tell_plan(&self, back: &Comeback, notes: &[String]) -> Value {
        let rows: Vec<Value> = back.segments.iter().map(plan_row).collect();
        let Comeback { index, scope, stream, .. } = back;
        let (events, lost) = (back.events(), back.lost());
        if !self.screen.is_json() {
            notes.iter().for_each(|note| self.screen.line(note));
            self.screen.rows(&rows, &["segment", "range", "sealed", "from", "to", "chunks", "lost"]);
            self.screen.line(format_args!(
                "index {index} would come back as stream {stream}, scope {scope}: {events} events, {lost} of them lost"
            ));
        }
        json!({
            "index": index, "scope": scope, "stream": stream, "events": events, "lost": lost, "segments": rows,
            "state": "not restored", "notes": notes,
        })
    }
}

/// Number and segments of a stream, damaged chunks and why, objects that are no chunks.
type Together = (u32, Outcome, Vec<(String, String)>, Vec<String>);

fn plan_row(segment: &Returning) -> Value {
    let lost = segment.pieces.iter().filter(|piece| matches!(piece.what, What::Lost(_)));
    json!({
        "segment": segment.segment, "range": format!("{:016x}-{:016x}", segment.range.first, segment.range.last),
        "sealed": segment.sealed, "from": segment.start,
        "to": segment.pieces.last().map_or(segment.start, |piece| piece.to), "chunks": segment.pieces.len(),
        "lost": lost.map(|piece| piece.to - piece.from).sum::<u64>(),
    })
}

fn of_export(plan: &Plan, manifest: &Manifest, args: &RestoreArgs) -> Comeback {
    let there = &plan.stream;
    let segments = plan.segments.iter().map(|planned| {
        let files = manifest.files.iter().filter(|file| file.segment == planned.segment);
        let pieces = files.map(|file| Piece { from: file.from, to: file.to, what: What::File(file.clone()) });
        Returning {
            segment: planned.segment,
            range: planned.range,
            start: planned.start,
            sealed: planned.sealed,
            bytes: planned.bytes,
            pieces: pieces.collect(),
        }
    });
    Comeback {
        stream: there.stream,
        scope: args.scope.clone().unwrap_or_else(|| there.scope.clone()),
        index: args.new_name.clone().unwrap_or_else(|| there.index.clone()),
        created: there.created,
        opened: plan.opened.clone(),
        sealed: there.sealed,
        retention_days: there.retention_days,
        scaling: there.scaling,
        retention: there.retention,
        tags: there.tags.clone(),
        encrypted: there.encrypted,
        segments: segments.collect(),
    }
}

fn of_chunks(stream: u32, scope: ScopeName, index: IndexName, outcome: Outcome) -> Comeback {
    let chunks = outcome.segments.iter().flat_map(|segment| &segment.parts).filter_map(|part| part.chunk.as_ref());
    // The storage writer seals all or none of an index.
    let encrypted = chunks.clone().any(|chunk| chunk.key.ends_with(SEALED));
    let created = chunks.map(|chunk| chunk.time_min).min().unwrap_or_default();
    let segments = outcome.segments.into_iter().map(|rebuilt| {
        let Rebuilt { segment, range, start, sealed, parts } = rebuilt;
        // What the events took before they were columns is not known; the objects tell how much there is.
        let bytes = parts.iter().filter_map(|part| part.chunk.as_ref()).map(|chunk| chunk.bytes).sum();
        Returning { segment, range, start, sealed, bytes, pieces: pieces(parts) }
    });
    Comeback {
        stream,
        scope,
        index,
        created,
        opened: BTreeMap::new(),
        sealed: false,
        retention_days: None,
        scaling: ScalingPolicy::default(),
        retention: None,
        tags: Vec::new(),
        encrypted,
        segments: segments.collect(),
    }
}

/// Parts as pieces; lost events stand at the time of what came before them, or else of what follows.
fn pieces(parts: Vec<Part>) -> Vec<Piece> {
    let first = parts.iter().find_map(|part| part.chunk.as_ref()).map(|chunk| chunk.time_min);
    let mut at: Timestamp = first.unwrap_or_default();
    let mut pieces = Vec::new();
    for Part { chunk, from, to } in parts {
        match chunk {
            Some(chunk) => {
                at = chunk.time_max;
                pieces.push(Piece { from, to, what: What::Chunk(chunk) });
            }
            None => {
                let mut next = from;
                while next < to {
                    let end = to.min(next + LOST_ROWS_MAX);
                    pieces.push(Piece { from: next, to: end, what: What::Lost(at) });
                    next = end;
                }
            }
        }
    }
    pieces
}

fn refuse_gaps(
    index: &IndexName,
    outcome: &Outcome,
    damaged: &[(String, String)],
    allowed: bool,
) -> anyhow::Result<()> {
    let gaps: Vec<String> = outcome
        .segments
        .iter()
        .flat_map(|rebuilt| {
            let name = rebuilt.segment;
            rebuilt.gaps().map(move |gap| {
                format!("segment {name}: offsets {} to {} ({} events)", gap.from, gap.to, gap.to - gap.from)
            })
        })
        .collect();
    let lost: u64 = outcome.segments.iter().flat_map(Rebuilt::gaps).map(|gap| gap.to - gap.from).sum();
    ensure!(
        lost <= LOST_MAX,
        "{lost} events of index {index} are in no chunk, which is more than {LOST_MAX}{}",
        list(&gaps)
    );
    if gaps.is_empty() || allowed {
        return Ok(());
    }
    bail!(
        "{lost} events of index {index} are in no chunk; --allow-gaps puts one that says so in the place of each{}{}",
        list(&gaps),
        list_damaged(damaged)
    )
}

fn scope(asked: Option<&ScopeName>, outcome: &Outcome, index: &IndexName) -> anyhow::Result<ScopeName> {
    if let Some(scope) = asked {
        return Ok(scope.clone());
    }
    let mut named = outcome.scopes.iter();
    match (named.next(), named.next()) {
        (Some(scope), None) => Ok(scope.clone()),
        (None, _) => {
            bail!("the chunks of {index} do not name its scope, as those of older releases: say it with --scope")
        }
        _ => bail!("the chunks of {index} name several scopes: say the right one with --scope"),
    }
}

fn notes(outcome: &Outcome, damaged: &[(String, String)], foreign: &[String]) -> Vec<String> {
    let mut notes: Vec<String> = damaged.iter().map(|(key, why)| format!("damaged chunk {key}: {why}")).collect();
    notes.extend(foreign.iter().map(|key| format!("no chunk, left alone: {key}")));
    for rebuilt in &outcome.segments {
        let segment = rebuilt.segment;
        if rebuilt.start > 0 {
            notes.push(format!(
                "segment {segment} begins at offset {}: what was before is truncated, or lost",
                rebuilt.start
            ));
        }
        notes.extend(
            rebuilt.gaps().map(|gap| format!("segment {segment}: offsets {} to {} are lost", gap.from, gap.to)),
        );
    }
    notes.extend(outcome.invented.iter().map(|segment| format!("segment {segment} has no chunk and comes back empty")));
    notes
}

fn list(lines: &[String]) -> String {
    let more = lines.len().saturating_sub(NAMED_MAX);
    let mut text: String = lines.iter().take(NAMED_MAX).map(|line| format!("\n  {line}")).collect();
    if more > 0 {
        text += &format!("\n  and {more} more");
    }
    text
}

fn list_damaged(damaged: &[(String, String)]) -> String {
    list(&damaged.iter().map(|(key, why)| format!("damaged chunk {key}: {why}")).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_shown() {
        let told: Told = "4-1-2=8000000000000000-ffffffffffffffff".parse().unwrap();
        assert_eq!(told, Told(SegmentId { stream: 4, epoch: 1, number: 2 }, KeyRange::split_evenly(2)[1]));
        for wrong in ["", "4-1-2", "4-1-2=5", "4-1-2=9-5", "x=0-1", "4-1-2=0-g"] {
            assert!(wrong.parse::<Told>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_long_gap_is_several_chunks_and_stands_at_the_time_before_it() {
        let parts = vec![Part { chunk: None, from: 3, to: 3 + LOST_ROWS_MAX + 5 }];
        let made = pieces(parts);
        let ends: Vec<_> = made.iter().map(|piece| (piece.from, piece.to)).collect();
        assert_eq!(ends, [(3, 3 + LOST_ROWS_MAX), (3 + LOST_ROWS_MAX, 3 + LOST_ROWS_MAX + 5)]);
        assert!(matches!(made[0].what, What::Lost(at) if at == Timestamp::default()));
    }

    #[test]
    fn long_lists_are_cut() {
        let lines: Vec<String> = (0..25).map(|n| n.to_string()).collect();
        assert!(list(&lines).ends_with("and 5 more"));
        assert_eq!(list(&lines[..1]), "\n  0");
    }
}
