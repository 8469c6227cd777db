//! Window state as an Arrow IPC stream: what a checkpoint stores, and what anyone with Arrow can read.
//!
//! One row per (window, key), in that order: `window_start`, the keys, `_early_fired`, then per aggregate `<name>.count`,
//! `<name>.sum`, `<name>.exact` or `<name>.value`. The schema's metadata holds the version, the specification, the
//! watermark and the number of late rows. Before the first batch there are no columns, only metadata.

use std::{collections::HashMap, ops::Range, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Schema, TimestampNanosecondType},
    ipc::{reader::StreamReader, writer::StreamWriter},
};
use types::Timestamp;

use super::{
    BATCH_ROWS, TumblingState, WindowSpec, accumulator::Kind, block::Block, layout::Layout, spec::AggregateFunction,
};
use crate::Error;

/// The version of the format; a reader refuses a newer one.
pub const SNAPSHOT_VERSION: u32 = 1;

const VERSION: &str = "lb.tumbling.version";
const SPEC: &str = "lb.tumbling.spec";
const WATERMARK: &str = "lb.tumbling.watermark";
const LATE_ROWS: &str = "lb.tumbling.late_rows";

fn damaged(what: impl Into<String>) -> Error {
    Error::Snapshot(what.into())
}

impl TumblingState {
    /// The whole state as an Arrow IPC stream; equal states give equal bytes.
    pub fn snapshot(&self) -> Result<Vec<u8>, Error> {
        let spec = serde_json::to_string(&self.spec).map_err(|e| damaged(format!("specification: {e}")))?;
        let metadata = [
            (VERSION, SNAPSHOT_VERSION.to_string()),
            (SPEC, spec),
            (WATERMARK, self.watermark.nanos().to_string()),
            (LATE_ROWS, self.late_rows.to_string()),
        ];
        let metadata: HashMap<String, String> = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let fields = self.layout.as_ref().map(|l| l.stored.fields().clone()).unwrap_or_default();
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        if let Some(layout) = &self.layout {
            for (start, block) in &self.windows {
                for part in block.in_key_order().chunks(BATCH_ROWS) {
                    writer.write(&layout.store(*start, block, part)?.with_schema(Arc::clone(&schema))?)?;
                }
            }
        }
        writer.finish()?;
        Ok(writer.into_inner()?)
    }

    /// The state that [`TumblingState::snapshot`] wrote under the same specification.
    ///
    /// Errors: `Snapshot` for another specification, a newer version or damage.
    pub fn restore(spec: WindowSpec, snapshot: &[u8]) -> Result<Self, Error> {
        let mut state = Self::new(spec)?;
        let reader = StreamReader::try_new(snapshot, None)?;
        let schema = reader.schema();
        let text = |key: &str| schema.metadata().get(key).ok_or_else(|| damaged(format!("{key} is missing")));
        let number = |key: &str| text(key)?.parse::<i64>().map_err(|e| damaged(format!("{key}: {e}")));
        let version = number(VERSION)?;
        if version != i64::from(SNAPSHOT_VERSION) {
            return Err(damaged(format!(
                "version {version} is not {SNAPSHOT_VERSION}: restore it with its own release"
            )));
        }
        let stored: WindowSpec =
            serde_json::from_str(text(SPEC)?).map_err(|e| damaged(format!("specification: {e}")))?;
        if stored != state.spec {
            return Err(damaged("was taken under another specification: pin the old one or start afresh"));
        }
        state.watermark = Timestamp::from_nanos(number(WATERMARK)?);
        state.late_rows = u64::try_from(number(LATE_ROWS)?).unwrap_or(0);
        if !schema.fields().is_empty() {
            let layout = Arc::new(learn(&state.spec, &schema)?);
            for batch in reader {
                state.load(&layout, &batch?)?;
            }
            state.layout = Some(layout);
        }
        Ok(state)
    }

    fn load(&mut self, layout: &Layout, batch: &RecordBatch) -> Result<(), Error> {
        let starts = batch.column(0).as_primitive::<TimestampNanosecondType>();
        let first_aggregate = 2 + self.spec.keys.len();
        let fired = batch.column(first_aggregate - 1).as_boolean();
        let keys = batch.columns()[1..first_aggregate - 1].to_vec();
        let (hashes, keys) = layout.rows_of(keys, batch.num_rows())?;
        let columns = columns_of(&self.spec, layout, first_aggregate);
        for (row, (hash, key)) in hashes.into_iter().zip(&keys).enumerate() {
            let block = self.windows.entry(starts.value(row)).or_insert_with(|| Block::new(layout));
            if block.find(hash, key).is_some() {
                return Err(damaged(format!("row {row} repeats a key of its window")));
            }
            let group = block.insert(hash, key);
            block.set_fired(group, fired.value(row));
            self.groups += 1;
            self.key_bytes += key.as_ref().len();
            for (accumulator, range) in block.accumulators_mut().iter_mut().zip(&columns) {
                if !accumulator.load(&batch.columns()[range.clone()], row) {
                    return Err(damaged(format!("an exact sum in row {row} cannot be read")));
                }
            }
        }
        Ok(())
    }
}

/// The types, from the stored columns; they must be exactly those that this specification stores.
fn learn(spec: &WindowSpec, schema: &Schema) -> Result<Layout, Error> {
    let of = |name: &str| schema.field_with_name(name).map(|f| f.data_type().clone()).ok();
    let keys = spec
        .keys
        .iter()
        .map(|name| of(name).ok_or_else(|| damaged(format!("column {name:?} is missing"))))
        .collect::<Result<Vec<DataType>, Error>>()?;
    let kinds: Vec<Kind> = spec
        .aggregates
        .iter()
        .map(|aggregate| {
            use AggregateFunction as F;
            let part = match aggregate.function {
                F::CountAll | F::Count => return Kind::None,
                F::Sum | F::Avg => "sum",
                F::Min | F::Max => "value",
            };
            let float = of(&format!("{}.{part}", aggregate.name)) == Some(DataType::Float64);
            if float { Kind::Float } else { Kind::Int }
        })
        .collect();
    let layout = Layout::of(spec, keys, &kinds)?;
    if layout.stored.fields() != schema.fields() {
        return Err(damaged("its columns are not those of the specification"));
    }
    Ok(layout)
}

/// The stored columns of each aggregate.
fn columns_of(spec: &WindowSpec, layout: &Layout, first: usize) -> Vec<Range<usize>> {
    let mut next = first;
    spec.aggregates
        .iter()
        .map(|aggregate| {
            let prefix = format!("{}.", aggregate.name);
            let parts = ["count", "sum", "exact", "value"];
            let mine = |name: &str| name.strip_prefix(&prefix).is_some_and(|part| parts.contains(&part));
            let count = layout.stored.fields()[next..].iter().take_while(|f| mine(f.name())).count();
            next += count;
            next - count..next
        })
        .collect()
}
