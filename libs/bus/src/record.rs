//! Durable records that anybody may publish: alerts.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream::stream::DiscardPolicy};
use bytes::Bytes;
use wire::{Problem, header};

use crate::{
    Bus, BusError, headers,
    jetstream::{JETSTREAM_WITHIN, stream_config},
};

/// The stream of alerts.
const ALERTS: &str = "ALERTS";
/// Alerts older than this are dropped.
const ALERTS_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Beyond this the oldest alerts are dropped.
const ALERTS_BYTES_MAX: i64 = 1 << 30;

impl Bus {
    /// Makes sure that alerts are kept: 30 days or 1 GiB, whichever ends first. For the tenants' account.
    pub async fn ensure_alerts(&self, replicas: u8) -> Result<(), BusError> {
        let mut config = stream_config(ALERTS.to_owned(), vec!["alerts.>".to_owned()], replicas);
        config.max_age = ALERTS_AGE_MAX;
        config.max_bytes = ALERTS_BYTES_MAX;
        config.discard = DiscardPolicy::Old;
        self.ensure_stream(&config).await.map(drop)
    }

    /// Publishes a record into whatever stream keeps the subject and returns its sequence.
    ///
    /// Durable when it returns. The same `message_id` within two minutes is stored once.
    /// Bounds: tried for about 10 s.
    pub async fn publish_record(&self, subject: &str, message_id: &str, payload: Bytes) -> Result<u64, Problem> {
        let mut map = HeaderMap::new();
        headers::set(&mut map, header::MSG_ID, message_id);
        self.publish_stored(subject, &map, &payload, JETSTREAM_WITHIN)
            .await
            .map(|published| published.seq)
            .map_err(|error| error.into_bus_error(format_args!("record on {subject}")).into())
    }
}
