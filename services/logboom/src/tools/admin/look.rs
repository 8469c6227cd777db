//! Small looks from inside: who lives, one stream with its epochs, events of a segment.

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use types::{IndexName, Offset, SegmentId};
use wire::{
    coordinator::{EpochsOf, ListEpochs},
    views::{LEASES, MEMBERS, Member},
};

use super::{Admin, time};

/// Events shown at once.
pub(super) const READ_MAX: u64 = 10_000;
/// Epochs shown: the last ones.
const EPOCHS_MAX: u32 = 1_000;
/// How long one batch of events may take.
const READ_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

impl Admin {
    /// Living replicas, as far as they tell, and who leads the services that have a leader.
    pub(super) async fn nodes_alive(&self) -> anyhow::Result<()> {
        /// The part of a lease that is told.
        #[derive(serde::Deserialize)]
        struct Held {
            holder: types::ReplicaId,
        }
        let replicas = self.host.common.journal_replicas;
        let members = self.host.bus.join_bucket(MEMBERS, replicas).await?.list("").await?;
        let leases = self.host.bus.join_bucket(LEASES, replicas).await?.list("").await?;
        let owned = self.placement().await?.assignments;
        let mut rows: Vec<Value> = Vec::new();
        for member in members.iter().filter_map(|(_, entry)| wire::decode::<Member>(&entry.value).ok()) {
            let containers = (member.service == wire::Service::SegmentStore)
                .then(|| owned.iter().filter(|owned| owned.replica == member.replica).count());
            rows.push(json!({
                "service": member.service, "replica": member.replica, "role": "member", "started": time(member.started),
                "address": member.exchange_address, "slots": member.slots, "containers": containers,
            }));
        }
        for (service, entry) in &leases {
            let held: Option<Held> = serde_json::from_slice(&entry.value).ok();
            rows.push(json!({ "service": service, "replica": held.map(|held| held.holder), "role": "leader" }));
        }
        rows.sort_by_key(|row| (row["service"].to_string(), row["replica"].to_string()));
        self.screen.rows(&rows, &["service", "replica", "role", "started", "address", "slots", "containers"]);
        Ok(())
    }

    /// A stream as the coordinator has it, and how it came to be so.
    pub(super) async fn describe(&self, index: &IndexName) -> anyhow::Result<()> {
        let stream = self.stream(index).await?;
        let from = stream.epoch.saturating_sub(EPOCHS_MAX - 1);
        let epochs = self.call::<ListEpochs>(&(), &EpochsOf { index: index.clone(), from, limit: EPOCHS_MAX }).await?;
        if self.screen.is_json() {
            self.screen.value(&json!({ "stream": stream, "epochs": epochs.epochs }));
            return Ok(());
        }
        let policy = |value: Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
        for (name, value) in [
            ("stream", stream.stream.to_string()),
            ("scope", stream.scope.to_string()),
            ("created", time(stream.created)),
            ("epoch", stream.epoch.to_string()),
            ("present segments", stream.segments.len().to_string()),
            ("sealed", stream.sealed.to_string()),
            ("scaling", policy(json!(stream.scaling))),
            ("retention", policy(json!(stream.retention))),
            ("retention days", policy(json!(stream.retention_days))),
            ("tags", stream.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
            ("begins at", policy(json!(stream.head))),
        ] {
            self.screen.line(format_args!("{name:<17} {value}"));
        }
        let rows: Vec<Value> = epochs.epochs.iter().map(|epoch| {
            json!({
                "epoch": epoch.epoch, "at": time(epoch.at), "sealed": epoch.sealed.len(), "created": epoch.created.len(),
                "splits": epoch.splits, "merges": epoch.merges,
            })
        }).collect();
        self.screen.rows(&rows, &["epoch", "at", "sealed", "created", "splits", "merges"]);
        Ok(())
    }

    /// Events of a segment from an offset on, wherever they are.
    pub(super) async fn read_range(
        &self,
        index: &IndexName,
        segment: SegmentId,
        from: Option<Offset>,
        count: u64,
    ) -> anyhow::Result<()> {
        let nodes = self.nodes(index).await?;
        let node = nodes.iter().find(|node| node.segment == segment);
        let node = node.ok_or_else(|| {
            anyhow::anyhow!("{index} has no segment {segment}; `logboom admin segments {index}` lists them")
        })?;
        let info = self.info(node).await?;
        let from = from.unwrap_or_else(|| info.map_or(0, |info| info.start));
        let client = client::Client::new(self.host.bus.clone(), self.host.objects.clone());
        let mut reader = client.reader(node.segment_range(), from);
        let mut rows: Vec<Value> = Vec::new();
        while (rows.len() as u64) < count {
            let Some(batch) = reader.next(READ_WITHIN).await? else { break };
            let left = usize::try_from(count).unwrap_or(usize::MAX) - rows.len();
            rows.extend(events(&batch.slice(0, batch.num_rows().min(left)))?);
        }
        self.screen.rows(&rows, &["_offset", "_time", "severity", "_msg"]);
        Ok(())
    }
}

/// Rows as objects.
fn events(batch: &RecordBatch) -> anyhow::Result<Vec<Value>> {
    let formats = arrow::util::display::FormatOptions::default();
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        Ok((
            field.name().clone(),
            arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &formats)?,
            column.clone(),
        ))
    });
    let columns = columns.collect::<Result<Vec<_>, arrow::error::ArrowError>>()?;
    let row = |at: usize| {
        let cells = columns.iter().map(|(name, cell, column)| {
            let value = if column.is_null(at) { Value::Null } else { Value::String(cell.value(at).to_string()) };
            (name.clone(), value)
        });
        Value::Object(cells.collect())
    };
    Ok((0..batch.num_rows()).map(row).collect())
}
