//! Events published to an index as its users do, half out of order and some late, and the same events as the index keeps them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use types::SegmentId;

use crate::{
    Api, Publisher, event,
    event_files::{Kind, Lines, Mix},
    eventually,
    recompute::{Input, Judge, Row},
};

/// Rows in a second of event time, of so many keys.
const RATE: u64 = 50;
const KEYS: u64 = 12;
/// Event time lies this far back, so that what is not meant to be from the future is not.
const BACK: SignedDuration = SignedDuration::from_hours(3);
/// Routing keys of the markers that end a wave: enough for every segment to have one.
const MARKERS: usize = 40;
/// Publishes that wait for their acknowledgement at once.
const WINDOW: usize = 64;
/// How far ahead of its receipt a row moves the watermark, by default.
const MAX_FUTURE_SKEW_MS: i64 = 300_000;
/// How long the index may take to show what was acknowledged.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);
/// The value of rows that only move the watermark.
const MARKER: i64 = i64::MIN;

/// A publisher of seeded events, wave by wave.
#[derive(Debug)]
pub struct Waves {
    api: Api,
    index: String,
    segments: u16,
    publisher: Publisher,
    lines: Lines,
    start_ms: i64,
    rows: u64,
    ended: usize,
}

impl Waves {
    /// Provisions an index for them.
    pub async fn start(api: &Api, index: &str, segments: u16, seed: u64) -> Result<Self> {
        api.provision(index, segments).await?;
        let publisher = api.bind(index, "write").await?.publisher().await?;
        let start_ms = (Timestamp::now() - BACK).as_millisecond();
        let mix = Mix { start_ms, rate: RATE, late: 60, future: 5, ..Mix::disordered(seed, u64::MAX, KEYS) };
        let (api, index) = (api.clone(), index.to_owned());
        Ok(Self { api, index, segments, publisher, lines: mix.lines(), start_ms, rows: 0, ended: 0 })
    }

    /// Publishes the next rows, each until it is acknowledged; they leave windows open.
    pub async fn publish(&mut self, rows: usize) -> Result<()> {
        self.rows += u64::try_from(rows)?;
        let mut events = Vec::new();
        for line in self.lines.by_ref().take(rows) {
            let Kind::Dated { time } = line.kind else { continue };
            let (key, id) = (format!("k{:02}", line.key), format!("e{}", line.number));
            let more = json!({ "id": id, "key": key, "value": line.value, "mark": line.mark });
            let payload = event(Timestamp::from_millisecond(time)?, "stream", "info", "event", more);
            events.push((format!("logs.{}.{key}", self.index), id, payload));
        }
        self.publisher.all(WINDOW, events).await
    }

    /// Ends a wave: a row without a value in every segment at the same time, so that the watermark is the same in all,
    /// whichever of them is silent.
    pub async fn end(&mut self) -> Result<()> {
        self.ended += 1;
        let elapsed = i64::try_from(self.rows * 1_000 / RATE)?;
        let at = Timestamp::from_millisecond(self.start_ms + elapsed)?;
        let markers = (0..MARKERS).map(|n| {
            let payload = event(at, "marker", "info", "a wave has passed", json!({}));
            (format!("logs.{}.m{n}", self.index), format!("marker-{}-{n}", self.ended), payload)
        });
        self.publisher.all(WINDOW, markers.collect::<Vec<_>>()).await
    }

    /// Everything that was published, as the index keeps it, without the markers, whose time counts.
    pub async fn input(&self, delay_ms: i64) -> Result<Input> {
        let wanted = i64::try_from(self.rows)? + i64::try_from(self.ended * MARKERS)?;
        let count = format!("SELECT count(*) AS n FROM {}", self.index);
        eventually("the index shows everything", SHOWN_WITHIN, async || {
            let there = self.api.count(&count).await?;
            ensure!(there == wanted, "{there} of {wanted} events");
            Ok(())
        })
        .await?;
        let rows = eventually("everything is read", SHOWN_WITHIN, async || self.read().await).await?;
        let splits: BTreeSet<u64> = rows.iter().map(|row| row.split).collect();
        ensure!(splits.len() == usize::from(self.segments), "a segment has no row: there are {splits:?}");
        let judge = Judge { delay: delay_ms, max_future_skew: MAX_FUTURE_SKEW_MS };
        let splits: Vec<u64> = splits.into_iter().collect();
        Ok(Input::of(judge, &splits, rows).only(|row| row.value != MARKER))
    }

    async fn read(&self) -> Result<Vec<Row>> {
        let sql = format!("SELECT _segment, _offset, _time, _received, key, value, mark, id FROM {}", self.index);
        let table = self.api.sql(&sql).await?;
        let row = |row: usize| {
            let segment: SegmentId = table.text(row, "_segment")?.parse()?;
            let is_marker = table.cell(row, "value")?.is_null();
            Ok(Row {
                split: u64::from(segment.epoch) << 32 | u64::from(segment.number),
                offset: u64::try_from(table.number(row, "_offset")?)?,
                time: millis(&table.text(row, "_time")?)?,
                received: millis(&table.text(row, "_received")?)?,
                key: table.text(row, "key")?,
                value: if is_marker { MARKER } else { table.number(row, "value")? },
                mark: table.text(row, "mark")?,
                id: table.text(row, "id")?,
            })
        };
        (0..table.len()).map(row).collect()
    }
}

/// An instant of an answer, in milliseconds.
pub fn millis(text: &str) -> Result<i64> {
    let time = format!("{}Z", text.replace(' ', "T").trim_end_matches('Z'));
    Ok(time.parse::<Timestamp>().with_context(|| text.to_owned())?.as_millisecond())
}
