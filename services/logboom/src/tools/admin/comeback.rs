//! Brings a stream back: chunks to their places, segments to their containers, and then the stream to the coordinator.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use bytes::Bytes;
use chunk::Origin;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use store::{Objects, Put, SEALED};
use types::{ContainerId, IndexName, KeyRange, Offset, ScopeName, SegmentId, Tag, Timestamp};
use wire::{
    Empty, Problem,
    coordinator::{
        DescribePlacement, DescribeStream, Reservation, ReserveStream, RestoreStream, RestoredSegment, RetentionPolicy,
        ScalingPolicy, StreamDescription, StreamName, StreamRestore,
    },
    segment_store::{AdoptSegment, Adoption, ChunkMeta, SegmentOrigin},
};

use super::{
    Admin, CALL_WITHIN,
    archive::{Archive, Copied},
    rebuild::Found,
    recast::{Recast, lost, recast},
    refused,
    scan::folder,
};

/// Segments that come back at the same time: each holds a chunk in memory, twice.
const SEGMENTS_AT_ONCE: usize = 4;

/// Where events come from.
pub(super) enum Source<'a> {
    /// An export.
    Export(&'a Archive),
    /// Chunks of an installation; `own` if it is the one to which they come back.
    Chunks { objects: &'a Objects, own: bool },
}

/// A stream to bring back.
pub(super) struct Comeback {
    pub(super) stream: u32,
    pub(super) scope: ScopeName,
    pub(super) index: IndexName,
    pub(super) created: Timestamp,
    pub(super) opened: BTreeMap<u32, Timestamp>,
    pub(super) sealed: bool,
    pub(super) retention_days: Option<u32>,
    pub(super) scaling: ScalingPolicy,
    pub(super) retention: Option<RetentionPolicy>,
    pub(super) tags: Vec<Tag>,
    /// Whether its chunks are sealed with a key of its own.
    pub(super) encrypted: bool,
    pub(super) segments: Vec<Returning>,
}

/// A segment to bring back.
pub(super) struct Returning {
    pub(super) segment: SegmentId,
    pub(super) range: KeyRange,
    pub(super) start: Offset,
    pub(super) sealed: bool,
    pub(super) bytes: u64,
    pub(super) pieces: Vec<Piece>,
}

/// Some of its events.
pub(super) struct Piece {
    pub(super) from: Offset,
    pub(super) to: Offset,
    pub(super) what: What,
}

/// What holds them.
pub(super) enum What {
    File(Copied),
    Chunk(Found),
    /// Nothing: they are lost, at about this time.
    Lost(Timestamp),
}

impl Comeback {
    pub(super) fn events(&self) -> u64 {
        self.segments.iter().flat_map(|segment| &segment.pieces).map(|piece| piece.to - piece.from).sum()
    }

    pub(super) fn chunks(&self) -> usize {
        self.segments.iter().map(|segment| segment.pieces.len()).sum()
    }

    pub(super) fn lost(&self) -> u64 {
        let pieces = self.segments.iter().flat_map(|segment| &segment.pieces);
        pieces.filter(|piece| matches!(piece.what, What::Lost(_))).map(|piece| piece.to - piece.from).sum()
    }

    /// The coordinator's part of it, under a number.
    fn restore(&self, stream: u32, container_count: u16) -> StreamRestore {
        let segments = self.segments.iter().map(|returning| {
            let segment = SegmentId { stream, ..returning.segment };
            let (range, start) = (returning.range, returning.start);
            RestoredSegment { segment, container: segment.container(container_count), range, start }
        });
        StreamRestore {
            stream,
            scope: self.scope.clone(),
            index: self.index.clone(),
            created: self.created,
            segments: segments.collect(),
            opened: self.opened.clone(),
            sealed: self.sealed,
            retention_days: self.retention_days,
            scaling: self.scaling,
            retention: self.retention,
            tags: self.tags.clone(),
            encrypted: self.encrypted,
        }
    }
}

/// What became of it.
pub(super) struct Done {
    pub(super) stream: StreamDescription,
    /// It had come back before; nothing was changed.
    pub(super) before: bool,
}

impl Admin {
    /// Brings a stream back; one that has come back before is left alone.
    ///
    /// `renumber` allows another stream number where the old one is taken.
    pub(super) async fn bring_back(
        &self,
        back: &Comeback,
        source: &Source<'_>,
        renumber: bool,
    ) -> anyhow::Result<Done> {
        let count = self.call::<DescribePlacement>(&(), &Empty {}).await?.container_count;
        if let Some(there) = self.existing(&back.index).await? {
            let number = if renumber { there.stream } else { back.stream };
            let stream = self.call::<RestoreStream>(&(), &back.restore(number, count)).await?;
            return Ok(Done { stream, before: true });
        }
        let number = self.number(back.stream, back.encrypted, renumber).await?;
        let bar = self.bar(usize::try_from(back.events()).unwrap_or(usize::MAX), "restoring events");
        let adoptions = back.segments.iter().map(|returning| {
            let bar = &bar;
            async move { self.adopt(back, returning, (number, count), source, bar).await }
        });
        stream::iter(adoptions).buffer_unordered(SEGMENTS_AT_ONCE).try_collect::<()>().await?;
        bar.finish_and_clear();
        let stream = self.call::<RestoreStream>(&(), &back.restore(number, count)).await?;
        Ok(Done { stream, before: false })
    }

    /// The index if it has come back before; refuses one that is there otherwise.
    pub(super) async fn came_back(&self, index: &IndexName) -> anyhow::Result<Option<StreamDescription>> {
        let Some(there) = self.existing(index).await? else { return Ok(None) };
        // Of one that is there nothing but the name, the scope and the number is compared.
        let same = StreamRestore {
            stream: there.stream,
            scope: there.scope,
            index: there.index,
            created: there.created,
            segments: Vec::new(),
            opened: BTreeMap::new(),
            sealed: there.sealed,
            retention_days: None,
            scaling: ScalingPolicy::default(),
            retention: None,
            tags: Vec::new(),
            encrypted: there.encrypted,
        };
        Ok(Some(self.call::<RestoreStream>(&(), &same).await?))
    }

    /// The index as it is there now.
    pub(super) async fn existing(&self, index: &IndexName) -> anyhow::Result<Option<StreamDescription>> {
        match self.host.bus.call_within::<DescribeStream>(&(), &StreamName { index: index.clone() }, CALL_WITHIN).await
        {
            Ok(stream) => Ok(Some(stream)),
            Err(problem) if problem.kind == "UnknownIndex" => Ok(None),
            Err(problem) => Err(refused(problem).into()),
        }
    }

    async fn number(&self, wanted: u32, encrypted: bool, renumber: bool) -> anyhow::Result<u32> {
        let reserve = |stream| async move {
            self.host.bus.call_within::<ReserveStream>(&(), &Reservation { stream, encrypted }, CALL_WITHIN).await
        };
        let given = match reserve(Some(wanted)).await {
            Err(problem) if renumber && problem.kind == "StreamNumberTaken" => reserve(None).await,
            given => given,
        };
        let given: Result<Reservation, Problem> = given;
        given.map_err(refused)?.stream.context("the coordinator gave no stream number")
    }

    async fn adopt(
        &self,
        back: &Comeback,
        returning: &Returning,
        (stream, count): (u32, u16),
        source: &Source<'_>,
        bar: &indicatif::ProgressBar,
    ) -> anyhow::Result<()> {
        let segment = SegmentId { stream, ..returning.segment };
        let origin = Origin { index: back.index.clone(), scope: back.scope.clone(), range: returning.range };
        let place = Place { objects: &self.host.objects, segment, origin: &origin, encrypted: back.encrypted };
        let mut chunks = Vec::with_capacity(returning.pieces.len());
        for piece in &returning.pieces {
            chunks.push(place.settle(source, piece).await?);
            bar.inc(piece.to - piece.from);
        }
        let container: ContainerId = segment.container(count);
        let adoption = Adoption {
            segment,
            index: back.index.clone(),
            origin: Some(SegmentOrigin {
                scope: back.scope.clone(),
                range: returning.range,
                encrypted: back.encrypted,
            }),
            start: returning.start,
            sealed: returning.sealed,
            bytes: returning.bytes,
            chunks,
        };
        self.call::<AdoptSegment>(&container, &adoption).await?;
        Ok(())
    }

    /// What became of it, as JSON; said at once where that is not wanted.
    pub(super) fn tell_restore(&self, back: &Comeback, done: &Done, notes: &[String]) -> Value {
        let Done { stream, before } = done;
        let (chunks, events, lost) = (back.chunks(), back.events(), back.lost());
        if *before {
            return self.tell_before(stream);
        }
        if !self.screen.is_json() {
            notes.iter().for_each(|note| self.screen.line(note));
            let StreamDescription { index, scope, stream: number, .. } = stream;
            let segments = back.segments.len();
            self.screen.line(format_args!(
                "index {index} restored as stream {number}, scope {scope}: {events} events in {chunks} chunks of {segments} segments, \
                 {lost} of them lost"
            ));
        }
        json!({
            "index": stream.index, "scope": stream.scope, "stream": stream.stream, "epoch": stream.epoch,
            "segments": back.segments.len(), "chunks": chunks, "events": events, "lost": lost, "state": "restored",
            "notes": notes,
        })
    }

    /// The same where nothing was to be done.
    pub(super) fn tell_before(&self, stream: &StreamDescription) -> Value {
        let StreamDescription { index, scope, stream: number, epoch, .. } = stream;
        if !self.screen.is_json() {
            self.screen.line(format_args!("index {index} is there as stream {number}: nothing was changed"));
        }
        json!({ "index": index, "scope": scope, "stream": number, "epoch": epoch, "state": "was there" })
    }
}

/// Where the chunks of a segment are to be.
struct Place<'a> {
    objects: &'a Objects,
    segment: SegmentId,
    origin: &'a Origin,
    encrypted: bool,
}

