//! What the segment store does by itself: no front door, no gateway, only a coordinator, stores and the Rust client.

#[path = "segments/appending.rs"]
mod appending;
#[path = "segments/many.rs"]
mod many;
#[path = "segments/reading.rs"]
mod reading;
#[path = "segments/recovering.rs"]
mod recovering;
#[path = "segments/setting.rs"]
mod setting;
#[path = "segments/wide.rs"]
mod wide;

use anyhow::Result;

pub(crate) use wide::run as wide;

use crate::figure::Figures;

/// Every figure of segments.
pub(crate) async fn run(figures: &mut Figures) -> Result<()> {
    appending::run(figures).await?;
    appending::publish(figures).await?;
    reading::tail(figures).await?;
    reading::catch_up(figures).await?;
    recovering::run(figures).await?;
    many::idle(figures).await?;
    many::epochs(figures).await
}
