//! The widest stream: all its segments replaced ten times.

use std::{env, time::Duration};

use anyhow::{Result, ensure};
use client::WriterOptions;
use logboom_tests::Streams;
use tokio::time::Instant;
use types::{KeyRange, SegmentId, StreamCut};
use wire::{
    coordinator::{Scale, ScaleStream, StreamDescription, TruncateAt, TruncateStream},
    encode,
};

use super::setting::{Setting, Span, keys};
use crate::figure::{Figure, Figures};

/// Segments, unless `LB_WIDE_SEGMENTS` says how many; Pravega's test has 10 000, which takes minutes.
const SEGMENTS: u32 = 1_000;
/// How often all of them are replaced.
const SCALES: u32 = 10;
/// Segments with which a stream can begin.
const FIRST: u16 = 64;
/// What one answer may take: a scale of everything seals and creates every segment.
const WITHIN: Duration = Duration::from_secs(900);
/// Events after all that.
const EVENTS: u64 = 640;

/// Scales of the widest stream, what its description takes, and how long the truncation of everything before takes.
pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let count = env::var("LB_WIDE_SEGMENTS").map_or(Ok(SEGMENTS), |text| text.parse())?;
    let mut setting = Setting::start(2, &[]).await?;
    let wide = Streams::create(&setting.bus, "wide", FIRST).await?;
    let begun = Instant::now();
    all(&setting, &wide, count).await?;
    let what = format!("{count} segments");
    let grown = begun.elapsed().as_secs_f64();
    figures.add("wide", &Figure::new(format!("{what}: from {FIRST}"), grown, "s"));

    let span = Span::begin(&mut setting)?;
    let mut last = wide.describe().await?;
    for _ in 0..SCALES {
        last = all(&setting, &wide, count).await?;
    }
    let (wall, cpu) = span.end(&mut setting)?;
    let each = wall.as_secs_f64() / f64::from(SCALES);
    figures.add("wide", &Figure::new(format!("{what}, {SCALES} scales of all: each"), each, "s"));
    let per_segment = cpu / f64::from(SCALES) / f64::from(count);
    figures.add("wide", &Figure::new(format!("{what}: CPU of all for a segment replaced"), per_segment, "µs"));
    let kibibytes = encode(&last).len() as f64 / 1024.0;
    figures.add("wide", &Figure::new(format!("{what}: description and view"), kibibytes, "KiB"));

    let asked = Instant::now();
    let nodes = wide.nodes().await?;
    figures.add("wide", &Figure::new(format!("{}: list all", nodes.len()), asked.elapsed().as_secs_f64(), "s"));
    let expected = usize::from(FIRST) + usize::try_from(count * (1 + SCALES))?;
    ensure!(nodes.len() == expected, "{} segments are listed, {expected} were made", nodes.len());
    ensure!(wide.check_epochs().await? == 2 + SCALES, "an epoch is missing");

    let written = Instant::now();
    write(&setting, &wide).await?;
    let name = format!("{what}: open a writer, {EVENTS} events");
    figures.add("wide", &Figure::new(name, written.elapsed().as_secs_f64(), "s"));

    let cut = last.segments.iter().map(|there| (there.segment, 0)).collect::<Vec<(SegmentId, u64)>>();
    let truncate = TruncateAt { index: wide.index.clone(), cut: StreamCut(cut.into_iter().collect()) };
    let begun = Instant::now();
    setting.bus.call_within::<TruncateStream>(&(), &truncate, WITHIN).await?;
    let name = format!("{} segments: truncate away", expected - last.segments.len());
    figures.add("wide", &Figure::new(name, begun.elapsed().as_secs_f64(), "s"));
    ensure!(wide.nodes().await?.len() == last.segments.len(), "what was truncated is still listed");
    let bytes = encode(&wide.describe().await?).len() as f64 / 1024.0;
    figures.add("wide", &Figure::new(format!("{what}: description with a head"), bytes, "KiB"));
    Ok(())
}

/// Replaces all segments by so many of the same width.
async fn all(setting: &Setting, wide: &Streams, count: u32) -> Result<StreamDescription> {
    let seal = wide.describe().await?.segments.iter().map(|there| there.segment).collect();
    let scale = Scale { index: wide.index.clone(), seal, ranges: KeyRange::split_evenly(count) };
    let scaled = setting.bus.call_within::<ScaleStream>(&(), &scale, WITHIN).await?;
    let ranges: Vec<KeyRange> = scaled.segments.iter().map(|there| there.range).collect();
    ensure!(scaled.segments.len() == usize::try_from(count)? && KeyRange::cover_once(&ranges), "a key has no segment");
    Ok(scaled)
}

/// Events of some keys find their segments, and nothing is lost.
async fn write(setting: &Setting, wide: &Streams) -> Result<()> {
    let options = WriterOptions::new("wide".parse()?);
    let writer = setting.client.event_writer(wide.index.clone(), options).await?;
    let keys = keys();
    let events =
        (0..EVENTS).map(|n| (keys.get(usize::try_from(n).unwrap_or(0) % keys.len()), format!("{{\"n\":{n}}}")));
    writer.write_batch(events).await?.await?;
    let ends: u64 = setting.client.tails(&wide.index).await?.0.values().sum();
    ensure!(ends == EVENTS, "{ends} of {EVENTS} events are stored");
    Ok(())
}