impl Place<'_> {
    /// Puts events where the segment has its chunks, unless they are there.
    async fn settle(&self, source: &Source<'_>, piece: &Piece) -> anyhow::Result<ChunkMeta> {
        let place = (piece.from, piece.to);
        let (segment, origin) = (self.segment, self.origin.clone());
        let made = match (&piece.what, source) {
            (What::Lost(at), _) => {
                let at = *at;
                tokio::task::spawn_blocking(move || lost(segment, Some(&origin), place, at)).await??
            }
            (What::File(file), Source::Export(archive)) => {
                self.cast(archive.file(file).await?, file.file.clone(), (file.from, file.to), place).await?
            }
            (What::Chunk(found), Source::Chunks { own: true, .. }) if self.has(found, place) => {
                let Found { key, from, to, bytes, time_min, time_max, .. } = found.clone();
                return Ok(ChunkMeta { key, from, to, bytes, time_min, time_max });
            }
            (What::Chunk(found), Source::Chunks { objects, .. }) => {
                let bytes = objects.get(&found.key).await?;
                self.cast(bytes, found.key.clone(), (found.from, found.to), place).await?
            }
            _ => anyhow::bail!("events {} to {} of segment {segment} come from nowhere", piece.from, piece.to),
        };
        self.put(place, made).await
    }

    /// Whether a chunk is where it would be put.
    fn has(&self, found: &Found, place: (Offset, Offset)) -> bool {
        let whole = (found.from, found.to) == place && found.segment == self.segment;
        let as_wanted = found.key.ends_with(SEALED) == self.encrypted;
        whole && as_wanted && found.key.starts_with(&folder(&self.origin.index, self.segment))
    }

    async fn cast(
        &self,
        bytes: Bytes,
        name: String,
        held: (Offset, Offset),
        place: (Offset, Offset),
    ) -> anyhow::Result<Recast> {
        let (segment, origin) = (self.segment, self.origin.clone());
        let cast = tokio::task::spawn_blocking(move || {
            let info = chunk::info(&bytes).with_context(|| format!("{name} is damaged"))?;
            let (first, to) = (info.first, info.last + 1);
            // Another stream number is another segment; anything else is a mistake.
            let of = SegmentId { stream: segment.stream, ..info.segment };
            ensure!(
                of == segment && (first, to) == held,
                "{name} holds offsets {first} to {to} of segment {} instead of {} to {} of {segment}",
                info.segment,
                held.0,
                held.1
            );
            recast(bytes, &info, segment, Some(&origin), place)
        });
        cast.await?
    }

    /// The key says what is in it, so that a repeat finds it.
    async fn put(&self, (from, to): (Offset, Offset), made: Recast) -> anyhow::Result<ChunkMeta> {
        let Recast { bytes, time_min, time_max } = made;
        let length = bytes.len() as u64;
        let folder = folder(&self.origin.index, self.segment);
        let sealed = if self.encrypted { SEALED } else { "" };
        let key = format!("{folder}{from:020}-R-{:08x}.parquet{sealed}", crc32c::crc32c(&bytes));
        if self.objects.put_if_absent(&key, bytes.clone()).await? == Put::Exists {
            let there = self.objects.get(&key).await?;
            ensure!(there == bytes, "{key} is there and is damaged: delete it and run this again");
        }
        Ok(ChunkMeta { key, from, to, bytes: length, time_min, time_max })
    }
}
