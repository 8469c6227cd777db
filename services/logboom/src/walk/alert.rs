//! An alert rule: it fires once, resolves once, and both are delivered once, on the subject and at the webhook.

use std::time::Duration;

use anyhow::{Context, ensure};
use bus::{Bus, RawMessages};
use reqwest::Method;
use serde_json::{Value, json};
use types::Timestamp;

use super::{
    INDEX,
    binding::Binding,
    publish::{event, marker, one},
    receiver::Receiver,
};
use crate::tools::Api;

/// Events of the burst, far above the rule's threshold.
const BURST: u32 = 60;
/// How long an alert may take; the aim is far below.
const ALERT_WITHIN: Duration = Duration::from_secs(60);
/// How long to listen for a second delivery that must not come.
const QUIET: Duration = Duration::from_secs(2);

/// A subscription as an application would have it.
pub(crate) struct Alerts {
    // The subscription ends with its connection.
    _bus: Bus,
    messages: RawMessages,
    seen: Vec<Value>,
}

impl Alerts {
    /// Subscribes with a binding's credentials.
    pub(crate) async fn subscribe(binding: &Binding, nats_url: &str) -> anyhow::Result<(Self, String)> {
        let bus = binding.connect(nats_url).await?;
        let subject = format!("alerts.{INDEX}.>");
        let messages = bus.subscribe_raw(&subject).await?;
        bus.flush().await;
        Ok((Self { _bus: bus, messages, seen: Vec::new() }, subject))
    }

    async fn next(&mut self, within: Duration) -> anyhow::Result<Value> {
        let message = tokio::time::timeout(within, self.messages.next())
            .await
            .with_context(|| format!("no alert came within {} s", within.as_secs()))?
            .context("the subscription ended")?;
        let value: Value = serde_json::from_slice(&message.payload)?;
        self.seen.push(value.clone());
        Ok(value)
    }
}

/// Creates the rule; when this returns, its job has a beginning.
pub(crate) async fn put_rule(api: &Api, run: &str, webhook: &str) -> anyhow::Result<((), String)> {
    let rule = format!("walk-errors-{run}");
    let body = json!({
        "index": INDEX, "webhook": webhook, "condition": "n > 20", "summary": "payments fail",
        "query": format!(
            "SELECT service, count(*) AS n FROM tumble({INDEX}, INTERVAL '10 seconds', watermark delay INTERVAL '10 seconds') \
             WHERE service = 'payments' AND severity = 'error' GROUP BY service, window_start"
        ),
    });
    api.ask(Method::PUT, &format!("/api/v1/rules/{rule}"), Some(&body)).await?;
    Ok(((), format!("{rule}: n > 20 in 10 s, to alerts.{INDEX}.{rule} and a webhook")))
}

/// The window of the burst: after the marker that closed the others.
fn burst_time(begun: Timestamp) -> Timestamp {
    let window = 10_000_000_000;
    Timestamp::from_nanos((begun.nanos() / window + 8) * window + window / 2)
}

/// Publishes many errors in one window and waits for the alert.
pub(crate) async fn burst(
    binding: &Binding,
    nats_url: &str,
    begun: Timestamp,
    alerts: &mut Alerts,
) -> anyhow::Result<((), String)> {
    let bus = binding.connect(nats_url).await?;
    let sent = tokio::time::Instant::now();
    for number in 0..BURST {
        let payload = event(burst_time(begun), "payments", "error", "card was refused");
        let id = format!("burst-{}-{number}-{}", begun.nanos(), uuid::Uuid::new_v4());
        one(&bus, &format!("logs.{INDEX}.payments"), &id, payload).await?;
    }
    let alert = alerts.next(ALERT_WITHIN).await?;
    ensure!(alert["state"] == "firing" && alert["labels"]["service"] == "payments", "an unexpected alert: {alert}");
    let took = sent.elapsed().as_millis();
    Ok(((), format!("firing for service=payments {took} ms after the first of {BURST} errors")))
}

/// Lets event time pass and checks that exactly two transitions arrived everywhere.
pub(crate) async fn resolve(
    binding: &Binding,
    nats_url: &str,
    begun: Timestamp,
    alerts: &mut Alerts,
    receiver: &Receiver,
) -> anyhow::Result<((), String)> {
    marker(binding, nats_url, begun + Duration::from_secs(180)).await?;
    let resolved = alerts.next(ALERT_WITHIN).await?;
    ensure!(resolved["state"] == "resolved", "expected the alert to resolve, got {resolved}");
    if let Ok(more) = alerts.next(QUIET).await {
        anyhow::bail!("a third transition arrived: {more}");
    }
    let deliveries = receiver.deliveries();
    let told: Vec<&str> = alerts.seen.iter().filter_map(|a| a["id"].as_str()).collect();
    let hooked: Vec<&str> = deliveries.iter().map(|d| d.key.as_str()).collect();
    ensure!(told == hooked, "the subject had {told:?}, the webhook {hooked:?}");
    ensure!(deliveries.iter().all(|d| d.body["id"] == d.key.as_str()), "a webhook body and its key differ");
    Ok(((), "firing and resolved: one of each on the subject and at the webhook".to_owned()))
}
