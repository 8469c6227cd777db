//! Keys by number, each with the time of a row of its own: what is known of a key, and what is forgotten of it.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, TimestampNanosecondArray, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType},
};

use super::{StoredRows, due_to_forget, stored_schema};
use crate::{
    Error, Frozen, HASH_COLUMN, INSTANT_TYPE, KeyGroups, StateBlock,
    window::{
        chunk::{CHUNK, Chunked, chunk_of, number},
        groups::damaged,
        table::{KeyForm, Keyed, Table},
    },
};

/// The instant of a key, in stored rows.
pub(crate) const SINCE_COLUMN: &str = "_since";
/// Bytes of a key's instant, and of what names its changes.
const KEY_BYTES: usize = 9;
/// About what a stored key takes, beside what else is known of it.
const STORED_KEY_BYTES: usize = 48;

/// Keys with an instant each, in pieces that a snapshot shares.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) form: Arc<KeyForm>,
    pub(crate) table: Table,
    pub(crate) since: Chunked<i64>,
    /// When each piece changed last.
    pub(crate) editions: Vec<u64>,
    edition: u64,
    /// Nothing is looked for to forget before that.
    sweep: i64,
}

impl Keys {
    /// No keys, of that form.
    pub(crate) fn new(form: KeyForm) -> Self {
        let form = Arc::new(form);
        let table = Table::new(&form);
        Self { form, table, since: Chunked::default(), editions: Vec::new(), edition: 0, sweep: i64::MIN }
    }

    /// The keys of rows by number; new ones have that instant.
    pub(crate) fn numbers(&mut self, keyed: &Keyed, numbers: &mut Vec<u32>, since: i64) {
        self.table.groups(keyed, None, numbers);
        self.since.grow(self.table.len(), &since);
    }

    /// Tells that what is known of these keys changes.
    pub(crate) fn touch(&mut self, keys: &[u32]) {
        self.edition += 1;
        self.editions.resize(self.table.len().div_ceil(CHUNK), self.edition);
        keys.iter().for_each(|key| self.editions[chunk_of(*key)] = self.edition);
    }

    /// Whether it is time again to look for keys that can be forgotten: once in a while of event time.
    pub(crate) fn sweeps(&mut self, until: i64, every: i64) -> bool {
        let due = until >= self.sweep && self.table.len() > 0;
        if due {
            self.sweep = until.saturating_add(every);
        }
        due
    }

    /// Forgets keys that are `dead`, if there are enough of them: the caller brings what else it knows of each key to the order of
    /// those that are left.
    pub(crate) fn forget(&mut self, dead: impl Fn(&i64) -> bool) -> Option<Vec<u32>> {
        let alive = due_to_forget(&self.since, dead)?;
        (self.table, self.since) = (self.table.kept(&alive), self.since.kept(&alive));
        self.edition += 1;
        self.editions = vec![self.edition; self.table.len().div_ceil(CHUNK)];
        Some(alive)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes() + self.table.len() * KEY_BYTES
    }

    /// The columns of stored keys: hash, keys, instant.
    pub(crate) fn fields(&self) -> Vec<Field> {
        let keys = self.form.columns().iter().map(|(name, kind)| Field::new(name, kind.clone(), true));
        let hash = Field::new(HASH_COLUMN, DataType::UInt64, false);
        std::iter::once(hash).chain(keys).chain([Field::new(SINCE_COLUMN, INSTANT_TYPE, false)]).collect()
    }

    /// One block for each piece, made by `content` of the keys of that piece and its number.
    pub(crate) fn blocks(
        &self,
        table: &str,
        groups: KeyGroups,
        mut content: impl FnMut(KeysPiece, usize, &str) -> Arc<dyn Frozen>,
    ) -> Vec<StateBlock> {
        let block = |piece: usize| {
            let table = format!("{table}-{piece}");
            let keys = KeysPiece { table: self.table.only(piece), since: self.since.only(piece) };
            let content = content(keys, piece, &table);
            StateBlock { table, groups, time: None, edition: self.editions[piece], content }
        };
        (0..self.table.len().div_ceil(CHUNK)).map(block).collect()
    }

    /// Takes stored keys; answers their numbers.
    pub(crate) fn load(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, Error> {
        let since = rows.column_by_name(SINCE_COLUMN).and_then(|a| a.as_primitive_opt::<TimestampNanosecondType>());
        let since = since.ok_or_else(|| damaged(format!("{SINCE_COLUMN} is missing")))?;
        let mut numbers = Vec::new();
        self.numbers(&self.form.clone().read(rows)?, &mut numbers, i64::MIN);
        self.since.each(&numbers, |known, row| *known = since.value(row));
        self.touch(&numbers);
        Ok(numbers)
    }
}

/// Keys of one piece, shared.
#[derive(Debug)]
pub(crate) struct KeysPiece {
    pub(crate) table: Table,
    pub(crate) since: Chunked<i64>,
}

impl KeysPiece {
    /// The columns of [`Keys::fields`] for these keys of the piece, each as often as it is named.
    pub(crate) fn columns(&self, keys: &[u32]) -> Result<Vec<ArrayRef>, Error> {
        let hashes: UInt64Array = keys.iter().map(|key| self.table.hash(*key)).collect();
        let since = TimestampNanosecondArray::from_iter_values(keys.iter().map(|key| *self.since.get(*key)));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(hashes)];
        columns.extend(self.table.columns(keys)?);
        columns.push(Arc::new(since));
        Ok(columns)
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.table.len() * STORED_KEY_BYTES
    }

    /// The numbers of all keys of the piece.
    pub(crate) fn all(&self) -> Vec<u32> {
        (0..number(self.table.len())).collect()
    }
}

/// Keys alone on their way to storage.
#[derive(Debug)]
pub(crate) struct StoredKeys {
    pub(crate) keys: KeysPiece,
    pub(crate) schema: SchemaRef,
}

impl StoredKeys {
    /// A piece of those keys.
    pub(crate) fn new(keys: KeysPiece, fields: Vec<Field>, table: &str, what: &str) -> Self {
        Self { keys, schema: stored_schema(&Schema::new(fields), table, what) }
    }
}

impl Frozen for StoredKeys {
    fn encode(&self) -> Result<Vec<u8>, Error> {
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), self.keys.columns(&self.keys.all())?)?;
        StoredRows { schema: Arc::clone(&self.schema), rows }.encode()
    }

    fn bytes(&self) -> usize {
        self.keys.bytes()
    }
}
