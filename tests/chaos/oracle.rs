//! Treats everything acknowledged as a debt, and collects it through the public doors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use logboom_tests::{Cluster, Webhook, eventually};
use serde_json::Value;

use crate::{INDEX, SUMS, WINDOW_SECONDS, load::Sent};

/// How long the job may take to catch up after the last kill.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Queries at once.
const QUERIES: usize = 4;

pub(crate) struct Oracle<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) sent: &'a [Sent],
}

/// `(service, window start in seconds)` to `(count, sum)`.
type Windows = BTreeMap<(String, i64), (i64, i64)>;

impl Oracle<'_> {
    /// Every acknowledged event is there exactly once, and each key in its order.
    pub(crate) async fn events(&self) -> Result<usize> {
        let counts = stream::iter(self.sent).map(|sent| self.key(sent)).buffered(QUERIES);
        let counts: Vec<usize> = counts.try_collect().await?;
        let total: usize = counts.iter().sum();
        let sql = format!("SELECT count(*) AS n FROM {INDEX} WHERE id IS NOT NULL");
        let there = self.cluster.api.count(&sql).await?;
        ensure!(
            i64::try_from(total)? == there,
            "{there} events are there, but only {total} of keys that were published"
        );
        Ok(total)
    }

    async fn key(&self, sent: &Sent) -> Result<usize> {
        let sql = format!("SELECT seq, _segment, _offset FROM {INDEX} WHERE key = '{}' ORDER BY _offset", sent.key);
        let table = self.cluster.api.sql(&sql).await?;
        let (mut seqs, mut segments) = (Vec::new(), BTreeSet::new());
        for row in 0..table.len() {
            seqs.push(usize::try_from(table.number(row, "seq")?)?);
            segments.insert(table.text(row, "_segment")?);
        }
        let found: BTreeSet<_> = seqs.iter().copied().collect();
        let missing: Vec<_> = (0..sent.events.len()).filter(|seq| !found.contains(seq)).collect();
        ensure!(missing.is_empty(), "{}: acknowledged, and missing: {missing:?}", sent.key);
        ensure!(found.len() == seqs.len(), "{}: {} events are there twice", sent.key, seqs.len() - found.len());
        let out = seqs.windows(2).find(|pair| pair[0] > pair[1]);
        ensure!(out.is_none(), "{}: out of order: {out:?}", sent.key);
        ensure!(
            seqs.len() == sent.events.len(),
            "{}: {} events, {} published",
            sent.key,
            seqs.len(),
            sent.events.len()
        );
        ensure!(segments.len() == 1, "{}: a key is in the segments {segments:?}", sent.key);
        Ok(seqs.len())
    }

    /// The job's rows are exactly what a recomputation gives: each window once, each count and sum right.
    pub(crate) async fn windows(&self) -> Result<usize> {
        let expected = self.expected();
        let sql = format!("SELECT service, window_start, n, total FROM {SUMS}");
        let table = eventually("every window", CATCH_UP, async || {
            let table = self.cluster.api.sql(&sql).await?;
            ensure!(table.len() >= expected.len(), "{} of {} windows are there", table.len(), expected.len());
            Ok(table)
        })
        .await
        .with_context(|| format!("{} windows were expected", expected.len()))?;
        let mut found = Windows::new();
        for row in 0..table.len() {
            let text = table.text(row, "window_start")?;
            let start: Timestamp = format!("{}Z", text.trim_end_matches('Z')).parse().context(text)?;
            let key = (table.text(row, "service")?, start.as_second());
            let twice = found.insert(key.clone(), (table.number(row, "n")?, table.number(row, "total")?));
            ensure!(twice.is_none(), "window {key:?} was written twice");
        }
        for (window, wanted) in &expected {
            let got = found.get(window);
            ensure!(got == Some(wanted), "window {window:?} is {got:?}, a recomputation gives {wanted:?}");
        }
        ensure!(found.len() == expected.len(), "{} windows more than were filled", found.len() - expected.len());
        Ok(found.len())
    }

    fn expected(&self) -> Windows {
        let mut windows = Windows::new();
        for sent in self.sent {
            for event in &sent.events {
                let Some(amount) = event.amount else { continue };
                let start = event.at.as_second().div_euclid(WINDOW_SECONDS) * WINDOW_SECONDS;
                let window = windows.entry((sent.service.clone(), start)).or_default();
                *window = (window.0 + 1, window.1 + amount);
            }
        }
        windows
    }

    /// Each burst fired once and resolved once, in the captured stream and, repeats apart, at the webhook.
    pub(crate) async fn alerts(&self, webhook: &Webhook) -> Result<usize> {
        let alarms: Vec<_> = self.sent.iter().filter(|sent| sent.alarm).map(|sent| sent.service.clone()).collect();
        for alarm in &alarms {
            webhook.wait_for("resolved", "service", alarm, CATCH_UP).await?;
        }
        let mut hooked = BTreeMap::new();
        for delivery in webhook.deliveries() {
            ensure!(delivery.body["id"] == delivery.key.as_str(), "a body's id differs from its Idempotency-Key");
            let known = hooked.insert(delivery.key.clone(), delivery.body.clone());
            ensure!(known.is_none_or(|known| known == delivery.body), "a repeated delivery has another body");
        }
        check("the webhook", hooked.into_values().collect(), &alarms)?;
        check("the stream of alerts", self.captured().await?, &alarms)?;
        let rules = self.cluster.api.ask(reqwest::Method::GET, "/api/v1/rules", None).await?.ok()?;
        ensure!(rules["rules"][0]["pending_count"] == 0, "notifications are still pending: {rules}");
        Ok(alarms.len())
    }

    /// What the stream of alerts has kept, read as the platform's administrator may.
    async fn captured(&self) -> Result<Vec<Value>> {
        let creds = fs::read_to_string(self.cluster.dir().join("keys/tenants.creds"))?;
        let client = async_nats::ConnectOptions::with_credentials(&creds)?.connect(&self.cluster.api.nats_url).await?;
        let alerts = async_nats::jetstream::new(client).get_stream("ALERTS").await?;
        let state = alerts.cached_info().state.clone();
        let mut all = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            all.push(serde_json::from_slice(&alerts.get_raw_message(sequence).await?.payload)?);
        }
        Ok(all)
    }
}

/// Two transitions for each alarm, firing before resolved, each with an id of its own.
fn check(whose: &str, transitions: Vec<Value>, alarms: &[String]) -> Result<()> {
    let mut by_alarm: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for one in &transitions {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ensure!(ids.insert(text(&one["id"])), "{whose}: transition {one} is there twice");
        let number = one["transition"].as_u64().unwrap_or(0);
        by_alarm.entry(text(&one["labels"]["service"])).or_default().push((number, text(&one["state"])));
    }
    for (alarm, of_alarm) in &mut by_alarm {
        of_alarm.sort();
        let wanted = [(1, "firing".to_owned()), (2, "resolved".to_owned())];
        ensure!(of_alarm[..] == wanted, "{whose}: {alarm} has the transitions {of_alarm:?}");
        ensure!(alarms.contains(alarm), "{whose}: {alarm} fired and was no burst");
    }
    ensure!(by_alarm.len() == alarms.len(), "{whose}: {} alarms of {}", by_alarm.len(), alarms.len());
    Ok(())
}
