//! A windowed job, and its sums against a recomputation.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use ingest::sample::Truth;
use reqwest::Method;
use serde_json::json;
use types::Timestamp;

use super::{INDEX, SUMS, sql_time, table::Table};
use crate::tools::Api;

/// How long the job may take to read what was published and to close its windows.
const RESULTS_WITHIN: Duration = Duration::from_secs(120);

/// Submits the job: counts and sums of the Go service's requests by service, every ten seconds of event time.
pub(crate) async fn submit(api: &Api, job: &str) -> anyhow::Result<((), String)> {
    let sql = format!(
        "INSERT INTO {SUMS} SELECT service, window_start, count(*) AS n, sum(duration_ms) AS total_ms \
         FROM tumble({INDEX}, INTERVAL '10 seconds', watermark delay INTERVAL '10 seconds') \
         WHERE duration_ms IS NOT NULL GROUP BY service, window_start"
    );
    let body = json!({ "job": job, "sql": sql, "start": "latest" });
    let answer = api.ask(Method::POST, "/api/v1/jobs", Some(&body)).await?;
    Ok(((), format!("{job}, parallelism {}", answer["parallelism"])))
}

/// Waits until every window is there, then compares each count and sum.
pub(crate) async fn compare(api: &Api, begun: Timestamp, truth: &Truth) -> anyhow::Result<((), String)> {
    let sql = format!("SELECT service, window_start, n, total_ms FROM {SUMS} WHERE _received >= {}", sql_time(begun));
    let expected: BTreeMap<(i64, String), (u64, u64)> = truth
        .windows
        .iter()
        .map(|((start, service), w)| {
            let sum = u64::try_from(w.duration_ms).unwrap_or(0);
            ((start.nanos(), (*service).to_owned()), (w.count, sum))
        })
        .collect();
    let deadline = tokio::time::Instant::now() + RESULTS_WITHIN;
    let table = loop {
        // Before the first result the index has no such columns, which is no error of ours.
        let table = api.sql(&sql).await.map(|answer| Table::of(&answer));
        let found = table.as_ref().map_or(0, Table::len);
        if found >= expected.len() || tokio::time::Instant::now() > deadline {
            break table?;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    ensure!(table.len() == expected.len(), "{} windows came out, but {} went in", table.len(), expected.len());
    let mut events = 0;
    for row in 0..table.len() {
        let text = table.text(row, "window_start")?;
        let start: jiff::Timestamp = format!("{}Z", text.trim_end_matches('Z'))
            .parse()
            .with_context(|| format!("window_start {text:?} is no time"))?;
        let start = i64::try_from(start.as_nanosecond())?;
        let found = (table.number(row, "n")?, table.number(row, "total_ms")?);
        let wanted = expected.get(&(start, table.text(row, "service")?));
        ensure!(
            wanted == Some(&found),
            "window {text} has count and sum {found:?}, but a recomputation gives {wanted:?}"
        );
        events += found.0;
    }
    Ok(((), format!("{} windows over {events} events, every count and sum equal", table.len())))
}
