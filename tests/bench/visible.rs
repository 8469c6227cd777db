//! How soon a query sees what was published.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use logboom_tests::{Standalone, event};
use serde_json::json;
use tokio::time::Instant;

use crate::{figure::Figures, publishing::samples};

/// Events looked for, one after the other.
const LOOKS: usize = 200;
/// What else is in the index.
const BEFORE: u64 = 20_000;

pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let up = Standalone::start().await?;
    up.api.provision("bench", 4).await?;
    samples(&up, "bench", Timestamp::now() - Duration::from_secs(600), Duration::from_secs(600), BEFORE).await?;
    let publisher = up.api.bind("bench", "write").await?.publisher().await?;
    let (mut acknowledged, mut visible) = (Vec::new(), Vec::new());
    for number in 0..LOOKS {
        let id = format!("look-{number}");
        let at = Timestamp::now();
        let payload = event(at, "bench", "info", "seen yet?", json!({ "id": id }));
        let sql = format!(
            "SELECT count(*) AS n FROM bench WHERE _time >= TIMESTAMP '{}' AND id = '{id}'",
            (at - Duration::from_secs(1)).strftime("%Y-%m-%dT%H:%M:%S")
        );
        let begun = Instant::now();
        publisher.until_acked("logs.bench", &id, payload).await?;
        acknowledged.push(begun.elapsed());
        while up.api.count(&sql).await? == 0 {}
        visible.push(begun.elapsed());
    }
    figures.add_durations("visible", "publish to acknowledgement", &acknowledged, None)?;
    figures.add_durations("visible", "publish to the answer of a query", &visible, None)
}
