//! Many indexes, and many epochs.

use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use logboom_tests::{Streams, patiently};
use tokio::time::{Instant, sleep};
use types::KeyRange;
use wire::coordinator::{CreateStream, ListSegments, NewStream, SegmentsOf};

use super::setting::{Setting, Span};
use crate::figure::{Figure, Figures, Goal};

/// Indexes.
const INDEXES: usize = 10_000;
/// Creations in flight.
const CREATIONS: usize = 64;
/// How long nothing happens before and while the idle cost is measured.
const REST: Duration = Duration::from_secs(20);
/// Segments of the stream that scales.
const SEGMENTS: u16 = 10;
/// How often it scales.
const SCALES: usize = 1_000;
/// After how many scales the metadata is read.
const LOOK_EACH: usize = 10;

/// Ten thousand indexes that nobody uses.
pub(crate) async fn idle(figures: &mut Figures) -> Result<()> {
    let mut setting = Setting::start(1, &[]).await?;
    let begun = Instant::now();
    let bus = setting.bus.clone();
    stream::iter(0..INDEXES)
        .map(|n| {
            let bus = &bus;
            async move {
                let new = NewStream::fixed("bench".parse()?, format!("idle-{n}").parse()?, 1);
                patiently::<CreateStream>(bus, &(), &new).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(CREATIONS)
        .try_collect::<()>()
        .await?;
    let rate = INDEXES as f64 / begun.elapsed().as_secs_f64();
    figures.add("segments", &Figure::new("10000 indexes: create", rate, "indexes/s").goal(Goal::AtLeast(500.0)));
    sleep(REST).await;
    let span = Span::begin(&mut setting)?;
    sleep(REST).await;
    let (wall, cpu) = span.end(&mut setting)?;
    let share = cpu / 1e4 / wall.as_secs_f64();
    figures.add("segments", &Figure::new("10000 idle indexes: CPU of all", share, "% of core").goal(Goal::AtMost(5.0)));
    let mebibytes = setting.used()?.1 as f64 / 1024.0;
    let figure = Figure::new("10000 idle indexes: memory of all", mebibytes, "MiB");
    figures.add("segments", &figure.goal(Goal::AtMost(1_430.0)));
    Ok(())
}

/// One stream that is scaled a thousand times.
pub(crate) async fn epochs(figures: &mut Figures) -> Result<()> {
    let setting = Setting::start(1, &[]).await?;
    let scaled = Streams::create(&setting.bus, "scaled", SEGMENTS).await?;
    let mut reads = Vec::new();
    let begun = Instant::now();
    for n in 0..SCALES {
        step(&scaled, n % 2 == 0).await?;
        if n % LOOK_EACH == 0 {
            let asked = Instant::now();
            scaled.describe().await?;
            let page = SegmentsOf { index: scaled.index.clone(), after: None, limit: 100 };
            patiently::<ListSegments>(&setting.bus, &(), &page).await?;
            reads.push(asked.elapsed() / 2);
        }
    }
    let each = begun.elapsed().as_secs_f64() * 1e3 / SCALES as f64;
    figures.add("segments", &Figure::new("10 segments, 1000 scales: each", each, "ms"));
    figures.add_durations("segments", "metadata read among them", &reads, Some(Goal::AtMost(10.0)))
}

/// Splits the widest segment, or merges the two neighbours that are narrowest together.
async fn step(scaled: &Streams, split: bool) -> Result<()> {
    let mut segments = scaled.describe().await?.segments;
    segments.sort_by_key(|segment| segment.range.first);
    if split {
        let widest = segments.iter().max_by_key(|segment| segment.range.last - segment.range.first);
        let Some((segment, range)) = widest.map(|widest| (widest.segment, widest.range)) else { return Ok(()) };
        let middle = range.first + (range.last - range.first) / 2;
        let halves = [KeyRange { last: middle, ..range }, KeyRange { first: middle + 1, ..range }];
        scaled.scale(vec![segment], halves.to_vec()).await?;
    } else {
        let pair = segments.windows(2).min_by_key(|pair| pair[1].range.last - pair[0].range.first);
        let Some([low, high]) = pair else { return Ok(()) };
        let whole = KeyRange { first: low.range.first, last: high.range.last };
        scaled.scale(vec![low.segment, high.segment], vec![whole]).await?;
    }
    Ok(())
}
