//! Kept rows as blocks, and which of the keys are worth forgetting.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::{Schema, SchemaRef},
};

use crate::{
    Error, Frozen, KeyGroups, StoredBlock,
    window::{
        chunk::{Chunked, number},
        groups::{damaged, own_rows, written},
    },
};

/// The version of the blocks; a reader refuses a newer one.
const BLOCK_VERSION: u32 = 1;

const TABLE: &str = "lb.table";
const VERSION: &str = "lb.version";
/// The operator that the block is of, as data.
const WHAT: &str = "lb.operator";

/// Dead keys stay until they are as many as the others, and more than this.
const DEAD_KEYS_MIN: usize = 1_024;

/// About how many bytes the rows take.
pub(crate) fn bytes_of(rows: &RecordBatch) -> usize {
    let of =
        |array: &dyn Array| array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size());
    rows.columns().iter().map(|array| of(array.as_ref())).sum()
}

/// The schema of a block of that table.
pub(crate) fn stored_schema(schema: &Schema, table: &str, what: &str) -> SchemaRef {
    let metadata = [(TABLE, table), (VERSION, &BLOCK_VERSION.to_string()), (WHAT, what)];
    let metadata: HashMap<String, String> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

/// Rows on their way to storage, shared with the state.
#[derive(Debug)]
pub(crate) struct StoredRows {
    pub(crate) schema: SchemaRef,
    pub(crate) rows: RecordBatch,
}

impl Frozen for StoredRows {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), self.rows.columns().to_vec())?;
        written(&self.schema, &[rows])
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.rows)
    }
}

/// The rows of a stored block that belong to these key groups, and their schema.
///
/// Errors: `Snapshot` if the block is of another release, or of another operator than `what` says.
pub(crate) fn own_of(
    block: &StoredBlock,
    groups: KeyGroups,
    what: &str,
) -> Result<(SchemaRef, Vec<RecordBatch>), Error> {
    let (schema, batches) = own_rows(&block.bytes, groups)?;
    let text = |key: &str| schema.metadata().get(key).ok_or_else(|| damaged(format!("{key} is missing")));
    let version = text(VERSION)?;
    if *version != BLOCK_VERSION.to_string() {
        return Err(damaged(format!("version {version} is not {BLOCK_VERSION}: restore it with its own release")));
    }
    if text(WHAT)? != what {
        return Err(damaged("was taken under another specification: pin the old one or start afresh"));
    }
    Ok((schema, batches))
}

/// The keys that live on, if so many are dead that it is worth forgetting them: what that costs is paid by as many new keys.
pub(crate) fn due_to_forget<T: Clone>(keys: &Chunked<T>, dead: impl Fn(&T) -> bool) -> Option<Vec<u32>> {
    let all = keys.iter().count();
    let alive: Vec<u32> = keys.iter().enumerate().filter(|(_, key)| !dead(key)).map(|(key, _)| number(key)).collect();
    (all - alive.len() >= alive.len().max(DEAD_KEYS_MIN)).then_some(alive)
}
