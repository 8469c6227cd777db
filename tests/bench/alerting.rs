//! How soon an alert is delivered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use logboom_tests::{Standalone, Webhook, event};
use serde_json::json;
use tokio::time::Instant;

use crate::figure::{Figures, Goal};

/// Alerts, one after the other, each of a service of its own.
const ALERTS: usize = 60;
/// Errors of a service that do not fire yet.
const BELOW: usize = 4;
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let up = Standalone::start().await?;
    up.api.provision("bench", 4).await?;
    let webhook = Webhook::start().await?;
    let query = "SELECT service, count(*) AS n FROM tumble(bench, INTERVAL '1 minute', watermark delay INTERVAL '1 minute') \
                 WHERE severity = 'error' GROUP BY service, window_start";
    let rule = json!({ "index": "bench", "query": query, "condition": format!("n > {BELOW}"), "webhook": webhook.url });
    up.api.put_rule("bench-errors", &rule).await?;
    let publisher = up.api.bind("bench", "write").await?.publisher().await?;
    // One window for all: what fires must not depend on when the bench runs.
    let at = Timestamp::from_second(Timestamp::now().as_second().div_euclid(60) * 60 - 30)?;
    let mut delivered = Vec::new();
    for number in 0..=ALERTS {
        let service = format!("svc-{number}");
        let publish = async |n: usize| {
            let payload = event(at, &service, "error", "failed", json!({}));
            publisher.until_acked(&format!("logs.bench.{service}"), &format!("{service}-{n}"), payload).await
        };
        for n in 0..BELOW {
            publish(n).await?;
        }
        let begun = Instant::now();
        publish(BELOW).await?;
        let delivery = webhook.wait_for("firing", "service", &service, WITHIN).await?;
        // The first one waits until the rule's job has been placed.
        if number > 0 {
            delivered.push(delivery.at.checked_duration_since(begun).context("delivered before it was published")?);
        }
    }
    ensure!(webhook.deliveries().len() == ALERTS + 1, "{} deliveries came", webhook.deliveries().len());
    figures.add_durations(
        "alert",
        "publish of the deciding event to the webhook",
        &delivered,
        Some(Goal::AtMost(250.0)),
    )
}
