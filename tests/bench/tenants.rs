//! What one tenant feels of another's flood.

use anyhow::Result;
use logboom_tests::Flood;

use crate::figure::{Figure, Figures, Goal};

/// Publishes of the quiet tenant, alone and beside the flood; one every 10 ms.
const PUBLISHES: usize = 2_000;

pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    let seen = Flood::measure(PUBLISHES).await?;
    figures.add_durations("tenants", "acknowledgement, alone", &seen.alone, None)?;
    figures.add_durations("tenants", "acknowledgement beside a flood", &seen.beside, None)?;
    let (alone, beside) = (Flood::p99(&seen.alone).as_secs_f64(), Flood::p99(&seen.beside).as_secs_f64());
    figures
        .add("tenants", &Figure::new("p99 beside the flood to alone", beside / alone, "times").goal(Goal::AtMost(2.0)));
    let share = seen.refused as f64 / seen.sent.max(1) as f64 * 100.0;
    figures.add("tenants", &Figure::new(format!("of {} flooded events refused", seen.sent), share, "%"));
    Ok(())
}
