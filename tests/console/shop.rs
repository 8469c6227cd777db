//! An installation with something to look at.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use logboom_tests::{Standalone, Webhook, event};
use serde_json::json;

/// A log line that a page which writes HTML would run.
pub(crate) const HOSTILE: &str = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>";

/// An index with events of the last minutes, a job on it, and a rule that fires.
pub(crate) async fn shop(up: &Standalone) -> Webhook {
    for index in ["shop", "rates"] {
        up.api.provision(index, 2).await.unwrap();
    }
    let job = "INSERT INTO rates SELECT service, window_start, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') \
               GROUP BY service, window_start";
    up.api.submit_job("shop-rates", job, "earliest").await.unwrap();
    let webhook = Webhook::start().await.unwrap();
    let query = "SELECT service, count(*) AS n FROM tumble(shop, INTERVAL '10 seconds') WHERE severity = 'error' \
                 GROUP BY service, window_start";
    let rule = json!({ "index": "shop", "query": query, "condition": "n > 5", "webhook": webhook.url, "summary": "checkout fails" });
    up.api.put_rule("shop-errors", &rule).await.unwrap();
    let publisher = up.api.bind("shop", "write").await.unwrap().publisher().await.unwrap();
    let start = Timestamp::now() - SignedDuration::from_secs(240);
    let mut events: Vec<_> = (0..90i64)
        .map(|n| {
            let level = if n % 3 == 0 { "warn" } else { "info" };
            let time = start + SignedDuration::from_secs(n * 2);
            event(time, "cart", level, &format!("order {n} was paid"), json!({ "amount": n }))
        })
        .collect();
    let burst = Timestamp::from_second(Timestamp::now().as_second() / 10 * 10 - 20).unwrap();
    events.extend((0..10).map(|_| event(burst, "checkout", "error", "card was refused", json!({}))));
    let events = events.into_iter().enumerate().map(|(n, payload)| ("logs.shop".to_owned(), format!("e-{n}"), payload));
    publisher.all(32, events.collect::<Vec<_>>()).await.unwrap();
    let latin = event(start, "cart", "debug", HOSTILE, json!({ "place": "caf#" })).into_bytes();
    let latin: Vec<_> = latin.into_iter().map(|byte| if byte == b'#' { 0xe9 } else { byte }).collect();
    publisher.until_acked("logs.shop", "e-latin", latin).await.unwrap();
    webhook.wait_for("firing", "service", "checkout", Duration::from_secs(60)).await.unwrap();
    webhook
}
